/**
 * PURE: the kernel half of the network plan: VXLAN devices, forwarding entries and forwarding rules.
 *
 * Invariants: a device without swarmd's alias is never touched; forwarding entries go in one batch a device.
 */
import {
  FLOOD_MAC,
  FORWARD_CHAIN,
  type ForwardingEntry,
  type NetworkStep,
  type ObservedDevice,
  type ObservedForward,
  type ObservedNetworks,
  type VxlanDevice,
} from './plan-state.ts';

/** Steps for one VXLAN device. `fresh`: its bridge is being made by an earlier step of the same plan. */
export function diffDevice(
  wanted: VxlanDevice,
  nodeId: string,
  observed: ObservedNetworks,
  fresh: boolean,
): NetworkStep[] {
  const { networkId, name } = wanted;
  const alias = `swarmd:${nodeId}`;
  const found = observed.devices.find((device) => device.name === name);
  if (found !== undefined && !found.alias.startsWith('swarmd:')) {
    const message = `the network device ${name} exists and is not swarmd's; remove it with "ip link del ${name}"`;
    return [{ kind: 'blocked', networkId, message }];
  }
  const current = found !== undefined && sameDevice(found, wanted, alias) ? found : undefined;
  const run = (...argv: string[]): NetworkStep => ({ kind: 'run', networkId, argv });
  const steps: NetworkStep[] = [];
  if (found !== undefined && current === undefined) steps.push(run('ip', 'link', 'del', 'dev', name));
  if (current === undefined) {
    const type = ['type', 'vxlan', 'id', String(wanted.vni), 'local', wanted.local];
    const options = ['dstport', String(wanted.port), 'nolearning'];
    steps.push(run('ip', 'link', 'add', name, 'mtu', String(wanted.mtu), ...type, ...options));
    steps.push(run('ip', 'link', 'set', 'dev', name, 'alias', alias));
  }
  if (current === undefined || fresh || current.master !== wanted.bridge || !current.up) {
    steps.push(run('ip', 'link', 'set', 'dev', name, 'master', wanted.bridge, 'up'));
  }
  if (fresh || observed.bridges.get(wanted.bridge) !== wanted.bridgeMac) {
    steps.push(run('ip', 'link', 'set', 'dev', wanted.bridge, 'address', wanted.bridgeMac));
  }
  steps.push(...forwardingSteps(wanted, current?.forwarding ?? []));
  return steps;
}

/** The step that turns the entries `current` of a device into those wanted; none when they are the same. */
export function forwardingSteps(wanted: VxlanDevice, current: readonly ForwardingEntry[]): NetworkStep[] {
  const input = forwardingBatch(wanted.name, wanted.forwarding, current);
  if (input === '') return [];
  return [{ kind: 'run', networkId: wanted.networkId, argv: ['bridge', '-force', '-batch', '-'], input }];
}

function sameDevice(found: ObservedDevice, wanted: VxlanDevice, alias: string): boolean {
  return (
    found.alias === alias &&
    found.vni === wanted.vni &&
    found.local === wanted.local &&
    found.port === wanted.port &&
    found.mtu === wanted.mtu
  );
}

/** The lines for `bridge -batch`, '' when nothing differs. A stale entry goes before a new one comes. */
function forwardingBatch(
  device: string,
  wanted: readonly ForwardingEntry[],
  current: readonly ForwardingEntry[],
): string {
  const key = (entry: ForwardingEntry): string => `${entry.mac} ${entry.peer}`;
  const have = new Set(current.map(key));
  const want = new Set(wanted.map(key));
  const replaced = new Set(wanted.map((entry) => entry.mac).filter((mac) => mac !== FLOOD_MAC));
  const lines: string[] = [];
  for (const entry of current) {
    if (want.has(key(entry)) || replaced.has(entry.mac)) continue;
    lines.push(`fdb del ${entry.mac} dev ${device} dst ${entry.peer} self`);
  }
  for (const entry of wanted) {
    if (have.has(key(entry))) continue;
    lines.push(
      entry.mac === FLOOD_MAC
        ? `fdb append ${entry.mac} dev ${device} dst ${entry.peer} self permanent`
        : `fdb replace ${entry.mac} dev ${device} dst ${entry.peer} self static`,
    );
  }
  return lines.length === 0 ? '' : `${lines.join('\n')}\n`;
}

/**
 * Steps that keep our chain first in FORWARD and accepting exactly the traffic within `bridges`. `displaced`: an
 * earlier step makes the engine put its own jumps back on top.
 */
export function diffForwarding(
  bridges: readonly string[],
  observed: ObservedForward,
  displaced: boolean,
): NetworkStep[] {
  const run = (...args: string[]): NetworkStep => ({
    kind: 'run',
    networkId: '',
    argv: ['iptables', '-w', '5', ...args],
    optional: true,
  });
  const rule = (bridge: string): string[] => ['-i', bridge, '-o', bridge, '-j', 'ACCEPT'];
  const jump = ['FORWARD', '-j', FORWARD_CHAIN];
  const steps: NetworkStep[] = [];
  if (bridges.length === 0) {
    for (const _ of observed.jumps) steps.push(run('-D', ...jump));
    if (observed.chainExists) steps.push(run('-F', FORWARD_CHAIN), run('-X', FORWARD_CHAIN));
    return steps;
  }
  if (!observed.chainExists) steps.push(run('-N', FORWARD_CHAIN));
  for (const bridge of bridges) {
    if (!observed.bridges.includes(bridge)) steps.push(run('-A', FORWARD_CHAIN, ...rule(bridge)));
  }
  for (const bridge of observed.bridges) {
    if (!bridges.includes(bridge)) steps.push(run('-D', FORWARD_CHAIN, ...rule(bridge)));
  }
  if (!displaced && observed.jumps.length === 1 && observed.jumps[0] === 0) return steps;
  for (const _ of observed.jumps) steps.push(run('-D', ...jump));
  steps.push(run('-I', 'FORWARD', '1', '-j', FORWARD_CHAIN));
  return steps;
}
