/** Rolling updates and rollbacks that go well: order, parallelism, delay, monitor, superseding, globals. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ServiceSpec, UpdateConfig } from '../../../src/model/spec.ts';
import { defaultUpdateConfig } from '../../../src/model/defaults.ts';
import { FakeCluster, slotsInChange, withImage } from '../../support/fake-cluster.ts';

function clusterWith(
  update: Partial<UpdateConfig>,
  options: { replicas?: number; nodes?: number; spec?: Partial<ServiceSpec> } = {},
): FakeCluster {
  const cluster = new FakeCluster({ nodes: options.nodes ?? 3 });
  cluster.create({
    mode: { kind: 'replicated', replicas: options.replicas ?? 4 },
    update: { ...defaultUpdateConfig, ...update },
    rollback: { ...defaultUpdateConfig, ...update },
    ...options.spec,
  });
  cluster.settle();
  return cluster;
}

function imagesUp(cluster: FakeCluster): string[] {
  return cluster
    .up()
    .map((task) => task.spec.container.image)
    .toSorted();
}

test('an update replaces every slot, is watched for the monitor time, and then is completed', () => {
  const cluster = clusterWith({});
  cluster.updateImage('next');
  const startedAt = cluster.nowMs;
  cluster.settle();
  assert.deepEqual(imagesUp(cluster), ['next', 'next', 'next', 'next']);
  const { updateStatus } = cluster.service();
  assert.deepEqual(updateStatus, { state: 'updating', startedAt, message: 'update in progress', slots: 4 });
  cluster.advance(4_999);
  assert.equal(cluster.service().updateStatus?.state, 'updating');
  cluster.advance(1);
  const completed = { state: 'completed', message: 'update completed', completedAt: cluster.nowMs } as const;
  assert.deepEqual(cluster.service().updateStatus, { ...updateStatus, ...completed });
});

test('a service that was only scaled or relabelled shows no update', () => {
  const cluster = clusterWith({});
  cluster.scale(6);
  cluster.update((spec) => ({ ...spec, labels: { a: 'b' } }));
  cluster.advance(60_000);
  assert.equal(cluster.service().updateStatus, undefined);
  assert.equal(cluster.up().length, 6);
});

test('delay passes between one slot being up and the next being changed, and before the last watch', () => {
  const cluster = clusterWith({ delayMs: 10_000, monitorMs: 1_000 });
  cluster.updateImage('next');
  for (const changed of [1, 2, 3, 4]) {
    cluster.settle();
    assert.equal(cluster.tasks().filter((task) => task.update !== undefined).length, changed);
    cluster.advance(9_999);
    assert.equal(cluster.tasks().filter((task) => task.update !== undefined).length, changed);
    cluster.advance(1);
  }
  assert.equal(cluster.service().updateStatus?.state, 'updating');
  cluster.advance(1_000);
  assert.equal(cluster.service().updateStatus?.state, 'completed');
});

for (const [parallelism, most] of [
  [1, 1],
  [2, 2],
  [3, 3],
  [0, 6],
] as const) {
  test(`parallelism ${parallelism} of 6 slots: at most ${most} are down at once, and that many are`, () => {
    const cluster = clusterWith({ parallelism }, { replicas: 6 });
    let worst = 0;
    cluster.afterApply = () => {
      const down = 6 - cluster.up().length;
      worst = Math.max(worst, down);
      assert.ok(down <= most, `${down} slots down`);
      assert.ok(slotsInChange(cluster.tasks()) <= most);
    };
    cluster.updateImage('next');
    cluster.advance(10_000);
    assert.equal(worst, most);
    assert.equal(cluster.service().updateStatus?.state, 'completed');
  });
}

test('stop-first: the new task waits for the old one to stop, a minute at most', () => {
  const cluster = clusterWith({}, { replicas: 1 });
  cluster.stopsAtOnce = false;
  cluster.updateImage('next');
  const startedAt = cluster.nowMs;
  assert.equal(cluster.settle(), startedAt + 60_000);
  assert.deepEqual(
    cluster.active().map((task) => [task.desiredState, task.status.state]),
    [['ready', 'ready']],
  );
  cluster.finishStopping();
  cluster.settle();
  assert.deepEqual(imagesUp(cluster), ['next']);
});

test('start-first: the old task is stopped once the new one runs and is healthy', () => {
  const cluster = clusterWith({ order: 'start-first' }, { replicas: 2 });
  cluster.fate = (task) => (task.spec.container.image === 'next' ? 'unhealthy' : 'run');
  cluster.afterApply = () => assert.ok(cluster.up().length >= 2, 'never fewer than wanted');
  cluster.updateImage('next');
  cluster.advance(1_000);
  assert.deepEqual(imagesUp(cluster), ['app', 'app']);
  const [fresh] = cluster.active().filter((task) => task.spec.container.image === 'next');
  assert.ok(fresh !== undefined);
  assert.equal(fresh.slot, 1, 'both tasks share the slot');
  cluster.report(fresh, 'running', true);
  cluster.turn();
  cluster.work();
  assert.deepEqual(imagesUp(cluster), ['app', 'next']);
});

test('an update that turns to stop-first half way stops the old task without waiting for the new one', () => {
  const cluster = clusterWith({ order: 'start-first' }, { replicas: 1 });
  cluster.fate = (task) => (task.spec.container.image === 'next' ? 'hang' : 'run');
  cluster.updateImage('next');
  cluster.settle();
  assert.equal(cluster.active().length, 2);
  cluster.update((spec) => ({ ...spec, update: { ...spec.update, order: 'stop-first' } }));
  cluster.settle();
  assert.deepEqual(
    cluster.active().map((task) => task.spec.container.image),
    ['next'],
  );
});

test('a superseded start-first task that is not up yet is given up for the next one', () => {
  const cluster = clusterWith({ order: 'start-first' }, { replicas: 1 });
  cluster.fate = (task) => (task.spec.container.image === 'second' ? 'hang' : 'run');
  cluster.updateImage('second');
  cluster.settle();
  cluster.updateImage('third');
  cluster.advance(10_000);
  assert.deepEqual(imagesUp(cluster), ['third']);
  assert.equal(cluster.active().length, 1);
});

test('a changed spec supersedes an update under way, and the rollback target is the spec it left', () => {
  const cluster = clusterWith({ delayMs: 5_000 });
  cluster.updateImage('second');
  cluster.settle();
  cluster.updateImage('third');
  cluster.advance(60_000);
  assert.deepEqual(imagesUp(cluster), ['third', 'third', 'third', 'third']);
  assert.equal(cluster.service().previousSpec?.task.container.image, 'second');
  assert.equal(cluster.service().updateStatus?.state, 'completed');
});

test('the same spec again does not disturb an update under way', () => {
  const cluster = clusterWith({ delayMs: 5_000 });
  cluster.updateImage('next');
  cluster.settle();
  const before = cluster.service().updateStatus;
  cluster.updateImage('next');
  cluster.settle();
  assert.deepEqual(cluster.service().updateStatus, before);
});

test('tasks added by scaling have the new spec at once and are not part of the update', () => {
  const cluster = clusterWith({ delayMs: 60_000 });
  cluster.update((spec) => ({ ...withImage(spec, 'next'), mode: { kind: 'replicated', replicas: 6 } }));
  cluster.settle();
  assert.deepEqual(imagesUp(cluster), ['app', 'app', 'app', 'next', 'next', 'next']);
  assert.equal(cluster.service().updateStatus?.slots, 4);
  assert.equal(cluster.tasks().filter((task) => task.update !== undefined).length, 1);
});

test('scaling down in the middle of an update leaves it to finish with what is left', () => {
  const cluster = clusterWith({ delayMs: 5_000 });
  cluster.updateImage('next');
  cluster.settle();
  cluster.scale(2);
  cluster.advance(60_000);
  assert.deepEqual(imagesUp(cluster), ['next', 'next']);
  assert.notEqual(cluster.service().updateStatus?.state, 'updating');
});

test('a slot whose task died before its turn is renewed by the restart alone', () => {
  const cluster = clusterWith({ delayMs: 30_000 });
  cluster.updateImage('next');
  cluster.settle();
  const [old] = cluster.active().filter((task) => task.slot === 4);
  assert.ok(old !== undefined);
  cluster.report(old, 'failed');
  cluster.advance(10_000);
  const [renewed] = cluster.up().filter((task) => task.slot === 4);
  assert.equal(renewed?.spec.container.image, 'next');
  assert.equal(renewed?.update, undefined);
  cluster.advance(200_000);
  assert.equal(cluster.service().updateStatus?.state, 'completed');
  assert.equal(cluster.tasks().filter((task) => task.slot === 4).length, 2);
});

test('a manual rollback has its own pace and messages, and undoes only what was changed', () => {
  const cluster = clusterWith(
    { delayMs: 60_000 },
    { spec: { rollback: { ...defaultUpdateConfig, parallelism: 0 } } },
  );
  cluster.updateImage('next');
  cluster.advance(60_000);
  assert.deepEqual(imagesUp(cluster), ['app', 'app', 'next', 'next']);
  const untouched = cluster.up().filter((task) => task.spec.container.image === 'app');
  cluster.rollback();
  cluster.settle();
  assert.equal(cluster.service().updateStatus?.state, 'rollback_started');
  assert.equal(cluster.service().updateStatus?.slots, 2);
  assert.deepEqual(imagesUp(cluster), ['app', 'app', 'app', 'app']);
  cluster.advance(5_000);
  assert.equal(cluster.service().updateStatus?.state, 'rollback_completed');
  assert.equal(cluster.service().updateStatus?.message, 'rollback completed');
  for (const task of untouched) assert.equal(cluster.store.get('task', task.id)?.desiredState, 'running');
});

test('a rollback while start-first has both tasks in a slot keeps the old one', () => {
  const cluster = clusterWith({ order: 'start-first' }, { replicas: 2 });
  const before = cluster.up().map((task) => task.id);
  cluster.fate = (task) => (task.spec.container.image === 'next' ? 'hang' : 'run');
  cluster.updateImage('next');
  cluster.settle();
  assert.equal(cluster.active().length, 3);
  cluster.rollback();
  cluster.advance(60_000);
  assert.deepEqual(
    cluster
      .active()
      .map((task) => task.id)
      .toSorted(),
    before.toSorted(),
  );
  assert.equal(cluster.service().updateStatus?.state, 'rollback_completed');
});

test('a global service is updated node by node; paused nodes are left alone, drained ones have nothing to change', () => {
  const cluster = clusterWith({}, { nodes: 5, spec: { mode: { kind: 'global' } } });
  cluster.setNode('n1', 'ready', 'pause');
  cluster.setNode('n2', 'ready', 'drain');
  cluster.settle();
  cluster.afterApply = () => assert.ok(cluster.up().length >= 3, 'one node at a time');
  cluster.updateImage('next');
  cluster.advance(10_000);
  const images = cluster.up().map((task) => `${task.nodeId} ${task.spec.container.image}`);
  assert.deepEqual(images.toSorted(), ['n1 app', 'n3 next', 'n4 next', 'n5 next']);
  assert.equal(cluster.service().updateStatus?.slots, 3);
  assert.equal(cluster.service().updateStatus?.state, 'completed');
  cluster.setNode('n1', 'ready', 'active');
  cluster.setNode('n2', 'ready', 'active');
  cluster.advance(10_000);
  assert.deepEqual(
    imagesUp(cluster),
    ['next', 'next', 'next', 'next', 'next'],
    'what comes back is brought along',
  );
  assert.equal(cluster.service().updateStatus?.state, 'completed');
});

test('a placement that some nodes no longer fit moves only the tasks there', () => {
  const cluster = clusterWith({}, { replicas: 3 });
  const constraints = ['node.id!=n1'];
  cluster.update((spec) => ({
    ...spec,
    task: { ...spec.task, placement: { ...spec.task.placement, constraints } },
  }));
  const stayed = cluster.up().filter((task) => task.nodeId !== 'n1');
  cluster.advance(10_000);
  assert.equal(cluster.service().updateStatus?.slots, 1);
  assert.ok(cluster.up().every((task) => task.nodeId !== 'n1'));
  for (const task of stayed) assert.equal(cluster.store.get('task', task.id)?.desiredState, 'running');
});
