/**
 * The port between the consensus driver and its disk.
 *
 * Invariants: when the promise of a write resolves, what it wrote survives a crash; a write is atomic (all of
 * it or nothing survives); writes survive in the order they were made. After a failed write the storage is not
 * used again: what is on the disk is unknown until it is opened anew.
 */
import type { Entry, HardState, Snapshot } from './core/types.ts';

/** Bytes of the state in one chunk of a snapshot, on disk and on the wire. */
export const SNAPSHOT_CHUNK_BYTES = 512 * 1024;

/** What an opened storage holds. */
export interface StoredState {
  /** Whose log this is; null for an empty storage. */
  readonly memberId: number | null;
  readonly hardState: HardState;
  /** Index and term of the entry just before the first one held; 0 and 0 when none was dropped. */
  readonly compactedIndex: number;
  readonly compactedTerm: number;
  readonly entries: readonly Entry[];
  readonly snapshot: Snapshot | null;
}

/** One atomic addition to the log. Entries replace every held entry at or after the first of them. */
export interface LogBatch {
  readonly hardState: HardState | null;
  readonly entries: readonly Entry[];
}

/** The stored snapshot's size. */
export interface SnapshotSize {
  readonly chunks: number;
  readonly bytes: number;
}

/** Where one member's consensus state lives. Failures are SwarmdErrors that name the place. */
export interface RaftStorage {
  /** Reads and checks everything; CORRUPT when it is damaged. Called once, first. */
  load(): Promise<StoredState>;
  /** Marks an empty storage as this member's, with its first entries. */
  initialise(memberId: number, batch: LogBatch): Promise<void>;
  append(batch: LogBatch): Promise<void>;
  /** Stores a snapshot of this member's own state, and drops entries up to `compactedIndex`. */
  saveSnapshot(
    snapshot: Snapshot,
    state: Uint8Array,
    compacted: { readonly index: number; readonly term: number },
  ): Promise<void>;
  /** Replaces the whole log by a snapshot received from the leader, together with the hard state. */
  installSnapshot(snapshot: Snapshot, state: Uint8Array, hardState: HardState): Promise<void>;
  /** The size of the stored snapshot of that index and term; null when another one is stored by now. */
  snapshotSize(index: number, term: number): Promise<SnapshotSize | null>;
  /** Chunk `chunk` (from 0) of that snapshot's state; null when another one is stored by now. */
  readSnapshotChunk(index: number, term: number, chunk: number): Promise<Uint8Array | null>;
  close(): Promise<void>;
}

/** Number of chunks of a state of `bytes`; an empty state has one empty chunk. */
export function chunkCount(bytes: number): number {
  return Math.max(1, Math.ceil(bytes / SNAPSHOT_CHUNK_BYTES));
}

/** Chunk `chunk` of `state`. */
export function chunkOf(state: Uint8Array, chunk: number): Uint8Array {
  return state.subarray(chunk * SNAPSHOT_CHUNK_BYTES, (chunk + 1) * SNAPSHOT_CHUNK_BYTES);
}

/** The whole state of the stored snapshot, or null when there is none of that index and term. */
export async function readSnapshotState(
  storage: RaftStorage,
  index: number,
  term: number,
): Promise<Uint8Array | null> {
  const size = await storage.snapshotSize(index, term);
  if (size === null) return null;
  const state = new Uint8Array(size.bytes);
  for (let chunk = 0; chunk < size.chunks; chunk++) {
    const bytes = await storage.readSnapshotChunk(index, term, chunk);
    if (bytes === null) return null;
    state.set(bytes, chunk * SNAPSHOT_CHUNK_BYTES);
  }
  return state;
}
