/**
 * PURE: which published ports a node answers, and the tasks behind each, from its routing state.
 *
 * Invariants: a task is behind a port exactly while it has an endpoint record; ports in host mode are the runtime's
 * own and never appear; of two services with the same port the one with the smaller id has it.
 */
import type { EndpointRecord } from '../model/wire.ts';
import type { PortConfig, PortProtocol } from '../model/spec.ts';
import type { RoutingState } from '../worker/types.ts';

/** One way to a task. */
export interface Backend {
  readonly taskId: string;
  readonly nodeId: string;
  readonly host: string;
  readonly port: number;
  /** Whether the task runs on this node. */
  readonly local: boolean;
}

/** A published port with its backends, sorted by task id. */
export interface PublishedPort {
  readonly protocol: PortProtocol;
  readonly port: number;
  readonly serviceId: string;
  readonly serviceName: string;
  readonly backends: readonly Backend[];
}

/** Facts of the node that looks for backends. */
export interface IngressView {
  readonly nodeId: string;
  /** Whether this node reaches addresses of task networks. Without, a task's own node passes connections on. */
  readonly overlay: boolean;
}

/** `tcp/8080`: the key of a published port. */
export function portKey(protocol: PortProtocol, port: number): string {
  return `${protocol}/${port}`;
}

/** Every port published in ingress mode, by its key. */
export function buildIngressTable(
  routing: RoutingState,
  view: IngressView,
): ReadonlyMap<string, PublishedPort> {
  const endpoints = new Map<string, EndpointRecord[]>();
  for (const endpoint of routing.endpoints.values()) {
    const known = endpoints.get(endpoint.serviceId);
    if (known === undefined) endpoints.set(endpoint.serviceId, [endpoint]);
    else known.push(endpoint);
  }
  const ingressIds = new Set<string>(
    [...routing.networks.values()].filter((network) => network.ingress).map((network) => network.id),
  );
  const table = new Map<string, PublishedPort>();
  const services = [...routing.services.values()].toSorted((a, b) => (a.id < b.id ? -1 : 1));
  for (const service of services) {
    for (const config of service.ports) {
      const key = portKey(config.protocol, config.publishedPort);
      if (config.publishMode !== 'ingress' || config.publishedPort === 0 || table.has(key)) continue;
      const backends = (endpoints.get(service.id) ?? [])
        .flatMap((endpoint) => backendOf(endpoint, config, ingressIds, view))
        .toSorted((a, b) => (a.taskId < b.taskId ? -1 : 1));
      table.set(key, {
        protocol: config.protocol,
        port: config.publishedPort,
        serviceId: service.id,
        serviceName: service.name,
        backends,
      });
    }
  }
  return table;
}

/** The way to a task's port: its node's port where there is one, else its address on the ingress network. */
function backendOf(
  endpoint: EndpointRecord,
  config: PortConfig,
  ingressIds: ReadonlySet<string>,
  view: IngressView,
): Backend[] {
  const local = endpoint.nodeId === view.nodeId;
  const base = { taskId: endpoint.taskId, nodeId: endpoint.nodeId, local };
  const mapped = endpoint.ports.find(
    (port) => port.targetPort === config.targetPort && port.protocol === config.protocol,
  );
  if (mapped !== undefined) {
    return [{ ...base, host: local ? '127.0.0.1' : endpoint.nodeAddress, port: mapped.hostPort }];
  }
  // A node without the overlay hands over to the task's own node, which has it: one more hop, never two.
  if (!view.overlay && !local) return [{ ...base, host: endpoint.nodeAddress, port: config.publishedPort }];
  const attachment = endpoint.networks.find(({ networkId }) => ingressIds.has(networkId));
  const address = attachment?.address.split('/', 1)[0] ?? '';
  return address === '' ? [] : [{ ...base, host: address, port: config.targetPort }];
}
