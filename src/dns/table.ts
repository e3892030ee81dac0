/**
 * PURE: the names of the cluster as one node serves them, from its routing state.
 *
 * Invariants: a name has an address exactly while an endpoint record with that address exists; names are lower case
 * without a trailing dot; every question is answered within a scope: the networks of whoever asks, or the whole
 * cluster for the host's own listener.
 */
import type { AssignedNetwork, EndpointRecord, ServiceRecord } from '../model/wire.ts';
import type { PortConfig } from '../model/spec.ts';
import type { RoutingState } from '../worker/types.ts';

/** An address a name stands for, and the task behind it. */
export interface NameTarget {
  readonly address: string;
  readonly endpoint: EndpointRecord;
  readonly ports: readonly PortConfig[];
}

/** Names within one network. */
export interface NameScope {
  readonly targets: ReadonlyMap<string, readonly NameTarget[]>;
  /** Canonical task name (`web.1`) by address. */
  readonly reverse: ReadonlyMap<string, string>;
}

/** All names. */
export interface NameTable {
  /** By network id; the ingress network has no names of its own. */
  readonly networks: ReadonlyMap<string, NameScope>;
  /** What the host's own listener answers. */
  readonly host: NameScope;
  /** Names of services that have an endpoint somewhere, or none anywhere: ours, never forwarded. */
  readonly services: ReadonlyMap<string, 'reachable' | 'empty'>;
  /** Network ids of each task by its address. */
  readonly askers: ReadonlyMap<string, readonly string[]>;
  /** First and last address of each network's subnet, as numbers. */
  readonly subnets: readonly { readonly networkId: string; readonly first: number; readonly last: number }[];
}

type MutableScope = { readonly targets: Map<string, NameTarget[]>; readonly reverse: Map<string, string> };

/** The form in which names are compared. */
export function canonicalName(name: string): string {
  const lower = name.toLowerCase();
  return lower.endsWith('.') ? lower.slice(0, -1) : lower;
}

/** The number of an IPv4 address, NaN when the text is none. */
export function addressNumber(address: string): number {
  const octets = address.split('.');
  if (octets.length !== 4) return Number.NaN;
  return octets.reduce((sum, octet) => (/^\d{1,3}$/.test(octet) ? sum * 256 + Number(octet) : Number.NaN), 0);
}

/** Service name, and the short name within its stack. */
function serviceNames(service: ServiceRecord): string[] {
  const name = service.name.toLowerCase();
  const prefix = `${service.stack.toLowerCase()}_`;
  return service.stack !== '' && name.startsWith(prefix) ? [name, name.slice(prefix.length)] : [name];
}

/** Builds the table. Time and memory grow with the number of endpoints. */
export function buildNameTable(routing: RoutingState): NameTable {
  const networks = new Map<string, MutableScope>();
  for (const network of routing.networks.values()) {
    if (!network.ingress) networks.set(network.id, { targets: new Map(), reverse: new Map() });
  }
  const askers = new Map<string, readonly string[]>();
  const unattached: { endpoint: EndpointRecord; service: ServiceRecord | undefined }[] = [];
  for (const endpoint of routing.endpoints.values()) {
    const service = routing.services.get(endpoint.serviceId);
    const ids = endpoint.networks.map((attachment) => attachment.networkId);
    for (const attachment of endpoint.networks) {
      const own = bare(attachment.address);
      if (own !== '') askers.set(own, ids);
      const scope = networks.get(attachment.networkId);
      const address = own === '' ? endpoint.nodeAddress : own;
      if (scope !== undefined) addEndpoint(scope, endpoint, service, attachment.aliases, address);
    }
    if (ids.length === 0) unattached.push({ endpoint, service });
  }
  // A task outside every network, such as a process, is reached at its node from all of them.
  for (const scope of networks.values()) {
    for (const { endpoint, service } of unattached) {
      addEndpoint(scope, endpoint, service, [], endpoint.nodeAddress);
    }
  }
  return {
    networks,
    host: hostScope(routing),
    services: serviceStates(routing),
    askers,
    subnets: [...routing.networks.values()].flatMap(subnetOf),
  };
}

function bare(address: string): string {
  return address.split('/', 1)[0] as string;
}

/** Adds the names of one endpoint to a scope: service, short name, aliases, each with `tasks.` and per task. */
function addEndpoint(
  scope: MutableScope,
  endpoint: EndpointRecord,
  service: ServiceRecord | undefined,
  aliases: readonly string[],
  address: string,
): void {
  const target: NameTarget = { address, endpoint, ports: service?.ports ?? [] };
  const bases = new Set([
    ...(service === undefined ? [] : serviceNames(service)),
    ...aliases.map((alias) => canonicalName(alias)),
  ]);
  for (const base of bases) {
    for (const name of [base, `tasks.${base}`, `${base}.${taskSuffix(endpoint)}`]) {
      const targets = scope.targets.get(name);
      if (targets === undefined) scope.targets.set(name, [target]);
      else targets.push(target);
    }
  }
  const first = bases.values().next();
  if (first.done !== true && !scope.reverse.has(address)) {
    scope.reverse.set(address, `${first.value}.${taskSuffix(endpoint)}`);
  }
}

/** The slot, or for tasks of global services the node. */
function taskSuffix(endpoint: EndpointRecord): string {
  return endpoint.slot > 0 ? String(endpoint.slot) : endpoint.nodeId;
}

/** Every service under its name; an alias or short name only where one service alone has it. */
function hostScope(routing: RoutingState): MutableScope {
  const owners = new Map<string, Set<string>>();
  const own = (name: string, serviceId: string): void => {
    const ids = owners.get(name);
    if (ids === undefined) owners.set(name, new Set([serviceId]));
    else ids.add(serviceId);
  };
  const aliasesOf = (endpoint: EndpointRecord): string[] =>
    endpoint.networks.flatMap(({ aliases }) => aliases.map((alias) => canonicalName(alias)));
  for (const service of routing.services.values()) {
    for (const name of serviceNames(service)) own(name, service.id);
  }
  for (const endpoint of routing.endpoints.values()) {
    for (const alias of aliasesOf(endpoint)) own(alias, endpoint.serviceId);
  }
  const names = new Set([...routing.services.values()].map((service) => service.name.toLowerCase()));
  const scope: MutableScope = { targets: new Map(), reverse: new Map() };
  for (const endpoint of routing.endpoints.values()) {
    const service = routing.services.get(endpoint.serviceId);
    const extra = [...(service === undefined ? [] : serviceNames(service).slice(1)), ...aliasesOf(endpoint)];
    const clear = extra.filter((alias) => owners.get(alias)?.size === 1 && !names.has(alias));
    const named = service === undefined ? undefined : { ...service, stack: '' };
    addEndpoint(scope, endpoint, named, clear, hostAddress(endpoint, routing.networks));
  }
  return scope;
}

/** Where the host itself reaches the task: on a network the node has, else the task's node. */
function hostAddress(endpoint: EndpointRecord, networks: ReadonlyMap<string, AssignedNetwork>): string {
  const here = endpoint.networks.filter(
    ({ networkId, address }) => networks.has(networkId) && address !== '',
  );
  const chosen = here.find(({ networkId }) => networks.get(networkId)?.ingress === false) ?? here[0];
  return chosen === undefined ? endpoint.nodeAddress : bare(chosen.address);
}

function serviceStates(routing: RoutingState): ReadonlyMap<string, 'reachable' | 'empty'> {
  const live = new Set<string>([...routing.endpoints.values()].map((endpoint) => endpoint.serviceId));
  const states = new Map<string, 'reachable' | 'empty'>();
  for (const service of routing.services.values()) {
    for (const name of serviceNames(service)) {
      if (live.has(service.id) || !states.has(name)) {
        states.set(name, live.has(service.id) ? 'reachable' : 'empty');
      }
    }
  }
  return states;
}

function subnetOf(
  network: AssignedNetwork,
): { readonly networkId: string; readonly first: number; readonly last: number }[] {
  const [address = '', length = '32'] = network.subnet.split('/');
  const size = 2 ** (32 - Number(length));
  const first = Math.floor(addressNumber(address) / size) * size;
  return Number.isNaN(first) ? [] : [{ networkId: network.id, first, last: first + size - 1 }];
}
