/** What leaves the state, and what must stay in it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planReaping } from '../../../src/manager/orchestrator/reaper.ts';
import type { Task } from '../../../src/model/objects.ts';
import type { DesiredState, TaskState } from '../../../src/model/task-state.ts';
import { FakeCluster } from '../../support/fake-cluster.ts';
import {
  applyAll,
  makeCluster,
  makeNode,
  makeService,
  makeStore,
  makeTask,
  NOW_MS,
  planContext,
} from '../../support/planner-fixtures.ts';

const DAY_MS = 24 * 3_600_000;

const nodes = [makeNode('up'), makeNode('down', { state: 'down' })];

function reapedTasks(tasks: readonly Task[], limit = 5): string[] {
  const store = makeStore({
    clusters: [makeCluster({ taskHistoryLimit: limit })],
    nodes,
    services: [makeService('svc')],
    tasks,
  });
  const plan = planReaping(store, planContext());
  applyAll(store, plan.actions);
  assert.deepEqual(planReaping(store, planContext()).actions, [], 'a second plan has nothing to do');
  return plan.actions
    .flatMap((one) => (one.kind === 'delete' && one.table === 'task' ? [one.id] : []))
    .toSorted();
}

const cases: readonly [string, DesiredState, TaskState, string, boolean][] = [
  ['asked to go and dead', 'remove', 'shutdown', 'up', true],
  ['asked to go and failed', 'remove', 'failed', 'up', true],
  ['asked to go, still running', 'remove', 'running', 'up', false],
  ['asked to go, never assigned', 'remove', 'pending', '', true],
  ['asked to go, running on a node that is down', 'remove', 'running', 'down', false],
  ['asked to go, running on a removed node', 'remove', 'running', 'removed', true],
  ['shut down, never assigned', 'shutdown', 'pending', '', true],
  ['shut down, still running', 'shutdown', 'running', 'up', false],
  ['shut down, running on a node that is down', 'shutdown', 'running', 'down', false],
  ['shut down, running on a removed node', 'shutdown', 'running', 'removed', true],
  ['shut down and dead, within the history', 'shutdown', 'failed', 'up', false],
  ['wanted and failed, its restart not yet planned', 'running', 'failed', 'up', false],
  ['wanted, on a removed node', 'running', 'running', 'removed', false],
  ['a job that completed', 'complete', 'complete', 'up', false],
];

for (const [title, desiredState, state, node, reaped] of cases) {
  test(`a task ${title} is ${reaped ? 'deleted' : 'kept'}`, () => {
    assert.deepEqual(
      reapedTasks([makeTask('t', { desiredState, node, status: { state } })]),
      reaped ? ['t'] : [],
    );
  });
}

function history(slot: number, dead: number): Task[] {
  return Array.from({ length: dead }, (_, i) =>
    makeTask(`s${slot}-${i}`, { slot, node: 'up', desiredState: 'shutdown', status: { state: 'failed' } }),
  );
}

test('a slot keeps its history limit, the live task included, and loses the oldest first', () => {
  const live = [1, 2].map((slot) =>
    makeTask(`live${slot}`, { slot, node: 'up', status: { state: 'running' } }),
  );
  const tasks = [...history(1, 6), ...history(2, 4), ...live];
  assert.deepEqual(reapedTasks(tasks), ['s1-0', 's1-1']);
});

test('a history limit of 1 keeps only the live task, a negative one keeps all', () => {
  const live = makeTask('live', { node: 'up', status: { state: 'running' } });
  assert.deepEqual(reapedTasks([...history(1, 3), live], 1), ['s1-0', 's1-1', 's1-2']);
  assert.deepEqual(reapedTasks([...history(1, 9), live], -1), []);
});

test('the task that says its slot is finished outlives any limit', () => {
  const last = { ...(history(1, 1)[0] as Task), finished: true };
  assert.deepEqual(reapedTasks([last], 0), []);
});

test('failures that an update under way counts are kept until it is over', () => {
  const service = makeService('svc', {
    updateStatus: { state: 'updating', startedAt: 7, message: '', slots: 4 },
  });
  const tasks = history(1, 8).map((task) => ({ ...task, update: { startedAt: 7, failedAt: 8 } }));
  const store = makeStore({ nodes, services: [service], tasks });
  assert.deepEqual(planReaping(store, planContext()).actions, []);
});

test('a service on its way out is deleted once its last task is gone', () => {
  const service = { ...makeService('svc'), pendingDelete: true };
  const store = makeStore({
    nodes,
    services: [service],
    tasks: [makeTask('t', { desiredState: 'remove', node: 'up', status: { state: 'running' } })],
  });
  assert.deepEqual(planReaping(store, planContext()).actions, []);
  applyAll(store, [{ kind: 'delete', table: 'task', id: 't', expect: null }]);
  applyAll(store, planReaping(store, planContext()).actions);
  assert.equal(store.count('service'), 0);
});

test('tasks without a service are asked to go, and deleted when dead', () => {
  const store = makeStore({
    nodes,
    tasks: [makeTask('t', { service: 'gone', node: 'up', status: { state: 'running' } })],
  });
  applyAll(store, planReaping(store, planContext()).actions);
  assert.equal(store.get('task', 't')?.desiredState, 'remove');
  const status = { state: 'shutdown', at: NOW_MS, message: '', error: '' } as const;
  applyAll(store, [{ kind: 'report-task', id: makeTask('t').id, nodeId: makeNode('up').id, status }]);
  applyAll(store, planReaping(store, planContext()).actions);
  assert.equal(store.count('task'), 0);
});

test('tasks of a node that is down for a day are orphaned, then leave with their slots', () => {
  const cluster = new FakeCluster({ nodes: 2 });
  cluster.create({ mode: { kind: 'replicated', replicas: 2 } });
  cluster.settle();
  const [lost] = cluster.active().filter((task) => task.nodeId === 'n1');
  assert.ok(lost !== undefined);
  cluster.setNode('n1', 'down');
  cluster.advance(DAY_MS - 1);
  assert.equal(cluster.store.get('task', lost.id)?.status.state, 'running');
  cluster.advance(1);
  assert.equal(cluster.store.get('task', lost.id)?.status.state, 'orphaned');
  cluster.remove();
  cluster.settle();
  assert.equal(cluster.store.count('task') + cluster.store.count('service'), 0);
});

test('a node that returns within the day has its replaced tasks stopped, none runs twice', () => {
  const cluster = new FakeCluster({ nodes: 2 });
  cluster.create({ mode: { kind: 'replicated', replicas: 2 } });
  cluster.settle();
  cluster.setNode('n1', 'down');
  cluster.advance(3_600_000);
  cluster.setNode('n1', 'ready');
  cluster.settle();
  assert.equal(cluster.tasks().filter((task) => task.status.state === 'running').length, 2);
});
