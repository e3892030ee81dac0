/**
 * Reads what is there: engine networks, links, forwarding entries, sysctls and forwarding rules.
 *
 * Invariants: reading changes nothing; output of the commands is parsed defensively, an entry that makes no sense
 * is left out; a command that is absent reads as nothing there.
 */
import { SwarmdError } from '../base/errors.ts';
import type { CommandRunner } from './commands.ts';
import type { EngineNetworks } from './engine-networks.ts';
import {
  type DesiredNetworks,
  FORWARD_CHAIN,
  type ForwardingEntry,
  type ObservedDevice,
  type ObservedForward,
  type ObservedNetworks,
  type ObservedRoute,
} from './plan-state.ts';

/** What `desired` has to be compared with. Rejects when the engine or a command that must work fails. */
export async function observeNetworks(
  desired: DesiredNetworks,
  engine: EngineNetworks | null,
  commands: CommandRunner,
  signal: AbortSignal,
): Promise<ObservedNetworks> {
  const networks = engine === null ? [] : await engine.list(signal);
  const routes = engine === null ? [] : await readRoutes(commands, signal);
  if (desired.forwardBridges === null) {
    return { networks, routes, devices: [], bridges: new Map(), sysctls: new Map(), forward: null };
  }
  const read = async (...argv: string[]): Promise<string> => {
    const result = await commands(argv, { signal });
    if (result.exitCode !== 0) {
      throw new SwarmdError('INTERNAL', `"${argv.join(' ')}" failed: ${result.stderr}`);
    }
    return result.stdout;
  };
  const [vxlan, bridges, entries] = [
    await read('ip', '-j', '-d', 'link', 'show', 'type', 'vxlan'),
    await read('ip', '-j', 'link', 'show', 'type', 'bridge'),
    await read('bridge', '-j', 'fdb', 'show'),
  ];
  return {
    networks,
    routes,
    devices: parseDevices(vxlan, parseForwardingEntries(entries)),
    bridges: parseBridges(bridges),
    sysctls: await readSysctls(desired, commands, signal),
    forward: await readForward(commands, signal),
  };
}

function parseList(text: string): Record<string, unknown>[] {
  let value: unknown;
  try {
    value = JSON.parse(text === '' ? '[]' : text);
  } catch {
    return [];
  }
  if (!Array.isArray(value)) return [];
  return value.filter((item): item is Record<string, unknown> => typeof item === 'object' && item !== null);
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function number(value: unknown): number {
  return typeof value === 'number' ? value : 0;
}

/** VXLAN devices from `ip -j -d link show type vxlan`, with their forwarding entries by device name. */
export function parseDevices(
  output: string,
  entries: ReadonlyMap<string, readonly ForwardingEntry[]>,
): ObservedDevice[] {
  return parseList(output).flatMap((link) => {
    const name = text(link['ifname']);
    const info = record(record(link['linkinfo'])['info_data']);
    if (name === '') return [];
    const flags = Array.isArray(link['flags']) ? link['flags'] : [];
    return [
      {
        name,
        vni: number(info['id']),
        local: text(info['local']),
        port: number(info['port']),
        mtu: number(link['mtu']),
        master: text(link['master']),
        up: flags.includes('UP'),
        alias: text(link['ifalias']),
        forwarding: entries.get(name) ?? [],
      },
    ];
  });
}

/** Hardware address by name from `ip -j link show type bridge`. */
export function parseBridges(output: string): ReadonlyMap<string, string> {
  return new Map(parseList(output).map((link) => [text(link['ifname']), text(link['address'])]));
}

/** Entries that name a peer, by device, from `bridge -j fdb show`. */
export function parseForwardingEntries(output: string): ReadonlyMap<string, readonly ForwardingEntry[]> {
  const byDevice = new Map<string, ForwardingEntry[]>();
  for (const entry of parseList(output)) {
    const [device, mac, peer] = [text(entry['ifname']), text(entry['mac']), text(entry['dst'])];
    if (device === '' || mac === '' || peer === '') continue;
    const entries = byDevice.get(device);
    if (entries === undefined) byDevice.set(device, [{ mac, peer }]);
    else entries.push({ mac, peer });
  }
  return byDevice;
}

async function readRoutes(commands: CommandRunner, signal: AbortSignal): Promise<ObservedRoute[]> {
  const result = await optional(commands(['ip', '-j', '-4', 'route', 'show'], { signal }));
  return parseRoutes(result?.stdout ?? '');
}

/** Routes from `ip -j -4 route show`. */
export function parseRoutes(output: string): ObservedRoute[] {
  return parseList(output).flatMap((route) => {
    const [prefix, device] = [text(route['dst']), text(route['dev'])];
    if (prefix === '') return [];
    const cidr = prefix === 'default' ? '' : prefix.includes('/') ? prefix : `${prefix}/32`;
    return [{ prefix: cidr, device, gateway: text(route['gateway']) }];
  });
}

async function readSysctls(
  desired: DesiredNetworks,
  commands: CommandRunner,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, string>> {
  if (desired.sysctls.length === 0) return new Map();
  const keys = desired.sysctls.map((sysctl) => sysctl.key);
  // -e: keys of bridges that do not exist yet are no error.
  const result = await optional(commands(['sysctl', '-e', ...keys], { signal }));
  return parseSysctls(result?.stdout ?? '');
}

/** `key = value` lines. */
export function parseSysctls(output: string): ReadonlyMap<string, string> {
  const pairs = output.split('\n').map((line) => line.split('='));
  return new Map(pairs.map(([key, value]) => [(key ?? '').trim(), (value ?? '').trim()]));
}

async function readForward(commands: CommandRunner, signal: AbortSignal): Promise<ObservedForward | null> {
  const forward = await optional(commands(['iptables', '-w', '5', '-S', 'FORWARD'], { signal }));
  if (forward === null || forward.exitCode !== 0) return null;
  const chain = await optional(commands(['iptables', '-w', '5', '-S', FORWARD_CHAIN], { signal }));
  return parseForward(forward.stdout, chain !== null && chain.exitCode === 0 ? chain.stdout : '');
}

/** From `iptables -S FORWARD` and `iptables -S SWARMD-FORWARD` ('' when the chain is absent). */
export function parseForward(forward: string, chain: string): ObservedForward {
  const rules = forward.split('\n').filter((line) => line.startsWith('-A FORWARD '));
  const bridges = [...chain.matchAll(/^-A SWARMD-FORWARD -i (\S+) -o (\S+) -j ACCEPT$/gm)];
  return {
    chainExists: chain.includes(`-N ${FORWARD_CHAIN}`),
    jumps: rules.flatMap((line, index) => (line === `-A FORWARD -j ${FORWARD_CHAIN}` ? [index] : [])),
    bridges: bridges.flatMap(([, from, to]) => (from === to && from !== undefined ? [from] : [])),
  };
}

/** Null for a command that is not installed. */
async function optional<T>(result: Promise<T>): Promise<T | null> {
  try {
    return await result;
  } catch (error) {
    if (error instanceof SwarmdError && error.code === 'NOT_FOUND') return null;
    throw error;
  }
}
