/**
 * The raft log in LevelDB.
 *
 * Data owned: one database folder, for the log alone.
 * Invariants: every batch is synced, and term, vote, new entries and the removal of replaced ones go in one
 * batch; a snapshot's chunks are durable before the record that names them; entries before the beginning of
 * the log are ignored. A batch that was cut short by a crash is dropped whole by the database; that nothing of it
 * was acknowledged, the witness says (`log-witness.ts`). Anything else missing or damaged makes this member refuse to
 * start, because it may have voted or acknowledged what it no longer knows: the database itself skips damaged parts
 * of its journal in silence.
 */
import { SwarmdError } from '../base/errors.ts';
import type { Entry, HardState, Snapshot } from './core/types.ts';
import {
  chunkKey,
  entriesBefore,
  entriesFrom,
  entryIndexOf,
  entryKey,
  HARD_STATE_KEY,
  META_KEY,
  otherChunks,
  SNAPSHOT_KEY,
} from './keys.ts';
import { type LogDatabase, openDatabase, type Operation, READ_AHEAD_BYTES } from './level-database.ts';
import { LogWitness, lossSince, readWitness } from './log-witness.ts';
import {
  decodeChunkRecord,
  decodeEntry,
  decodeHardState,
  decodeMeta,
  decodeSnapshotRecord,
  encodeChunkRecord,
  encodeEntry,
  encodeHardState,
  encodeMeta,
  encodeSnapshotRecord,
  type HardStateRecord,
  type SnapshotRecord,
  STORAGE_FORMAT,
} from './records.ts';
import { damaged, openError, storageError } from './storage-error.ts';
import {
  chunkCount,
  chunkOf,
  type LogBatch,
  type RaftStorage,
  type SnapshotSize,
  type StoredState,
} from './storage.ts';
import { TermRuns } from './term-runs.ts';

/** Keys removed in one batch: a removal must not hold up the writes of the log for long. */
const REMOVALS_A_BATCH = 500;
const READ_AHEAD = 1000;
/** Chunks of a snapshot written in one batch. */
const CHUNKS_A_BATCH = 1;

const NO_HARD_STATE: HardState = { term: 0, vote: 0, commit: 0 };

/** One member's log in a LevelDB folder. */
export class LevelStorage implements RaftStorage {
  readonly #folder: string;
  readonly #db: LogDatabase;
  /** Null where there is no folder to keep it in. */
  readonly #witness: LogWitness | null;
  readonly #terms = new TermRuns();
  /** Writes of the log so far, one under way included. */
  #writes = 0;
  #hardState: HardState = NO_HARD_STATE;
  #lastIndex = 0;
  #snapshot: SnapshotRecord | null = null;
  #nextSnapshotId = 1;
  /** Snapshot work is done one after another; appends run beside it. */
  #snapshotWork: Promise<void> = Promise.resolve();
  #failure: SwarmdError | null = null;

  /** Opens (and creates) the folder. Rejects with LOCKED, CORRUPT, PERMISSION_DENIED or RESOURCE_EXHAUSTED. */
  static async open(folder: string): Promise<LevelStorage> {
    const db = await openDatabase(folder, true);
    try {
      return new LevelStorage(folder, db, new LogWitness(folder));
    } catch (error) {
      await db.close();
      throw openError(folder, error);
    }
  }

  /** A storage on an open database; `folder` is its name in messages. */
  static over(folder: string, db: LogDatabase): LevelStorage {
    return new LevelStorage(folder, db, null);
  }

  private constructor(folder: string, db: LogDatabase, witness: LogWitness | null) {
    this.#folder = folder;
    this.#db = db;
    this.#witness = witness;
  }

  async load(): Promise<StoredState> {
    try {
      return await this.#load();
    } catch (error) {
      throw storageError(this.#folder, 'read', error);
    }
  }

  async initialise(memberId: number, batch: LogBatch): Promise<void> {
    const owner: Operation = { type: 'put', key: META_KEY, value: encodeMeta(memberId) };
    await this.#write([owner, ...this.#logOperations(batch)]);
    this.#noteLog(batch);
  }

  async append(batch: LogBatch): Promise<void> {
    await this.#write(this.#logOperations(batch));
    this.#noteLog(batch);
  }

  saveSnapshot(
    snapshot: Snapshot,
    state: Uint8Array,
    compacted: { readonly index: number; readonly term: number },
  ): Promise<void> {
    return this.#inTurn(async () => {
      if (snapshot.index <= (this.#snapshot?.snapshot.index ?? 0)) return;
      const record = await this.#writeChunks(snapshot, state, compacted);
      await this.#write([{ type: 'put', key: SNAPSHOT_KEY, value: encodeSnapshotRecord(record) }]);
      await this.#replaceSnapshot(record);
    });
  }

  installSnapshot(snapshot: Snapshot, state: Uint8Array, hardState: HardState): Promise<void> {
    return this.#inTurn(async () => {
      const record = await this.#writeChunks(snapshot, state, { index: snapshot.index, term: snapshot.term });
      const flip: Operation[] = [
        { type: 'put', key: SNAPSHOT_KEY, value: encodeSnapshotRecord(record) },
        {
          type: 'put',
          key: HARD_STATE_KEY,
          value: encodeHardState({ hardState, lastIndex: snapshot.index, writes: ++this.#writes }),
        },
      ];
      // What stands after the snapshot contradicts it; what stands before is ignored, and removed below.
      for (let index = snapshot.index + 1; index <= this.#lastIndex; index++) {
        flip.push({ type: 'del', key: entryKey(index) });
      }
      await this.#write(flip);
      this.#hardState = hardState;
      this.#lastIndex = snapshot.index;
      this.#terms.set(snapshot.index, snapshot.term);
      this.#noteWrite();
      await this.#replaceSnapshot(record);
    });
  }

  async snapshotSize(index: number, term: number): Promise<SnapshotSize | null> {
    const record = this.#snapshotAt(index, term);
    return record === null ? null : { chunks: record.chunks, bytes: record.bytes };
  }

  async readSnapshotChunk(index: number, term: number, chunk: number): Promise<Uint8Array | null> {
    const record = this.#snapshotAt(index, term);
    if (record === null) return null;
    const bytes = await this.#get(chunkKey(record.id, chunk));
    // It may have been replaced and removed while it was being read.
    if (this.#snapshotAt(index, term) !== record) return null;
    const state = bytes === null ? null : decodeChunkRecord(chunk, bytes);
    if (state === null)
      throw damaged(this.#folder, `chunk ${chunk} of snapshot ${index} is missing or damaged`);
    return state;
  }

  async close(): Promise<void> {
    await this.#snapshotWork.catch(() => {});
    try {
      this.#witness?.close();
    } finally {
      await this.#db.close();
    }
  }

  // Reading.

  async #load(): Promise<StoredState> {
    const memberId = await this.#loadOwner();
    const witness = this.#witness === null ? null : readWitness(this.#folder);
    if (memberId === null) {
      const loss = lossSince(witness, { writes: 0, lastIndex: 0 });
      if (loss !== null) throw damaged(this.#folder, loss);
      return {
        memberId,
        hardState: NO_HARD_STATE,
        compactedIndex: 0,
        compactedTerm: 0,
        entries: [],
        snapshot: null,
      };
    }
    const record = await this.#loadSnapshot();
    const stored = await this.#loadHardState();
    const loss = lossSince(witness, stored);
    if (loss !== null) throw damaged(this.#folder, loss);
    const compactedIndex = record?.compactedIndex ?? 0;
    const compactedTerm = record?.compactedTerm ?? 0;
    const entries = await this.#loadEntries(compactedIndex, compactedTerm, stored.lastIndex);
    const { hardState } = stored;
    const lastIndex = compactedIndex + entries.length;
    if (hardState.commit > lastIndex)
      throw damaged(this.#folder, `committed entry ${hardState.commit} is missing`);
    this.#hardState = hardState;
    this.#lastIndex = lastIndex;
    this.#writes = stored.writes;
    await this.#removeLeftovers();
    return {
      memberId,
      hardState,
      compactedIndex,
      compactedTerm,
      entries,
      snapshot: record?.snapshot ?? null,
    };
  }

  async #loadOwner(): Promise<number | null> {
    const bytes = await this.#get(META_KEY);
    if (bytes === null) {
      const keys = this.#db.keys({ limit: 1 });
      const anything = await keys.nextv(1);
      await keys.close();
      if (anything.length > 0) throw damaged(this.#folder, 'the record of its owner is missing');
      return null;
    }
    const meta = decodeMeta(bytes);
    if (meta === null) throw damaged(this.#folder, 'the record of its owner is damaged');
    if (meta.version !== STORAGE_FORMAT) {
      throw new SwarmdError(
        'FAILED_PRECONDITION',
        `the raft log in ${this.#folder} has format ${meta.version}, this swarmd reads ${STORAGE_FORMAT}; ` +
          'start the version of swarmd that wrote it',
      );
    }
    return meta.memberId;
  }

  async #loadSnapshot(): Promise<SnapshotRecord | null> {
    const bytes = await this.#get(SNAPSHOT_KEY);
    if (bytes === null) return null;
    const record = decodeSnapshotRecord(bytes);
    if (record === null) throw damaged(this.#folder, 'the snapshot record is damaged');
    this.#snapshot = record;
    this.#nextSnapshotId = record.id + 1;
    return record;
  }

  async #loadHardState(): Promise<HardStateRecord> {
    const bytes = await this.#get(HARD_STATE_KEY);
    const stored = bytes === null ? null : decodeHardState(bytes);
    if (stored === null) throw damaged(this.#folder, 'the record of term and vote is missing or damaged');
    return stored;
  }

  async #loadEntries(compactedIndex: number, compactedTerm: number, lastIndex: number): Promise<Entry[]> {
    const entries: Entry[] = [];
    const beyond: number[] = [];
    let term = compactedTerm;
    this.#terms.set(compactedIndex, compactedTerm);
    const iterator = this.#db.iterator({
      ...entriesFrom(compactedIndex + 1),
      highWaterMarkBytes: READ_AHEAD_BYTES,
    } as object);
    try {
      for (;;) {
        const page = await iterator.nextv(READ_AHEAD);
        if (page.length === 0) break;
        for (const [key, value] of page) {
          const index = entryIndexOf(key);
          if (index === null) throw damaged(this.#folder, 'a key of the log is damaged');
          if (index > lastIndex) {
            // Never acknowledged: the record of the last index is written in the same batch.
            beyond.push(index);
            continue;
          }
          const expected = compactedIndex + entries.length + 1;
          if (index !== expected) throw damaged(this.#folder, `entry ${expected} is missing`);
          const stored = decodeEntry(index, value);
          if (stored === null) throw damaged(this.#folder, `entry ${index} fails its checksum`);
          const { entry, previousTerm } = stored;
          if (entry.term < term)
            throw damaged(this.#folder, `entry ${index} is of an older term than the one before`);
          if (previousTerm !== term)
            throw damaged(
              this.#folder,
              `entry ${index - 1} is not the one that entry ${index} was written after`,
            );
          term = entry.term;
          this.#terms.set(index, term);
          entries.push(entry);
        }
      }
    } finally {
      await iterator.close();
    }
    const found = compactedIndex + entries.length;
    if (found < lastIndex) throw damaged(this.#folder, `entry ${found + 1} is missing`);
    await this.#remove(beyond.map(entryKey));
    return entries;
  }

  async #get(key: Uint8Array): Promise<Uint8Array | null> {
    return (await this.#db.get(key)) ?? null;
  }

  #snapshotAt(index: number, term: number): SnapshotRecord | null {
    const snapshot = this.#snapshot?.snapshot;
    return snapshot?.index === index && snapshot.term === term ? this.#snapshot : null;
  }

  // Writing.

  #logOperations(batch: LogBatch): Operation[] {
    let previousTerm = this.#terms.at((batch.entries[0]?.index ?? 0) - 1);
    const operations: Operation[] = batch.entries.map((entry) => {
      const value = encodeEntry({ entry, previousTerm });
      previousTerm = entry.term;
      return { type: 'put', key: entryKey(entry.index), value };
    });
    const last = batch.entries.at(-1)?.index ?? this.#lastIndex;
    for (let index = last + 1; index <= this.#lastIndex; index++) {
      operations.push({ type: 'del', key: entryKey(index) });
    }
    const hardState = batch.hardState ?? this.#hardState;
    const value = encodeHardState({ hardState, lastIndex: last, writes: ++this.#writes });
    operations.push({ type: 'put', key: HARD_STATE_KEY, value });
    return operations;
  }

  #noteLog(batch: LogBatch): void {
    this.#hardState = batch.hardState ?? this.#hardState;
    this.#lastIndex = batch.entries.at(-1)?.index ?? this.#lastIndex;
    for (const { index, term } of batch.entries) this.#terms.set(index, term);
    this.#noteWrite();
  }

  /** Witnesses the latest write of the log, which is durable. */
  #noteWrite(): void {
    try {
      this.#witness?.note({ writes: this.#writes, lastIndex: this.#lastIndex });
    } catch (error) {
      this.#failure = storageError(this.#folder, 'write', error);
      throw this.#failure;
    }
  }

  async #writeChunks(
    snapshot: Snapshot,
    state: Uint8Array,
    compacted: { readonly index: number; readonly term: number },
  ): Promise<SnapshotRecord> {
    const id = this.#nextSnapshotId++;
    const chunks = chunkCount(state.length);
    for (let first = 0; first < chunks; first += CHUNKS_A_BATCH) {
      const operations: Operation[] = [];
      for (let chunk = first; chunk < Math.min(chunks, first + CHUNKS_A_BATCH); chunk++) {
        const value = encodeChunkRecord(chunk, chunkOf(state, chunk));
        operations.push({ type: 'put', key: chunkKey(id, chunk), value });
      }
      await this.#write(operations);
    }
    const { index: compactedIndex, term: compactedTerm } = compacted;
    return { snapshot, id, chunks, bytes: state.length, compactedIndex, compactedTerm };
  }

  /** Makes `record` the snapshot, and removes what it made superfluous. */
  async #replaceSnapshot(record: SnapshotRecord): Promise<void> {
    const old = this.#snapshot;
    this.#snapshot = record;
    this.#terms.forgetBefore(record.compactedIndex);
    const keys: Uint8Array[] = [];
    for (let chunk = 0; chunk < (old?.chunks ?? 0); chunk++) keys.push(chunkKey(old?.id ?? 0, chunk));
    for (let index = (old?.compactedIndex ?? 0) + 1; index <= record.compactedIndex; index++) {
      keys.push(entryKey(index));
    }
    for (let first = 0; first < keys.length; first += REMOVALS_A_BATCH) {
      await this.#remove(keys.slice(first, first + REMOVALS_A_BATCH));
    }
  }

  /** Removes what a crash left: entries before the beginning of the log, chunks that no record names. */
  async #removeLeftovers(): Promise<void> {
    const first = (this.#snapshot?.compactedIndex ?? 0) + 1;
    for (const range of [entriesBefore(first), ...otherChunks(this.#snapshot?.id ?? 0)]) {
      const keys = this.#db.keys(range);
      try {
        for (;;) {
          const page = await keys.nextv(REMOVALS_A_BATCH);
          if (page.length === 0) break;
          await this.#remove(page);
        }
      } finally {
        await keys.close();
      }
    }
  }

  #remove(keys: readonly Uint8Array[]): Promise<void> {
    return this.#write(keys.map((key) => ({ type: 'del', key })));
  }

  async #write(operations: readonly Operation[]): Promise<void> {
    if (this.#failure !== null) throw this.#failure;
    if (operations.length === 0) return;
    try {
      await this.#db.batch([...operations], { sync: true } as object);
    } catch (error) {
      this.#failure = storageError(this.#folder, 'write', error);
      throw this.#failure;
    }
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#snapshotWork.then(work);
    this.#snapshotWork = done.catch(() => {});
    return done;
  }
}
