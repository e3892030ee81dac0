/** Published ports: the short syntax `[ip:][published:]target[/protocol]` with ranges. */
import { ok, refuse, type Result } from '../base/result.ts';
import type { PortConfig, PortProtocol } from '../model/spec.ts';

export interface ParsedPorts {
  readonly ports: readonly PortConfig[];
  /** The address part, which a cluster cannot honour; '' for none. */
  readonly hostAddress: string;
}

interface Range {
  readonly first: number;
  readonly last: number;
}

/** Parses the short syntax. `8000-8002:80` publishes one target on several ports, `80-82:90-92` pairs them. */
export function parsePortShort(value: string): Result<ParsedPorts> {
  const bad = (why: string): { ok: false; reason: string } =>
    refuse(`"${value}" is not a port: ${why}; write it like 8080:80, 53:53/udp or 8000-8002:80-82`);
  const slash = value.lastIndexOf('/');
  const protocol = parseProtocol(slash < 0 ? 'tcp' : value.slice(slash + 1));
  if (protocol === null) return bad(`the protocol must be tcp, udp or sctp`);
  const sections = splitAddress(slash < 0 ? value : value.slice(0, slash));
  if (sections === null) return bad('it has too many colons');
  const target = parseRange(sections.target);
  if (target === null) return bad(`"${sections.target}" is not a port number or range`);
  const published = sections.published === '' ? null : parseRange(sections.published);
  if (published === null && sections.published !== '')
    return bad(`"${sections.published}" is not a port number or range`);
  const targets = target.last - target.first + 1;
  const publisheds = published === null ? 0 : published.last - published.first + 1;
  if (published !== null && targets !== publisheds && targets !== 1)
    return bad('the ranges differ in length');
  const count = Math.max(targets, publisheds);
  const ports = Array.from(
    { length: count },
    (_, i): PortConfig => ({
      protocol,
      targetPort: targets === 1 ? target.first : target.first + i,
      publishedPort: published === null ? 0 : published.first + i,
      publishMode: 'ingress',
    }),
  );
  return ok({ ports, hostAddress: sections.address });
}

/** Reads `tcp`, `udp` or `sctp` in any case. */
export function parseProtocol(value: string): PortProtocol | null {
  const lower = value.toLowerCase();
  return lower === 'tcp' || lower === 'udp' || lower === 'sctp' ? lower : null;
}

/** Whether a number is a port, 1 .. 65535. */
export function isPort(port: number): boolean {
  return Number.isInteger(port) && port >= 1 && port <= 65_535;
}

function parseRange(text: string): Range | null {
  const match = /^([0-9]{1,5})(?:-([0-9]{1,5}))?$/.exec(text);
  if (match === null) return null;
  const first = Number(match[1]);
  const last = match[2] === undefined ? first : Number(match[2]);
  return isPort(first) && isPort(last) && first <= last ? { first, last } : null;
}

function splitAddress(text: string): { address: string; published: string; target: string } | null {
  const bracketed = /^\[([^\]]*)\]:(?:([^:]*):)?([^:]*)$/.exec(text);
  if (bracketed !== null) {
    return { address: bracketed[1] ?? '', published: bracketed[2] ?? '', target: bracketed[3] ?? '' };
  }
  const sections = text.split(':');
  if (sections.length > 3) return null;
  const [target = '', published = '', address = ''] = sections.reverse();
  return { address, published, target };
}

/** Whether two ports ask for the same place; ports without a number never do. */
export function samePublishedPort(a: PortConfig, b: PortConfig): boolean {
  return a.publishedPort !== 0 && a.publishedPort === b.publishedPort && a.protocol === b.protocol;
}
