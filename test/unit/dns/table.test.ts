import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { seededRandom } from '../../../src/base/random.ts';
import { type Asker, recordTypes, resolveName, type Resolution } from '../../../src/dns/resolve.ts';
import { addressNumber, buildNameTable } from '../../../src/dns/table.ts';
import type { RoutingState } from '../../../src/worker/types.ts';
import { endpoint, network, routing, service } from '../../support/routing.ts';

const front = network('front', 4097);
const back = network('back', 4098);
const ingress = network('ingress', 4096, { ingress: true });
const HOST: Asker = { kind: 'host' };

function container(
  networkId: string,
  address = '10.9.9.9',
  networkIds: readonly string[] | null = null,
): Asker {
  return { kind: 'container', networkId, address, networkIds };
}

function ask(state: RoutingState, asker: Asker, name: string, type: number = recordTypes.A): Resolution {
  return resolveName(buildNameTable(state), asker, { name, type }, seededRandom(1));
}

/** Sorted addresses, or the kind of the answer. */
function addresses(state: RoutingState, asker: Asker, name: string): string | string[] {
  const resolution = ask(state, asker, name);
  if (resolution.kind !== 'answer') return resolution.kind;
  return resolution.records.flatMap((record) => ('address' in record ? [record.address] : [])).toSorted();
}

const voting = routing({
  networks: [front, back, ingress],
  services: [
    service('vote_web', { stack: 'vote', tcp: [[8080, 80]] }),
    service('vote_db', { stack: 'vote' }),
    service('lone'),
    service('sleeper'),
  ],
  endpoints: [
    endpoint('vote_web', 1, {
      on: [
        [front, '10.16.1.5', ['web']],
        [ingress, '10.16.0.5'],
      ],
    }),
    endpoint('vote_web', 2, {
      nodeId: 'node-b',
      on: [
        [front, '10.16.1.6', ['web']],
        [ingress, '10.16.0.6'],
      ],
    }),
    endpoint('vote_db', 1, { on: [[back, '10.16.2.5', ['db', 'postgres']]] }),
    endpoint('lone', 1, { nodeAddress: '192.0.2.7' }),
  ],
});

test('a service answers under its names, aliases and tasks. names', () => {
  const asker = container(front.id);
  for (const name of ['web', 'vote_web', 'tasks.web', 'tasks.vote_web', 'WEB.', 'Tasks.Web']) {
    assert.deepEqual(addresses(voting, asker, name), ['10.16.1.5', '10.16.1.6'], name);
  }
  assert.deepEqual(addresses(voting, asker, 'web.2'), ['10.16.1.6']);
  assert.deepEqual(addresses(voting, asker, 'vote_web.1'), ['10.16.1.5']);
  assert.deepEqual(addresses(voting, container(back.id), 'postgres'), ['10.16.2.5']);
});

test('names of other networks do not exist for the asker, and are not asked of others', () => {
  assert.equal(addresses(voting, container(front.id), 'vote_db'), 'unknown-name');
  assert.equal(addresses(voting, container(front.id), 'db'), 'unknown-name');
  assert.equal(addresses(voting, container(back.id), 'tasks.web'), 'unknown-name');
  assert.equal(addresses(voting, container(front.id), 'web.3'), 'unknown-name');
  assert.equal(addresses(voting, container(ingress.id), 'vote_web'), 'unknown-name');
});

test('a task on several networks sees the names of all, whichever gateway it asks', () => {
  const byEndpoint = routing({
    networks: [front, back],
    services: [...voting.services.values(), service('both')],
    endpoints: [
      ...voting.endpoints.values(),
      endpoint('both', 1, {
        on: [
          [front, '10.16.1.9'],
          [back, '10.16.2.9'],
        ],
      }),
    ],
  });
  assert.deepEqual(addresses(byEndpoint, container(front.id, '10.16.1.9'), 'db'), ['10.16.2.5']);
  // A task without an endpoint record yet: the node knows its networks.
  const starting = container(front.id, '10.16.1.77', [front.id, back.id]);
  assert.deepEqual(addresses(voting, starting, 'db'), ['10.16.2.5']);
});

test('a task outside every network answers the address of its node, to all', () => {
  assert.deepEqual(addresses(voting, container(front.id), 'lone'), ['192.0.2.7']);
  assert.deepEqual(addresses(voting, container(back.id), 'tasks.lone'), ['192.0.2.7']);
  assert.deepEqual(addresses(voting, HOST, 'lone'), ['192.0.2.7']);
});

test('the host sees all services, and aliases that only one service has', () => {
  assert.deepEqual(addresses(voting, HOST, 'vote_web'), ['10.16.1.5', '10.16.1.6']);
  assert.deepEqual(addresses(voting, HOST, 'db'), ['10.16.2.5']);
  const twice = routing({
    networks: [front],
    services: [service('a_web', { stack: 'a' }), service('b_web', { stack: 'b' })],
    endpoints: [
      endpoint('a_web', 1, { on: [[front, '10.16.1.1', ['web']]] }),
      endpoint('b_web', 1, { on: [[front, '10.16.1.3', ['web']]] }),
    ],
  });
  assert.equal(addresses(twice, HOST, 'web'), 'unknown-name');
  assert.deepEqual(addresses(twice, HOST, 'a_web'), ['10.16.1.1']);
  assert.deepEqual(addresses(twice, container(front.id), 'web'), ['10.16.1.1', '10.16.1.3']);
});

test('a service without tasks exists; names that are not ours are forwarded', () => {
  assert.deepEqual(addresses(voting, container(front.id), 'sleeper'), []);
  assert.deepEqual(addresses(voting, container(front.id), 'tasks.sleeper'), []);
  assert.equal(addresses(voting, container(front.id), 'tasks.nobody'), 'unknown-name');
  for (const name of [
    'example.com',
    'lone.example.com',
    'lone.com',
    'nobody',
    '_ldap._tcp.example.com',
    '',
  ]) {
    assert.equal(addresses(voting, container(front.id), name), 'forward', name);
  }
});

test('AAAA and other types of a known name are empty, not unknown', () => {
  for (const type of [recordTypes.AAAA, 16, 15]) {
    assert.deepEqual(ask(voting, container(front.id), 'web', type), {
      kind: 'answer',
      records: [],
      extra: [],
    });
  }
});

test('PTR names the task; an address of ours without a task is unknown; others are forwarded', () => {
  const pointer = (asker: Asker, name: string): Resolution => ask(voting, asker, name, recordTypes.PTR);
  const found = pointer(container(front.id), '6.1.16.10.in-addr.arpa');
  assert.deepEqual(found.kind === 'answer' && found.records, [
    { type: 'PTR', name: '6.1.16.10.in-addr.arpa', target: 'vote_web.2' },
  ]);
  assert.equal(pointer(container(front.id), '99.1.16.10.in-addr.arpa').kind, 'unknown-name');
  assert.equal(pointer(container(front.id), '1.2.0.192.in-addr.arpa').kind, 'forward');
});

test('SRV gives the port of each task and its address along', () => {
  const named = {
    name: 'http',
    protocol: 'tcp',
    targetPort: 80,
    publishedPort: 8080,
    publishMode: 'ingress',
  } as const;
  const state = routing({
    networks: [front],
    services: [service('web', { ports: [named] }), service('proc', { tcp: [[8081, 90]] })],
    endpoints: [
      endpoint('web', 1, { on: [[front, '10.16.1.5']] }),
      endpoint('proc', 1, {
        nodeAddress: '192.0.2.7',
        ports: [{ protocol: 'tcp', targetPort: 90, hostPort: 31_000 }],
      }),
    ],
  });
  for (const name of ['_http._tcp.web', '_80._tcp.web']) {
    const found = ask(state, container(front.id), name, recordTypes.SRV);
    assert.deepEqual(found, {
      kind: 'answer',
      records: [{ type: 'SRV', name, target: 'web.1', port: 80 }],
      extra: [{ type: 'A', name: 'web.1', address: '10.16.1.5' }],
    });
  }
  const mapped = ask(state, container(front.id), '_90._tcp.proc', recordTypes.SRV);
  assert.equal(
    mapped.kind === 'answer' && mapped.records[0]?.type === 'SRV' && mapped.records[0].port,
    31_000,
  );
  assert.equal(ask(state, container(front.id), '_http._udp.web', recordTypes.SRV).kind, 'unknown-name');
});

test('a task of a global service is named by its node', () => {
  const state = routing({
    networks: [front],
    services: [service('agent')],
    endpoints: [endpoint('agent', 0, { nodeId: 'abcdefghijklmnopqrstuvwxy', on: [[front, '10.16.1.5']] })],
  });
  assert.deepEqual(addresses(state, container(front.id), 'agent.abcdefghijklmnopqrstuvwxy'), ['10.16.1.5']);
  assert.equal(addresses(state, container(front.id), 'agent.0123456789012345678901234'), 'unknown-name');
});

test('answers come in every order', () => {
  const table = buildNameTable(voting);
  const random = seededRandom(7);
  const first = new Set<string>();
  for (let i = 0; i < 50; i++) {
    const found = resolveName(table, container(front.id), { name: 'web', type: recordTypes.A }, random);
    if (found.kind === 'answer' && found.records[0]?.type === 'A') first.add(found.records[0].address);
  }
  assert.deepEqual([...first].toSorted(), ['10.16.1.5', '10.16.1.6']);
});

test('property: a name has exactly the addresses of its endpoints', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.integer({ min: 3, max: 250 }), { maxLength: 20 }), (hosts) => {
      const state = routing({
        networks: [front],
        services: [service('web')],
        endpoints: hosts.map((host, index) =>
          endpoint('web', index + 1, { on: [[front, `10.16.1.${host}`]] }),
        ),
      });
      const wanted = hosts.map((host) => `10.16.1.${host}`).toSorted();
      assert.deepEqual(addresses(state, container(front.id), 'web'), wanted);
    }),
  );
});

test('property: any name gets an answer', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 80 }), fc.nat({ max: 70_000 }), (name, type) => {
      const { kind } = ask(voting, container(front.id), name, type);
      assert.ok(kind === 'answer' || kind === 'unknown-name' || kind === 'forward');
    }),
  );
});

test('addresses as numbers', () => {
  assert.equal(addressNumber('10.0.0.1'), 167_772_161);
  for (const text of ['', '10.0.0', 'a.b.c.d', '1.2.3.4.5', '1..2.3'])
    assert.ok(Number.isNaN(addressNumber(text)));
});
