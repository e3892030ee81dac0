/** What tests need of a machine is found out and explained. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readSources } from '../../support/imports.ts';
import { type Machine, missingFor, needOf } from '../../support/needs.ts';

const complete: Machine = { isRoot: () => true, hasCommand: () => true, canMakeNamespaces: () => true };

test('a machine with everything lacks nothing', () => {
  for (const need of ['none', 'root', 'engine', 'hosts'] as const)
    assert.deepEqual(missingFor(need, complete), []);
});

test('a missing command is named with the package that brings it', () => {
  const machine: Machine = {
    ...complete,
    hasCommand: (name) => !['dockerd', 'runc', 'nft'].includes(name),
  };
  assert.deepEqual(missingFor('engine', machine), ['dockerd, runc: apt-get install docker.io runc']);
  assert.deepEqual(missingFor('hosts', machine), [
    'dockerd, runc, nft: apt-get install docker.io runc nftables',
  ]);
});

test('without root nothing but plain tests run', () => {
  const machine: Machine = { ...complete, isRoot: () => false };
  assert.deepEqual(missingFor('none', machine), []);
  assert.match(missingFor('root', machine)[0] ?? '', /root/);
});

test('a machine that forbids namespaces is told apart', () => {
  assert.match(missingFor('hosts', { ...complete, canMakeNamespaces: () => false })[0] ?? '', /namespaces/);
});

test('the need of a file is read from its header, and a wrong word is refused', () => {
  assert.equal(needOf('a.test.ts', '/** Plain. */\n'), 'none');
  assert.equal(needOf('a.test.ts', '/**\n * Two machines.\n * @needs hosts\n */\n'), 'hosts');
  assert.equal(needOf('a.test.ts', '/** @needs engine */\n'), 'engine');
  assert.throws(() => needOf('a.test.ts', ' * @needs luck'), /luck/);
});

test('every end-to-end test file says what it needs', () => {
  for (const file of readSources('test/e2e/**/*.test.ts')) {
    assert.match(file.text, /@needs \S/, `${file.path}: add "@needs none|root|engine|hosts" to its header`);
    needOf(file.path, file.text);
  }
});
