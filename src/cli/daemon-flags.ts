/** The flags that start a daemon, and the options they resolve to (flag, then environment, then default). */
import { isIPv6 } from 'node:net';
import { join, resolve } from 'node:path';
import type { LogLevel } from '../base/log.ts';
import { defaultClusterSpec } from '../model/defaults.ts';
import type { NodeOptions } from '../node/types.ts';
import { UsageError, fullName, type SwarmdCommand } from './command.ts';
import type { Outside } from './context.ts';
import { FlagReader, keyValues } from './flag-values.ts';
import { dataDirOf } from './host.ts';
import { readSavedOptions } from './saved-options.ts';

/** Port of node-to-node traffic when none is given. */
export const CLUSTER_PORT = 2377;

/** Adds the flags that say where a node is: its folder and addresses. */
export function withPlaceFlags(command: SwarmdCommand): SwarmdCommand {
  return command
    .value('--data-dir <folder>', 'folder of identity, state and tasks (env SWARMD_DATA_DIR)')
    .value('--listen-addr <host:port>', `where other nodes connect (default: 0.0.0.0:${CLUSTER_PORT})`)
    .value('--advertise-addr <host:port>', 'how other nodes reach this one (default: found by itself)')
    .value('--data-path-addr <address>', 'address for traffic between tasks (default: the advertised one)');
}

/** Adds the flags every daemon command has. */
export function withDaemonFlags(command: SwarmdCommand): SwarmdCommand {
  return withPlaceFlags(command)
    .value('--socket <path>', 'socket of the API (default: swarmd.sock in the data folder)')
    .value('--dns-addr <host:port>', 'also answer DNS here')
    .value(
      '--engine-host <address>',
      'Docker Engine, or "none" (default: $DOCKER_HOST or /var/run/docker.sock)',
    )
    .list('--label <name=value>', 'label of this node')
    .oneOf('--availability <state>', 'may this node run tasks?', ['active', 'pause', 'drain'])
    .oneOf('--log-level <level>', 'how much is logged (default: info)', ['debug', 'info', 'warn', 'error'])
    .oneOf('--log-format <format>', 'form of the log (default: text)', ['text', 'json'])
    .flag('-d, --detach', 'run in the background, log to swarmd.log in the data folder');
}

/** Adds what only a new cluster has, and docker's flags for it that come later. */
export function withClusterFlags(command: SwarmdCommand): SwarmdCommand {
  return command
    .flag('--force-new-cluster', 'go on with the cluster in the data folder when the other managers are lost')
    .list('--default-addr-pool <cidr>', 'pool that network subnets are cut from (default: 10.0.0.0/8)')
    .value('--default-addr-pool-mask-length <bits>', 'prefix length of those subnets (default: 24)')
    .value('--task-history-limit <count>', 'old tasks kept for each slot (default: 5)')
    .value('--dispatcher-heartbeat <duration>', 'time between heartbeats of the nodes (default: 1s)')
    .unsupported([
      '--autolock',
      '--cert-expiry <duration>',
      '--data-path-port <port>',
      '--external-ca <url>',
      '--max-snapshots <count>',
      '--snapshot-interval <count>',
    ]);
}

/** `host`, `host:port`, `:port` or `[ipv6]:port`. */
export function parseAddress(
  command: SwarmdCommand,
  flag: string,
  text: string,
  port: number,
): { host: string; port: number } {
  if (isIPv6(text)) return { host: text, port };
  const match = /^(\[[^\]]+\]|[^:]*)(?::([0-9]{1,5}))?$/.exec(text);
  const given = match?.[2] === undefined ? port : Number(match[2]);
  if (match === null || given > 65_535) {
    throw new UsageError(`--${flag}: "${text}" is not host:port`, fullName(command));
  }
  return { host: (match[1] ?? '').replace(/^\[(.*)\]$/, '$1'), port: given };
}

/** What the flags and the environment say, with defaults. */
export function nodeOptionsOf(command: SwarmdCommand, outside: Outside): NodeOptions {
  const flags = new FlagReader(command.opts());
  const dataDir = dataDirOf(command, outside);
  const listen = flags.text('listen-addr') ?? outside.env['SWARMD_LISTEN_ADDR'];
  const advertise = flags.text('advertise-addr') ?? outside.env['SWARMD_ADVERTISE_ADDR'];
  const saved = readSavedOptions(dataDir);
  const dns = flags.text('dns-addr') ?? outside.env['SWARMD_DNS_ADDR'] ?? saved.dnsAddress;
  const socket = flags.text('socket') ?? outside.env['SWARMD_SOCKET'] ?? saved.socket;
  const engineHost = engineHostFrom(flags.text('engine-host'), outside, saved.engineHost);
  const clusterSpec = clusterSpecOf(flags);
  return {
    dataDir,
    listen: listenOf(command, listen),
    advertise:
      advertise === undefined ? { host: '', port: 0 } : parseAddress(command, 'advertise-addr', advertise, 0),
    dataPathAddress: flags.text('data-path-addr') ?? '',
    socketPath: socket === undefined ? join(dataDir, 'swarmd.sock') : resolve(outside.cwd, socket),
    dns: dns === undefined || dns === 'none' ? null : parseAddress(command, 'dns-addr', dns, 53),
    engineHost,
    runtimes: engineHost === null ? ['process'] : ['docker', 'process'],
    labels: keyValues('label', flags.list('label')),
    availability: flags.oneOf('availability', ['active', 'pause', 'drain']) ?? 'active',
    ...(Object.keys(clusterSpec).length === 0 ? {} : { clusterSpec }),
    logLevel: (flags.text('log-level') ?? outside.env['SWARMD_LOG_LEVEL'] ?? 'info') as LogLevel,
    logFormat: (flags.text('log-format') ?? outside.env['SWARMD_LOG_FORMAT']) === 'json' ? 'json' : 'text',
  };
}

/** The addresses that were given to a node that has some already. */
export function moveOf(command: SwarmdCommand, outside: Outside): NonNullable<NodeOptions['move']> {
  const flags = new FlagReader(command.opts());
  const listen = flags.text('listen-addr') ?? outside.env['SWARMD_LISTEN_ADDR'];
  const advertise = flags.text('advertise-addr') ?? outside.env['SWARMD_ADVERTISE_ADDR'];
  const dataPathAddress = flags.text('data-path-addr');
  return {
    ...(listen === undefined ? {} : { listen: listenOf(command, listen) }),
    ...(advertise === undefined ? {} : { advertise: parseAddress(command, 'advertise-addr', advertise, 0) }),
    ...(dataPathAddress === undefined ? {} : { dataPathAddress }),
  };
}

function listenOf(command: SwarmdCommand, text: string | undefined): NodeOptions['listen'] {
  const address = parseAddress(command, 'listen-addr', text ?? '', CLUSTER_PORT);
  return { host: address.host === '' ? '0.0.0.0' : address.host, port: address.port };
}

/** The engine's address as given, else of the environment, as saved, the usual socket; null for "none". */
export function engineHostFrom(given: string | undefined, outside: Outside, saved?: string): string | null {
  const { SWARMD_ENGINE_HOST: own, DOCKER_HOST: docker } = outside.env;
  // An empty variable counts as none set, as it does for docker.
  const chosen = [given, own, docker, saved].find((address) => address !== undefined && address !== '');
  return chosen === 'none' ? null : (chosen ?? 'unix:///var/run/docker.sock');
}

function clusterSpecOf(flags: FlagReader): NonNullable<NodeOptions['clusterSpec']> {
  const pool = flags.list('default-addr-pool');
  const subnetSize = flags.count('default-addr-pool-mask-length');
  const taskHistoryLimit = flags.count('task-history-limit');
  const heartbeatMs = flags.durationMs('dispatcher-heartbeat');
  const differs = <T>(value: T | undefined, byDefault: T): boolean =>
    value !== undefined && value !== byDefault;
  return {
    ...(pool.length === 0 ? {} : { defaultAddressPool: pool }),
    ...(differs(subnetSize, defaultClusterSpec.subnetSize) ? { subnetSize: subnetSize as number } : {}),
    ...(differs(taskHistoryLimit, defaultClusterSpec.taskHistoryLimit)
      ? { taskHistoryLimit: taskHistoryLimit as number }
      : {}),
    ...(differs(heartbeatMs, defaultClusterSpec.heartbeatMs) ? { heartbeatMs: heartbeatMs as number } : {}),
  };
}
