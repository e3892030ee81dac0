/**
 * Published ports of services.
 *
 * Invariants: an ingress port belongs to one service at a time, per protocol; a dynamic port stays with its service
 * while the port's description stays; who has a port keeps it, so a conflict always hits the newcomer; host-mode
 * ports are checked by the scheduler, not here.
 */
import { DYNAMIC_PORT_FIRST, DYNAMIC_PORT_LAST } from '../../model/defaults.ts';
import type { Service } from '../../model/objects.ts';
import type { PortConfig, PortProtocol } from '../../model/spec.ts';
import type { Action } from '../state/actions.ts';
import type { StateView } from '../state/view.ts';
import { ok, refuse, type Result } from '../../base/result.ts';

/** Every service after this plan: with its ports, or with why it has none. */
export interface PortPlan {
  readonly actions: readonly Action[];
  /** Services whose ports agree with their spec, by id. */
  readonly services: ReadonlyMap<string, Service>;
  /** Service id -> why its ports could not be given. */
  readonly reasons: ReadonlyMap<string, string>;
  /** Whether any service is reached through the ingress network. */
  readonly usesIngress: boolean;
}

/** Owner of each ingress port in the cluster. */
type PortOwners = Map<string, Service>;

function portKey(protocol: PortProtocol, port: number): string {
  return `${protocol}/${port}`;
}

/** Whether the service publishes a port on every node. */
export function publishesIngress(ports: readonly PortConfig[]): boolean {
  return ports.some((port) => port.publishMode === 'ingress');
}

/** Whether the service's tasks join the ingress network: containers behind an ingress port. */
export function usesIngressNetwork(service: Service): boolean {
  return service.spec.task.runtime === 'docker' && publishesIngress(service.endpoint.ports);
}

/** Whether `given` is what `wanted` asks for, the number aside where any would do. */
function answers(given: PortConfig, wanted: PortConfig): boolean {
  const sameNumber = given.publishedPort === wanted.publishedPort;
  const numberFits =
    wanted.publishMode === 'host' || wanted.publishedPort !== 0 ? sameNumber : given.publishedPort !== 0;
  return (
    numberFits &&
    given.name === wanted.name &&
    given.protocol === wanted.protocol &&
    given.targetPort === wanted.targetPort &&
    given.publishMode === wanted.publishMode
  );
}

/** Whether the service's allocated ports agree with its spec. */
export function portsAgree(service: Service): boolean {
  const wanted = service.spec.endpoint.ports;
  const given = service.endpoint.ports;
  return (
    wanted.length === given.length && wanted.every((port, index) => answers(given[index] as PortConfig, port))
  );
}

/** Gives every service the ports of its spec. Fixed numbers are served before any-number ones. */
export function planPorts(view: StateView): PortPlan {
  const agreeing: Service[] = [];
  const waiting: Service[] = [];
  for (const service of view.all('service')) (portsAgree(service) ? agreeing : waiting).push(service);
  const dynamic = (service: Service): number =>
    service.spec.endpoint.ports.some((port) => port.publishMode === 'ingress' && port.publishedPort === 0)
      ? 1
      : 0;
  const ordered = waiting.toSorted((a, b) => dynamic(a) - dynamic(b));
  // A port its owner is about to leave counts as free, so that two services can swap ports. Where the owner then
  // cannot move after all, it keeps what it has and the rest is planned again without it.
  const stuck = new Set<string>();
  for (;;) {
    const plan = attempt(agreeing, ordered, stuck);
    const before = stuck.size;
    for (const id of plan.reasons.keys()) stuck.add(id);
    if (stuck.size === before) return plan;
  }
}

/** One try, in which services of `stuck` keep the ports they have until they get those they want. */
function attempt(
  agreeing: readonly Service[],
  waiting: readonly Service[],
  stuck: ReadonlySet<string>,
): PortPlan {
  const owners: PortOwners = new Map();
  for (const service of [...agreeing, ...waiting]) {
    const leaves = !portsAgree(service) && !stuck.has(service.id);
    for (const port of service.endpoint.ports) {
      if (port.publishMode !== 'ingress') continue;
      if (leaves && !service.spec.endpoint.ports.some((wanted) => answers(port, wanted))) continue;
      owners.set(portKey(port.protocol, port.publishedPort), service);
    }
  }
  const services = new Map<string, Service>(agreeing.map((service) => [service.id, service]));
  const actions: Action[] = [];
  const reasons = new Map<string, string>();
  for (const service of waiting) {
    const ports = givePorts(service, owners);
    if (!ports.ok) {
      reasons.set(service.id, ports.reason);
      continue;
    }
    const object: Service = { ...service, endpoint: { ...service.endpoint, ports: ports.value } };
    services.set(service.id, object);
    actions.push({ kind: 'update', table: 'service', object, expect: service.meta.version });
  }
  // A service that could not move still publishes what it had.
  const publishing = [...services.values(), ...waiting.filter((service) => reasons.has(service.id))];
  return { actions, services, reasons, usesIngress: publishing.some(usesIngressNetwork) };
}

/** Moves the service's claims in `owners` from its old ports to its new ones; on refusal nothing moves. */
function givePorts(service: Service, owners: PortOwners): Result<readonly PortConfig[]> {
  const taken = new Set<string>();
  const free = (key: string): boolean => {
    const owner = owners.get(key);
    return !taken.has(key) && (owner === undefined || owner.id === service.id);
  };
  const wanted = service.spec.endpoint.ports;
  const fixed = wanted.filter((port) => port.publishMode === 'ingress' && port.publishedPort !== 0);
  for (const port of fixed) {
    const key = portKey(port.protocol, port.publishedPort);
    if (!free(key)) return refuse(conflictReason(key, owners.get(key), service));
    taken.add(key);
  }
  const given: PortConfig[] = [];
  // Numbers the service already has are settled before new ones are looked for, so that none is taken over.
  const numbers = new Map<PortConfig, number>();
  const dynamic = wanted.filter((port) => port.publishMode === 'ingress' && port.publishedPort === 0);
  for (const choose of [stickyPort, lowestDynamicPort]) {
    for (const port of dynamic) {
      if (numbers.has(port)) continue;
      const number = choose(service, port, free);
      if (number === null) continue;
      taken.add(portKey(port.protocol, number));
      numbers.set(port, number);
    }
  }
  for (const port of wanted) {
    const isDynamic = port.publishMode === 'ingress' && port.publishedPort === 0;
    const number = isDynamic ? numbers.get(port) : port.publishedPort;
    if (number === undefined) {
      return refuse(
        `no free ${port.protocol} port in ${DYNAMIC_PORT_FIRST}-${DYNAMIC_PORT_LAST} for target port ${port.targetPort}`,
      );
    }
    given.push({ ...port, publishedPort: number });
  }
  for (const [key, owner] of owners) if (owner.id === service.id) owners.delete(key);
  for (const key of taken) owners.set(key, service);
  return ok(given);
}

function conflictReason(key: string, owner: Service | undefined, service: Service): string {
  if (owner === undefined || owner.id === service.id) return `port ${key} is published twice by this service`;
  return `port ${key} is already published by service ${owner.spec.name}`;
}

type PortChoice = (service: Service, port: PortConfig, free: (key: string) => boolean) => number | null;

/** The number the service already has for this port description. */
const stickyPort: PortChoice = (service, port, free) => {
  const previous = service.endpoint.ports.find(
    (given) => answers(given, port) && free(portKey(given.protocol, given.publishedPort)),
  );
  return previous?.publishedPort ?? null;
};

const lowestDynamicPort: PortChoice = (_service, port, free) => {
  for (let number = DYNAMIC_PORT_FIRST; number <= DYNAMIC_PORT_LAST; number++) {
    if (free(portKey(port.protocol, number))) return number;
  }
  return null;
};
