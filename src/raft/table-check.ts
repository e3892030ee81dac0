/**
 * Checks the checksums of the database's table files, which the database itself does not when it reads: on a damaged
 * index it ends the whole process with a failed assertion, and nobody is told why.
 *
 * A table is a run of blocks, each followed by its type and a masked CRC-32C; its footer says where the index block
 * is, whose values say where the others are.
 * @see https://github.com/google/leveldb/blob/main/doc/table_format.md
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { systemErrorCode } from '../base/errors.ts';

const FOOTER_BYTES = 48;
const TRAILER_BYTES = 5;
const MAGIC = 0xdb4775248b80fb57n;
const MASK_DELTA = 0xa282ead8;
const CASTAGNOLI = 0x82f63b78;

/** Eight tables, so that eight bytes are taken in a step. */
const TABLES: readonly Int32Array[] = makeTables();

function makeTables(): Int32Array[] {
  const tables = Array.from({ length: 8 }, () => new Int32Array(256));
  const [first] = tables as [Int32Array];
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 0 ? crc >>> 1 : (crc >>> 1) ^ CASTAGNOLI;
    first[byte] = crc;
  }
  for (let k = 1; k < 8; k++) {
    const [table, before] = [tables[k] as Int32Array, tables[k - 1] as Int32Array];
    for (let byte = 0; byte < 256; byte++) {
      const crc = before[byte] as number;
      table[byte] = (crc >>> 8) ^ (first[crc & 255] as number);
    }
  }
  return tables;
}

/** CRC-32C of `bytes` from `from` up to `to`. */
export function crc32c(bytes: Uint8Array, from = 0, to = bytes.length): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = TABLES as [
    ...[Int32Array, Int32Array, Int32Array, Int32Array],
    ...[Int32Array, Int32Array, Int32Array, Int32Array],
  ];
  const at = (index: number): number => bytes[index] as number;
  let crc = -1;
  let i = from;
  for (; i + 8 <= to; i += 8) {
    const low = crc ^ (at(i) | (at(i + 1) << 8) | (at(i + 2) << 16) | (at(i + 3) << 24));
    crc =
      (t7[low & 255] as number) ^
      (t6[(low >>> 8) & 255] as number) ^
      (t5[(low >>> 16) & 255] as number) ^
      (t4[low >>> 24] as number) ^
      (t3[at(i + 4)] as number) ^
      (t2[at(i + 5)] as number) ^
      (t1[at(i + 6)] as number) ^
      (t0[at(i + 7)] as number);
  }
  for (; i < to; i++) crc = (t0[(crc ^ at(i)) & 255] as number) ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** Where a block is, without its trailer. */
interface Block {
  readonly offset: number;
  readonly size: number;
}

/** Reads varints one after another; they are below 2^53 in a table that is in order. */
class Varints {
  readonly #bytes: Uint8Array;
  at: number;

  constructor(bytes: Uint8Array, at: number) {
    this.#bytes = bytes;
    this.at = at;
  }

  next(): number {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = this.#bytes[this.at++] ?? 0;
      value += (byte & 127) * scale;
      if (byte < 128 || scale > 2 ** 49) return value;
    }
  }

  block(): Block {
    return { offset: this.next(), size: this.next() };
  }
}

function isWhole(table: Buffer, { offset, size }: Block): boolean {
  const end = offset + size;
  if (end + TRAILER_BYTES > table.length) return false;
  const masked = (table.readUInt32LE(end + 1) - MASK_DELTA) >>> 0;
  return crc32c(table, offset, end + 1) === ((masked << 15) | (masked >>> 17)) >>> 0;
}

/** The blocks that an index block names. */
function indexed(table: Buffer, index: Block): Block[] {
  const end = index.offset + index.size;
  const restarts = table.readUInt32LE(end - 4);
  const blocks: Block[] = [];
  const varints = new Varints(table, index.offset);
  while (varints.at < end - 4 * (restarts + 1)) {
    varints.next();
    const keyBytes = varints.next();
    const valueBytes = varints.next();
    const valueAt = varints.at + keyBytes;
    blocks.push(new Varints(table, valueAt).block());
    varints.at = valueAt + valueBytes;
  }
  return blocks;
}

/** What is wrong with a table's bytes, in words; null for nothing. */
export function tableDamage(table: Buffer): string | null {
  if (table.length < FOOTER_BYTES || table.readBigUInt64LE(table.length - 8) !== MAGIC)
    return 'its end is missing';
  const footer = new Varints(table, table.length - FOOTER_BYTES);
  const meta = footer.block();
  const index = footer.block();
  if (!isWhole(table, index)) return 'its index fails its checksum';
  for (const block of [...indexed(table, index), meta])
    if (!isWhole(table, block)) return `the block at byte ${block.offset} fails its checksum`;
  return null;
}

/** The tables in a folder, each with what changes when it is written. */
export type Tables = ReadonlyMap<string, string>;

/** Lists the tables in `folder`; none where it does not exist. */
export function listTables(folder: string): Tables {
  const tables = new Map<string, string>();
  for (const name of namesIn(folder)) {
    if (!/\.(ldb|sst)$/.test(name)) continue;
    const stat = statSync(join(folder, name), { bigint: true, throwIfNoEntry: false });
    if (stat !== undefined) tables.set(name, `${stat.ino}/${stat.size}/${stat.mtimeNs}`);
  }
  return tables;
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT' || systemErrorCode(error) === 'ENOTDIR') return [];
    throw error;
  }
}

/**
 * The first damage in the tables that were in `folder` before the database was opened and still are, in words; null
 * for none. Others are no part of the database (a crash left them, and opening removed them), or are being written.
 */
export function damageInTables(folder: string, before: Tables): string | null {
  const now = listTables(folder);
  for (const [name, version] of before) {
    if (now.get(name) !== version) continue;
    let damage: string | null = null;
    try {
      damage = tableDamage(readFileSync(join(folder, name)));
    } catch (error) {
      // A compaction has replaced it by now.
      if (systemErrorCode(error) !== 'ENOENT') throw error;
    }
    if (damage !== null) return `file ${name}: ${damage}`;
  }
  return null;
}
