/** Constraint parsing and matching against recorded answers of the reference. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { constraintsHold, parseConstraints } from '../../src/model/constraint.ts';
import { makeNode, readVectors } from '../support/planner-fixtures.ts';

interface ParseCase {
  in: { env: string[] };
  out?: unknown[];
  error?: string;
}

/** Keys that the reference takes and nothing ever matches: refused here, because they are typos. */
const refusedHere: ReadonlySet<string> = new Set(['node', '_node', 'no.de', 'node.name']);

const parseCases = readVectors<ParseCase>('swarmkit-constraint-parse');

test('constraint parsing', { skip: parseCases === null ? 'vectors are not here' : false }, () => {
  let compared = 0;
  for (const { in: input, error } of parseCases ?? []) {
    const parsed = parseConstraints(input.env);
    const keys = input.env.map((text) => text.split(/[=!]=/)[0]?.trim().toLowerCase() ?? '');
    if (error === undefined && keys.some((key) => refusedHere.has(key))) {
      assert.ok(!parsed.ok && parsed.reason.kind === 'unknown-key', input.env.join());
      continue;
    }
    compared++;
    assert.equal(parsed.ok, error === undefined, `${JSON.stringify(input.env)}: ${error ?? 'accepted'}`);
  }
  assert.ok(compared >= 20);
});

interface MatchCase {
  in: {
    constraints: { key: string; op: string; exp: string }[];
    node: {
      id: string;
      role?: number;
      spec?: { annotations?: { labels?: Record<string, string> } };
      description?: {
        hostname?: string;
        platform?: { architecture?: string; os?: string };
        engine?: { labels?: Record<string, string> };
      };
      status?: { addr?: string };
    };
  };
  out: boolean;
}

/** amd64 and x86_64 are one architecture here; the reference compares the names. */
const architectureDiffers = (item: MatchCase): boolean =>
  item.in.constraints.some(({ key, exp }) => key === 'node.platform.arch' && exp === 'amd64') &&
  item.in.node.description?.platform?.architecture === 'x86_64';

const matchCases = readVectors<MatchCase>('swarmkit-constraint-node-matches');

test('constraint matching', { skip: matchCases === null ? 'vectors are not here' : false }, () => {
  let compared = 0;
  for (const item of matchCases ?? []) {
    const { node, constraints } = item.in;
    const parsed = parseConstraints(constraints.map(({ key, op, exp }) => `${key}${op}${exp}`));
    if (!parsed.ok) {
      assert.ok(
        constraints.some(({ key }) => refusedHere.has(key)),
        parsed.reason.message,
      );
      continue;
    }
    const holds = constraintsHold(
      parsed.value,
      makeNode(node.id, {
        spec: { labels: node.spec?.annotations?.labels ?? {}, role: node.role === 1 ? 'manager' : 'worker' },
        description: {
          hostname: node.description?.hostname ?? '',
          platform: {
            os: node.description?.platform?.os ?? '',
            architecture: node.description?.platform?.architecture ?? '',
          },
          engineLabels: node.description?.engine?.labels ?? {},
        },
        address: node.status?.addr ?? '',
      }),
    );
    compared++;
    assert.equal(holds, architectureDiffers(item) ? !item.out : item.out, JSON.stringify(item.in));
  }
  assert.ok(compared >= 20);
});
