/**
 * Committed entries on their way to the state machine, and snapshots of what it then holds.
 *
 * Data owned: the queue of committed entries, how far they were sent and how far they are applied, the snapshot
 * being taken.
 * Invariants: every entry is sent once, in order; a change of the group takes effect only when it is durable
 * here that it is committed; one snapshot is taken at a time.
 */
import { assert } from '../base/assert.ts';
import type { Logger } from '../base/log.ts';
import { catchUpLimits, compactionIndex, isBeingSent } from './compaction.ts';
import { configChangeOf } from './core/config-codec.ts';
import type { RaftCore } from './core/node.ts';
import type { Progress } from './core/progress.ts';
import type { StableLog } from './core/stable-log.ts';
import { EMPTY_BYTES, type Entry, type Message, type Snapshot } from './core/types.ts';
import type { MemberTable } from './members.ts';
import type { CommittedEntry, FromDriver } from './messages.ts';
import type { ResolvedOptions } from './options.ts';
import type { Proposals } from './proposals.ts';

/** What the applier works with. */
export interface ApplierDependencies {
  readonly core: RaftCore;
  readonly stable: StableLog;
  readonly members: MemberTable;
  readonly proposals: Proposals;
  readonly log: Logger;
  emit(message: FromDriver): void;
  monotonicMs(): number;
  /** See {@link LogWriter.ensureCommit}. */
  ensureCommit(index: number): boolean;
  onFailed(error: unknown): void;
}

/** A snapshot is taken for a log of half its size in any case, and for one of less than a sixteenth in none. */
const LOG_SHARE_MAX = 2;
const LOG_SHARE_MIN = 16;

/** Entries that were sent and are not known to be applied. */
interface Sent {
  readonly last: number;
  readonly responses: readonly Message[];
}

/** Sends entries to be applied, and takes snapshots, for one driver. */
export class Applier {
  readonly #options: ResolvedOptions;
  readonly #deps: ApplierDependencies;
  readonly #queue: Message[] = [];
  #sent: Sent[] = [];
  #sentIndex: number;
  #snapshotIndex: number;
  #snapshotAtMs: number;
  #bytesSinceSnapshot = 0;
  /** Size of the newest snapshot's state, as far as it is known. */
  #stateBytes = 0;
  /** The snapshot whose state was asked for. */
  #wanted: Snapshot | null = null;
  #saving: Promise<void> | null = null;

  /** `applied` is the index of the snapshot the state machine was restored from, or 0. */
  constructor(options: ResolvedOptions, deps: ApplierDependencies, applied: number) {
    this.#options = options;
    this.#deps = deps;
    this.#sentIndex = applied;
    this.#snapshotIndex = applied;
    this.#snapshotAtMs = deps.monotonicMs() - options.snapshotIntervalMs;
  }

  /** Takes a `storage-apply` message. */
  push(request: Message): void {
    this.#queue.push(request);
  }

  /**
   * Sends what may be applied. A change of the group waits until this member cannot forget in a crash that
   * it is committed: otherwise it would come back with the old group, whose other members know of the change
   * and may neither vote for it nor stand themselves.
   */
  drain(): void {
    for (let request = this.#queue[0]; request !== undefined; request = this.#queue[0]) {
      const change = request.entries.findLast((entry) => entry.kind === 'config');
      if (change !== undefined && !this.#deps.ensureCommit(change.index)) return;
      this.#queue.shift();
      const entries = request.entries.map((entry) => this.#take(entry));
      this.#sent.push({ last: this.#sentIndex, responses: request.responses });
      const commitIndex = this.#deps.core.state.log.committed;
      this.#deps.emit({ kind: 'apply', entries, commitIndex });
    }
  }

  #take(entry: Entry): CommittedEntry {
    const { index, term } = entry;
    assert(index === this.#sentIndex + 1, 'entries are applied one after another');
    this.#sentIndex = index;
    this.#bytesSinceSnapshot += entry.data.length;
    const isChange = entry.kind === 'config';
    if (isChange) {
      const { core, members } = this.#deps;
      const change = configChangeOf(entry.data);
      // A snapshot may have come in while this change waited for the disk: its group is in force already.
      const isCovered = index <= (core.state.log.pendingSnapshotIndex() ?? 0);
      members.apply(change, isCovered ? core.config() : core.applyConfigChange(change), index);
    }
    const proposal = this.#deps.proposals.committed(index, term);
    // An empty entry is the mark of a new leader, or a change of the group that was refused.
    return { index, data: isChange ? EMPTY_BYTES : entry.data, proposal };
  }

  /** Notes that everything up to `index` is applied. */
  applied(index: number): void {
    for (let sent = this.#sent[0]; sent !== undefined && sent.last <= index; sent = this.#sent[0]) {
      this.#sent.shift();
      for (const response of sent.responses) this.#deps.core.receive(response);
    }
  }

  /** Has the state of a snapshot that replaced the log taken over. */
  installed(snapshot: Snapshot, state: Uint8Array): void {
    assert(this.#queue.length === 0, 'what was committed before a snapshot is applied before it');
    const { index } = snapshot;
    this.#sentIndex = index;
    this.#wanted = null;
    this.#stateBytes = state.length;
    this.#noteSnapshot(index);
    this.#deps.members.restore(snapshot.config, snapshot.data, index);
    this.#deps.proposals.abandon('a snapshot replaced the log');
    this.#deps.emit({ kind: 'restore', index, state });
  }

  #noteSnapshot(index: number): void {
    this.#snapshotIndex = index;
    this.#snapshotAtMs = this.#deps.monotonicMs();
    this.#bytesSinceSnapshot = 0;
  }

  /** Takes a snapshot when enough was applied since the last one, or a follower waits for a newer one. */
  snapshotIfDue(isWanted: boolean): void {
    const index = this.#sentIndex;
    if (this.#wanted !== null || this.#saving !== null || index <= this.#snapshotIndex) return;
    if (!isWanted && (!this.#isDue(index) || this.#waitsForTransfer(index))) return;
    const { core, stable, members } = this.#deps;
    const term = stable.term(index);
    if (term === null || core.state.log.hasPendingSnapshot()) return;
    this.#noteSnapshot(index);
    this.#wanted = { index, term, config: core.config(), data: members.encode() };
    this.#deps.emit({ kind: 'take-snapshot', index });
  }

  #isDue(index: number): boolean {
    const { snapshotBytes, snapshotEntries, snapshotIntervalMs } = this.#options;
    const bytes = this.#bytesSinceSnapshot;
    // A large state is not written again for a little log.
    if (bytes >= Math.max(snapshotBytes, this.#stateBytes / LOG_SHARE_MAX)) return true;
    if (index - this.#snapshotIndex < snapshotEntries || bytes < this.#stateBytes / LOG_SHARE_MIN)
      return false;
    return this.#deps.monotonicMs() - this.#snapshotAtMs >= snapshotIntervalMs;
  }

  /** Takes the state that `take-snapshot` asked for; one that a newer snapshot replaced meanwhile is dropped. */
  taken(index: number, state: Uint8Array): void {
    const snapshot = this.#wanted;
    if (snapshot?.index !== index) return;
    this.#wanted = null;
    this.#stateBytes = state.length;
    this.#saving = this.#save(snapshot, state).finally(() => {
      this.#saving = null;
    });
  }

  /** A snapshot on its way to a follower stays until it arrived, unless that takes very long. */
  #waitsForTransfer(index: number): boolean {
    const { snapshotEntries, snapshotBytes } = this.#options;
    const { dueSnapshots } = catchUpLimits;
    const isOverdue =
      index - this.#snapshotIndex >= dueSnapshots * snapshotEntries ||
      this.#bytesSinceSnapshot >= Math.min(dueSnapshots * snapshotBytes, catchUpLimits.keptBytes);
    return !isOverdue && isBeingSent(this.#followers(), this.#snapshotIndex);
  }

  /** Those this member feeds; nobody unless it leads. */
  #followers(): (readonly [number, Progress])[] {
    const { config, role, tracker } = this.#deps.core.state;
    return role === 'leader' ? [...tracker.progress].filter(([id]) => id !== config.id) : [];
  }

  async #save(snapshot: Snapshot, state: Uint8Array): Promise<void> {
    const { stable, log } = this.#deps;
    const first = stable.firstIndex();
    const behind = Math.max(first - 1, snapshot.index - this.#options.snapshotKeepEntries);
    const index = compactionIndex(stable, this.#followers(), behind);
    const compacted = { index, term: stable.term(index) ?? 0 };
    try {
      await this.#options.storage.saveSnapshot(snapshot, state, compacted);
    } catch (error) {
      this.#deps.onFailed(error);
      return;
    }
    stable.noteSnapshot(snapshot);
    if (index <= stable.lastIndex()) stable.compact(index);
    log.info('raft snapshot saved', { index: snapshot.index, bytes: state.length });
  }

  /** Resolves when no snapshot is being saved. */
  async idle(): Promise<void> {
    await this.#saving;
  }
}
