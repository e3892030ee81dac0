import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { DispatcherCore } from '../../../src/manager/dispatcher/core.ts';
import { completeSet } from '../../../src/manager/dispatcher/items.ts';
import type { Action } from '../../../src/manager/state/actions.ts';
import { Store } from '../../../src/manager/state/store.ts';
import type { NetworkId, NodeId, SecretId, TaskId } from '../../../src/model/ids.ts';
import type { ClusterNode, Task } from '../../../src/model/objects.ts';
import type { AssignmentItem, SessionMessage } from '../../../src/model/wire.ts';
import { aNetwork, aNode, aService, aTask, aTaskSpec } from '../../support/builders.ts';

type AssignmentMessage = Extract<SessionMessage, { kind: 'assignments' }>;

/** A worker's view: applies messages as the wire says. */
class Mirror {
  items = new Map<string, AssignmentItem>();
  #sequence = 0;

  take(message: AssignmentMessage): void {
    if (message.type === 'complete') {
      this.items = new Map();
      this.#sequence = 1;
    } else {
      assert.ok(
        message.sequence === this.#sequence + 1 || message.sequence === this.#sequence,
        'sequence has a gap',
      );
      this.#sequence = message.sequence;
    }
    for (const { kind, id } of message.remove) this.items.delete(`${kind}/${id}`);
    for (const item of message.put) this.items.set(`${item.kind}/${item.id}`, item);
  }
}

/** What a worker acts on: statuses and versions are not part of an assignment. */
function normal(items: readonly AssignmentItem[]): unknown {
  const plain = items.map((item) =>
    item.kind === 'task' ? { ...item, value: { ...item.value, status: null, meta: null } } : item,
  );
  return plain.sort((a, b) => (`${a.kind}/${a.id}` < `${b.kind}/${b.id}` ? -1 : 1));
}

function clusterOf(...actions: Action[]): Store {
  const store = new Store();
  assert.equal(store.apply(1, { at: 1, actions }).result.ok, true);
  return store;
}

const created = (object: Task): Action => ({ kind: 'create', table: 'task', object });
const node = (id: string, over: Parameters<typeof aNode>[1] = {}): Action => ({
  kind: 'create',
  table: 'node',
  object: aNode(id, over),
});
const HEARTBEAT = { heartbeatMs: 1_000, nowMs: 0 };

describe('dispatcher: sessions', () => {
  it('expires a node after three missed heartbeats, once', () => {
    const store = clusterOf(node('n1'));
    const core = new DispatcherCore(store, HEARTBEAT);
    core.open(store, store.get('node', 'n1') as ClusterNode, 'session-1', 0);
    assert.equal(core.heartbeat('n1' as NodeId, 'session-1', 2_000), 'ok');
    assert.equal(core.nextExpiryMs(), 5_000);
    assert.deepEqual(core.expire(4_999), []);
    assert.deepEqual(core.expire(5_000), ['n1']);
    assert.deepEqual(core.expire(9_000), []);
    assert.equal(core.heartbeat('n1' as NodeId, 'session-1', 9_000), 'unknown-session');
  });

  it('a newer session ends the older one', () => {
    const store = clusterOf(node('n1'));
    const core = new DispatcherCore(store, HEARTBEAT);
    const object = store.get('node', 'n1') as ClusterNode;
    core.open(store, object, 'old', 0);
    core.open(store, object, 'new', 1);
    assert.equal(core.heartbeat('n1' as NodeId, 'old', 2), 'unknown-session');
    assert.equal(core.isCurrent('n1' as NodeId, 'new'), true);
  });

  it('a new leader waits five periods for nodes it has not heard from', () => {
    const store = clusterOf(node('n1'), node('n2', { status: { state: 'down', message: '', address: '' } }));
    const core = new DispatcherCore(store, HEARTBEAT);
    assert.deepEqual(core.expire(4_999), []);
    assert.deepEqual(core.expire(5_000), ['n1']);
  });
});

describe('dispatcher: assignments', () => {
  it('sends a task only once its node is on the task’s networks', () => {
    const store = clusterOf(node('n1'), { kind: 'create', table: 'network', object: aNetwork('net1') });
    const core = new DispatcherCore(store, HEARTBEAT);
    core.open(store, store.get('node', 'n1') as ClusterNode, 's', 0);
    const networks = [{ networkId: 'net1' as NetworkId, address: '10.0.1.5/24', aliases: [] }];
    const task = aTask('t1', 'web', 'assigned', { nodeId: 'n1' as NodeId, networks });
    core.changed(store, store.apply(2, { at: 2, actions: [created(task)] }).changes);
    assert.deepEqual(core.flush(store), []);
    const current = store.get('node', 'n1') as ClusterNode;
    const object = { ...current, attachments: [{ networkId: 'net1' as NetworkId, address: '10.0.1.2/24' }] };
    const action: Action = { kind: 'update', table: 'node', object, expect: current.meta.version };
    core.changed(store, store.apply(3, { at: 3, actions: [action] }).changes);
    const [update] = core.flush(store);
    assert.deepEqual(update?.messages[0]?.put.map((item) => item.kind).sort(), ['network', 'task']);
  });

  it('sends a secret to the nodes of its tasks only, and takes it back', () => {
    const container = {
      ...aTaskSpec().container,
      secrets: [
        { id: 'sec' as SecretId, name: 'sec', file: { name: 'sec', uid: '0', gid: '0', mode: 0o400 } },
      ],
    };
    const secret: Action = {
      kind: 'create',
      table: 'secret',
      object: {
        id: 'sec' as SecretId,
        meta: { version: 0, createdAt: 0, updatedAt: 0 },
        spec: { name: 'sec', labels: {}, data: 'eA==' },
      },
    };
    const store = clusterOf(node('n1'), node('n2'), secret);
    const core = new DispatcherCore(store, HEARTBEAT);
    for (const id of ['n1', 'n2']) core.open(store, store.get('node', id) as ClusterNode, id, 0);
    const task = aTask('t1', 'web', 'assigned', { nodeId: 'n1' as NodeId, spec: aTaskSpec({ container }) });
    core.changed(store, store.apply(2, { at: 2, actions: [created(task)] }).changes);
    const kinds = core
      .flush(store)
      .map(({ nodeId, messages }) => [nodeId, messages[0]?.put.map((item) => item.kind)]);
    assert.deepEqual(kinds, [['n1', ['secret', 'task']]]);
    core.changed(
      store,
      store.apply(3, { at: 3, actions: [{ kind: 'delete', table: 'task', id: 't1', expect: null }] }).changes,
    );
    const [update] = core.flush(store);
    assert.deepEqual(update?.messages[0]?.remove.map((item) => item.kind).sort(), ['secret', 'task']);
  });

  it('cuts a large set into messages of which only the last is complete', () => {
    const tasks = Array.from({ length: 1_000 }, (_, i) =>
      created(aTask(`t${i}`, 'web', 'assigned', { nodeId: 'n1' as NodeId })),
    );
    const store = clusterOf(node('n1'), ...tasks);
    const core = new DispatcherCore(store, HEARTBEAT);
    const messages = core.open(store, store.get('node', 'n1') as ClusterNode, 's', 0);
    assert.ok(messages.length > 1);
    assert.deepEqual(
      messages.map((message) => message.more),
      messages.map((_, i) => i < messages.length - 1),
    );
    assert.equal(
      messages.reduce((sum, message) => sum + message.put.length, 0),
      1_000,
    );
  });
});

const nodeIds = ['n1', 'n2', 'n3'];
const attachments = fc
  .uniqueArray(fc.constantFrom('net1', 'net2'), { maxLength: 2 })
  .map((ids) => ids.map((id, i) => ({ networkId: id as NetworkId, address: `10.0.${i}.2/24` })));
/** One step of a cluster's life: each is a batch the managers might really write. */
const step = fc.oneof(
  fc.record({
    kind: fc.constant('task' as const),
    id: fc.nat(4),
    nodeId: fc.constantFrom(...nodeIds),
    net: fc.option(fc.constantFrom('net1', 'net2')),
  }),
  fc.record({
    kind: fc.constant('report' as const),
    id: fc.nat(4),
    state: fc.constantFrom('running' as const, 'failed' as const),
    healthy: fc.boolean(),
  }),
  fc.record({
    kind: fc.constant('desired' as const),
    id: fc.nat(4),
    desired: fc.constantFrom('running' as const, 'shutdown' as const),
  }),
  fc.record({ kind: fc.constant('delete' as const), id: fc.nat(4) }),
  fc.record({
    kind: fc.constant('node' as const),
    nodeId: fc.constantFrom(...nodeIds),
    down: fc.boolean(),
    address: fc.constantFrom('10.9.0.1', '10.9.0.2'),
    attachments,
  }),
  fc.record({ kind: fc.constant('service' as const), id: fc.nat(2), gone: fc.boolean() }),
  fc.record({ kind: fc.constant('flush' as const) }),
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

function actionsOf(store: Store, one: Step, next: number): Action[] {
  switch (one.kind) {
    case 'task': {
      const networks =
        one.net === null ? [] : [{ networkId: one.net as NetworkId, address: '10.0.0.9/24', aliases: [] }];
      // Ids are never used twice, as in life.
      return [
        created(aTask(`t${one.id}-${next}`, 's0', 'assigned', { nodeId: one.nodeId as NodeId, networks })),
      ];
    }
    case 'report':
    case 'desired':
    case 'delete': {
      const task = [...store.all('task')].find((candidate) => candidate.id.startsWith(`t${one.id}-`));
      if (task === undefined) return [];
      if (one.kind === 'delete') return [{ kind: 'delete', table: 'task', id: task.id, expect: null }];
      if (one.kind === 'desired')
        return [{ kind: 'patch-task', id: task.id, patch: { desiredState: one.desired }, expect: null }];
      const status = { state: one.state, at: 1, message: '', error: '', healthy: one.healthy };
      return [{ kind: 'report-task', id: task.id as TaskId, nodeId: task.nodeId as NodeId, status }];
    }
    case 'node': {
      const current = store.get('node', one.nodeId) as ClusterNode;
      const status = {
        state: one.down ? ('down' as const) : ('ready' as const),
        message: '',
        address: one.address,
      };
      return [
        {
          kind: 'update',
          table: 'node',
          object: { ...current, status, attachments: one.attachments },
          expect: current.meta.version,
        },
      ];
    }
    case 'service': {
      const current = store.get('service', `s${one.id}`);
      if (current === undefined)
        return [{ kind: 'create', table: 'service', object: aService(`s${one.id}`) }];
      if (one.gone) return [{ kind: 'delete', table: 'service', id: current.id, expect: null }];
      return [
        {
          kind: 'update',
          table: 'service',
          object: { ...current, specVersion: next },
          expect: current.meta.version,
        },
      ];
    }
    case 'flush':
      return [];
  }
}

describe('dispatcher: property', () => {
  it('the differences add up to what a fresh session would be sent', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const store = clusterOf(
          ...nodeIds.map((id) => node(id)),
          { kind: 'create', table: 'network', object: aNetwork('net1') },
          { kind: 'create', table: 'network', object: aNetwork('net2') },
        );
        const core = new DispatcherCore(store, HEARTBEAT);
        const mirrors = new Map(nodeIds.map((id) => [id, new Mirror()]));
        const deliver = (nodeId: string, messages: AssignmentMessage[]): void =>
          messages.forEach((message) => mirrors.get(nodeId)?.take(message));
        for (const id of nodeIds) deliver(id, core.open(store, store.get('node', id) as ClusterNode, id, 0));
        let index = 1;
        for (const one of [...steps, { kind: 'flush' as const }]) {
          index += 1;
          core.changed(
            store,
            store.apply(index, { at: index, actions: actionsOf(store, one, index) }).changes,
          );
          if (one.kind === 'flush')
            for (const { nodeId, messages } of core.flush(store)) deliver(nodeId, messages);
        }
        for (const id of nodeIds) {
          const expected = withoutDetached(store, completeSet(store, store.get('node', id) as ClusterNode));
          assert.deepEqual(
            normal(withoutDetached(store, [...(mirrors.get(id)?.items.values() ?? [])])),
            normal(expected),
            `node ${id}`,
          );
        }
      }),
      { numRuns: 500 },
    );
  });
});

/**
 * A task that was sent stays with its worker when the node is detached from its network (the worker is running it),
 * while a fresh session would wait: the one intended difference.
 */
function withoutDetached(store: Store, items: AssignmentItem[]): AssignmentItem[] {
  return items.filter((item) => {
    if (item.kind !== 'task') return true;
    const owner = store.get('node', item.value.nodeId);
    return item.value.networks.every((network) =>
      owner?.attachments.some((own) => own.networkId === network.networkId),
    );
  });
}
