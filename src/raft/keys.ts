/**
 * The registry of keys in the raft log's database. Every key the storage writes is made here.
 *
 * | key                   | value                                                            |
 * | `m`                   | format version, member id                                        |
 * | `h`                   | hard state, index of the last entry, number of this write        |
 * | `l` + index (8 bytes) | one entry                                                        |
 * | `s`                   | the newest snapshot's description, and where the log begins      |
 * | `S` + id + chunk      | one chunk of a snapshot's state; `id` (8 bytes) is its own        |
 *
 * The configuration has no key of its own: it is in the snapshot and in the entries after it, and what is kept
 * once cannot disagree.
 */

const code = (letter: string): number => letter.charCodeAt(0);

/** Format and owner. */
export const META_KEY = Uint8Array.of(code('m'));
/** Hard state. */
export const HARD_STATE_KEY = Uint8Array.of(code('h'));
/** Newest snapshot. */
export const SNAPSHOT_KEY = Uint8Array.of(code('s'));

const ENTRY_PREFIX = code('l');
const CHUNK_PREFIX = code('S');
const ENTRY_KEY_BYTES = 9;
const CHUNK_KEY_BYTES = 13;

/** The key of the entry at `index`; keys sort as indexes do. */
export function entryKey(index: number): Uint8Array {
  const key = new Uint8Array(ENTRY_KEY_BYTES);
  key[0] = ENTRY_PREFIX;
  new DataView(key.buffer).setBigUint64(1, BigInt(index));
  return key;
}

/** The index in an entry's key; null when it is no such key. */
export function entryIndexOf(key: Uint8Array): number | null {
  if (key.length !== ENTRY_KEY_BYTES || key[0] !== ENTRY_PREFIX) return null;
  return Number(new DataView(key.buffer, key.byteOffset).getBigUint64(1));
}

/** The range of every entry from `index` on. */
export function entriesFrom(index: number): { gte: Uint8Array; lt: Uint8Array } {
  return { gte: entryKey(index), lt: Uint8Array.of(ENTRY_PREFIX + 1) };
}

/** The range of every entry before `index`. */
export function entriesBefore(index: number): { gte: Uint8Array; lt: Uint8Array } {
  return { gte: Uint8Array.of(ENTRY_PREFIX), lt: entryKey(index) };
}

/** The key of a chunk of the snapshot stored under `id`. */
export function chunkKey(id: number, chunk: number): Uint8Array {
  const key = new Uint8Array(CHUNK_KEY_BYTES);
  key[0] = CHUNK_PREFIX;
  const view = new DataView(key.buffer);
  view.setBigUint64(1, BigInt(id));
  view.setUint32(9, chunk);
  return key;
}

/** The range of every chunk of the snapshot stored under `id`. */
export function chunksOf(id: number): { gte: Uint8Array; lt: Uint8Array } {
  return { gte: chunkKey(id, 0), lt: chunkKey(id + 1, 0) };
}

/** The ranges of every chunk of other snapshots than `id`. */
export function otherChunks(id: number): readonly { gte: Uint8Array; lt: Uint8Array }[] {
  return [
    { gte: Uint8Array.of(CHUNK_PREFIX), lt: chunkKey(id, 0) },
    { gte: chunkKey(id + 1, 0), lt: Uint8Array.of(CHUNK_PREFIX + 1) },
  ];
}
