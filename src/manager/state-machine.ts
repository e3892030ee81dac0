/**
 * The replicated store as the log's state machine.
 *
 * Data owned: the store of this replica. Invariant: listeners hear of every applied batch, in order, after it.
 */
import { AssertionError } from '../base/assert.ts';
import { errorMessage, SwarmdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { ClusterSnapshot } from '../model/api.ts';
import type { RaftStatus } from '../raft/types.ts';
import type { ApplyResult, Change } from './state/actions.ts';
import { decodeBatch, decodeCheckpoint, encodeCheckpoint } from './state/codec.ts';
import { Store } from './state/store.ts';

/** Hears of applied batches; `changes` is null when the whole state was replaced by a snapshot. */
export type ChangeListener = (changes: readonly Change[] | null) => void;

/** Largest state that is handed out in one answer, bytes: base64 makes a third more of it. */
export const CHECKPOINT_BYTES_MAX = 180 * 1024 * 1024;

/** A copy of the state with its place in the log. RESOURCE_EXHAUSTED over {@link CHECKPOINT_BYTES_MAX}. */
export function takeCheckpoint(
  machine: StoreStateMachine,
  { appliedIndex, term, members }: RaftStatus,
): ClusterSnapshot {
  const [cluster] = machine.store.all('cluster');
  const state = machine.snapshot();
  if (cluster === undefined)
    throw new SwarmdError('FAILED_PRECONDITION', 'the cluster is still starting; try again');
  if (state.length > CHECKPOINT_BYTES_MAX) {
    throw new SwarmdError(
      'RESOURCE_EXHAUSTED',
      `the state takes ${state.length} bytes, over the limit of ${CHECKPOINT_BYTES_MAX}; stop a manager and copy its data folder instead`,
    );
  }
  const { buffer, byteOffset, byteLength } = state;
  return {
    clusterId: cluster.id,
    index: Math.max(appliedIndex, machine.store.index),
    term,
    members,
    state: Buffer.from(buffer, byteOffset, byteLength).toString('base64'),
  };
}

/** Applies committed entries to a {@link Store}. */
export class StoreStateMachine {
  readonly store = new Store();
  readonly #log: Logger;
  readonly #listeners = new Set<ChangeListener>();

  constructor(log: Logger) {
    this.#log = log;
  }

  subscribe(listener: ChangeListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  apply(index: number, data: Uint8Array): ApplyResult {
    const batch = decodeBatch(data);
    if (!batch.ok) {
      this.#log.error('log entry refused', { index, reason: batch.reason });
      this.store.skip(index);
      return { ok: false, refusal: { kind: 'undecodable', message: batch.reason } };
    }
    const { result, changes } = this.store.apply(index, batch.value);
    if (!result.ok && result.refusal.kind === 'undecodable') {
      this.#log.error('log entry refused', { index, reason: result.refusal.message });
    }
    if (changes.length > 0) this.#notify(changes);
    return result;
  }

  snapshot(): Uint8Array {
    return encodeCheckpoint(this.store.contents());
  }

  restore(data: Uint8Array, index: number): void {
    const contents = decodeCheckpoint(data);
    if (!contents.ok) {
      throw new SwarmdError(
        'CORRUPT',
        `the snapshot at entry ${index} cannot be used (${contents.reason}); remove this manager from the cluster and join it again`,
      );
    }
    this.store.load({ ...contents.value, index });
    this.#notify(null);
  }

  #notify(changes: readonly Change[] | null): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener(changes);
      } catch (error) {
        // The state is right; whoever looks at it is not. That must not look like a broken log.
        if (error instanceof AssertionError) throw error;
        const stack = error instanceof Error ? error.stack : undefined;
        this.#log.error('a listener of the state failed', { error: errorMessage(error), stack });
      }
    }
  }
}
