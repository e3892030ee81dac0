/**
 * Storage in memory, with the same contract as the one on disk: for tests and the simulator.
 *
 * Data owned: a `MemoryDisk` outlives the storage opened on it, as a disk outlives a process. Every write asks
 * the disk's `beforeStep` hook first, where a test may crash the node (a promise that never settles) or fail
 * the disk (throw).
 */
import { SwarmdError } from '../base/errors.ts';
import type { Entry, HardState, Snapshot } from './core/types.ts';
import {
  chunkCount,
  chunkOf,
  type LogBatch,
  type RaftStorage,
  type SnapshotSize,
  type StoredState,
} from './storage.ts';

/** The step of a write that is about to become durable. */
export type StorageStep =
  | 'initialise'
  | 'append'
  | 'snapshot-chunks'
  | 'snapshot-flip'
  | 'compact'
  | 'install-flip';

/** What survives a crash. */
export class MemoryDisk {
  memberId: number | null = null;
  hardState: HardState = { term: 0, vote: 0, commit: 0 };
  compactedIndex = 0;
  compactedTerm = 0;
  entries: Entry[] = [];
  snapshot: Snapshot | null = null;
  snapshotState: Uint8Array = new Uint8Array(0);
  /** Whether a storage is open on it. */
  locked = false;
  /** Called before each step becomes durable. */
  beforeStep: (step: StorageStep) => Promise<void> | void = () => {};
}

/** A storage on a {@link MemoryDisk}. */
export class MemoryStorage implements RaftStorage {
  readonly #disk: MemoryDisk;
  #closed = false;

  /** LOCKED when another storage is open on the disk. */
  constructor(disk: MemoryDisk) {
    if (disk.locked) {
      throw new SwarmdError('LOCKED', 'the memory disk is in use by another storage; close that one first');
    }
    disk.locked = true;
    this.#disk = disk;
  }

  async load(): Promise<StoredState> {
    const { memberId, hardState, compactedIndex, compactedTerm, snapshot } = this.#disk;
    return { memberId, hardState, compactedIndex, compactedTerm, entries: [...this.#disk.entries], snapshot };
  }

  async initialise(memberId: number, batch: LogBatch): Promise<void> {
    await this.#step('initialise');
    this.#disk.memberId = memberId;
    this.#write(batch);
  }

  async append(batch: LogBatch): Promise<void> {
    await this.#step('append');
    this.#write(batch);
  }

  async saveSnapshot(
    snapshot: Snapshot,
    state: Uint8Array,
    compacted: { readonly index: number; readonly term: number },
  ): Promise<void> {
    const copy = state.slice();
    await this.#step('snapshot-chunks');
    await this.#step('snapshot-flip');
    const disk = this.#disk;
    if (snapshot.index <= (disk.snapshot?.index ?? 0)) return;
    disk.snapshot = snapshot;
    disk.snapshotState = copy;
    await this.#step('compact');
    if (compacted.index <= disk.compactedIndex) return;
    disk.entries = disk.entries.filter((entry) => entry.index > compacted.index);
    disk.compactedIndex = compacted.index;
    disk.compactedTerm = compacted.term;
  }

  async installSnapshot(snapshot: Snapshot, state: Uint8Array, hardState: HardState): Promise<void> {
    const copy = state.slice();
    await this.#step('snapshot-chunks');
    await this.#step('install-flip');
    const disk = this.#disk;
    disk.snapshot = snapshot;
    disk.snapshotState = copy;
    disk.entries = [];
    disk.compactedIndex = snapshot.index;
    disk.compactedTerm = snapshot.term;
    disk.hardState = hardState;
  }

  async snapshotSize(index: number, term: number): Promise<SnapshotSize | null> {
    if (!this.#holds(index, term)) return null;
    const bytes = this.#disk.snapshotState.length;
    return { bytes, chunks: chunkCount(bytes) };
  }

  async readSnapshotChunk(index: number, term: number, chunk: number): Promise<Uint8Array | null> {
    return this.#holds(index, term) ? chunkOf(this.#disk.snapshotState, chunk).slice() : null;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#disk.locked = false;
  }

  async #step(step: StorageStep): Promise<void> {
    await this.#disk.beforeStep(step);
    if (this.#closed) throw new SwarmdError('UNAVAILABLE', 'the memory storage is closed; open it again');
  }

  #write(batch: LogBatch): void {
    const disk = this.#disk;
    const first = batch.entries[0];
    if (first !== undefined) {
      disk.entries = [...disk.entries.filter((entry) => entry.index < first.index), ...batch.entries];
    }
    if (batch.hardState !== null) disk.hardState = batch.hardState;
  }

  #holds(index: number, term: number): boolean {
    return this.#disk.snapshot?.index === index && this.#disk.snapshot.term === term;
  }
}
