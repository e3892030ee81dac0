import assert from 'node:assert/strict';
import test from 'node:test';
import {
  PENDING_MESSAGE,
  planAllocation,
  planAttachments,
} from '../../../src/manager/allocator/allocator.ts';
import type { Store } from '../../../src/manager/state/store.ts';
import type { NetworkId, ServiceId } from '../../../src/model/ids.ts';
import type { ClusterNode, Network, Service, Task } from '../../../src/model/objects.ts';
import type { PortConfig } from '../../../src/model/spec.ts';
import {
  applyAll,
  makeCluster,
  makeNetwork,
  makeNode,
  makeService,
  makeStore,
  makeTask,
  makeTaskSpec,
  NOW_MS,
  planContext,
} from '../../support/planner-fixtures.ts';

const tcp = (targetPort: number, publishedPort: number, rest: Partial<PortConfig> = {}): PortConfig => ({
  protocol: 'tcp',
  targetPort,
  publishedPort,
  publishMode: 'ingress',
  ...rest,
});

function allocate(store: Store): number {
  const { actions } = planAllocation(store, planContext());
  if (actions.length > 0) applyAll(store, actions);
  return actions.length;
}

const taskOf = (store: Store, id: string): Task => store.get('task', id) as Task;
const serviceOf = (store: Store, id: string): Service => store.get('service', id) as Service;
const networkOf = (store: Store, id: string): Network => store.get('network', id) as Network;
const nodeOf = (store: Store, id: string): ClusterNode => store.get('node', id) as ClusterNode;
const onNetwork = (...ids: string[]) =>
  makeTaskSpec({ networks: ids.map((id) => ({ target: id as NetworkId, aliases: ['web'] })) });

test('networks: explicit subnets first, then ingress, then the pool in order', () => {
  const store = makeStore({
    networks: [
      makeNetwork('app'),
      makeNetwork('fixed', { subnet: '10.0.0.0/24' }),
      makeNetwork('ingress', { ingress: true }),
      makeNetwork('host', { driver: 'host' }),
    ],
  });
  allocate(store);
  assert.equal(networkOf(store, 'fixed').subnet, '10.0.0.0/24');
  assert.equal(networkOf(store, 'ingress').subnet, '10.0.1.0/24');
  assert.equal(networkOf(store, 'app').subnet, '10.0.2.0/24');
  assert.equal(networkOf(store, 'host').subnet, '');
  assert.deepEqual(
    new Set(['fixed', 'ingress', 'app'].map((id) => networkOf(store, id).vni)),
    new Set([4096, 4097, 4098]),
  );
  assert.equal(allocate(store), 0, 'a second plan changes nothing');
});

test('networks: a bad, tiny or overlapping subnet is the reason on the tasks that wait for it', () => {
  const store = makeStore({
    networks: [
      makeNetwork('a', {}, { subnet: '10.5.0.0/16', vni: 4096 }),
      makeNetwork('overlapping', { subnet: '10.5.7.0/24' }),
      makeNetwork('bad', { subnet: 'nonsense' }),
      makeNetwork('tiny', { subnet: '10.6.0.0/30' }),
    ],
    services: [makeService('svc')],
    tasks: ['overlapping', 'bad', 'tiny', 'missing'].map((network) =>
      makeTask(`t-${network}`, { spec: onNetwork(network), status: { state: 'new' } }),
    ),
  });
  allocate(store);
  assert.match(
    taskOf(store, 't-overlapping').status.error,
    /overlapping.*10\.5\.7\.0\/24 overlaps 10\.5\.0\.0\/16 of network a/,
  );
  assert.match(taskOf(store, 't-bad').status.error, /'nonsense' is no IPv4 subnet/);
  assert.match(taskOf(store, 't-tiny').status.error, /too small/);
  assert.match(taskOf(store, 't-missing').status.error, /does not exist/);
  assert.equal(taskOf(store, 't-bad').status.state, 'new');
  assert.equal(allocate(store), 0, 'an unchanged reason is not written again');
  applyAll(store, [{ kind: 'delete', table: 'network', id: 'a', expect: null }]);
  allocate(store);
  assert.equal(
    taskOf(store, 't-overlapping').status.state,
    'pending',
    'tried again once the overlap is gone',
  );
});

test('networks: an exhausted pool is said, and retried', () => {
  const store = makeStore({
    clusters: [makeCluster({ defaultAddressPool: ['10.0.0.0/23'], subnetSize: 24 })],
    networks: ['a', 'b', 'c'].map((id) => makeNetwork(id)),
    services: [makeService('svc')],
    tasks: [makeTask('t', { spec: onNetwork('c'), status: { state: 'new' } })],
  });
  allocate(store);
  assert.match(taskOf(store, 't').status.error, /no free \/24 subnet in the address pool 10\.0\.0\.0\/23/);
  applyAll(store, [{ kind: 'delete', table: 'network', id: 'a', expect: null }]);
  allocate(store);
  assert.equal(taskOf(store, 't').status.state, 'pending');
  assert.match(taskOf(store, 't').networks[0]?.address ?? '', /^10\.0\.0\.\d+\/24$/);
});

test('tasks: addresses on each network and on ingress where ports are published, ports copied', () => {
  const published = { endpoint: { mode: 'vip', ports: [tcp(80, 8080)] } } as const;
  const store = makeStore({
    networks: [
      makeNetwork('ingress', { ingress: true }),
      makeNetwork('app'),
      makeNetwork('hostnet', { driver: 'host' }),
    ],
    services: [makeService('svc', { spec: published }), makeService('quiet')],
    tasks: [
      makeTask('t1', { spec: onNetwork('app', 'hostnet'), status: { state: 'new' } }),
      makeTask('t2', { service: 'quiet', spec: onNetwork('app'), status: { state: 'new' } }),
      makeTask('proc', { spec: { ...onNetwork('app'), runtime: 'process' }, status: { state: 'new' } }),
      makeTask('gone', { service: 'none', status: { state: 'new' } }),
    ],
  });
  allocate(store);
  const t1 = taskOf(store, 't1');
  assert.deepEqual(
    t1.networks.map((network) => network.networkId),
    ['app', 'ingress'],
  );
  assert.deepEqual(t1.networks[0]?.aliases, ['web']);
  assert.deepEqual(t1.endpointPorts, [tcp(80, 8080)]);
  assert.equal(t1.status.message, PENDING_MESSAGE);
  assert.deepEqual(
    taskOf(store, 't2').networks.map((network) => network.networkId),
    ['app'],
  );
  assert.deepEqual(taskOf(store, 'proc').networks, []);
  assert.deepEqual(taskOf(store, 'proc').endpointPorts, [tcp(80, 8080)]);
  assert.equal(taskOf(store, 'proc').status.state, 'pending');
  assert.equal(taskOf(store, 'gone').status.state, 'new');
});

test('tasks: a just-freed address is given out last', () => {
  const store = makeStore({
    networks: [makeNetwork('n', { subnet: '10.0.0.0/29' })],
    services: [makeService('svc')],
    tasks: [makeTask('a', { spec: onNetwork('n'), status: { state: 'new' } })],
  });
  allocate(store);
  const first = taskOf(store, 'a').networks[0]?.address;
  assert.equal(first, '10.0.0.1/29');
  const seen: (string | undefined)[] = [first];
  for (const [index, id] of ['b', 'c', 'd', 'e', 'f'].entries()) {
    // Each task ends before the next is made: only the order of reuse decides.
    const previous = taskOf(store, String.fromCharCode(id.charCodeAt(0) - 1));
    applyAll(store, [
      {
        kind: 'patch-task',
        id: previous.id,
        expect: null,
        patch: { status: { ...previous.status, state: 'failed', at: NOW_MS + index } },
      },
      {
        kind: 'create',
        table: 'task',
        object: makeTask(id, { spec: onNetwork('n'), status: { state: 'new' } }),
      },
    ]);
    allocate(store);
    seen.push(taskOf(store, id).networks[0]?.address);
  }
  assert.equal(new Set(seen).size, 6, 'all six addresses are used before one comes again');
  const last = taskOf(store, 'f');
  applyAll(store, [
    {
      kind: 'patch-task',
      id: last.id,
      expect: null,
      patch: { status: { ...last.status, state: 'failed', at: NOW_MS + 9 } },
    },
    {
      kind: 'create',
      table: 'task',
      object: makeTask('g', { spec: onNetwork('n'), status: { state: 'new' } }),
    },
  ]);
  allocate(store);
  assert.equal(taskOf(store, 'g').networks[0]?.address, first, 'then the one that was freed first');
});

test('tasks: an exhausted network is the reason on the task until an address is freed', () => {
  const ids = ['a', 'b', 'c', 'd', 'e', 'f', 'g'];
  const store = makeStore({
    networks: [makeNetwork('n', { subnet: '10.0.0.0/29' }), makeNetwork('other')],
    services: [makeService('svc')],
    tasks: ids.map((id) => makeTask(id, { spec: onNetwork('other', 'n'), status: { state: 'new' } })),
  });
  allocate(store);
  assert.match(taskOf(store, 'g').status.error, /no free address on network n \(10\.0\.0\.0\/29\)/);
  assert.deepEqual(taskOf(store, 'g').networks, []);
  assert.equal(allocate(store), 0);
  const a = taskOf(store, 'a');
  applyAll(store, [
    { kind: 'patch-task', id: a.id, expect: null, patch: { status: { ...a.status, state: 'shutdown' } } },
  ]);
  allocate(store);
  assert.equal(taskOf(store, 'g').networks[1]?.address, a.networks[1]?.address);
  assert.equal(taskOf(store, 'g').status.error, '');
});

test('ports: dynamic numbers are given, kept over updates, and freed with the service', () => {
  const store = makeStore({
    services: [
      makeService('a', { spec: { endpoint: { mode: 'vip', ports: [tcp(80, 0)] } } }),
      makeService('b', {
        spec: { endpoint: { mode: 'vip', ports: [tcp(80, 0), tcp(53, 0, { protocol: 'udp' })] } },
      }),
      makeService('c', { spec: { endpoint: { mode: 'vip', ports: [tcp(80, 30_000)] } } }),
      makeService('h', { spec: { endpoint: { mode: 'vip', ports: [tcp(80, 0, { publishMode: 'host' })] } } }),
    ],
  });
  allocate(store);
  assert.deepEqual(serviceOf(store, 'c').endpoint.ports, [tcp(80, 30_000)], 'fixed numbers go first');
  assert.equal(serviceOf(store, 'a').endpoint.ports[0]?.publishedPort, 30_001);
  assert.deepEqual(
    serviceOf(store, 'b').endpoint.ports.map((port) => port.publishedPort),
    [30_002, 30_000],
  );
  assert.deepEqual(serviceOf(store, 'h').endpoint.ports, [tcp(80, 0, { publishMode: 'host' })]);

  const b = serviceOf(store, 'b');
  const endpoint = { mode: 'vip', ports: [tcp(81, 0), tcp(80, 0)] } as const;
  applyAll(store, [
    {
      kind: 'update',
      table: 'service',
      object: { ...b, spec: { ...b.spec, endpoint } },
      expect: b.meta.version,
    },
  ]);
  allocate(store);
  assert.deepEqual(
    serviceOf(store, 'b').endpoint.ports.map((port) => port.publishedPort),
    [30_003, 30_002],
  );
  assert.equal(allocate(store), 0);
});

test('ports: a taken port is the reason on the newcomer’s tasks until it is freed', () => {
  const ports = [tcp(80, 8080)];
  const store = makeStore({
    services: [
      makeService('first', { spec: { endpoint: { mode: 'vip', ports } } }),
      makeService('second', { spec: { endpoint: { mode: 'vip', ports } } }),
      makeService('udp', {
        spec: { endpoint: { mode: 'vip', ports: [tcp(80, 8080, { protocol: 'udp' })] } },
      }),
    ],
    tasks: [makeTask('t', { service: 'second', status: { state: 'new' } })],
  });
  allocate(store);
  assert.equal(taskOf(store, 't').status.error, 'port tcp/8080 is already published by service first');
  assert.deepEqual(serviceOf(store, 'second').endpoint.ports, []);
  assert.equal(serviceOf(store, 'udp').endpoint.ports.length, 1, 'protocols do not collide');
  assert.equal(allocate(store), 0);
  applyAll(store, [{ kind: 'delete', table: 'service', id: 'first', expect: null }]);
  allocate(store);
  assert.equal(taskOf(store, 't').status.state, 'pending');
  assert.deepEqual(taskOf(store, 't').endpointPorts, ports);
});

test('ports: two services can swap; one that cannot move keeps what it has', () => {
  const service = (id: string, has: number, wants: number): Service =>
    makeService(id, {
      spec: { endpoint: { mode: 'vip', ports: [tcp(80, wants)] } },
      endpoint: { ports: has === 0 ? [] : [tcp(80, has)], virtualIps: [] },
    });
  const swapped = makeStore({ services: [service('a', 80, 81), service('b', 81, 80)] });
  allocate(swapped);
  assert.equal(serviceOf(swapped, 'a').endpoint.ports[0]?.publishedPort, 81);
  assert.equal(serviceOf(swapped, 'b').endpoint.ports[0]?.publishedPort, 80);

  const blocked = makeStore({ services: [service('a', 80, 82), service('b', 81, 80), service('c', 82, 82)] });
  allocate(blocked);
  assert.equal(serviceOf(blocked, 'a').endpoint.ports[0]?.publishedPort, 80);
  assert.equal(serviceOf(blocked, 'b').endpoint.ports[0]?.publishedPort, 81);
});

test('ports: all dynamic ports in use', () => {
  const all = Array.from({ length: 2768 }, (_, index) => tcp(index + 1, 0));
  const store = makeStore({
    services: [
      makeService('big', { spec: { endpoint: { mode: 'vip', ports: all } } }),
      makeService('late', { spec: { endpoint: { mode: 'vip', ports: [tcp(1, 0)] } } }),
    ],
    tasks: [makeTask('t', { service: 'late', status: { state: 'new' } })],
  });
  allocate(store);
  assert.match(taskOf(store, 't').status.error, /no free tcp port in 30000-32767/);
});

test('nodes: a gateway on each network of their tasks, kept while a task is there, never a task’s address', () => {
  const store = makeStore({
    nodes: [makeNode('n1'), makeNode('n2', { description: { networkRung: 'host-ports' } })],
    networks: [makeNetwork('ingress', { ingress: true }), makeNetwork('app', { subnet: '10.0.9.0/24' })],
    services: [makeService('svc')],
    tasks: [makeTask('t', { spec: onNetwork('app'), status: { state: 'new' } })],
  });
  allocate(store);
  assert.deepEqual(nodeOf(store, 'n1').attachments, []);
  const task = taskOf(store, 't');
  applyAll(store, [
    {
      kind: 'patch-task',
      id: task.id,
      expect: null,
      patch: { nodeId: nodeOf(store, 'n1').id, status: { ...task.status, state: 'assigned' } },
    },
  ]);
  applyAll(store, planAttachments(store).actions);
  assert.deepEqual(nodeOf(store, 'n1').attachments, [{ networkId: 'app', address: '10.0.9.254/24' }]);
  assert.notEqual(task.networks[0]?.address, '10.0.9.254/24');
  assert.equal(allocate(store), 0);
  applyAll(store, [
    {
      kind: 'patch-task',
      id: task.id,
      expect: null,
      patch: { status: { ...task.status, state: 'shutdown' } },
    },
  ]);
  allocate(store);
  assert.deepEqual(nodeOf(store, 'n1').attachments, []);
});

test('nodes: on ingress while any container is published, where overlays can be built', () => {
  const store = makeStore({
    nodes: [makeNode('n1'), makeNode('n2', { description: { networkRung: 'host-ports' } })],
    networks: [makeNetwork('ingress', { ingress: true })],
    services: [makeService('svc', { spec: { endpoint: { mode: 'vip', ports: [tcp(80, 80)] } } })],
  });
  allocate(store);
  assert.deepEqual(nodeOf(store, 'n1').attachments, [{ networkId: 'ingress', address: '10.0.0.254/24' }]);
  assert.deepEqual(nodeOf(store, 'n2').attachments, []);
  applyAll(store, [{ kind: 'delete', table: 'service', id: 'svc' as ServiceId, expect: null }]);
  allocate(store);
  assert.deepEqual(nodeOf(store, 'n1').attachments, []);
});
