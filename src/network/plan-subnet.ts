/**
 * PURE: whether a network's subnet would cut the node off from something it talks to.
 *
 * Invariant: a subnet is refused only for what it would certainly hide: a node, a next hop, or a network of the host.
 */
import { type IpPrefix, parseIpAddress, parseIpPrefix, prefixContains } from '../model/ip-address.ts';
import type { EngineNetworkSpec } from './engine-networks.ts';
import type { ObservedRoute } from './plan-state.ts';

/** Why `spec` must not be made on this host, or null. `ownBridges`: devices whose routes are swarmd's own. */
export function subnetConflict(
  spec: EngineNetworkSpec,
  nodeAddresses: readonly string[],
  routes: readonly ObservedRoute[],
  ownBridges: ReadonlySet<string>,
): string | null {
  const subnet = parseIpPrefix(spec.subnet);
  if (subnet === null) return `the subnet ${spec.subnet} of network ${spec.name} is malformed`;
  const hidden =
    nodeAddresses.find((address) => covers(subnet, address)) ??
    routes.find(({ gateway, device }) => !ownBridges.has(device) && covers(subnet, gateway))?.gateway;
  const route = routes.find(({ prefix, device }) => {
    const other = prefix === '' || ownBridges.has(device) ? null : parseIpPrefix(prefix);
    return other !== null && other.length >= subnet.length && prefixContains(subnet, other);
  });
  if (hidden === undefined && route === undefined) return null;
  const what =
    hidden === undefined
      ? `the host's network ${route?.prefix} on ${route?.device}`
      : `the address ${hidden}`;
  return `the subnet ${spec.subnet} of network ${spec.name} would hide ${what} from this node; give the network another subnet, or the cluster another address pool`;
}

function covers(subnet: IpPrefix, address: string): boolean {
  const parsed = parseIpAddress(address);
  return parsed !== null && prefixContains(subnet, parsed);
}
