import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { planAllocation, planAttachments } from '../../../src/manager/allocator/allocator.ts';
import {
  blocksOverlap,
  lastAddress,
  parseAttachmentAddress,
  parseBlock,
} from '../../../src/manager/allocator/ipv4.ts';
import type { Action } from '../../../src/manager/state/actions.ts';
import { Store } from '../../../src/manager/state/store.ts';
import type { NetworkId } from '../../../src/model/ids.ts';
import type { ClusterNode, Network, Service, Task } from '../../../src/model/objects.ts';
import type { PortConfig } from '../../../src/model/spec.ts';
import { isTerminalState } from '../../../src/model/task-state.ts';
import {
  applyAll,
  makeCluster,
  makeNetwork,
  makeNode,
  makeService,
  makeStore,
  makeTask,
  makeTaskSpec,
  planContext,
} from '../../support/planner-fixtures.ts';

const networkIds = ['app', 'db', 'tiny', 'ingress'] as const;

type Step =
  | { readonly kind: 'network'; readonly pick: number; readonly subnet: string | null }
  | { readonly kind: 'service'; readonly pick: number; readonly ports: readonly PortConfig[] }
  | { readonly kind: 'task'; readonly service: number; readonly networks: readonly string[] }
  | { readonly kind: 'assign'; readonly pick: number; readonly node: number }
  | { readonly kind: 'end'; readonly pick: number }
  | { readonly kind: 'forget'; readonly pick: number }
  | { readonly kind: 'failover' };

const port = fc.record({
  protocol: fc.constantFrom<PortConfig['protocol']>('tcp', 'udp'),
  targetPort: fc.integer({ min: 1, max: 3 }),
  publishedPort: fc.constantFrom(0, 0, 80, 81, 30_000),
  publishMode: fc.constantFrom<PortConfig['publishMode']>('ingress', 'ingress', 'host'),
});

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    kind: fc.constant('network' as const),
    pick: fc.nat({ max: 3 }),
    subnet: fc.constantFrom(null, '10.0.0.0/24', '10.0.0.0/29', '10.0.1.0/16', 'bad'),
  }),
  fc.record({
    kind: fc.constant('service' as const),
    pick: fc.nat({ max: 3 }),
    ports: fc.uniqueArray(port, {
      maxLength: 3,
      selector: (item) => `${item.protocol}/${item.publishedPort}/${item.targetPort}`,
    }),
  }),
  fc.record({
    kind: fc.constant('task' as const),
    service: fc.nat({ max: 3 }),
    networks: fc.subarray(['app', 'db', 'tiny']),
  }),
  fc.record({ kind: fc.constant('assign' as const), pick: fc.nat(), node: fc.nat({ max: 2 }) }),
  fc.record({ kind: fc.constant('end' as const), pick: fc.nat() }),
  fc.record({ kind: fc.constant('forget' as const), pick: fc.nat() }),
  fc.record({ kind: fc.constant('failover' as const) }),
);

function pickTask(store: Store, pick: number, wanted: (task: Task) => boolean): Task | null {
  const tasks = [...store.all('task')].filter(wanted);
  return tasks.length === 0 ? null : (tasks[pick % tasks.length] as Task);
}

function patchState(
  task: Task,
  state: Task['status']['state'],
  rest: Partial<Pick<Task, 'nodeId'>> = {},
): Action {
  return {
    kind: 'patch-task',
    id: task.id,
    expect: null,
    patch: { ...rest, status: { ...task.status, state } },
  };
}

/** The actions of one step of churn. Only what other parts of the manager could do. */
function actionsOf(store: Store, item: Step, serial: number): readonly Action[] {
  switch (item.kind) {
    case 'network': {
      const id = networkIds[item.pick] ?? 'app';
      const inUse = [...store.all('task')].some((task) =>
        task.spec.networks.some(({ target }) => target === id),
      );
      if (store.get('network', id) !== undefined)
        return inUse || id === 'ingress' ? [] : [{ kind: 'delete', table: 'network', id, expect: null }];
      const spec = { ingress: id === 'ingress', ...(item.subnet === null ? {} : { subnet: item.subnet }) };
      return [{ kind: 'create', table: 'network', object: makeNetwork(id, spec) }];
    }
    case 'service': {
      const id = `s${item.pick}`;
      const endpoint = { mode: 'vip', ports: item.ports } as const;
      const current = store.get('service', id);
      if (current === undefined)
        return [{ kind: 'create', table: 'service', object: makeService(id, { spec: { endpoint } }) }];
      const object: Service = { ...current, spec: { ...current.spec, endpoint } };
      return [{ kind: 'update', table: 'service', object, expect: current.meta.version }];
    }
    case 'task': {
      const spec = makeTaskSpec({
        networks: item.networks.map((id) => ({ target: id as NetworkId, aliases: [] })),
      });
      const object = makeTask(`t${serial}`, { service: `s${item.service}`, spec, status: { state: 'new' } });
      return [{ kind: 'create', table: 'task', object }];
    }
    case 'assign': {
      const task = pickTask(store, item.pick, (one) => one.status.state === 'pending');
      const node = store.get('node', `n${item.node}`) as ClusterNode;
      return task === null ? [] : [patchState(task, 'running', { nodeId: node.id })];
    }
    case 'end': {
      const task = pickTask(store, item.pick, (one) => !isTerminalState(one.status.state));
      return task === null ? [] : [patchState(task, 'failed')];
    }
    case 'forget': {
      const task = pickTask(store, item.pick, (one) => isTerminalState(one.status.state));
      return task === null ? [] : [{ kind: 'delete', table: 'task', id: task.id, expect: null }];
    }
    case 'failover':
      return [];
  }
}

function assertUnique(items: readonly string[], what: string): void {
  assert.equal(new Set(items).size, items.length, `${what}: ${items.toSorted().join(' ')}`);
}

function assertSound(store: Store): void {
  const allocated = [...store.all('network')].filter((network) => network.subnet !== '');
  assertUnique(
    allocated.map((network) => `${network.vni}`),
    'identifiers',
  );
  const blocks = allocated.map((network) => {
    const block = parseBlock(network.subnet);
    assert.ok(block.ok);
    return { network, block: block.value };
  });
  for (const [index, a] of blocks.entries()) {
    for (const b of blocks.slice(index + 1))
      assert.ok(!blocksOverlap(a.block, b.block), `${a.network.subnet} ${b.network.subnet}`);
  }
  const held: string[] = [];
  const note = (networkId: string, text: string): void => {
    held.push(`${networkId}/${text}`);
    const entry = blocks.find(({ network }) => network.id === networkId);
    const address = parseAttachmentAddress(text);
    assert.ok(entry !== undefined && address !== null);
    assert.ok(address > entry.block.first && address < lastAddress(entry.block), 'inside, and neither end');
  };
  for (const task of store.all('task')) {
    if (isTerminalState(task.status.state)) continue;
    for (const { networkId, address } of task.networks) note(networkId, address);
    if (task.status.state === 'new') assert.ok(task.networks.length === 0);
  }
  for (const node of store.all('node')) {
    assertUnique(
      node.attachments.map(({ networkId }) => networkId),
      'one gateway a node and network',
    );
    for (const { networkId, address } of node.attachments) note(networkId, address);
  }
  assertUnique(held, 'addresses');
  const ports = [...store.all('service')].flatMap((service) =>
    service.endpoint.ports
      .filter(({ publishMode }) => publishMode === 'ingress')
      .map(({ protocol, publishedPort }) => `${protocol}/${publishedPort}`),
  );
  assertUnique(ports, 'ingress ports');
  assert.ok(!ports.some((text) => text.endsWith('/0')));
}

test('under churn and failovers nothing is given twice, and allocations stay', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      let store = makeStore({
        clusters: [makeCluster({ defaultAddressPool: ['10.0.0.0/22'], subnetSize: 24 })],
        nodes: ['n0', 'n1', 'n2'].map((id) => makeNode(id)),
        networks: [makeNetwork('tiny', { subnet: '10.9.0.0/29' })],
      });
      for (const [serial, item] of steps.entries()) {
        if (item.kind === 'failover') {
          const next = new Store();
          next.load(store.contents());
          store = next;
        }
        const actions = actionsOf(store, item, serial);
        if (actions.length > 0) applyAll(store, actions);
        if (item.kind === 'assign') applyAll(store, planAttachments(store).actions);
        const before = new Map<string, Network>(
          [...store.all('network')].map((network) => [network.id, network]),
        );
        applyAll(store, planAllocation(store, planContext()).actions);
        assertSound(store);
        for (const network of store.all('network')) {
          const old = before.get(network.id);
          if (old !== undefined && old.subnet !== '') assert.equal(network.subnet, old.subnet);
        }
        assert.deepEqual(
          planAllocation(store, planContext()).actions,
          [],
          'a second plan has nothing to add',
        );
      }
    }),
    { numRuns: 200 },
  );
});

test('the same state gives the same plan', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
      const store = makeStore({ nodes: ['n0', 'n1', 'n2'].map((id) => makeNode(id)) });
      for (const [serial, item] of steps.entries()) {
        const actions = actionsOf(store, item, serial);
        if (actions.length > 0) applyAll(store, actions);
      }
      assert.deepEqual(planAllocation(store, planContext()), planAllocation(store, planContext()));
    }),
    { numRuns: 50 },
  );
});
