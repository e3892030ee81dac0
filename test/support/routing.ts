/** Builders of routing states for tests of DNS, ingress and networks. */
import type { NetworkId, NodeId, ServiceId, TaskId } from '../../src/model/ids.ts';
import type { PortMapping } from '../../src/model/objects.ts';
import type { PortConfig } from '../../src/model/spec.ts';
import type { AssignedNetwork, EndpointRecord, ServiceRecord } from '../../src/model/wire.ts';
import type { RoutingState } from '../../src/worker/types.ts';

/** A network whose gateway here is `.2` of its /24, with peers given as `[node address, gateway]`. */
export function network(
  name: string,
  vni: number,
  changes: Partial<AssignedNetwork> & { readonly peerList?: readonly (readonly [string, string])[] } = {},
): AssignedNetwork {
  const { peerList = [], ...rest } = changes;
  const prefix = `10.${Math.floor(vni / 256) % 256}.${vni % 256}`;
  return {
    id: `net-${name}` as NetworkId,
    name,
    subnet: `${prefix}.0/24`,
    vni,
    internal: false,
    ingress: false,
    gateway: `${prefix}.2/24`,
    peers: peerList.map(([address, gateway], index) => ({
      nodeId: `peer-${index}` as NodeId,
      address,
      gateway,
    })),
    ...rest,
  };
}

/** A service with published TCP ports given as `[published, target]`. */
export function service(
  name: string,
  changes: Partial<ServiceRecord> & { readonly tcp?: readonly (readonly [number, number])[] } = {},
): ServiceRecord {
  const { tcp = [], ...rest } = changes;
  return {
    id: `svc-${name}` as ServiceId,
    name,
    stack: '',
    mode: 'vip',
    ports: tcp.map(
      ([publishedPort, targetPort]): PortConfig => ({
        protocol: 'tcp',
        publishedPort,
        targetPort,
        publishMode: 'ingress',
      }),
    ),
    virtualIps: [],
    ...rest,
  };
}

/** What differs in one endpoint. */
export interface EndpointChanges {
  readonly nodeId?: string;
  readonly nodeAddress?: string;
  /** Network, address without prefix, aliases. */
  readonly on?: readonly (readonly [AssignedNetwork, string, (readonly string[])?])[];
  readonly ports?: readonly PortMapping[];
}

/** A task of service `name` in `slot`. */
export function endpoint(name: string, slot: number, changes: EndpointChanges = {}): EndpointRecord {
  return {
    taskId: `task-${name}-${slot}` as TaskId,
    serviceId: `svc-${name}` as ServiceId,
    slot,
    nodeId: (changes.nodeId ?? 'node-a') as NodeId,
    nodeAddress: changes.nodeAddress ?? '192.0.2.1',
    networks: (changes.on ?? []).map(([attached, address, aliases = []]) => ({
      networkId: attached.id,
      address: address === '' ? '' : `${address}/24`,
      aliases,
    })),
    ports: changes.ports ?? [],
  };
}

/** The state that holds these. */
export function routing(parts: {
  readonly networks?: readonly AssignedNetwork[];
  readonly services?: readonly ServiceRecord[];
  readonly endpoints?: readonly EndpointRecord[];
}): RoutingState {
  return {
    networks: new Map((parts.networks ?? []).map((one) => [one.id, one])),
    services: new Map((parts.services ?? []).map((one) => [one.id, one])),
    endpoints: new Map((parts.endpoints ?? []).map((one) => [one.taskId, one])),
  };
}
