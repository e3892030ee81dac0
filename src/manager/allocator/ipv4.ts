/**
 * IPv4 address arithmetic on numbers: blocks, overlap, and cutting free blocks out of a pool.
 *
 * Invariants: an address is 0 .. 2^32-1; a block's `first` has no host bits set.
 */
import { parseIpAddress, parseIpPrefix } from '../../model/ip-address.ts';
import { ok, refuse, type Result } from '../../base/result.ts';

/** A CIDR block. */
export interface Ipv4Block {
  readonly first: number;
  readonly prefixLength: number;
}

/** Number of addresses in the block, the network and broadcast addresses included. */
export function blockSize(block: Ipv4Block): number {
  return 2 ** (32 - block.prefixLength);
}

/** The last address of the block. */
export function lastAddress(block: Ipv4Block): number {
  return block.first + blockSize(block) - 1;
}

/** Dotted text of an address. */
export function formatIpv4(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.');
}

/** CIDR text of a block. */
export function formatBlock(block: Ipv4Block): string {
  return `${formatIpv4(block.first)}/${block.prefixLength}`;
}

/** Parses dotted text; null when it is no IPv4 address. */
export function parseIpv4(text: string): number | null {
  const address = parseIpAddress(text);
  return address === null || address.version !== 4 ? null : Number(address.value);
}

/** The address part of `10.0.1.5/24`; null when malformed. */
export function parseAttachmentAddress(text: string): number | null {
  const slash = text.indexOf('/');
  return parseIpv4(slash < 0 ? text : text.slice(0, slash));
}

/** Parses an IPv4 CIDR block. Refuses other text, and blocks whose address has host bits set. */
export function parseBlock(text: string): Result<Ipv4Block> {
  const prefix = parseIpPrefix(text);
  if (prefix === null || prefix.version !== 4)
    return refuse(`'${text}' is no IPv4 subnet such as 10.0.1.0/24`);
  const value = Number(prefix.value);
  const size = 2 ** (32 - prefix.length);
  const first = Math.floor(value / size) * size;
  if (first !== value) {
    return refuse(
      `'${text}' has host bits set; the subnet is ${formatBlock({ first, prefixLength: prefix.length })}`,
    );
  }
  return ok({ first, prefixLength: prefix.length });
}

/** Whether two blocks share an address. */
export function blocksOverlap(a: Ipv4Block, b: Ipv4Block): boolean {
  return a.first <= lastAddress(b) && b.first <= lastAddress(a);
}

/** The lowest block of `prefixLength` in `pool` that overlaps none of `used`; null when the pool is exhausted. */
export function lowestFreeBlock(
  pool: Ipv4Block,
  prefixLength: number,
  used: readonly Ipv4Block[],
): Ipv4Block | null {
  if (prefixLength < pool.prefixLength || prefixLength > 32) return null;
  const size = 2 ** (32 - prefixLength);
  const inWay = used.filter((block) => blocksOverlap(block, pool)).toSorted((a, b) => a.first - b.first);
  let first = pool.first;
  for (const block of inWay) {
    if (first + size - 1 < block.first) break;
    // Skip to the next aligned block after the one in the way.
    first = Math.max(first, Math.ceil((lastAddress(block) + 1) / size) * size);
  }
  return first + size - 1 > lastAddress(pool) ? null : { first, prefixLength };
}
