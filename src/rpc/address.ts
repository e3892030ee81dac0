/** Addresses of nodes as people write them: `host`, `host:port`, `[ipv6]:port`. */
import { isIPv6 } from 'node:net';
import { ok, type Result, refuse } from '../base/result.ts';

/** The port of node-to-node RPC when an address names none. */
export const defaultPort = 2377;

/** Where a node listens. */
export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** Reads `host`, `host:port`, `[ipv6]:port` or a bare IPv6 address, or says what is wrong with it. */
export function parseAddress(text: string): Result<HostPort> {
  if (isIPv6(text)) return ok({ host: text, port: defaultPort });
  const match = /^(?:\[([^\]]+)\]|([^:[\]\s/]+))(?::([0-9]{1,5}))?$/.exec(text);
  if (match === null) return refuse(`"${text}" is not an address; write HOST:PORT or [IPV6]:PORT`);
  const [, bracketed, plain, portText] = match;
  if (bracketed !== undefined && !isIPv6(bracketed)) return refuse(`"${bracketed}" is not an IPv6 address`);
  const port = portText === undefined ? defaultPort : Number(portText);
  if (port < 1 || port > 65_535) return refuse(`"${text}" has port ${port}; ports are 1 to 65535`);
  return ok({ host: bracketed ?? plain ?? '', port });
}

/** `host:port`, with brackets around an IPv6 host. */
export function formatAddress(host: string, port: number): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}
