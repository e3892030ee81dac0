/** The node's own addresses: how others reach it, and ports to listen on. */
import { createServer } from 'node:net';
import { networkInterfaces } from 'node:os';
import { SwarmdError, systemErrorCode } from '../base/errors.ts';

/** Interfaces that never lead to other nodes: container bridges and tunnels of this machine. */
const LOCAL_INTERFACES = /^(docker|br-|veth|sw\d|vx\d|virbr|cni|flannel)/;

/**
 * The address other nodes should use: the one given (an interface name is looked up), the listen address, the only
 * address of this machine, or loopback when there is none. Throws INVALID_ARGUMENT when several would do.
 */
export function resolveAdvertiseHost(given: string, listenHost: string): string {
  const interfaces = networkInterfaces();
  if (given !== '') {
    const named = interfaces[given];
    if (named === undefined) return given;
    const usable = named.filter((one) => one.family === 'IPv4' || !one.address.startsWith('fe80:'));
    const best = usable.find((one) => one.family === 'IPv4') ?? usable[0];
    if (best !== undefined) return best.address;
    throw new SwarmdError(
      'INVALID_ARGUMENT',
      `the interface ${given} has no address that other nodes can use; give another one with --advertise-addr`,
    );
  }
  if (!['', '0.0.0.0', '::'].includes(listenHost)) return listenHost;
  const found: { name: string; address: string }[] = [];
  for (const [name, addresses] of Object.entries(interfaces)) {
    if (LOCAL_INTERFACES.test(name)) continue;
    for (const address of addresses ?? []) {
      if (address.family === 'IPv4' && !address.internal) found.push({ name, address: address.address });
    }
  }
  if (found.length === 0) return '127.0.0.1';
  if (found.length === 1) return (found[0] as { address: string }).address;
  const list = found.map(({ name, address }) => `${address} on ${name}`).join(', ');
  throw new SwarmdError(
    'INVALID_ARGUMENT',
    `this machine has several addresses (${list}); say which one the other nodes reach with --advertise-addr`,
  );
}

/** `port`, or a free one when it is 0. Throws PORT_IN_USE when it is taken. */
export function reservePort(host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', (error) => {
      const taken = systemErrorCode(error) === 'EADDRINUSE';
      reject(
        taken
          ? new SwarmdError(
              'PORT_IN_USE',
              `${host}:${port} is in use; stop what listens there, or choose another address with --listen-addr`,
              { cause: error },
            )
          : new SwarmdError(
              'INVALID_ARGUMENT',
              `cannot listen on ${host}:${port}: ${error.message}; check --listen-addr`,
              { cause: error },
            ),
      );
    });
    server.listen(port, host, () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : port));
    });
  });
}
