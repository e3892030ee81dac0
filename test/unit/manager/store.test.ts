import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { NodeId, TaskId } from '../../../src/model/ids.ts';
import { taskStateRank } from '../../../src/model/task-state.ts';
import type { Action, Batch } from '../../../src/manager/state/actions.ts';
import {
  decodeBatch,
  decodeCheckpoint,
  encodeBatch,
  encodeCheckpoint,
} from '../../../src/manager/state/codec.ts';
import { Store } from '../../../src/manager/state/store.ts';
import { aNode, aService, aServiceSpec, aTask } from '../../support/builders.ts';

function storeWith(...actions: Action[]): Store {
  const store = new Store();
  const { result } = store.apply(1, { at: 10, actions });
  assert.deepEqual(result, { ok: true, index: 1 });
  return store;
}

const create = (object: ReturnType<typeof aService>): Action => ({
  kind: 'create',
  table: 'service',
  object,
});

describe('store: apply', () => {
  it('stamps version and times of the entry', () => {
    const store = storeWith(create(aService('s1')));
    assert.deepEqual(store.get('service', 's1')?.meta, { version: 1, createdAt: 10, updatedAt: 10 });
    const object = aService('s1', { specVersion: 2 });
    store.apply(7, { at: 50, actions: [{ kind: 'update', table: 'service', object, expect: 1 }] });
    assert.deepEqual(store.get('service', 's1')?.meta, { version: 7, createdAt: 10, updatedAt: 50 });
  });

  it('refuses a stale version and leaves nothing of the batch behind', () => {
    const store = storeWith(create(aService('s1')));
    const { result, changes } = store.apply(2, {
      at: 20,
      actions: [
        create(aService('s2')),
        { kind: 'update', table: 'service', object: aService('s1', { specVersion: 9 }), expect: 99 },
      ],
    });
    assert.equal(result.ok, false);
    assert.deepEqual(changes, []);
    assert.equal(store.get('service', 's2'), undefined);
    assert.equal(store.byName('service', 's2'), undefined);
    assert.equal(store.get('service', 's1')?.specVersion, 1);
    assert.equal(store.index, 2);
  });

  it('keeps names unique, and frees the name of a service on its way out', () => {
    const store = storeWith(create(aService('s1', { spec: aServiceSpec('web') })));
    const again = create(aService('s2', { spec: aServiceSpec('web') }));
    const taken = store.apply(2, { at: 1, actions: [again] }).result;
    assert.deepEqual(taken, { ok: false, refusal: { kind: 'name-taken', table: 'service', name: 'web' } });
    const leaving = aService('s1', { spec: aServiceSpec('web'), pendingDelete: true });
    store.apply(3, { at: 1, actions: [{ kind: 'update', table: 'service', object: leaving, expect: 1 }] });
    assert.equal(store.apply(4, { at: 1, actions: [again] }).result.ok, true);
    store.apply(5, { at: 1, actions: [{ kind: 'delete', table: 'service', id: 's1', expect: null }] });
    assert.equal(store.byName('service', 'web')?.id, 's2');
  });

  it('drops a report that goes back, or comes from another node', () => {
    const store = storeWith({
      kind: 'create',
      table: 'task',
      object: aTask('t1', 's1', 'running', { nodeId: 'n1' as NodeId }),
    });
    const report = (nodeId: string, state: 'starting' | 'failed'): Action => ({
      kind: 'report-task',
      id: 't1' as TaskId,
      nodeId: nodeId as NodeId,
      status: { state, at: 5, message: '', error: '' },
    });
    store.apply(2, { at: 1, actions: [report('n1', 'starting'), report('n2', 'failed')] });
    assert.equal(store.get('task', 't1')?.status.state, 'running');
    store.apply(3, { at: 1, actions: [report('n1', 'failed')] });
    assert.equal(store.get('task', 't1')?.status.state, 'failed');
  });

  it('never lowers a desired state', () => {
    const store = storeWith({
      kind: 'create',
      table: 'task',
      object: aTask('t1', 's1', 'running', { desiredState: 'shutdown' }),
    });
    store.apply(2, {
      at: 1,
      actions: [{ kind: 'patch-task', id: 't1' as TaskId, patch: { desiredState: 'running' }, expect: null }],
    });
    assert.equal(store.get('task', 't1')?.desiredState, 'shutdown');
  });
});

describe('store: tentative plans', () => {
  it('rolls everything back and returns one action an object', () => {
    const store = storeWith(
      { kind: 'create', table: 'task', object: aTask('t1', 's1', 'running', { nodeId: 'n1' as NodeId }) },
      create(aService('s1')),
    );
    const before = JSON.stringify(store.contents());
    const net = store.tentatively(99, (apply) => {
      assert.equal(apply([{ kind: 'create', table: 'task', object: aTask('t2', 's1', 'new') }]), null);
      apply([{ kind: 'patch-task', id: 't2' as TaskId, patch: { nodeId: 'n1' as NodeId }, expect: null }]);
      apply([{ kind: 'patch-task', id: 't1' as TaskId, patch: { desiredState: 'shutdown' }, expect: null }]);
      apply([{ kind: 'create', table: 'node', object: aNode('gone') }]);
      apply([{ kind: 'delete', table: 'node', id: 'gone', expect: null }]);
      assert.deepEqual(
        [...store.tasksOfNode('n1' as NodeId)].map((task) => task.id),
        ['t1', 't2'],
      );
    });
    assert.equal(JSON.stringify(store.contents()), before);
    assert.deepEqual(
      net.map((action) => action.kind),
      ['create', 'patch-task'],
    );
    assert.deepEqual(net[1], {
      kind: 'patch-task',
      id: 't1',
      patch: { desiredState: 'shutdown' },
      expect: null,
    });
  });

  it('a refused step leaves the steps before it', () => {
    const store = storeWith(create(aService('s1')));
    const net = store.tentatively(1, (apply) => {
      assert.equal(apply([create(aService('s2'))]), null);
      assert.equal(apply([create(aService('s3')), create(aService('s1'))])?.kind, 'exists');
    });
    assert.deepEqual(
      net.map((action) => action.kind === 'create' && action.object.id),
      ['s2'],
    );
    assert.equal(store.get('service', 's2'), undefined);
  });
});

/** Random batches over a few ids: creations, stale updates, deletions, patches and reports. */
const states = Object.keys(taskStateRank) as (keyof typeof taskStateRank)[];
const arbitraryAction: fc.Arbitrary<Action> = fc.oneof(
  fc
    .record({ id: fc.constantFrom('a', 'b', 'c'), slot: fc.nat(3), node: fc.constantFrom('', 'n1', 'n2') })
    .map(
      ({ id, slot, node }): Action => ({
        kind: 'create',
        table: 'task',
        object: aTask(id, 's1', 'new', { slot, nodeId: node as NodeId }),
      }),
    ),
  fc
    .record({ id: fc.constantFrom('s1', 's2'), name: fc.constantFrom('x', 'y'), gone: fc.boolean() })
    .map(
      ({ id, name, gone }): Action => create(aService(id, { spec: aServiceSpec(name), pendingDelete: gone })),
    ),
  fc.record({ id: fc.constantFrom('s1', 's2'), name: fc.constantFrom('x', 'y'), expect: fc.nat(6) }).map(
    ({ id, name, expect }): Action => ({
      kind: 'update',
      table: 'service',
      object: aService(id, { spec: aServiceSpec(name) }),
      expect,
    }),
  ),
  fc
    .record({
      table: fc.constantFrom('task' as const, 'service' as const),
      id: fc.constantFrom('a', 'b', 's1'),
    })
    .map(({ table, id }): Action => ({ kind: 'delete', table, id, expect: null })),
  fc.record({ id: fc.constantFrom('a', 'b'), node: fc.constantFrom('n1', 'n2') }).map(
    ({ id, node }): Action => ({
      kind: 'patch-task',
      id: id as TaskId,
      patch: { nodeId: node as NodeId },
      expect: null,
    }),
  ),
  fc
    .record({
      id: fc.constantFrom('a', 'b'),
      node: fc.constantFrom('n1', 'n2'),
      state: fc.constantFrom(...states),
    })
    .map(
      ({ id, node, state }): Action => ({
        kind: 'report-task',
        id: id as TaskId,
        nodeId: node as NodeId,
        status: { state, at: 1, message: '', error: '' },
      }),
    ),
);
const arbitraryBatches = fc.array(fc.array(arbitraryAction, { maxLength: 4 }), { maxLength: 12 });

/** Everything a reader can see, independent of iteration order. */
function visible(store: Store): unknown {
  const sorted = (tasks: Iterable<{ id: string }>): string[] => [...tasks].map((task) => task.id).sort();
  const { index, tables } = store.contents();
  const objects = Object.entries(tables).map(([name, list]) => [
    name,
    [...list].sort((a, b) => (a.id < b.id ? -1 : 1)),
  ]);
  return {
    index,
    objects,
    byService: ['s1', 's2'].map((id) => sorted(store.tasksOfService(id as never))),
    byNode: ['n1', 'n2'].map((id) => sorted(store.tasksOfNode(id as NodeId))),
    names: ['x', 'y'].map((name) => store.byName('service', name)?.id),
  };
}

describe('store: properties', () => {
  it('a store rebuilt from its checkpoint, and a replica fed the encoded log, show the same', () => {
    fc.assert(
      fc.property(arbitraryBatches, (batches) => {
        const store = new Store();
        const replica = new Store();
        batches.forEach((actions, i) => {
          const batch: Batch = { at: i, actions };
          store.apply(i + 1, batch);
          const decoded = decodeBatch(encodeBatch(batch));
          assert.ok(decoded.ok);
          replica.apply(i + 1, decoded.value);
        });
        assert.deepEqual(visible(replica), visible(store));
        const contents = decodeCheckpoint(encodeCheckpoint(store.contents()));
        assert.ok(contents.ok);
        const restored = new Store();
        restored.load(contents.value);
        assert.deepEqual(visible(restored), visible(store));
      }),
      { numRuns: 300 },
    );
  });

  it('the net actions of a tentative plan have its effect, and the plan leaves no trace', () => {
    fc.assert(
      fc.property(arbitraryBatches, arbitraryBatches, (history, plan) => {
        const store = new Store();
        history.forEach((actions, i) => store.apply(i + 1, { at: i, actions }));
        const before = visible(store);
        let planned: unknown;
        const at = history.length + 1;
        const net = store.tentatively(at, (apply) => {
          for (const actions of plan) apply(actions);
          planned = visible(store);
        });
        assert.deepEqual(visible(store), before);
        const { result } = store.apply(at, { at, actions: net });
        assert.equal(result.ok, true);
        assert.deepEqual(strip(visible(store)), strip(planned));
      }),
      { numRuns: 300 },
    );
  });
});

/** Without versions and times, which differ between a plan of several steps and one batch. */
function strip(value: unknown): unknown {
  return JSON.parse(
    JSON.stringify(value, (key, inner) => (key === 'meta' || key === 'index' ? undefined : inner)),
  );
}
