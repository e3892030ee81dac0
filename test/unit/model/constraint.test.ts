import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import {
  constraintHolds,
  constraintKeys,
  parseConstraint,
  spreadValue,
} from '../../../src/model/constraint.ts';
import type { ClusterNode } from '../../../src/model/objects.ts';
import { makeNode, type NodeOptions } from '../../support/planner-fixtures.ts';

function holds(text: string, node: ClusterNode): boolean {
  const parsed = parseConstraint(text);
  assert.ok(parsed.ok, text);
  return constraintHolds(parsed.value, node);
}

const node = (options: NodeOptions = {}): ClusterNode => makeNode('abc', options);

test('a mistyped key is refused and the valid ones are named', () => {
  for (const text of [
    'node.hostnam==a',
    'node.label.zone==a',
    'nod.id==a',
    'engine.label.x==a',
    '==a',
    'node.platform==a',
  ]) {
    const parsed = parseConstraint(text);
    assert.ok(!parsed.ok && parsed.reason.kind === 'unknown-key', text);
    for (const key of constraintKeys) assert.ok(parsed.reason.message.includes(key));
  }
});

test('each refusal is typed and quotes the constraint', () => {
  const kinds = {
    'node.role': 'no-operator',
    'node.role=manager': 'no-operator',
    'node.role==': 'empty-value',
    'node.labels.==a': 'bad-label-key',
    'node.labels.a b==c': 'bad-label-key',
    'node.role==boss': 'bad-value',
    'node.ip==10.0.0': 'bad-value',
    'node.ip==10.0.0.0/40': 'bad-value',
  };
  for (const [text, kind] of Object.entries(kinds)) {
    const parsed = parseConstraint(text);
    assert.ok(!parsed.ok, text);
    assert.equal(parsed.reason.kind, kind, text);
    assert.ok(parsed.reason.message.includes(text));
  }
});

test('label keys keep their case, values do not', () => {
  const labelled = node({
    spec: { labels: { Zone: 'EU-West' } },
    description: { engineLabels: { 'a.b/c': 'X' } },
  });
  assert.ok(holds('node.labels.Zone==eu-west', labelled));
  assert.ok(holds('NODE.Labels.Zone == EU-WEST', labelled));
  assert.ok(!holds('node.labels.zone==eu-west', labelled));
  assert.ok(holds('node.labels.zone!=eu-west', labelled), 'a missing label is the empty text');
  assert.ok(holds('engine.labels.a.b/c==x', labelled));
  assert.ok(!holds('node.labels.constructor==function', labelled), 'inherited names are no labels');
});

test('a value may contain operators', () => {
  assert.ok(holds('node.labels.x==a==b', node({ spec: { labels: { x: 'a==b' } } })));
  assert.ok(holds('node.labels.x!=a==b', node({ spec: { labels: { x: 'a' } } })));
});

test('architectures are compared by their image names', () => {
  for (const architecture of ['x86_64', 'amd64', 'AMD64']) {
    const machine = node({ description: { platform: { os: 'linux', architecture } } });
    assert.ok(holds('node.platform.arch==amd64', machine));
    assert.ok(holds('node.platform.arch==x86_64', machine));
    assert.ok(!holds('node.platform.arch==arm64', machine));
  }
});

test('node.ip takes addresses and blocks of both versions', () => {
  const four = node({ address: '10.1.2.3' });
  assert.ok(holds('node.ip==10.1.2.3', four));
  assert.ok(holds('node.ip==10.1.0.0/16', four));
  assert.ok(holds('node.ip==10.1.2.200/24', four), 'host bits of a block are ignored');
  assert.ok(!holds('node.ip==10.2.0.0/16', four));
  assert.ok(holds('node.ip!=10.2.0.0/16', four));
  assert.ok(holds('node.ip==0.0.0.0/0', four));
  assert.ok(!holds('node.ip==::/0', four));
  const six = node({ address: '2001:db8::5' });
  assert.ok(holds('node.ip==2001:db8:0:0::5', six));
  assert.ok(holds('node.ip==2001:db8::/32', six));
  assert.ok(!holds('node.ip==2001:db9::/32', six));
  assert.ok(!holds('node.ip==10.0.0.0/8', node({ address: '' })));
});

test('parsing never throws, and == and != are opposites', () => {
  const machine = node({ spec: { labels: { a: 'b' } } });
  fc.assert(
    fc.property(fc.string(), (text) => {
      parseConstraint(text);
    }),
  );
  fc.assert(
    fc.property(
      fc.constantFrom('node.id', 'node.hostname', 'node.labels.a', 'engine.labels.a'),
      fc.string(),
      (key, value) => {
        const equal = parseConstraint(`${key}==${value}`);
        const different = parseConstraint(`${key}!=${value}`);
        assert.equal(equal.ok, different.ok);
        if (!equal.ok || !different.ok) return;
        assert.notEqual(constraintHolds(equal.value, machine), constraintHolds(different.value, machine));
      },
    ),
  );
});

test('a spread key reads its label; a missing one is a branch of its own', () => {
  const labelled = node({ spec: { labels: { zone: 'a' } }, description: { engineLabels: { zone: 'b' } } });
  assert.equal(spreadValue('node.labels.zone', labelled), 'a');
  assert.equal(spreadValue('engine.labels.zone', labelled), 'b');
  assert.equal(spreadValue('node.labels.rack', labelled), '');
});
