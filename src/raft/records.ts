/**
 * The values in the raft log's database: what each record holds, and its checksum.
 *
 * Invariants: every record begins with the CRC-32 of the rest; an entry's checksum also covers its index, so an
 * entry that landed under another key is noticed; an entry names the term of the one before it, so that a write
 * missing between two others is noticed even where it replaced entries; decoding gives null for anything damaged.
 */
import { crc32 } from 'node:zlib';
import { ByteReader, ByteWriter, Malformed, U48_BYTES } from './bytes.ts';
import type { Entry, HardState, Snapshot } from './core/types.ts';
import { readSnapshot, snapshotBytes, writeSnapshot } from './snapshot-codec.ts';

const FORMAT_VERSION = 2;
const CRC_BYTES = 4;

/** The hard state as it is stored. */
export interface HardStateRecord {
  readonly hardState: HardState;
  /** Index of the last entry of the log when this was written: entries up to it must be there. */
  readonly lastIndex: number;
  /** How many writes the log has had, this one included. */
  readonly writes: number;
}

/** What is witnessed of a log: its latest write that was acknowledged. */
export type WitnessRecord = Pick<HardStateRecord, 'writes' | 'lastIndex'>;

/** An entry as it is stored. */
export interface EntryRecord {
  readonly entry: Entry;
  /** The term of the entry before it; 0 before the first. */
  readonly previousTerm: number;
}

/** The newest snapshot as it is stored. */
export interface SnapshotRecord {
  readonly snapshot: Snapshot;
  /** Under which id its chunks are. */
  readonly id: number;
  readonly chunks: number;
  readonly bytes: number;
  /** The entries up to here are gone, or about to go. */
  readonly compactedIndex: number;
  readonly compactedTerm: number;
}

function seal(length: number, seed: number, write: (writer: ByteWriter) => void): Uint8Array {
  const writer = new ByteWriter(CRC_BYTES + length);
  writer.u32(0);
  write(writer);
  const crc = crc32(writer.bytes.subarray(CRC_BYTES), seed);
  new DataView(writer.bytes.buffer).setUint32(0, crc);
  return writer.bytes;
}

function unseal<T>(bytes: Uint8Array, seed: number, read: (reader: ByteReader) => T): T | null {
  try {
    const reader = new ByteReader(bytes);
    if (reader.u32() !== crc32(bytes.subarray(CRC_BYTES), seed)) return null;
    const value = read(reader);
    return reader.left === 0 ? value : null;
  } catch (error) {
    if (error instanceof Malformed) return null;
    throw error;
  }
}

/** Encodes the owner. */
export function encodeMeta(memberId: number): Uint8Array {
  return seal(1 + U48_BYTES, 0, (writer) => {
    writer.u8(FORMAT_VERSION);
    writer.u48(memberId);
  });
}

/** Decodes the owner; `version` tells a newer format from a damaged one. */
export function decodeMeta(
  bytes: Uint8Array,
): { readonly version: number; readonly memberId: number } | null {
  return unseal(bytes, 0, (reader) => ({ version: reader.u8(), memberId: reader.u48() }));
}

/** The format this code writes. */
export const STORAGE_FORMAT = FORMAT_VERSION;

/** Encodes the hard state. */
export function encodeHardState(record: HardStateRecord): Uint8Array {
  const { term, vote, commit } = record.hardState;
  return seal(5 * U48_BYTES, 0, (writer) => {
    for (const value of [term, vote, commit, record.lastIndex, record.writes]) writer.u48(value);
  });
}

/** Decodes the hard state. */
export function decodeHardState(bytes: Uint8Array): HardStateRecord | null {
  return unseal(bytes, 0, (reader) => {
    const hardState = { term: reader.u48(), vote: reader.u48(), commit: reader.u48() };
    return { hardState, lastIndex: reader.u48(), writes: reader.u48() };
  });
}

/** Encodes what is witnessed of a log. */
export function encodeWitness(record: WitnessRecord): Uint8Array {
  return seal(2 * U48_BYTES, 0, (writer) => {
    writer.u48(record.writes);
    writer.u48(record.lastIndex);
  });
}

/** Decodes what is witnessed of a log. */
export function decodeWitness(bytes: Uint8Array): WitnessRecord | null {
  return unseal(bytes, 0, (reader) => ({ writes: reader.u48(), lastIndex: reader.u48() }));
}

/** Encodes an entry: checksum, kind, term, term of the one before, length, payload. */
export function encodeEntry({ entry, previousTerm }: EntryRecord): Uint8Array {
  return seal(1 + 2 * U48_BYTES + 4 + entry.data.length, indexSeed(entry.index), (writer) => {
    writer.u8(entry.kind === 'config' ? 1 : 0);
    writer.u48(entry.term);
    writer.u48(previousTerm);
    writer.u32(entry.data.length);
    writer.raw(entry.data);
  });
}

/** Decodes the entry stored under `index`. */
export function decodeEntry(index: number, bytes: Uint8Array): EntryRecord | null {
  return unseal(bytes, indexSeed(index), (reader) => {
    const kind = reader.u8() === 1 ? 'config' : 'normal';
    const term = reader.u48();
    const previousTerm = reader.u48();
    return { entry: { index, term, kind, data: reader.raw(reader.u32()) }, previousTerm };
  });
}

function indexSeed(index: number): number {
  return (index ^ Math.floor(index / 0x1_0000_0000)) >>> 0;
}

/** Encodes the newest snapshot's description. */
export function encodeSnapshotRecord(record: SnapshotRecord): Uint8Array {
  return seal(snapshotBytes(record.snapshot) + 4 * U48_BYTES + 4, 0, (writer) => {
    writeSnapshot(writer, record.snapshot);
    for (const value of [record.id, record.bytes, record.compactedIndex, record.compactedTerm])
      writer.u48(value);
    writer.u32(record.chunks);
  });
}

/** Decodes the newest snapshot's description. */
export function decodeSnapshotRecord(bytes: Uint8Array): SnapshotRecord | null {
  return unseal(bytes, 0, (reader) => {
    const snapshot = readSnapshot(reader);
    const [id, size, compactedIndex, compactedTerm] = [
      reader.u48(),
      reader.u48(),
      reader.u48(),
      reader.u48(),
    ];
    return { snapshot, id, bytes: size, compactedIndex, compactedTerm, chunks: reader.u32() };
  });
}

/** Encodes a chunk of a snapshot's state. */
export function encodeChunkRecord(chunk: number, state: Uint8Array): Uint8Array {
  return seal(state.length, chunk, (writer) => writer.raw(state));
}

/** Decodes a chunk of a snapshot's state. */
export function decodeChunkRecord(chunk: number, bytes: Uint8Array): Uint8Array | null {
  return unseal(bytes, chunk, (reader) => reader.raw(reader.left));
}
