import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildIngressTable } from '../../../src/ingress/table.ts';
import { endpoint, network, routing, service } from '../../support/routing.ts';

const ingress = network('ingress', 4096, { ingress: true });
const app = network('app', 4097);
const here = { nodeId: 'node-a', overlay: true };

test('a task is reached at its ingress address and target port', () => {
  const state = routing({
    networks: [app, ingress],
    services: [service('web', { tcp: [[8080, 80]] })],
    endpoints: [
      endpoint('web', 1, {
        on: [
          [app, '10.16.1.5'],
          [ingress, '10.16.0.5'],
        ],
      }),
      endpoint('web', 2, { nodeId: 'node-b', on: [[ingress, '10.16.0.6']] }),
    ],
  });
  const port = buildIngressTable(state, here).get('tcp/8080');
  assert.deepEqual(
    port?.backends.map(({ host, port: number, local }) => [host, number, local]),
    [
      ['10.16.0.5', 80, true],
      ['10.16.0.6', 80, false],
    ],
  );
});

test('a mapped port is the way in: on the loopback here, on the node address elsewhere', () => {
  const ports = [{ protocol: 'tcp', targetPort: 80, hostPort: 31_000 } as const];
  const state = routing({
    networks: [ingress],
    services: [service('web', { tcp: [[8080, 80]] })],
    endpoints: [
      endpoint('web', 1, { ports, on: [[ingress, '10.16.0.5']] }),
      endpoint('web', 2, { ports, nodeId: 'node-b', nodeAddress: '192.0.2.2' }),
    ],
  });
  const port = buildIngressTable(state, here).get('tcp/8080');
  assert.deepEqual(
    port?.backends.map(({ host, port: number }) => [host, number]),
    [
      ['127.0.0.1', 31_000],
      ['192.0.2.2', 31_000],
    ],
  );
});

test('a node without the overlay hands over to the node of the task', () => {
  const state = routing({
    networks: [ingress],
    services: [service('web', { tcp: [[8080, 80]] })],
    endpoints: [
      endpoint('web', 2, { nodeId: 'node-b', nodeAddress: '192.0.2.2', on: [[ingress, '10.16.0.6']] }),
    ],
  });
  const port = buildIngressTable(state, { nodeId: 'node-a', overlay: false }).get('tcp/8080');
  assert.deepEqual(
    port?.backends.map(({ host, port: number }) => [host, number]),
    [['192.0.2.2', 8080]],
  );
});

test('host-mode ports, ports without a number and tasks without a way in are left out', () => {
  const hostMode = { protocol: 'tcp', publishedPort: 9000, targetPort: 80, publishMode: 'host' } as const;
  const unallocated = { protocol: 'tcp', publishedPort: 0, targetPort: 81, publishMode: 'ingress' } as const;
  const state = routing({
    networks: [ingress],
    services: [service('web', { ports: [hostMode, unallocated] }), service('api', { tcp: [[8081, 80]] })],
    endpoints: [endpoint('api', 1, { on: [[app, '10.16.1.5']] })],
  });
  const table = buildIngressTable(state, here);
  assert.deepEqual([...table.keys()], ['tcp/8081']);
  assert.deepEqual(table.get('tcp/8081')?.backends, []);
});

test('of two services with one port the smaller id has it, whatever the order', () => {
  const services = [service('b', { tcp: [[8080, 80]] }), service('a', { tcp: [[8080, 80]] })];
  for (const order of [services, services.toReversed()]) {
    const table = buildIngressTable(routing({ services: order }), here);
    assert.equal(table.get('tcp/8080')?.serviceName, 'a');
  }
});
