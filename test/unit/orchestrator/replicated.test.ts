/** Replicated services: slots, scaling, lost and drained nodes, removal. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planReplicated } from '../../../src/manager/orchestrator/replicated.ts';
import type { Action } from '../../../src/manager/state/actions.ts';
import type { Task } from '../../../src/model/objects.ts';
import { FakeCluster } from '../../support/fake-cluster.ts';
import { makeNode, makeService, makeStore, makeTask, planContext } from '../../support/planner-fixtures.ts';

const running = { state: 'running' } as const;

function replicated(replicas: number) {
  return makeService('svc', { spec: { mode: { kind: 'replicated', replicas } } });
}

function createdSlots(actions: readonly Action[]): number[] {
  return actions.flatMap((one) => (one.kind === 'create' && one.table === 'task' ? [one.object.slot] : []));
}

function patched(actions: readonly Action[], desired: string): string[] {
  return actions.flatMap((one) =>
    one.kind === 'patch-task' && one.patch.desiredState === desired ? [one.id as string] : [],
  );
}

const nodes = ['a', 'b', 'c'].map((id) => makeNode(id));

test('a new service gets slots from 1, wanted running, with its spec and version', () => {
  const store = makeStore({ nodes, services: [replicated(3)] });
  const { actions } = planReplicated(store, planContext());
  assert.deepEqual(createdSlots(actions), [1, 2, 3]);
  const [first] = actions;
  assert.ok(first?.kind === 'create' && first.table === 'task');
  const { object } = first;
  assert.equal(object.desiredState, 'running');
  assert.equal(object.status.state, 'new');
  assert.equal(object.nodeId, '');
  assert.deepEqual(object.spec, replicated(3).spec.task);
  assert.equal(object.specVersion, 1);
  assert.deepEqual(object.serviceAnnotations, { name: 'svc', labels: {} });
});

test('the lowest free slots are filled first', () => {
  const tasks = [2, 5].map((slot) => makeTask(`t${slot}`, { slot, node: 'a', status: running }));
  const store = makeStore({ nodes, services: [replicated(5)], tasks });
  assert.deepEqual(createdSlots(planReplicated(store, planContext()).actions), [1, 3, 4]);
});

test('a slot whose tasks are asked to go is free', () => {
  const tasks = [makeTask('t1', { node: 'a', status: running, desiredState: 'remove' })];
  const store = makeStore({ nodes, services: [replicated(1)], tasks });
  assert.deepEqual(createdSlots(planReplicated(store, planContext()).actions), [1]);
});

const scaleDowns: readonly { title: string; tasks: Task[]; replicas: number; goes: string[] }[] = [
  {
    title: 'the node with most copies loses first',
    tasks: [
      makeTask('t1', { slot: 1, node: 'a', status: running }),
      makeTask('t2', { slot: 2, node: 'a', status: running }),
      makeTask('t3', { slot: 3, node: 'b', status: running }),
    ],
    replicas: 2,
    goes: ['t2'],
  },
  {
    title: 'of equal nodes, what does not run goes first',
    tasks: [
      makeTask('t1', { slot: 1, node: 'a', status: { state: 'starting' } }),
      makeTask('t2', { slot: 2, node: 'b', status: running }),
      makeTask('t3', { slot: 3, node: 'c', status: running }),
    ],
    replicas: 2,
    goes: ['t1'],
  },
  {
    title: 'all equal, the highest slot goes first',
    tasks: [3, 1, 2].map((slot) =>
      makeTask(`t${slot}`, { slot, node: 'abc'[slot - 1] as string, status: running }),
    ),
    replicas: 1,
    goes: ['t2', 't3'],
  },
  {
    title: 'what has no node yet goes before all that have',
    tasks: [
      makeTask('t1', { slot: 1 }),
      makeTask('t2', { slot: 2, node: 'a', status: running }),
      makeTask('t3', { slot: 3, node: 'a', status: running }),
    ],
    replicas: 2,
    goes: ['t1'],
  },
  {
    title: 'a slot goes with its history',
    tasks: [
      makeTask('t1', { slot: 1, node: 'a', status: running }),
      makeTask('t2', { slot: 2, node: 'b', status: running }),
      makeTask('old', { slot: 2, node: 'c', status: { state: 'failed' }, desiredState: 'shutdown' }),
    ],
    replicas: 1,
    goes: ['old', 't2'],
  },
];

for (const { title, tasks, replicas, goes } of scaleDowns) {
  test(`scaling down: ${title}`, () => {
    const store = makeStore({ nodes, services: [replicated(replicas)], tasks });
    const { actions } = planReplicated(store, planContext());
    assert.deepEqual(patched(actions, 'remove').toSorted(), goes);
    assert.deepEqual(createdSlots(actions), []);
  });
}

test('tasks of a node that is down, removed or drained are replaced; unknown and paused nodes keep theirs', () => {
  const list = [
    makeNode('down', { state: 'down' }),
    makeNode('drain', { spec: { availability: 'drain' } }),
    makeNode('pause', { spec: { availability: 'pause' } }),
    makeNode('unknown', { state: 'unknown' }),
    makeNode('lost-contact', { state: 'disconnected' }),
  ];
  const names = [...list.map((node) => node.id as string), 'removed'];
  const tasks = names.map((node, index) =>
    makeTask(`on-${node}`, { slot: index + 1, node, status: running }),
  );
  const store = makeStore({ nodes: list, services: [replicated(names.length)], tasks });
  const { actions } = planReplicated(store, planContext());
  assert.deepEqual(patched(actions, 'shutdown').toSorted(), ['on-down', 'on-drain', 'on-removed']);
  assert.deepEqual(createdSlots(actions), [1, 2, 6]);
});

test('a service on its way out asks all its tasks to go and makes none', () => {
  const tasks = [
    makeTask('t1', { node: 'a', status: running }),
    makeTask('t2', { node: 'a', status: { state: 'failed' }, desiredState: 'shutdown' }),
  ];
  const store = makeStore({ nodes, services: [{ ...replicated(3), pendingDelete: true }], tasks });
  const { actions } = planReplicated(store, planContext());
  assert.deepEqual(patched(actions, 'remove').toSorted(), ['t1', 't2']);
  assert.equal(actions.length, 2);
});

test('scaling to nothing and back starts at slot 1 again', () => {
  const cluster = new FakeCluster();
  cluster.create({ mode: { kind: 'replicated', replicas: 4 } });
  cluster.settle();
  cluster.scale(0);
  cluster.settle();
  assert.deepEqual(cluster.tasks(), []);
  cluster.scale(2);
  cluster.settle();
  assert.deepEqual(
    cluster
      .up()
      .map((task) => task.slot)
      .toSorted((a, b) => a - b),
    [1, 2],
  );
});

test('drain moves every task away, one at a time in each slot, and the node ends empty', () => {
  const cluster = new FakeCluster({ nodes: 2 });
  cluster.create({ mode: { kind: 'replicated', replicas: 4 } });
  cluster.settle();
  cluster.stopsAtOnce = false;
  cluster.setNode('n1', 'ready', 'drain');
  cluster.settle();
  const waiting = cluster.active().filter((task) => task.desiredState === 'ready');
  assert.equal(waiting.length, 2, 'replacements wait for the old tasks to stop');
  cluster.finishStopping();
  cluster.settle();
  assert.deepEqual(
    cluster.up().map((task) => task.nodeId),
    ['n2', 'n2', 'n2', 'n2'],
  );
});

test('a node that goes down loses its tasks at once, without the restart delay', () => {
  const cluster = new FakeCluster({ nodes: 3 });
  cluster.create({ mode: { kind: 'replicated', replicas: 3 } });
  cluster.settle();
  cluster.setNode('n2', 'down');
  cluster.settle();
  assert.equal(cluster.up().length, 3);
  assert.ok(cluster.up().every((task) => task.nodeId !== 'n2'));
});

test('a removed service leaves nothing behind', () => {
  const cluster = new FakeCluster();
  cluster.create({ mode: { kind: 'replicated', replicas: 3 } });
  cluster.settle();
  cluster.remove();
  cluster.settle();
  assert.equal(cluster.store.count('service'), 0);
  assert.equal(cluster.store.count('task'), 0);
});
