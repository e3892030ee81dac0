/**
 * The whole log: its durable part, its volatile tail, and how far it is committed and applied.
 *
 * Invariants: applied <= applying <= committed <= lastIndex; a committed entry is never replaced; nothing is
 * handed to the applier while a snapshot waits to be installed.
 */
import { assert, assertDefined } from '../../base/assert.ts';
import type { LogReader } from './stable-log.ts';
import { type Entry, entriesBytes, limitEntries, type Snapshot } from './types.ts';
import { Unstable } from './unstable.ts';

/** The log as the protocol sees it. */
export class RaftLog {
  readonly #stable: LogReader;
  readonly #unstable: Unstable;
  readonly #maxApplyingBytes: number;
  #committed: number;
  #applying: number;
  #applied: number;
  #applyingBytes = 0;
  #applyingPaused = false;

  constructor(stable: LogReader, maxApplyingBytes: number) {
    this.#stable = stable;
    this.#unstable = new Unstable(stable.lastIndex() + 1);
    this.#maxApplyingBytes = maxApplyingBytes;
    this.#committed = stable.firstIndex() - 1;
    this.#applying = this.#committed;
    this.#applied = this.#committed;
  }

  get committed(): number {
    return this.#committed;
  }

  get applying(): number {
    return this.#applying;
  }

  get applied(): number {
    return this.#applied;
  }

  firstIndex(): number {
    const snapshot = this.#unstable.snapshot;
    return snapshot === null ? this.#stable.firstIndex() : snapshot.index + 1;
  }

  lastIndex(): number {
    return this.#unstable.lastIndex() ?? this.#stable.lastIndex();
  }

  lastTerm(): number {
    return assertDefined(this.term(this.lastIndex()), 'the last entry has a term');
  }

  /** The term at `index`; null when compacted or not there. */
  term(index: number): number | null {
    const volatileTerm = this.#unstable.term(index);
    if (volatileTerm !== null) return volatileTerm;
    if (index + 1 < this.firstIndex() || index > this.lastIndex()) return null;
    return this.#stable.term(index);
  }

  matchTerm(index: number, term: number): boolean {
    return this.term(index) === term;
  }

  /** Whether a candidate whose log ends with (`index`, `term`) may lead. @see Raft §5.4.1 */
  isUpToDate(index: number, term: number): boolean {
    const lastTerm = this.lastTerm();
    return term > lastTerm || (term === lastTerm && index >= this.lastIndex());
  }

  /**
   * Takes a leader's entries after (`previousIndex`, `previousTerm`) and its commit index.
   * Returns the last index that now equals the leader's, or null when the logs do not match there.
   */
  maybeAppend(
    previousIndex: number,
    previousTerm: number,
    entries: readonly Entry[],
    leaderCommit: number,
  ): number | null {
    if (!this.matchTerm(previousIndex, previousTerm)) return null;
    const lastNew = previousIndex + entries.length;
    const fresh = entries.findIndex((entry) => !this.matchTerm(entry.index, entry.term));
    if (fresh >= 0) {
      const tail = fresh === 0 ? entries : entries.slice(fresh);
      assert((tail[0] as Entry).index > this.#committed, 'a leader never contradicts a committed entry');
      this.append(tail);
    }
    this.commitTo(Math.min(leaderCommit, lastNew));
    return lastNew;
  }

  /** Appends entries, replacing uncommitted ones from the first of them on; returns the last index. */
  append(entries: readonly Entry[]): number {
    const first = entries[0];
    if (first !== undefined) {
      assert(first.index > this.#committed, 'a committed entry is never replaced');
      this.#unstable.truncateAndAppend(entries);
    }
    return this.lastIndex();
  }

  /**
   * The highest index at or below `index` whose term is at most `term`, with its term (0 when unknown):
   * where two logs may first agree. Skips whole terms, so a probe needs one round a term, not one an entry.
   */
  findConflictByTerm(index: number, term: number): { readonly index: number; readonly term: number } {
    for (let at = index; at > 0; at--) {
      const ours = this.term(at);
      if (ours === null) return { index: at, term: 0 };
      if (ours <= term) return { index: at, term: ours };
    }
    return { index: 0, term: 0 };
  }

  /** Raises the commit index, never past the end and never back. */
  commitTo(index: number): void {
    if (index <= this.#committed) return;
    assert(
      index <= this.lastIndex(),
      `commit ${index} is past the end ${this.lastIndex()}: the log was lost`,
    );
    this.#committed = index;
  }

  /** Commits up to `index` if its entry is of `term`: a leader counts replicas for its own term only (§5.4.2). */
  maybeCommit(index: number, term: number): boolean {
    if (term === 0 || index <= this.#committed || !this.matchTerm(index, term)) return false;
    this.commitTo(index);
    return true;
  }

  /** Replaces the log by a snapshot. */
  restore(snapshot: Snapshot): void {
    this.#committed = snapshot.index;
    this.#unstable.restore(snapshot);
  }

  // Persistence.

  nextUnstableEntries(): readonly Entry[] {
    return this.#unstable.nextEntries();
  }

  hasNextUnstableEntries(): boolean {
    return this.#unstable.hasNextEntries();
  }

  /** Whether any entry is not durable yet, handed to the writer or not. */
  hasUnstableEntries(): boolean {
    return this.#unstable.hasEntries();
  }

  nextUnstableSnapshot(): Snapshot | null {
    return this.#unstable.nextSnapshot();
  }

  hasPendingSnapshot(): boolean {
    return this.#unstable.snapshot !== null;
  }

  /** Index of the received snapshot that is not installed yet, or null. */
  pendingSnapshotIndex(): number | null {
    return this.#unstable.snapshot?.index ?? null;
  }

  acceptUnstable(): void {
    this.#unstable.acceptInProgress();
  }

  stableTo(index: number, term: number): void {
    this.#unstable.stableTo(index, term);
  }

  stableSnapshotTo(index: number): void {
    this.#unstable.stableSnapshotTo(index);
  }

  /** The snapshot to send to a follower that needs one, or null when there is none now. */
  snapshot(): Snapshot | null {
    return this.#unstable.snapshot ?? this.#stable.snapshot();
  }

  // Applying.

  /** Committed entries for the applier; `allowUnstable` when the caller persists before it applies. */
  nextCommittedEntries(allowUnstable: boolean): readonly Entry[] {
    if (!this.hasNextCommittedEntries(allowUnstable)) return [];
    const high = this.#maxAppliable(allowUnstable) + 1;
    return this.slice(this.#applying + 1, high, this.#maxApplyingBytes - this.#applyingBytes);
  }

  hasNextCommittedEntries(allowUnstable: boolean): boolean {
    if (this.#applyingPaused || this.hasPendingSnapshot()) return false;
    return this.#applying < this.#maxAppliable(allowUnstable);
  }

  acceptApplying(index: number, bytes: number, allowUnstable: boolean): void {
    assert(index <= this.#committed, 'only committed entries are applied');
    this.#applying = index;
    this.#applyingBytes += bytes;
    // Pausing also when a size limit cut the batch keeps the next one from being a crumb.
    this.#applyingPaused =
      this.#applyingBytes >= this.#maxApplyingBytes || index < this.#maxAppliable(allowUnstable);
  }

  appliedTo(index: number, bytes: number): void {
    assert(index <= this.#committed && index >= this.#applied, 'applied moves forward, up to committed');
    this.#applied = index;
    this.#applying = Math.max(this.#applying, index);
    this.#applyingBytes = Math.max(0, this.#applyingBytes - bytes);
    this.#applyingPaused = this.#applyingBytes >= this.#maxApplyingBytes;
  }

  // Reading.

  /** Entries from `index` to the end, cut to `maxBytes`; null when some of them are compacted. */
  entriesFrom(index: number, maxBytes: number): readonly Entry[] | null {
    if (index > this.lastIndex()) return [];
    if (index < this.firstIndex()) return null;
    return this.slice(index, this.lastIndex() + 1, maxBytes);
  }

  /** Entries `low <= index < high`, all of them held, cut to `maxBytes` (at least one). */
  slice(low: number, high: number, maxBytes: number): readonly Entry[] {
    assert(low >= this.firstIndex() && high <= this.lastIndex() + 1, 'entries are read where they are held');
    if (low >= high) return [];
    const offset = this.#unstable.offset;
    if (low >= offset) return limitEntries(this.#unstable.slice(low, high), maxBytes);
    const border = Math.min(high, offset);
    const durable = this.#stable.entries(low, border, maxBytes);
    if (high <= offset || durable.length < border - low) return durable;
    const bytes = entriesBytes(durable);
    if (bytes >= maxBytes) return durable;
    const tail = limitEntries(this.#unstable.slice(offset, high), maxBytes - bytes);
    // The first volatile entry alone may be too large: the durable ones go without it.
    if (tail.length === 1 && entriesBytes(tail) > maxBytes - bytes) return durable;
    return [...durable, ...tail];
  }

  #maxAppliable(allowUnstable: boolean): number {
    return allowUnstable ? this.#committed : Math.min(this.#committed, this.#unstable.offset - 1);
  }
}
