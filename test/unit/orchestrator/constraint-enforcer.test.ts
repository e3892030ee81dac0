import assert from 'node:assert/strict';
import test from 'node:test';
import { planEnforcement, REJECTED_MESSAGE } from '../../../src/manager/orchestrator/constraint-enforcer.ts';
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
  type NodeOptions,
} from '../../support/planner-fixtures.ts';

const onSsd = makeTaskSpec({ placement: { constraints: ['node.labels.disk==ssd'] } });
const reserving = (memoryBytes: number) => makeTaskSpec({ resources: { reservations: { memoryBytes } } });

function enforce(node: NodeOptions, tasks: readonly Task[]): Store {
  const store = makeStore({ nodes: [makeNode('n', node)], tasks });
  applyAll(store, planEnforcement(store, planContext()).actions);
  return store;
}

const rejectedIn = (store: Store): string[] =>
  [...store.all('task')].filter((task) => task.status.state === 'rejected').map((task) => task.id);

const running = (id: string, overrides: Parameters<typeof makeTask>[1] = {}): Task =>
  makeTask(id, { node: 'n', ...overrides, status: { state: 'running', ...overrides.status } });

test('tasks whose constraints no longer hold are rejected; what is desired stays', () => {
  const tasks = [running('ssd', { spec: onSsd }), running('any')];
  assert.deepEqual(rejectedIn(enforce({ spec: { labels: { disk: 'SSD' } } }, tasks)), []);
  const store = enforce({ spec: { labels: { disk: 'hdd' } } }, tasks);
  assert.deepEqual(rejectedIn(store), ['ssd']);
  const task = store.get('task', 'ssd') as Task;
  assert.equal(task.desiredState, 'running');
  assert.equal(task.status.message, REJECTED_MESSAGE);
  assert.equal(task.status.error, 'assigned node no longer meets constraints');
  assert.equal(task.status.at, NOW_MS);
  assert.deepEqual(planEnforcement(store, planContext()).actions, []);
});

test('paused and drained nodes, ended tasks, stopping tasks and jobs are left alone', () => {
  for (const availability of ['pause', 'drain'] as const) {
    assert.deepEqual(rejectedIn(enforce({ spec: { availability } }, [running('t', { spec: onSsd })])), []);
  }
  const tasks = [
    running('stopping', { spec: onSsd, desiredState: 'shutdown' }),
    running('job', { spec: onSsd, desiredState: 'complete' }),
    running('ended', { spec: onSsd, status: { state: 'complete' } }),
    running('preset', { spec: onSsd, status: { state: 'pending' } }),
  ];
  assert.deepEqual(rejectedIn(enforce({}, tasks)), []);
});

test('where resources shrank the oldest tasks stay', () => {
  const at = (createdAt: number) => ({ version: 0, createdAt, updatedAt: createdAt });
  const resources = { nanoCpus: 4e9, memoryBytes: 2.5e9, generic: {} };
  const store = makeStore({ nodes: [makeNode('n', { description: { resources } })] });
  for (const [index, id] of ['c', 'a', 'b'].entries()) {
    const object = running(id, { spec: reserving(1e9), meta: at(index) });
    applyAll(store, [{ kind: 'create', table: 'task', object }], NOW_MS + index);
  }
  applyAll(store, planEnforcement(store, planContext()).actions);
  assert.deepEqual(rejectedIn(store), ['b']);
  assert.match((store.get('task', 'b') as Task).status.error, /no longer has the resources/);
});

test('generic resources and runtimes that went away', () => {
  const gpu = running('gpu', { genericResources: { gpu: 1 } });
  assert.deepEqual(rejectedIn(enforce({}, [gpu, running('plain')])), ['gpu']);
  const store = enforce({ description: { runtimes: ['process'] } }, [running('t')]);
  assert.equal(
    (store.get('task', 't') as Task).status.error,
    'assigned node no longer offers runtime docker',
  );
});
