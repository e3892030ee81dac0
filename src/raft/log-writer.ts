/**
 * The one writer of the log: it merges what the core wants persisted while a write is under way into the next
 * write (group commit), and hands back the answers that had to wait.
 *
 * Invariants: one write at a time, in the core's order; an answer is released only when everything submitted
 * before it is durable; a change of the commit index alone needs no write unless somebody asks, but the next
 * write carries it (an entry is never durable without the commit index its leader sent along); after a failure
 * nothing is released.
 */
import { assert } from '../base/assert.ts';
import type { Entry, HardState, Message, Snapshot } from './core/types.ts';
import type { StableLog } from './core/stable-log.ts';
import type { RaftStorage } from './storage.ts';

/** What the writer tells its owner. */
export interface LogWriterEvents {
  /** Everything these answers promise is durable. */
  onDurable(responses: readonly Message[]): void;
  /** The snapshot is durable and the log mirror replaced; called before the answers that depend on it. */
  onInstalled(snapshot: Snapshot, state: Uint8Array): void;
  /** The commit index reached what {@link LogWriter.ensureCommit} was asked for. */
  onCommitDurable(): void;
  onFailed(error: unknown): void;
}

interface Group {
  readonly hardState: HardState;
  readonly entries: readonly Entry[];
  readonly snapshot: Snapshot | null;
  readonly responses: readonly Message[];
}

/** Bytes of entries merged into one write. */
const GROUP_BYTES_MAX = 8 * 1024 * 1024;

function hardStateOf(submitted: Message): HardState | null {
  if (submitted.term === 0) return null;
  return { term: submitted.term, vote: submitted.vote, commit: submitted.commit };
}

/** Merges a later run of entries over an earlier one: it replaces whatever stands at or after its first. */
function mergeEntries(earlier: Entry[], later: readonly Entry[]): Entry[] {
  const first = later[0];
  const head = earlier[0];
  if (first === undefined) return earlier;
  if (head === undefined || first.index <= head.index) return [...later];
  earlier.length = first.index - head.index;
  for (const entry of later) earlier.push(entry);
  return earlier;
}

/** Writes the log of one member. */
export class LogWriter {
  readonly #storage: RaftStorage;
  readonly #stable: StableLog;
  readonly #events: LogWriterEvents;
  readonly #now: () => number;
  #queue: Message[] = [];
  #durable: HardState;
  /** The newest hard state handed over; ahead of `#durable` by a commit index at most, between writes. */
  #latest: HardState;
  readonly #states = new Map<number, Uint8Array>();
  #wantedCommit = 0;
  #running: Promise<void> | null = null;
  #writingSinceMs: number | null = null;
  #failed = false;

  constructor(
    options: { storage: RaftStorage; stable: StableLog; hardState: HardState; monotonicMs: () => number },
    events: LogWriterEvents,
  ) {
    this.#storage = options.storage;
    this.#stable = options.stable;
    this.#durable = options.hardState;
    this.#latest = options.hardState;
    this.#now = options.monotonicMs;
    this.#events = events;
  }

  /** How long the write under way has taken, in milliseconds; 0 when there is none. */
  busyMs(): number {
    return this.#writingSinceMs === null ? 0 : this.#now() - this.#writingSinceMs;
  }

  /** Keeps the state of a snapshot that the core is about to have written. */
  keepState(index: number, state: Uint8Array): void {
    this.#states.set(index, state);
  }

  /** Drops a state that the core did not want after all. */
  dropState(index: number): void {
    this.#states.delete(index);
  }

  /** Takes a `storage-append` message. */
  submit(submitted: Message): void {
    this.#queue.push(submitted);
    this.#start();
  }

  /**
   * Whether it is durable that entries up to `index` are committed. If not, that is written soon, and
   * `onCommitDurable` says when.
   */
  ensureCommit(index: number): boolean {
    if (this.#durable.commit >= index) return true;
    this.#wantedCommit = Math.max(this.#wantedCommit, index);
    this.#start();
    return false;
  }

  /** Writes a commit index that no other write carried yet. */
  flushCommit(): void {
    this.ensureCommit(this.#latest.commit);
  }

  /** Resolves when nothing is under way any more. */
  async idle(): Promise<void> {
    while (this.#running !== null) await this.#running;
  }

  #hasWork(): boolean {
    return this.#queue.length > 0 || (this.#isCommitWanted() && this.#latest.commit > this.#durable.commit);
  }

  #isCommitWanted(): boolean {
    return this.#wantedCommit > this.#durable.commit;
  }

  #start(): void {
    if (this.#running !== null || this.#failed || !this.#hasWork()) return;
    this.#running = this.#run();
  }

  async #run(): Promise<void> {
    // Yield first: everything submitted in this turn joins the first group.
    await Promise.resolve();
    try {
      while (this.#hasWork()) {
        const group = this.#takeGroup();
        const wasWanted = this.#isCommitWanted();
        await this.#write(group);
        if (wasWanted && !this.#isCommitWanted()) this.#events.onCommitDurable();
        if (group.responses.length > 0) this.#events.onDurable(group.responses);
      }
    } catch (error) {
      this.#failed = true;
      this.#queue = [];
      this.#events.onFailed(error);
    } finally {
      this.#writingSinceMs = null;
      this.#running = null;
    }
    this.#start();
  }

  #takeGroup(): Group {
    let entries: Entry[] = [];
    let bytes = 0;
    let snapshot: Snapshot | null = null;
    const responses: Message[] = [];
    let taken = 0;
    for (const submitted of this.#queue) {
      // A snapshot begins a group: it replaces what was written before it.
      if (taken > 0 && (submitted.snapshot !== null || bytes > GROUP_BYTES_MAX)) break;
      snapshot ??= submitted.snapshot;
      entries = mergeEntries(entries, submitted.entries);
      for (const entry of submitted.entries) bytes += entry.data.length;
      this.#latest = hardStateOf(submitted) ?? this.#latest;
      responses.push(...submitted.responses);
      taken++;
    }
    this.#queue.splice(0, taken);
    return { hardState: this.#latest, entries, snapshot, responses };
  }

  async #write(group: Group): Promise<void> {
    const { hardState } = group;
    const promiseChanged = hardState.term !== this.#durable.term || hardState.vote !== this.#durable.vote;
    const commitDue = this.#isCommitWanted() && hardState.commit > this.#durable.commit;
    if (group.entries.length === 0 && group.snapshot === null && !promiseChanged && !commitDue) return;
    this.#writingSinceMs = this.#now();
    if (group.snapshot !== null) await this.#install(group.snapshot, hardState);
    if (group.entries.length > 0 || group.snapshot === null) {
      await this.#storage.append({ hardState, entries: group.entries });
      this.#stable.append(group.entries);
    }
    this.#durable = hardState;
    this.#writingSinceMs = null;
  }

  async #install(snapshot: Snapshot, hardState: HardState): Promise<void> {
    const state = this.#states.get(snapshot.index);
    assert(
      state !== undefined,
      `the state of snapshot ${snapshot.index} was received before the core took it`,
    );
    await this.#storage.installSnapshot(snapshot, state, hardState);
    // A later one may have been accepted while this one was being written.
    for (const index of this.#states.keys()) {
      if (index <= snapshot.index) this.#states.delete(index);
    }
    this.#stable.install(snapshot);
    this.#events.onInstalled(snapshot, state);
  }
}
