/**
 * PURE: which changes that carried a key were applied, so that a repeated one applies at most once.
 *
 * Data owned: one row a key, oldest first. Invariants: a part of the replicated state: it changes only with the log,
 * by the log's own clock, the same way on every replica, and checkpoints carry it; bounded in number and age. A row
 * that was dropped is forgotten: the same key would apply again.
 */
import type { TableName } from '../../model/objects.ts';
import type { Action } from './actions.ts';

/** What a change with a key did. Only changes that were applied are kept: a refused one left no trace. */
export interface Outcome {
  /** The key. */
  readonly id: string;
  /** The log entry that was applied. */
  readonly index: number;
  /** Wall-clock milliseconds, by the leader that took it. */
  readonly at: number;
  /** What the first action of the change was about. */
  readonly table: TableName;
  readonly objectId: string;
}

/** Changes with a key that are remembered; the oldest is forgotten first. */
export const OUTCOMES_MAX = 10_000;
/** How long they are, milliseconds. */
export const OUTCOME_LIFE_MS = 3_600_000;

const KEY = /^[0-9A-Za-z_-]{16,64}$/;

/** Whether `text` can be the key of a change: 16 to 64 characters of 0-9, A-Z, a-z, _ and -. */
export function isOutcomeKey(text: unknown): text is string {
  return typeof text === 'string' && KEY.test(text);
}

/** The outcomes of changes with keys. */
export class Outcomes {
  readonly #rows = new Map<string, Outcome>();

  get(key: string): Outcome | undefined {
    return this.#rows.get(key);
  }

  /** Rows by key, oldest first. */
  get rows(): ReadonlyMap<string, Outcome> {
    return this.#rows;
  }

  /** Forgets what is too old at `nowMs`, the time of an entry. */
  expire(nowMs: number): void {
    for (const { id, at } of this.#rows.values()) {
      // A leader's clock may be behind that of the one before: then its rows wait for their turn.
      if (at > nowMs - OUTCOME_LIFE_MS) return;
      this.#rows.delete(id);
    }
  }

  /** Keeps what the change `id` did, as the newest. */
  record(id: string, index: number, at: number, actions: readonly Action[]): void {
    const [first] = actions;
    if (first === undefined) return;
    this.#rows.set(id, { id, index, at, ...subjectOf(first) });
    for (const oldest of this.#rows.keys()) {
      if (this.#rows.size <= OUTCOMES_MAX) return;
      this.#rows.delete(oldest);
    }
  }

  /** Replaces everything by the rows of a checkpoint. */
  load(rows: readonly Outcome[]): void {
    this.#rows.clear();
    for (const row of rows) this.#rows.set(row.id, row);
  }
}

function subjectOf(action: Action): Pick<Outcome, 'table' | 'objectId'> {
  switch (action.kind) {
    case 'create':
    case 'update':
      return { table: action.table, objectId: action.object.id };
    case 'delete':
      return { table: action.table, objectId: action.id };
    case 'patch-task':
    case 'report-task':
      return { table: 'task', objectId: action.id };
  }
}
