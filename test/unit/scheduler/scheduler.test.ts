import assert from 'node:assert/strict';
import test from 'node:test';
import {
  ASSIGNED_MESSAGE,
  planScheduling,
  REASON_REFRESH_MS,
} from '../../../src/manager/scheduler/scheduler.ts';
import type { Store } from '../../../src/manager/state/store.ts';
import type { Task } from '../../../src/model/objects.ts';
import {
  applyAll,
  makeNode,
  makeStore,
  makeTask,
  makeTaskSpec,
  NOW_MS,
  planContext,
} from '../../support/planner-fixtures.ts';

function schedule(store: Store, nowMs = NOW_MS): number {
  const { actions } = planScheduling(store, planContext(nowMs));
  if (actions.length > 0) applyAll(store, actions, nowMs);
  return actions.length;
}

const taskOf = (store: Store, id: string): Task => store.get('task', id) as Task;
const impossible = makeTaskSpec({ placement: { constraints: ['node.labels.x==1'] } });

test('an assigned task carries its node, message and generic claim', () => {
  const spec = makeTaskSpec({ resources: { reservations: { generic: { gpu: 1 } } } });
  const resources = { nanoCpus: 1e9, memoryBytes: 1e9, generic: { gpu: 1 } };
  const store = makeStore({
    nodes: [makeNode('n', { description: { resources } })],
    tasks: [makeTask('a', { spec, status: { error: 'old' } }), makeTask('b', { spec })],
  });
  schedule(store);
  const a = taskOf(store, 'a');
  assert.equal(a.nodeId, 'n');
  assert.deepEqual(a.status, { state: 'assigned', at: NOW_MS, message: ASSIGNED_MESSAGE, error: '' });
  assert.deepEqual(a.genericResources, { gpu: 1 });
  assert.equal(taskOf(store, 'b').status.error, 'no suitable node (insufficient resources on 1 node)');
});

test('tasks that nobody wants, or that are not allocated, are left alone', () => {
  const store = makeStore({
    nodes: [makeNode('n')],
    tasks: [
      makeTask('gone', { desiredState: 'remove' }),
      makeTask('stopped', { desiredState: 'shutdown' }),
      makeTask('new', { status: { state: 'new' } }),
      makeTask('job', { desiredState: 'complete' }),
      makeTask('waiting', { desiredState: 'ready' }),
    ],
  });
  schedule(store);
  const assigned = [...store.all('task')].filter((task) => task.nodeId !== '').map((task) => task.id);
  assert.deepEqual(assigned, ['job', 'waiting']);
});

test('a node must offer the runtime', () => {
  const process = makeTaskSpec({ runtime: 'process' });
  const store = makeStore({
    nodes: [
      makeNode('a', { description: { runtimes: ['process'] } }),
      makeNode('b', { description: { runtimes: [] } }),
    ],
    tasks: [makeTask('docker'), makeTask('process', { service: 'other', spec: process })],
  });
  schedule(store);
  assert.equal(
    taskOf(store, 'docker').status.error,
    'no suitable node (runtime docker is not available on 2 nodes)',
  );
  assert.equal(taskOf(store, 'process').nodeId, 'a');
});

test('a preset node is only checked for fit, before other tasks take the room', () => {
  const spec = makeTaskSpec({ resources: { reservations: { nanoCpus: 3e9 } } });
  const store = makeStore({
    nodes: [makeNode('a'), makeNode('b', { spec: { availability: 'drain' } })],
    tasks: [
      makeTask('free', { service: 'r', spec }),
      makeTask('global-a', { service: 'g', node: 'a', slot: 0, spec }),
      makeTask('global-b', { service: 'g', node: 'b', slot: 0, spec }),
      makeTask('lost', { service: 'g', node: 'gone', slot: 0, spec }),
    ],
  });
  schedule(store);
  assert.equal(taskOf(store, 'global-a').status.state, 'assigned');
  assert.equal(
    taskOf(store, 'global-b').status.error,
    'no suitable node (1 node not available for new tasks)',
  );
  assert.equal(taskOf(store, 'lost').status.error, '');
  assert.match(taskOf(store, 'free').status.error, /insufficient resources on 1 node/);
});

test('reservations are held until a task has left RUNNING, whatever is desired of it', () => {
  const spec = makeTaskSpec({ resources: { reservations: { memoryBytes: 6 * 1024 ** 3 } } });
  const store = makeStore({
    nodes: [makeNode('n')],
    tasks: [
      makeTask('old', { spec, node: 'n', desiredState: 'shutdown', status: { state: 'running' } }),
      makeTask('new', { spec }),
    ],
  });
  schedule(store);
  assert.match(taskOf(store, 'new').status.error, /insufficient resources/);
  const old = taskOf(store, 'old');
  applyAll(store, [
    { kind: 'patch-task', id: old.id, expect: null, patch: { status: { ...old.status, state: 'shutdown' } } },
  ]);
  schedule(store);
  assert.equal(taskOf(store, 'new').nodeId, 'n');
});

test('a node with five recent failures of this version is used last', () => {
  const failures = (specVersion: number, at: number): Task[] =>
    Array.from({ length: 5 }, (_, index) =>
      makeTask(`f${index}`, {
        node: 'a',
        desiredState: 'shutdown',
        specVersion,
        status: { state: 'failed', at },
      }),
    );
  const nodeOfNew = (failed: Task[]): string => {
    const store = makeStore({
      nodes: [makeNode('a'), makeNode('b')],
      tasks: [
        ...failed,
        makeTask('load', { service: 'x', node: 'b', status: { state: 'running' } }),
        makeTask('t'),
      ],
    });
    schedule(store);
    return taskOf(store, 't').nodeId;
  };
  assert.equal(nodeOfNew(failures(1, NOW_MS - 60_000)), 'b');
  assert.equal(nodeOfNew(failures(1, NOW_MS - 301_000)), 'a', 'five minutes later they no longer count');
  assert.equal(nodeOfNew(failures(2, NOW_MS - 60_000)), 'a', 'another spec version is another matter');
  assert.equal(nodeOfNew(failures(1, NOW_MS - 60_000).slice(1)), 'a', 'four do not count');
});

test('a reason is written once, and its counts are refreshed at most every 30 seconds', () => {
  const store = makeStore({
    nodes: [makeNode('a')],
    tasks: Array.from({ length: 50 }, (_, index) => makeTask(`t${index}`, { spec: impossible })),
  });
  assert.equal(schedule(store), 50);
  assert.equal(schedule(store), 0);
  applyAll(store, [{ kind: 'create', table: 'node', object: makeNode('b') }]);
  const plan = planScheduling(store, planContext(NOW_MS + 1_000));
  assert.deepEqual(plan.actions, [], 'a node that joins rewrites nothing at once');
  assert.equal(plan.wakeAt, NOW_MS + REASON_REFRESH_MS);
  assert.equal(schedule(store, NOW_MS + REASON_REFRESH_MS), 50);
  assert.equal(
    taskOf(store, 't0').status.error,
    'no suitable node (scheduling constraints not satisfied on 2 nodes)',
  );
  applyAll(
    store,
    [{ kind: 'create', table: 'node', object: makeNode('c', { state: 'down' }) }],
    NOW_MS + REASON_REFRESH_MS,
  );
  assert.equal(
    schedule(store, NOW_MS + REASON_REFRESH_MS + 1),
    50,
    'another kind of reason is written at once',
  );
  assert.match(taskOf(store, 't0').status.error, /on 2 nodes; 1 node not available/);
});

test('one-task services with a spread preference do not pile up in the first zone', () => {
  const spec = makeTaskSpec({ placement: { preferences: [{ spread: 'node.labels.zone' }] } });
  const store = makeStore({
    nodes: ['a', 'b', 'c'].map((zone) => makeNode(`n-${zone}`, { spec: { labels: { zone } } })),
    tasks: ['s1', 's2', 's3'].map((service) => makeTask(`t-${service}`, { service, spec })),
  });
  schedule(store);
  assert.equal(new Set([...store.all('task')].map((task) => task.nodeId)).size, 3);
});

test('the plan expects the versions it has seen', () => {
  const store = makeStore({ nodes: [makeNode('n')], tasks: [makeTask('t')] });
  const { actions } = planScheduling(store, planContext());
  const t = taskOf(store, 't');
  applyAll(store, [{ kind: 'patch-task', id: t.id, expect: null, patch: { desiredState: 'shutdown' } }]);
  const { result } = store.apply(store.index + 1, { at: NOW_MS, actions });
  assert.equal(result.ok, false);
});
