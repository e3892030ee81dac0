/**
 * Committed entries on their way into the state machine, and snapshots of what it then holds.
 *
 * Data owned: the queue of committed entries, the state machine's position, the snapshot being saved.
 * Invariants: every entry is applied once, in order; a change of the group takes effect only when it is durable
 * here that it is committed; one snapshot is saved at a time.
 */
import { assert } from '../base/assert.ts';
import type { Logger } from '../base/log.ts';
import { configChangeOf } from './core/config-codec.ts';
import type { RaftCore } from './core/node.ts';
import type { StableLog } from './core/stable-log.ts';
import type { Entry, Message, Snapshot } from './core/types.ts';
import type { MemberTable } from './members.ts';
import type { ResolvedOptions } from './options.ts';
import type { Proposals } from './proposals.ts';
import type { StateMachine } from './types.ts';

/** What the applier works with. */
export interface ApplierDependencies {
  readonly core: RaftCore;
  readonly stable: StableLog;
  readonly members: MemberTable;
  readonly proposals: Proposals;
  readonly stateMachine: StateMachine;
  readonly log: Logger;
  /** See {@link LogWriter.ensureCommit}. */
  ensureCommit(index: number): boolean;
  onFailed(error: unknown): void;
}

/** Applies entries and takes snapshots for one node. */
export class Applier {
  readonly #options: ResolvedOptions;
  readonly #deps: ApplierDependencies;
  readonly #queue: Message[] = [];
  #applied: number;
  #snapshotIndex: number;
  #bytesSinceSnapshot = 0;
  #saving: Promise<void> | null = null;

  /** `applied` is the index of the snapshot the state machine was restored from, or 0. */
  constructor(options: ResolvedOptions, deps: ApplierDependencies, applied: number) {
    this.#options = options;
    this.#deps = deps;
    this.#applied = applied;
    this.#snapshotIndex = applied;
  }

  /** Takes a `storage-apply` message. */
  push(request: Message): void {
    this.#queue.push(request);
  }

  /**
   * Applies what may be applied. A change of the group waits until this member cannot forget in a crash that
   * it is committed: otherwise it would come back with the old group, whose other members know of the change
   * and may neither vote for it nor stand themselves.
   */
  drain(): void {
    for (let request = this.#queue[0]; request !== undefined; request = this.#queue[0]) {
      const change = request.entries.findLast((entry) => entry.kind === 'config');
      if (change !== undefined && !this.#deps.ensureCommit(change.index)) return;
      this.#queue.shift();
      for (const entry of request.entries) this.#apply(entry);
      for (const response of request.responses) this.#deps.core.receive(response);
    }
  }

  #apply(entry: Entry): void {
    assert(entry.index === this.#applied + 1, 'entries are applied one after another');
    this.#applied = entry.index;
    this.#bytesSinceSnapshot += entry.data.length;
    let result: unknown;
    if (entry.kind === 'config') {
      const { core, members } = this.#deps;
      const change = configChangeOf(entry.data);
      // A snapshot may have come in while this change waited for the disk: its group is in force already.
      const isCovered = entry.index <= (core.state.log.pendingSnapshotIndex() ?? 0);
      members.apply(change, isCovered ? core.config() : core.applyConfigChange(change));
    } else if (entry.data.length > 0) {
      // An empty entry is the mark of a new leader, or a change of the group that was refused.
      result = this.#deps.stateMachine.apply(entry.index, entry.data);
    }
    this.#deps.proposals.applied(entry.index, entry.term, result);
  }

  /** Takes over the state of a snapshot that replaced the log. */
  installed(snapshot: Snapshot, state: Uint8Array): void {
    assert(this.#queue.length === 0, 'what was committed before a snapshot is applied before it');
    this.#deps.stateMachine.restore(state, snapshot.index);
    this.#deps.members.restore(snapshot.config, snapshot.data);
    this.#applied = snapshot.index;
    this.#snapshotIndex = snapshot.index;
    this.#bytesSinceSnapshot = 0;
    this.#deps.proposals.abandon('a snapshot replaced the log');
  }

  /** Saves a snapshot when enough was applied since the last one, or a follower waits for a newer one. */
  snapshotIfDue(isWanted: boolean): void {
    const { core, stable, stateMachine, members } = this.#deps;
    const index = this.#applied;
    const isDue =
      isWanted ||
      index - this.#snapshotIndex >= this.#options.snapshotEntries ||
      this.#bytesSinceSnapshot >= this.#options.snapshotBytes;
    if (!isDue || this.#saving !== null || index <= this.#snapshotIndex) return;
    const term = stable.term(index);
    if (term === null || core.state.log.hasPendingSnapshot()) return;
    const snapshot: Snapshot = { index, term, config: core.config(), data: members.encode() };
    this.#bytesSinceSnapshot = 0;
    this.#snapshotIndex = index;
    this.#saving = this.#save(snapshot, stateMachine.snapshot()).finally(() => {
      this.#saving = null;
    });
  }

  async #save(snapshot: Snapshot, state: Uint8Array): Promise<void> {
    const { stable, log } = this.#deps;
    const first = stable.firstIndex();
    const index = Math.max(first - 1, snapshot.index - this.#options.snapshotKeepEntries);
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
