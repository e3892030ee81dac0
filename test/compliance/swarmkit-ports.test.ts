/** Published ports over service updates, against recorded answers of the reference. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { planPorts, portsAgree } from '../../src/manager/allocator/port-allocation.ts';
import type { Service } from '../../src/model/objects.ts';
import type { PortConfig, PortProtocol } from '../../src/model/spec.ts';
import { applyAll, makeService, makeStore, readVectors } from '../support/planner-fixtures.ts';

interface GoPort {
  name?: string;
  protocol?: number;
  target_port?: number;
  published_port?: number;
  publish_mode?: number;
}
interface GoEndpoint {
  ports?: GoPort[];
}
interface PortCase {
  in: { service: { spec: { endpoint?: GoEndpoint }; endpoint?: GoEndpoint } };
  out?: unknown;
  after?: GoEndpoint;
}

const protocols: readonly PortProtocol[] = ['tcp', 'udp', 'sctp'];

const portsOf = (ports: readonly GoPort[] | undefined): PortConfig[] =>
  (ports ?? []).map((port) => ({
    ...(port.name === undefined ? {} : { name: port.name }),
    protocol: protocols[port.protocol ?? 0] ?? 'tcp',
    targetPort: port.target_port ?? 0,
    publishedPort: port.published_port ?? 0,
    publishMode: port.publish_mode === 1 ? 'host' : 'ingress',
  }));

const serviceOf = ({ service }: PortCase['in']): Service =>
  makeService('svc', {
    spec: { endpoint: { mode: 'vip', ports: portsOf(service.spec.endpoint?.ports) } },
    endpoint: { ports: portsOf(service.endpoint?.ports), virtualIps: [] },
  });

const byTarget = (ports: readonly PortConfig[]): readonly PortConfig[] =>
  ports.toSorted((a, b) => a.targetPort - b.targetPort || a.publishedPort - b.publishedPort);

function portsAfterPlan(service: Service): readonly PortConfig[] {
  const store = makeStore({ services: [service] });
  applyAll(store, planPorts(store).actions);
  return (store.get('service', 'svc') as Service).endpoint.ports;
}

const reconciled = readVectors<PortCase>('swarmkit-port-reconcile');

test('ports kept over an update', { skip: reconciled === null ? 'vectors are not here' : false }, () => {
  for (const { in: input, out } of reconciled ?? []) {
    assert.deepEqual(portsAfterPlan(serviceOf(input)), portsOf(out as GoPort[]), JSON.stringify(input));
  }
});

const allocated = readVectors<PortCase>('swarmkit-port-is-allocated');

test('whether ports are allocated', { skip: allocated === null ? 'vectors are not here' : false }, () => {
  for (const { in: input, out } of allocated ?? []) {
    const service = serviceOf(input);
    const inOrder = {
      ...service,
      endpoint: { ...service.endpoint, ports: byTarget(service.endpoint.ports) },
    };
    // Ours keeps the order of the spec, so what the reference takes in any order is brought into it first.
    assert.equal(portsAgree(service) || portsAgree(inOrder), out, JSON.stringify(input));
    if (out === true) assert.deepEqual(byTarget(portsAfterPlan(service)), byTarget(service.endpoint.ports));
  }
});
