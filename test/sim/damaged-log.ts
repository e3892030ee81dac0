/**
 * A log whose records on disk were damaged while nobody looked: the real records, and the real loading of them.
 *
 * Invariant: damage is noticed when the log is opened, or makes no difference. Nothing else is accepted.
 */
import { errorMessage, SwarmdError } from '../../src/base/errors.ts';
import {
  chunkKey,
  entryIndexOf,
  entryKey,
  HARD_STATE_KEY,
  META_KEY,
  SNAPSHOT_KEY,
} from '../../src/raft/keys.ts';
import type { LogDatabase } from '../../src/raft/level-database.ts';
import { LevelStorage } from '../../src/raft/level-storage.ts';
import type { MemoryDisk } from '../../src/raft/memory-storage.ts';
import {
  encodeChunkRecord,
  encodeEntry,
  encodeHardState,
  encodeMeta,
  encodeSnapshotRecord,
} from '../../src/raft/records.ts';
import { chunkCount, chunkOf, readSnapshotState, type StoredState } from '../../src/raft/storage.ts';

/** What happened to the records. */
export interface Damage {
  /** A bit changed; a record is gone; a record was written over another one instead of its own place. */
  readonly kind: 'bit-flip' | 'dropped-record' | 'misdirected-write';
  /** Which record, which other, and which bit: numbers below 1. */
  readonly record: number;
  readonly other: number;
  readonly bit: number;
}

type Row = [key: Uint8Array, value: Uint8Array];

const SNAPSHOT_ID = 1;

/** The records of a disk, as the storage writes them, in the order of their keys. */
function recordsOf(disk: MemoryDisk): Row[] {
  const lastIndex = disk.entries.at(-1)?.index ?? disk.compactedIndex;
  const entries = disk.entries.map((entry, i): Row => {
    const previousTerm = disk.entries[i - 1]?.term ?? disk.compactedTerm;
    return [entryKey(entry.index), encodeEntry({ entry, previousTerm })];
  });
  const rows: Row[] = [
    [META_KEY, encodeMeta(disk.memberId ?? 0)],
    [HARD_STATE_KEY, encodeHardState({ hardState: disk.hardState, lastIndex, writes: 1 })],
    ...entries,
  ];
  const { snapshot, snapshotState: state } = disk;
  if (snapshot !== null) {
    const chunks = chunkCount(state.length);
    const { compactedIndex, compactedTerm } = disk;
    const record = { snapshot, id: SNAPSHOT_ID, chunks, bytes: state.length, compactedIndex, compactedTerm };
    rows.push([SNAPSHOT_KEY, encodeSnapshotRecord(record)]);
    for (let chunk = 0; chunk < chunks; chunk++)
      rows.push([chunkKey(SNAPSHOT_ID, chunk), encodeChunkRecord(chunk, chunkOf(state, chunk))]);
  }
  return rows.sort(([a], [b]) => Buffer.compare(a, b));
}

/** Damages the rows; returns the key of the record that is lost or wrong. */
function inflict(rows: Row[], damage: Damage): Uint8Array {
  const at = Math.floor(damage.record * rows.length);
  const [key, value] = rows[at] as Row;
  switch (damage.kind) {
    case 'bit-flip': {
      const bit = Math.floor(damage.bit * value.length * 8);
      const flipped = value.slice();
      flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7));
      rows[at] = [key, flipped];
      return key;
    }
    case 'dropped-record':
      rows.splice(at, 1);
      return key;
    case 'misdirected-write': {
      const other = (at + 1 + Math.floor(damage.other * (rows.length - 1))) % rows.length;
      rows[other] = [(rows[other] as Row)[0], value];
      if (other !== at) rows.splice(at, 1);
      return key;
    }
  }
}

/** A database of rows that are there already. */
function databaseOf(rows: Row[]): LogDatabase {
  const within = (range: { gte?: Uint8Array; lt?: Uint8Array; limit?: number }): Row[] =>
    rows
      .filter(([key]) => range.gte === undefined || Buffer.compare(key, range.gte) >= 0)
      .filter(([key]) => range.lt === undefined || Buffer.compare(key, range.lt) < 0)
      .slice(0, range.limit);
  const pages = <T>(items: T[]): { nextv(count: number): Promise<T[]>; close(): Promise<void> } => ({
    nextv: (count) => Promise.resolve(items.splice(0, count)),
    close: () => Promise.resolve(),
  });
  return {
    get: (key) => Promise.resolve(rows.find(([each]) => Buffer.compare(each, key) === 0)?.[1]),
    batch: (operations) => {
      for (const { key } of operations) {
        const at = rows.findIndex(([each]) => Buffer.compare(each, key) === 0);
        if (at >= 0) rows.splice(at, 1);
      }
      return Promise.resolve();
    },
    iterator: (range) => pages(within(range)),
    keys: (range) => pages(within(range).map(([key]) => key)),
    close: () => Promise.resolve(),
  };
}

async function loadAll(rows: Row[]): Promise<{ readonly stored: StoredState; readonly state: Uint8Array }> {
  const storage = LevelStorage.over('the simulated disk', databaseOf(rows));
  const stored = await storage.load();
  const { snapshot } = stored;
  const state =
    snapshot === null ? new Uint8Array(0) : await readSnapshotState(storage, snapshot.index, snapshot.term);
  if (state === null) throw new SwarmdError('CORRUPT', 'the snapshot has no state');
  return { stored, state };
}

/** Everything that counts, as text. A log held from its first entry on needs no snapshot. */
function essence({ stored, state }: Awaited<ReturnType<typeof loadAll>>): string {
  const { memberId, hardState, compactedIndex, compactedTerm, entries, snapshot } = stored;
  const rows = entries.map(({ index, term, kind, data }) => [
    index,
    term,
    kind,
    Buffer.from(data).toString('base64'),
  ]);
  const base =
    compactedIndex === 0 ? null : [snapshot?.index, snapshot?.term, Buffer.from(state).toString('base64')];
  return JSON.stringify([memberId, hardState, compactedIndex, compactedTerm, rows, base]);
}

/**
 * Opens a damaged log. Rejects with CORRUPT when the damage is noticed; with `trusts` the log is cut where the damage
 * is instead, as if a crash had torn it.
 */
export async function loadDamaged(disk: MemoryDisk, damage: Damage, trusts: boolean): Promise<StoredState> {
  const whole = await loadAll(recordsOf(disk));
  const rows = recordsOf(disk);
  const key = inflict(rows, damage);
  try {
    const found = await loadAll(rows);
    if (essence(found) === essence(whole)) return found.stored;
  } catch (error) {
    if (!(error instanceof SwarmdError) || error.code !== 'CORRUPT')
      throw new Error(`a damaged log fails in another way: ${errorMessage(error)}`, { cause: error });
    if (!trusts) throw error;
    return cutAt(disk, whole.stored, entryIndexOf(key));
  }
  throw new Error(`a ${damage.kind} of record ${Buffer.from(key).toString('hex')} is taken for a log`);
}

function cutAt(disk: MemoryDisk, stored: StoredState, index: number | null): StoredState {
  if (index === null) return stored;
  const entries = stored.entries.filter((entry) => entry.index < index);
  const { hardState } = stored;
  const cut = {
    ...stored,
    entries,
    hardState: { ...hardState, commit: Math.min(hardState.commit, index - 1) },
  };
  Object.assign(disk, { entries, hardState: cut.hardState });
  return cut;
}
