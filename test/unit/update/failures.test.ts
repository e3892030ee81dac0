/** Updates that go wrong: what counts as a failure, the actions, the messages, fail-over, and start-first in tight places. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  defaultRestartPolicy,
  defaultUpdateConfig,
  UPDATE_START_DEADLINE_MS,
} from '../../../src/model/defaults.ts';
import type { ServiceSpec, UpdateConfig } from '../../../src/model/spec.ts';
import { FakeCluster, type TaskFate, withImage } from '../../support/fake-cluster.ts';
import { makeTaskSpec } from '../../support/planner-fixtures.ts';

function clusterWith(
  update: Partial<UpdateConfig>,
  options: { replicas?: number; nodes?: number; spec?: Partial<ServiceSpec> } = {},
): FakeCluster {
  const cluster = new FakeCluster({ nodes: options.nodes ?? 3 });
  cluster.create({
    mode: { kind: 'replicated', replicas: options.replicas ?? 4 },
    update: { ...defaultUpdateConfig, ...update },
    ...options.spec,
  });
  cluster.settle();
  return cluster;
}

/** Tasks with the image `bad` get the fate; all others run. */
function spoil(cluster: FakeCluster, fate: TaskFate): void {
  cluster.fate = (task) => (task.spec.container.image === 'bad' ? fate : 'run');
}

function imagesWanted(cluster: FakeCluster): string[] {
  return cluster
    .active()
    .map((task) => task.spec.container.image)
    .toSorted();
}

function failedTask(cluster: FakeCluster): string {
  const failed = cluster.tasks().filter((task) => task.update?.failedAt !== undefined);
  assert.ok(failed.length > 0, 'a failed task');
  return failed.at(-1)?.id ?? '';
}

for (const fate of ['rejected', 'failed', 'complete'] as const) {
  test(`a task of the update that ends as ${fate} pauses it, with the task named`, () => {
    const cluster = clusterWith({ delayMs: 10_000 });
    spoil(cluster, fate);
    cluster.updateImage('bad');
    cluster.settle();
    const { updateStatus } = cluster.service();
    assert.equal(updateStatus?.state, 'paused');
    assert.equal(
      updateStatus?.message,
      `update paused due to failure or early termination of task ${failedTask(cluster)}`,
    );
    cluster.advance(600_000);
    assert.deepEqual(imagesWanted(cluster), ['app', 'app', 'app', 'bad']);
    assert.equal(cluster.service().updateStatus?.state, 'paused');
  });
}

test('a task that dies within the monitor time after it ran is a failure, one that dies later is none', () => {
  for (const [afterMs, state] of [
    [5_000, 'paused'],
    [5_001, 'completed'],
  ] as const) {
    const cluster = clusterWith({ delayMs: 8_000 }, { replicas: 2 });
    cluster.updateImage('next');
    cluster.settle();
    const [first] = cluster.up().filter((task) => task.update !== undefined);
    assert.ok(first !== undefined);
    cluster.advance(afterMs);
    cluster.report(first, 'failed');
    cluster.advance(60_000);
    assert.equal(cluster.service().updateStatus?.state, state, `after ${afterMs} ms`);
  }
});

test('a task that dies after the last slot, in the monitor time, still is a failure', () => {
  const cluster = clusterWith({}, { replicas: 1 });
  cluster.updateImage('next');
  cluster.advance(4_000);
  const [task] = cluster.up();
  assert.ok(task !== undefined);
  cluster.report(task, 'failed');
  cluster.settle();
  assert.equal(cluster.service().updateStatus?.state, 'paused');
});

test('drained, scaled-down and lost tasks of an update are not its failures', () => {
  const cluster = clusterWith({ delayMs: 1_000 }, { nodes: 4 });
  cluster.updateImage('next');
  cluster.settle();
  const [first] = cluster.up().filter((task) => task.update !== undefined);
  assert.ok(first !== undefined);
  cluster.setNode(first.nodeId, 'ready', 'drain');
  cluster.advance(1_500);
  const [second] = cluster.up().filter((task) => task.update !== undefined);
  assert.ok(second !== undefined);
  cluster.setNode(second.nodeId, 'down');
  cluster.advance(60_000);
  assert.equal(cluster.service().updateStatus?.state, 'completed');
  assert.equal(cluster.tasks().filter((task) => task.update?.failedAt !== undefined).length, 0);
});

test('the action fires only when failures / changed slots is above the ratio', () => {
  for (const [maxFailureRatio, failures, state] of [
    [0.5, 2, 'completed'],
    [0.5, 3, 'paused'],
    [0.25, 2, 'paused'],
    [1, 4, 'completed'],
  ] as const) {
    const cluster = clusterWith({ maxFailureRatio });
    cluster.fate = (task) => (task.update !== undefined && task.slot <= failures ? 'rejected' : 'run');
    cluster.updateImage('next');
    cluster.advance(120_000);
    assert.equal(
      cluster.service().updateStatus?.state,
      state,
      `ratio ${maxFailureRatio}, ${failures} of 4 fail`,
    );
  }
});

test('continue goes on to the end whatever fails', () => {
  const cluster = clusterWith({ failureAction: 'continue' });
  spoil(cluster, 'failed');
  cluster.updateImage('bad');
  cluster.advance(60_000);
  assert.equal(cluster.service().updateStatus?.state, 'completed');
  assert.deepEqual(imagesWanted(cluster), ['bad', 'bad', 'bad', 'bad']);
});

test('rollback brings the previous spec back by itself, once', () => {
  const cluster = clusterWith({ failureAction: 'rollback' });
  spoil(cluster, 'rejected');
  cluster.updateImage('bad');
  cluster.turn();
  cluster.advance(1);
  const rolledBack = cluster.service();
  assert.equal(rolledBack.updateStatus?.state, 'rollback_started');
  assert.match(
    rolledBack.updateStatus?.message ?? '',
    /^update rolled back due to failure or early termination of task [0-9a-z]{25}$/,
  );
  assert.equal(rolledBack.previousSpec, undefined);
  cluster.advance(60_000);
  assert.equal(cluster.service().updateStatus?.state, 'rollback_completed');
  assert.deepEqual(imagesWanted(cluster), ['app', 'app', 'app', 'app']);
});

test('a rollback that fails is paused, never rolled back', () => {
  const rollback: UpdateConfig = { ...defaultUpdateConfig, failureAction: 'rollback' };
  const cluster = clusterWith({ failureAction: 'rollback' }, { spec: { rollback } });
  cluster.updateImage('next');
  cluster.advance(60_000);
  cluster.fate = (task) =>
    task.update !== undefined && task.spec.container.image === 'app' ? 'rejected' : 'run';
  cluster.rollback();
  cluster.advance(60_000);
  const { updateStatus, previousSpec } = cluster.service();
  assert.equal(updateStatus?.state, 'rollback_paused');
  assert.match(updateStatus?.message ?? '', /^rollback paused due to failure or early termination of task /);
  assert.equal(previousSpec?.task.container.image, 'next');
});

test('a failed update without a previous spec is paused even where rollback is asked for', () => {
  const cluster = clusterWith({ failureAction: 'rollback' });
  const { previousSpec: _none, ...service } = cluster.service();
  spoil(cluster, 'rejected');
  cluster.setService({ ...service, spec: withImage(service.spec, 'bad'), specVersion: 2 });
  cluster.settle();
  assert.equal(cluster.service().updateStatus?.state, 'paused');
});

test('a paused update goes on with the same spec, with failures counted anew over what is left', () => {
  const cluster = clusterWith({});
  spoil(cluster, 'rejected');
  cluster.updateImage('bad');
  cluster.settle();
  assert.equal(cluster.service().updateStatus?.state, 'paused');
  spoil(cluster, 'run');
  cluster.advance(10_000);
  cluster.updateImage('bad');
  cluster.settle();
  assert.equal(cluster.service().updateStatus?.slots, 3);
  cluster.advance(10_000);
  assert.equal(cluster.service().updateStatus?.state, 'completed');
  assert.equal(cluster.up().length, 4);
});

test('failure counts survive a new leader and a short history', () => {
  const cluster = new FakeCluster({ nodes: 3, cluster: { taskHistoryLimit: 1 } });
  cluster.create({
    mode: { kind: 'replicated', replicas: 4 },
    update: { ...defaultUpdateConfig, delayMs: 30_000, maxFailureRatio: 0.5 },
  });
  cluster.settle();
  cluster.fate = (task) => (task.update !== undefined ? 'rejected' : 'run');
  cluster.updateImage('next');
  for (const failures of [1, 2]) {
    cluster.settle();
    cluster.failOver();
    cluster.settle();
    assert.equal(cluster.service().updateStatus?.state, 'updating');
    assert.equal(cluster.tasks().filter((task) => task.update?.failedAt !== undefined).length, failures);
    cluster.advance(30_000);
  }
  cluster.failOver();
  cluster.settle();
  assert.equal(cluster.service().updateStatus?.state, 'paused');
});

test('a task that makes no progress counts as a failure after the deadline, while one that reports goes on', () => {
  const cluster = clusterWith({});
  spoil(cluster, 'hang');
  cluster.updateImage('bad');
  cluster.settle();
  const [stuck] = cluster.active().filter((task) => task.update !== undefined);
  assert.ok(stuck !== undefined);
  cluster.advance(UPDATE_START_DEADLINE_MS - 1);
  cluster.report(stuck, 'preparing');
  cluster.advance(UPDATE_START_DEADLINE_MS - 1);
  assert.equal(cluster.service().updateStatus?.state, 'updating');
  cluster.advance(1);
  assert.equal(cluster.service().updateStatus?.state, 'paused');
});

test('start-first keeps the old tasks while the new ones fail', () => {
  const cluster = clusterWith({ order: 'start-first', failureAction: 'continue' });
  spoil(cluster, 'failed');
  const before = cluster.up().map((task) => task.id);
  cluster.updateImage('bad');
  cluster.fate = (task) => (task.spec.container.image === 'bad' ? 'rejected' : 'run');
  cluster.advance(60_000);
  assert.equal(cluster.service().updateStatus?.state, 'completed');
  for (const id of before) assert.equal(cluster.store.get('task', id)?.desiredState, 'running');
  cluster.fate = () => 'run';
  cluster.advance(60_000);
  assert.deepEqual(imagesWanted(cluster), ['bad', 'bad', 'bad', 'bad'], 'old tasks go once the new ones run');
});

test('start-first tries a slot once where the new task may not be restarted', () => {
  const restart = { ...defaultRestartPolicy, condition: 'none' } as const;
  const cluster = clusterWith(
    { order: 'start-first', failureAction: 'continue' },
    { replicas: 2, spec: { task: makeTaskSpec({ restart }) } },
  );
  spoil(cluster, 'rejected');
  cluster.updateImage('bad');
  cluster.advance(600_000);
  assert.equal(cluster.service().updateStatus?.state, 'completed');
  assert.equal(cluster.tasks().filter((task) => task.spec.container.image === 'bad').length, 2);
  assert.deepEqual(imagesWanted(cluster), ['app', 'app']);
});

const hostPort = { protocol: 'tcp', targetPort: 80, publishedPort: 8080, publishMode: 'host' } as const;
const tight: readonly [string, Partial<ServiceSpec>][] = [
  ['one replica a node', { task: makeTaskSpec({ placement: { maxReplicasPerNode: 1 } }) }],
  ['a host port', { endpoint: { mode: 'vip', ports: [hostPort] } }],
  [
    'a reservation of most of a node',
    { task: makeTaskSpec({ resources: { reservations: { nanoCpus: 3e9 } } }) },
  ],
  ['a host port, globally', { mode: { kind: 'global' }, endpoint: { mode: 'vip', ports: [hostPort] } }],
];

for (const [title, spec] of tight) {
  test(`start-first with ${title} falls back to stop-first instead of waiting for ever`, () => {
    const cluster = clusterWith({ order: 'start-first' }, { replicas: 3, spec });
    assert.equal(cluster.up().length, 3);
    cluster.afterApply = () => assert.ok(cluster.up().length >= 2, 'one slot at a time');
    cluster.updateImage('next');
    cluster.advance(30_000);
    assert.deepEqual(imagesWanted(cluster), ['next', 'next', 'next']);
    assert.equal(cluster.service().updateStatus?.state, 'completed');
    assert.ok(cluster.notes.some((note) => note.startsWith('start-first task cannot be placed')));
  });
}

test('start-first does not stop the old task for a new one that has no place anywhere', () => {
  const cluster = clusterWith({ order: 'start-first' }, { replicas: 1 });
  const [old] = cluster.up();
  cluster.update((spec) => ({
    ...withImage(spec, 'next'),
    task: makeTaskSpec({ resources: { reservations: { nanoCpus: 64e9 } } }),
  }));
  cluster.advance(60_000);
  assert.equal(cluster.store.get('task', old?.id ?? '')?.desiredState, 'running');
  cluster.advance(UPDATE_START_DEADLINE_MS);
  assert.equal(cluster.service().updateStatus?.state, 'paused');
});
