/** What the API stores to begin an update or a rollback, and which tasks then count as dirty. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dirtyCheck, sameData } from '../../../src/manager/update/dirty.ts';
import { automaticRollback, startRollback, startUpdate } from '../../../src/manager/update/start.ts';
import type { Service, UpdateState } from '../../../src/model/objects.ts';
import type { ServiceSpec, TaskSpec } from '../../../src/model/spec.ts';
import { withImage } from '../../support/fake-cluster.ts';
import { makeNode, makeService, makeStore, makeTask, NOW_MS } from '../../support/planner-fixtures.ts';

const service = makeService('svc');
const next: ServiceSpec = withImage(service.spec, 'next');

function inState(state: UpdateState): Service {
  return { ...service, updateStatus: { state, startedAt: NOW_MS, message: 'm', slots: 2 } };
}

test('an update keeps the former spec, bumps the version and clears the status of the one before', () => {
  const updated = startUpdate(inState('updating'), next, NOW_MS + 5);
  assert.deepEqual(updated.spec, next);
  assert.deepEqual(updated.previousSpec, service.spec);
  assert.equal(updated.specVersion, 2);
  assert.equal(updated.previousSpecVersion, 1);
  assert.equal('updateStatus' in updated, false);
});

test('the same spec changes nothing, also while its update is under way or done', () => {
  const copy = structuredClone(service.spec);
  assert.equal(startUpdate(service, copy, NOW_MS), service);
  for (const state of ['updating', 'completed', 'rollback_started', 'rollback_completed'] as const) {
    const before = inState(state);
    assert.equal(startUpdate(before, copy, NOW_MS), before, state);
  }
});

test('the same spec lets a paused update go on and keeps what it can be rolled back to', () => {
  const paused = { ...inState('paused'), previousSpec: next };
  const resumed = startUpdate(paused, service.spec, NOW_MS);
  assert.equal(resumed.updateStatus, undefined);
  assert.deepEqual(resumed.previousSpec, next);
  assert.equal(resumed.specVersion, service.specVersion);
});

test('the same spec lets a paused rollback go on as a rollback', () => {
  const resumed = startUpdate(inState('rollback_paused'), service.spec, NOW_MS);
  assert.equal(resumed.updateStatus?.state, 'rollback_started');
  assert.ok((resumed.updateStatus?.startedAt ?? 0) > NOW_MS, 'its tasks are told from the ones before');
});

test('a job runs again at every update, also with the same spec', () => {
  const mode = { kind: 'replicated-job', maxConcurrent: 1, totalCompletions: 1 } as const;
  const job = makeService('job', { spec: { mode } });
  const again = startUpdate(job, job.spec, NOW_MS);
  assert.equal(again.jobIteration, 1);
  const changed = startUpdate(again, withImage(job.spec, 'x'), NOW_MS);
  assert.equal(changed.jobIteration, 2);
});

test('a manual rollback swaps the two specs, twice leads back', () => {
  const updated = startUpdate(service, next, NOW_MS);
  const back = startRollback(updated, NOW_MS);
  assert.ok(back.ok);
  assert.deepEqual(back.value.spec, service.spec);
  assert.deepEqual(back.value.previousSpec, next);
  assert.equal(back.value.specVersion, 3, 'a version is never used twice');
  assert.deepEqual(back.value.updateStatus, {
    state: 'rollback_started',
    startedAt: NOW_MS,
    message: 'manually requested rollback',
  });
  const forward = startRollback(back.value, NOW_MS);
  assert.ok(forward.ok);
  assert.deepEqual(forward.value.spec, next);
  assert.ok((forward.value.updateStatus?.startedAt ?? 0) > NOW_MS);
});

test('without a previous spec a rollback is refused', () => {
  const refused = startRollback(service, NOW_MS);
  assert.equal(refused.ok, false);
  assert.match(refused.ok ? '' : refused.reason, /svc does not have a previous spec/);
  assert.equal(automaticRollback(service, 't', NOW_MS), null);
});

test('an automatic rollback leaves nothing to roll back to', () => {
  const rolledBack = automaticRollback(startUpdate(service, next, NOW_MS), 't1', NOW_MS + 1);
  assert.deepEqual(rolledBack?.spec, service.spec);
  assert.equal(rolledBack === null || 'previousSpec' in rolledBack, false);
  assert.equal(
    rolledBack?.updateStatus?.message,
    'update rolled back due to failure or early termination of task t1',
  );
});

const changes: readonly [string, (spec: ServiceSpec) => ServiceSpec, boolean][] = [
  ['the image', (spec) => withImage(spec, 'next'), true],
  ['a forced update', (spec) => ({ ...spec, task: { ...spec.task, forceUpdate: 1 } }), true],
  ['the number of replicas', (spec) => ({ ...spec, mode: { kind: 'replicated', replicas: 9 } }), false],
  ['service labels', (spec) => ({ ...spec, labels: { a: 'b' } }), false],
  ['the update config', (spec) => ({ ...spec, update: { ...spec.update, parallelism: 7 } }), false],
  ['the endpoint mode', (spec) => ({ ...spec, endpoint: { ...spec.endpoint, mode: 'dnsrr' } }), true],
  [
    'a published port',
    (spec) => ({
      ...spec,
      endpoint: {
        mode: 'vip',
        ports: [{ protocol: 'tcp', targetPort: 80, publishedPort: 8080, publishMode: 'ingress' }],
      },
    }),
    true,
  ],
  ['placement the node still fits', (spec) => placed(spec, ['node.role==worker']), false],
  ['placement the node does not fit', (spec) => placed(spec, ['node.role==manager']), true],
  ['placement and image', (spec) => placed(withImage(spec, 'next'), ['node.role==worker']), true],
];

function placed(spec: ServiceSpec, constraints: readonly string[]): ServiceSpec {
  return { ...spec, task: { ...spec.task, placement: { ...spec.task.placement, constraints } } };
}

for (const [title, change, dirty] of changes) {
  test(`a change of ${title} makes tasks ${dirty ? 'dirty' : 'no different'}`, () => {
    const updated = startUpdate(service, change(service.spec), NOW_MS);
    assert.notEqual(updated, service);
    const task = makeTask('t', {
      node: 'n',
      spec: structuredClone(service.spec.task) as TaskSpec,
      endpointSpec: service.spec.endpoint,
      status: { state: 'running' },
    });
    const store = makeStore({ nodes: [makeNode('n')], services: [updated], tasks: [task] });
    assert.equal(dirtyCheck(store, updated)(task), dirty);
    assert.equal(
      dirtyCheck(store, updated)({ ...task, specVersion: 2 }),
      false,
      'a task of this version never is',
    );
  });
}

test('plain data is compared deeply, in any order of members', () => {
  assert.equal(sameData({ a: [1, { b: 2 }], c: undefined }, { a: [1, { b: 2 }] }), true);
  assert.equal(sameData({ a: 1, b: 2 }, { b: 2, a: 1 }), true);
  assert.equal(sameData([1, 2], [2, 1]), false);
  assert.equal(sameData([], {}), false);
  assert.equal(sameData({ a: null }, {}), false);
  assert.equal(sameData({ a: 0 }, { a: '0' }), false);
});
