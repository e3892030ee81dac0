/**
 * IP addresses and prefixes as numbers: parsing, printing and containment, for IPv4 and IPv6.
 *
 * Invariant: `value` is 0 .. 2^32-1 for version 4 and 0 .. 2^128-1 for version 6.
 */

/** An address with its version. */
export interface IpAddress {
  readonly version: 4 | 6;
  readonly value: bigint;
}

/** A block of addresses: the first one, and how many leading bits are fixed. */
export interface IpPrefix {
  readonly version: 4 | 6;
  /** Address as written; its host bits may be set. */
  readonly value: bigint;
  readonly length: number;
}

function parseIpv4(text: string): bigint | null {
  const parts = text.split('.');
  if (parts.length !== 4) return null;
  let value = 0n;
  for (const part of parts) {
    if (!/^(0|[1-9][0-9]{0,2})$/.test(part)) return null;
    const octet = Number(part);
    if (octet > 255) return null;
    value = value * 256n + BigInt(octet);
  }
  return value;
}

/** The 16-bit groups of one side of `::`; the last may be dotted IPv4. */
function parseGroups(text: string): number[] | null {
  if (text === '') return [];
  const groups: number[] = [];
  const parts = text.split(':');
  for (const [index, part] of parts.entries()) {
    if (part.includes('.')) {
      const tail = index === parts.length - 1 ? parseIpv4(part) : null;
      if (tail === null) return null;
      groups.push(Number(tail >> 16n), Number(tail & 0xffffn));
    } else if (/^[0-9a-fA-F]{1,4}$/.test(part)) {
      groups.push(Number.parseInt(part, 16));
    } else {
      return null;
    }
  }
  return groups;
}

function parseIpv6(text: string): bigint | null {
  const halves = text.split('::');
  if (halves.length > 2) return null;
  const head = parseGroups(halves[0] ?? '');
  const tail = parseGroups(halves[1] ?? '');
  if (head === null || tail === null) return null;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 1) return null;
  const groups = [...head, ...Array<number>(missing).fill(0), ...tail];
  return groups.reduce((value, group) => value * 65_536n + BigInt(group), 0n);
}

/** Parses `10.0.0.1` or `2001:db8::2`; null when it is neither. An IPv4-mapped IPv6 address counts as IPv4. */
export function parseIpAddress(text: string): IpAddress | null {
  if (!text.includes(':')) {
    const value = parseIpv4(text);
    return value === null ? null : { version: 4, value };
  }
  const value = parseIpv6(text);
  if (value === null) return null;
  if (value >> 32n === 0xffffn) return { version: 4, value: value & 0xffff_ffffn };
  return { version: 6, value };
}

/** Parses `10.0.0.0/24` or `2001:db8::/32`; null when malformed. */
export function parseIpPrefix(text: string): IpPrefix | null {
  const slash = text.indexOf('/');
  if (slash < 0) return null;
  const address = parseIpAddress(text.slice(0, slash));
  const lengthText = text.slice(slash + 1);
  if (address === null || !/^(0|[1-9][0-9]{0,2})$/.test(lengthText)) return null;
  const length = Number(lengthText);
  return length > (address.version === 4 ? 32 : 128) ? null : { ...address, length };
}

/** Whether `address` lies in `prefix`. Different versions never do. */
export function prefixContains(prefix: IpPrefix, address: IpAddress): boolean {
  if (prefix.version !== address.version) return false;
  const hostBits = BigInt((prefix.version === 4 ? 32 : 128) - prefix.length);
  return prefix.value >> hostBits === address.value >> hostBits;
}
