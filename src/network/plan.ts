/**
 * PURE: what the networks of a node should look like, and the ordered steps from what is there to that.
 *
 * Invariants: steps touch only what swarmd made (engine networks with its label, VXLAN devices with its alias, its
 * own iptables chain); every step names the network it serves, so that one network's failure stops only that one;
 * the plan of a state that is already as wanted is empty.
 */
import { isIPv4 } from 'node:net';
import type { AssignedNetwork, EndpointRecord } from '../model/wire.ts';
import type { EngineNetwork, EngineNetworkSpec } from './engine-networks.ts';
import { diffDevice, diffForwarding, forwardingSteps } from './plan-kernel.ts';
import {
  type DesiredNetworks,
  FLOOD_MAC,
  type ForwardingEntry,
  type NetworkStep,
  type ObservedNetworks,
  type OverlaySettings,
  type SysctlValue,
  VXLAN_OVERHEAD_BYTES,
} from './plan-state.ts';
import { subnetConflict } from './plan-subnet.ts';

/** `02:42:` and the four octets in hex: the hardware address a task has on a network. */
export function taskMac(address: string): string {
  return macOf('02:42', address);
}

/** `02:5d:` and the four octets in hex: the hardware address of a node's bridge on a network. */
export function gatewayMac(address: string): string {
  return macOf('02:5d', address);
}

function macOf(prefix: string, address: string): string {
  const octets = address.split('.').map((octet) => Number(octet).toString(16).padStart(2, '0'));
  return `${prefix}:${octets.join(':')}`;
}

/** The address part of `10.0.0.5/24`. */
export function bareAddress(address: string): string {
  return address.split('/', 1)[0] as string;
}

/** Name of a network on the engine. The ingress network sorts first: engines take the default route from there. */
export function engineNetworkName(network: AssignedNetwork): string {
  const name = network.name.replaceAll(/[^a-zA-Z0-9_.-]/g, '-');
  return `${network.ingress ? '0sw' : 'sw'}-${name}-${network.id.slice(0, 8)}`;
}

/** What the node should have for `networks`, given where the tasks of the cluster are. */
export function desiredNetworks(
  networks: Iterable<AssignedNetwork>,
  endpoints: Iterable<EndpointRecord>,
  settings: OverlaySettings,
): DesiredNetworks {
  const sorted = [...networks].toSorted((a, b) => a.vni - b.vni);
  const mtu = settings.pathMtu - VXLAN_OVERHEAD_BYTES;
  const specs = sorted.map((network) => ({
    name: engineNetworkName(network),
    networkId: network.id,
    nodeId: settings.nodeId,
    bridge: `sw${network.vni}`,
    subnet: network.subnet,
    gateway: bareAddress(network.gateway),
    mtu,
    internal: network.internal,
  }));
  const nodeAddresses = new Map(
    sorted.map((network) => [network.id, [settings.address, ...network.peers.map((peer) => peer.address)]]),
  );
  const base = { nodeId: settings.nodeId, networks: specs, nodeAddresses };
  if (!settings.overlay) return { ...base, devices: [], sysctls: [], forwardBridges: null };

  const remote = remoteTasks(endpoints, settings);
  const devices = sorted.map((network) => ({
    networkId: network.id,
    name: `vx${network.vni}`,
    vni: network.vni,
    bridge: `sw${network.vni}`,
    bridgeMac: gatewayMac(bareAddress(network.gateway)),
    local: settings.address,
    port: settings.vxlanPort,
    mtu,
    forwarding: forwardingEntries(network, remote.get(network.id) ?? []),
  }));
  const redirects = (networkId: string, name: string): SysctlValue => ({
    networkId,
    key: `net.ipv4.conf.${name}.send_redirects`,
    value: '0',
  });
  return {
    ...base,
    devices,
    sysctls:
      devices.length === 0
        ? []
        : [redirects('', 'all'), ...devices.map((device) => redirects(device.networkId, device.bridge))],
    forwardBridges: devices.map((device) => device.bridge),
  };
}

/** Hardware address and node of each task elsewhere, by network id. */
function remoteTasks(
  endpoints: Iterable<EndpointRecord>,
  settings: OverlaySettings,
): ReadonlyMap<string, readonly ForwardingEntry[]> {
  const byNetwork = new Map<string, ForwardingEntry[]>();
  for (const endpoint of endpoints) {
    if (endpoint.nodeId === settings.nodeId || endpoint.nodeAddress === settings.address) continue;
    for (const attachment of endpoint.networks) {
      const address = bareAddress(attachment.address);
      if (!isIPv4(address)) continue;
      const entry = { mac: taskMac(address), peer: endpoint.nodeAddress };
      const entries = byNetwork.get(attachment.networkId);
      if (entries === undefined) byNetwork.set(attachment.networkId, [entry]);
      else entries.push(entry);
    }
  }
  return byNetwork;
}

function forwardingEntries(
  network: AssignedNetwork,
  tasks: readonly ForwardingEntry[],
): readonly ForwardingEntry[] {
  const own = bareAddress(network.gateway);
  const peers = network.peers.filter((peer) => isIPv4(peer.address) && bareAddress(peer.gateway) !== own);
  const addresses = new Set(peers.map((peer) => peer.address));
  const unicast = new Map<string, string>();
  for (const peer of peers) {
    if (peer.gateway !== '') unicast.set(gatewayMac(bareAddress(peer.gateway)), peer.address);
  }
  // A task on a node that is no peer (yet) is left to flooding: an entry to nowhere would break traffic.
  for (const task of tasks) if (addresses.has(task.peer)) unicast.set(task.mac, task.peer);
  const flood = [...addresses].map((peer) => ({ mac: FLOOD_MAC, peer }));
  return [...flood, ...[...unicast].map(([mac, peer]) => ({ mac, peer }))].toSorted(compareEntries);
}

function compareEntries(a: ForwardingEntry, b: ForwardingEntry): number {
  if (a.mac !== b.mac) return a.mac < b.mac ? -1 : 1;
  return a.peer === b.peer ? 0 : a.peer < b.peer ? -1 : 1;
}

/** The steps that turn `observed` into `desired`, in the order they must be done. */
export function planNetworks(desired: DesiredNetworks, observed: ObservedNetworks): NetworkStep[] {
  const created = new Set<string>();
  const steps: NetworkStep[] = [];
  const wanted = new Set(desired.networks.map((network) => network.networkId));
  for (const network of observed.networks) {
    if (network.nodeId !== desired.nodeId || wanted.has(network.networkId)) continue;
    steps.push(removal(network, observed));
  }
  steps.push(...strayDevices(desired, observed));
  for (const spec of desired.networks) steps.push(...planEngineNetwork(spec, desired, observed, created));
  for (const device of desired.devices) {
    steps.push(...diffDevice(device, desired.nodeId, observed, created.has(device.networkId)));
  }
  for (const { networkId, key, value } of desired.sysctls) {
    if (observed.sysctls.get(key) === value && !created.has(networkId)) continue;
    steps.push({ kind: 'run', networkId, argv: ['sysctl', '-qw', `${key}=${value}`], optional: true });
  }
  if (desired.forwardBridges !== null && observed.forward !== null) {
    steps.push(...diffForwarding(desired.forwardBridges, observed.forward, created.size > 0));
  }
  return steps;
}

/**
 * The steps from `before`, as it was applied, to `after` when nothing but where tasks are has changed; null when
 * more did, and the whole plan is needed.
 */
export function planForwarding(before: DesiredNetworks, after: DesiredNetworks): NetworkStep[] | null {
  const shape = ({ devices, nodeAddresses, ...rest }: DesiredNetworks): string =>
    JSON.stringify([
      rest,
      [...nodeAddresses.keys()],
      devices.map((device) => ({ ...device, forwarding: [] })),
    ]);
  if (shape(before) !== shape(after)) return null;
  return after.devices.flatMap((device, index) =>
    forwardingSteps(device, before.devices[index]?.forwarding ?? []),
  );
}

/** Removes an engine network, and its VXLAN device once the engine let go of it. */
function removal(network: EngineNetwork, observed: ObservedNetworks): NetworkStep {
  const devices = observed.devices.filter(
    (device) => device.master === network.bridge && device.alias.startsWith('swarmd:'),
  );
  return {
    kind: 'remove-network',
    networkId: network.networkId,
    engineId: network.engineId,
    name: network.name,
    afterwards: devices.map((device) => ['ip', 'link', 'del', 'dev', device.name]),
  };
}

/** Our VXLAN devices that no wanted network and no engine network has a use for. */
function strayDevices(desired: DesiredNetworks, observed: ObservedNetworks): NetworkStep[] {
  const kept = new Set(desired.devices.map((device) => device.name));
  const bridges = new Set(observed.networks.map((network) => network.bridge));
  return observed.devices
    .filter((device) => device.alias === `swarmd:${desired.nodeId}` && !kept.has(device.name))
    .filter((device) => !bridges.has(device.master))
    .map((device) => ({
      kind: 'run',
      networkId: '',
      argv: ['ip', 'link', 'del', 'dev', device.name],
      optional: true,
    }));
}

function planEngineNetwork(
  spec: EngineNetworkSpec,
  desired: DesiredNetworks,
  observed: ObservedNetworks,
  created: Set<string>,
): NetworkStep[] {
  const current = observed.networks.find((network) => sameNetwork(network, spec));
  if (current !== undefined) return [];
  const { networkId } = spec;
  const ownBridges = new Set([spec.bridge, ...observed.networks.map((network) => network.bridge)]);
  const addresses = desired.nodeAddresses.get(networkId) ?? [];
  const message = subnetConflict(spec, addresses, observed.routes, ownBridges);
  if (message !== null) return [{ kind: 'blocked', networkId, message }];
  created.add(networkId);
  // What a former cluster or another shape of this network left behind stands in the way; in use, it stays.
  const obstacles = observed.networks.filter(
    (network) =>
      network.name === spec.name || network.bridge === spec.bridge || network.subnet === spec.subnet,
  );
  return [
    ...obstacles.map((network) => ({ ...removal(network, observed), networkId })),
    { kind: 'create-network', networkId, spec },
  ];
}

function sameNetwork(network: EngineNetwork, spec: EngineNetworkSpec): boolean {
  return (
    network.networkId === spec.networkId &&
    network.nodeId === spec.nodeId &&
    network.name === spec.name &&
    network.bridge === spec.bridge &&
    network.subnet === spec.subnet &&
    network.gateway === spec.gateway &&
    network.mtu === spec.mtu &&
    network.internal === spec.internal
  );
}
