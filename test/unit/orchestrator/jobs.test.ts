/** Jobs: completions, concurrency, restarts, lost nodes, iterations. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defaultRestartPolicy } from '../../../src/model/defaults.ts';
import type { RestartPolicy, ServiceMode } from '../../../src/model/spec.ts';
import { FakeCluster } from '../../support/fake-cluster.ts';
import { makeTaskSpec } from '../../support/planner-fixtures.ts';

function jobCluster(mode: ServiceMode, restart: Partial<RestartPolicy> = {}, nodes = 3): FakeCluster {
  const cluster = new FakeCluster({ nodes });
  const task = makeTaskSpec({ restart: { ...defaultRestartPolicy, delayMs: 0, ...restart } });
  cluster.create({ mode, task });
  return cluster;
}

function completed(cluster: FakeCluster): number[] {
  const { jobIteration } = cluster.service();
  return cluster
    .tasks()
    .filter((task) => task.status.state === 'complete' && task.jobIteration === jobIteration)
    .map((task) => task.slot)
    .toSorted((a, b) => a - b);
}

const five = { kind: 'replicated-job', maxConcurrent: 2, totalCompletions: 5 } as const;

test('a replicated job completes each slot from 0 once, so many at a time', () => {
  const cluster = jobCluster(five);
  cluster.fate = () => 'complete';
  let most = 0;
  cluster.afterApply = () => {
    const wanted = cluster.tasks().filter((task) => task.desiredState === 'complete');
    most = Math.max(most, wanted.filter((task) => task.status.state !== 'complete').length);
  };
  cluster.advance(60_000);
  assert.deepEqual(completed(cluster), [0, 1, 2, 3, 4]);
  assert.equal(most, 2);
  assert.equal(cluster.tasks().length, 5, 'nothing runs after completion');
});

test('any acts as on-failure: what failed is tried again in its slot, what completed is not', () => {
  const cluster = jobCluster(five, { condition: 'any', delayMs: 5_000 });
  cluster.fate = (task) => (task.slot === 1 ? 'failed' : 'complete');
  cluster.advance(30_000);
  assert.deepEqual(completed(cluster), [0, 2, 3, 4]);
  cluster.fate = () => 'complete';
  cluster.advance(30_000);
  assert.deepEqual(completed(cluster), [0, 1, 2, 3, 4]);
});

for (const mode of [five, { kind: 'global-job' } as const]) {
  test(`${mode.kind}: max attempts end a run that keeps failing, and its place stays given up`, () => {
    const cluster = jobCluster(mode, { maxAttempts: 7 });
    let starts = 0;
    cluster.fate = (task) => (task.nodeId === 'n1' ? 'failed' : 'complete');
    if (mode.kind === 'replicated-job') cluster.fate = (task) => (task.slot === 1 ? 'failed' : 'complete');
    const seen = new Set<string>();
    cluster.afterApply = () => {
      for (const task of cluster.tasks()) {
        if (task.status.state !== 'failed' || seen.has(task.id)) continue;
        seen.add(task.id);
        starts++;
      }
    };
    cluster.advance(600_000);
    assert.equal(starts, 8);
    assert.equal(completed(cluster).length, mode.kind === 'global-job' ? 2 : 4);
  });
}

test('condition none gives a slot one try', () => {
  const cluster = jobCluster(five, { condition: 'none' });
  cluster.fate = (task) => (task.slot === 0 ? 'failed' : 'complete');
  cluster.advance(60_000);
  assert.deepEqual(completed(cluster), [1, 2, 3, 4]);
  assert.equal(cluster.tasks().length, 5);
});

test('a job task on a node that goes down or is drained runs elsewhere', () => {
  for (const change of ['down', 'drain'] as const) {
    const cluster = jobCluster({ kind: 'replicated-job', maxConcurrent: 1, totalCompletions: 1 });
    cluster.settle();
    const [task] = cluster.tasks();
    assert.equal(task?.status.state, 'running');
    cluster.setNode(
      task.nodeId,
      change === 'down' ? 'down' : 'ready',
      change === 'drain' ? 'drain' : 'active',
    );
    cluster.settle();
    cluster.fate = () => 'complete';
    cluster.settle();
    assert.deepEqual(completed(cluster), [0], change);
  }
});

test('every update runs the job again, also with the same spec; the old run goes', () => {
  const cluster = jobCluster({ kind: 'replicated-job', maxConcurrent: 0, totalCompletions: 3 });
  cluster.fate = () => 'complete';
  cluster.settle();
  const first = cluster.tasks().map((task) => task.id);
  cluster.update((spec) => spec);
  cluster.settle();
  assert.deepEqual(completed(cluster), [0, 1, 2]);
  assert.ok(cluster.tasks().every((task) => !first.includes(task.id)));
  assert.equal(cluster.service().updateStatus, undefined, 'no rolling update');
});

test('a global job runs once on every ready and active node, and on one that comes later', () => {
  const cluster = jobCluster({ kind: 'global-job' }, {}, 4);
  cluster.fate = () => 'complete';
  cluster.setNode('n2', 'ready', 'pause');
  cluster.setNode('n3', 'ready', 'drain');
  cluster.setNode('n4', 'down');
  cluster.advance(60_000);
  assert.deepEqual(
    cluster.tasks().map((task) => task.nodeId as string),
    ['n1'],
  );
  cluster.setNode('n4', 'ready');
  cluster.addNode('n5');
  cluster.advance(60_000);
  assert.deepEqual(
    cluster
      .tasks()
      .map((task) => task.nodeId as string)
      .toSorted(),
    ['n1', 'n4', 'n5'],
  );
  cluster.advance(600_000);
  assert.equal(cluster.tasks().length, 3);
});

test('a removed job leaves nothing behind', () => {
  const cluster = jobCluster(five);
  cluster.settle();
  cluster.remove();
  cluster.settle();
  assert.equal(cluster.store.count('task') + cluster.store.count('service'), 0);
});
