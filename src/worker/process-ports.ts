/**
 * Ports for process tasks: each port the service publishes gets a port of the host.
 *
 * Invariant: a port is given to one task at a time; it lies in the given range, which stays clear of the kernel's
 * ephemeral ports and of the ports services publish, unless the user fixed it (host mode).
 */
import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';
import { SwarmdError } from '../base/errors.ts';
import { type Random, randomBelow } from '../base/random.ts';
import type { PortMapping } from '../model/objects.ts';
import type { PortConfig, PortProtocol } from '../model/spec.ts';

/** Below 30000-32767 (published ports) and the ephemeral range of Linux (32768 and up). */
export const PROCESS_PORT_FIRST = 20_000;
export const PROCESS_PORT_LAST = 29_999;

export interface PortRange {
  readonly first: number;
  readonly last: number;
}

/** Whether nothing listens on the port, on any address of the host. */
export function isPortFree(port: number, protocol: PortProtocol): Promise<boolean> {
  if (protocol === 'udp') {
    return new Promise((resolve) => {
      const socket = createSocket('udp4');
      socket.once('error', () => {
        socket.close();
        resolve(false);
      });
      socket.bind({ port, exclusive: true }, () => socket.close(() => resolve(true)));
    });
  }
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host: '0.0.0.0', exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/** A free port of the range for all the protocols; throws RESOURCE_EXHAUSTED when there is none. */
export async function pickPort(
  range: PortRange,
  protocols: readonly PortProtocol[],
  taken: ReadonlySet<number>,
  random: Random,
): Promise<number> {
  const size = range.last - range.first + 1;
  const start = randomBelow(random, size);
  for (let i = 0; i < size; i++) {
    const port = range.first + ((start + i) % size);
    if (taken.has(port)) continue;
    const free = await Promise.all(protocols.map((protocol) => isPortFree(port, protocol)));
    if (free.every(Boolean)) return port;
  }
  throw new SwarmdError(
    'RESOURCE_EXHAUSTED',
    `no free port from ${range.first} to ${range.last} on this node`,
  );
}

/** Ports for everything a service publishes: one number a target port, whatever its protocols. */
export async function mapPorts(
  published: readonly PortConfig[],
  range: PortRange,
  taken: ReadonlySet<number>,
  random: Random,
): Promise<{ readonly ports: readonly PortMapping[]; readonly fixed: readonly number[] }> {
  const ports: PortMapping[] = [];
  const fixed: number[] = [];
  const used = new Set(taken);
  for (const targetPort of new Set(published.map((port) => port.targetPort))) {
    const configs = published.filter((port) => port.targetPort === targetPort);
    const host = configs.find((port) => port.publishMode === 'host' && port.publishedPort > 0);
    const protocols = [...new Set(configs.map((port) => port.protocol))];
    const hostPort = host?.publishedPort ?? (await pickPort(range, protocols, used, random));
    if (host !== undefined) fixed.push(hostPort);
    used.add(hostPort);
    for (const protocol of protocols) ports.push({ protocol, targetPort, hostPort });
  }
  return { ports, fixed };
}

/** `PORT` (the first target's) and `PORT_<target>` for each. */
export function portEnvironment(ports: readonly PortMapping[]): Record<string, string> {
  const env: Record<string, string> = {};
  for (const { targetPort, hostPort } of ports) {
    env['PORT'] ??= String(hostPort);
    env[`PORT_${targetPort}`] = String(hostPort);
  }
  return env;
}
