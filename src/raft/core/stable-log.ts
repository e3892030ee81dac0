/**
 * The durable part of the log, mirrored in memory so that the core can read it without waiting.
 *
 * Data owned: the entries on disk after the compaction point, and the newest snapshot's description.
 * Invariants: entries are dense from `firstIndex` to `lastIndex`, terms never decrease; only the driver changes
 * it, and only after the disk did.
 */
import { assert } from '../../base/assert.ts';
import { EMPTY_CONFIG, type Entry, limitEntries, type Snapshot, EMPTY_BYTES } from './types.ts';

/** What the core reads of the durable log. */
export interface LogReader {
  /** Index of the first entry still held. */
  firstIndex(): number;
  lastIndex(): number;
  /** The term at `index`, also just before the first entry; null when compacted or not there. */
  term(index: number): number | null;
  /** Entries `low <= index < high`, all of them held, cut to `maxBytes` (at least one). */
  entries(low: number, high: number, maxBytes: number): readonly Entry[];
  /** The newest snapshot; null when there is none to send now. */
  snapshot(): Snapshot | null;
}

/** The mirror of the durable log. */
export class StableLog implements LogReader {
  #entries: Entry[];
  /** Where the held entries begin: the index and term of the entry before the first. */
  #compactedIndex: number;
  #compactedTerm: number;
  #snapshot: Snapshot | null;

  constructor(initial: {
    compactedIndex: number;
    compactedTerm: number;
    entries: readonly Entry[];
    snapshot: Snapshot | null;
  }) {
    this.#entries = [...initial.entries];
    this.#compactedIndex = initial.compactedIndex;
    this.#compactedTerm = initial.compactedTerm;
    this.#snapshot = initial.snapshot;
  }

  /** A log that holds nothing. */
  static empty(): StableLog {
    return new StableLog({ compactedIndex: 0, compactedTerm: 0, entries: [], snapshot: null });
  }

  firstIndex(): number {
    return this.#compactedIndex + 1;
  }

  lastIndex(): number {
    return this.#compactedIndex + this.#entries.length;
  }

  term(index: number): number | null {
    if (index === this.#compactedIndex) return this.#compactedTerm;
    return this.#entries[index - this.#compactedIndex - 1]?.term ?? null;
  }

  entries(low: number, high: number, maxBytes: number): readonly Entry[] {
    assert(low >= this.firstIndex() && high <= this.lastIndex() + 1, 'entries are read where they are held');
    const from = low - this.#compactedIndex - 1;
    return limitEntries(this.#entries.slice(from, from + (high - low)), maxBytes);
  }

  snapshot(): Snapshot | null {
    return this.#snapshot;
  }

  /** Takes entries that became durable, dropping held ones from the first of them on. */
  append(entries: readonly Entry[]): void {
    const first = entries[0];
    if (first === undefined) return;
    const keep = first.index - this.#compactedIndex - 1;
    assert(keep >= 0 && keep <= this.#entries.length, 'durable entries leave no gap');
    if (keep < this.#entries.length) this.#entries.length = keep;
    for (const entry of entries) this.#entries.push(entry);
  }

  /** Replaces everything by a snapshot received from the leader. */
  install(snapshot: Snapshot): void {
    this.#entries = [];
    this.#compactedIndex = snapshot.index;
    this.#compactedTerm = snapshot.term;
    this.#snapshot = snapshot;
  }

  /** Notes a snapshot of this node's own state; the entries stay until {@link compact}. */
  noteSnapshot(snapshot: Snapshot): void {
    if (snapshot.index > (this.#snapshot?.index ?? 0)) this.#snapshot = snapshot;
  }

  /** Drops entries up to and including `index`, which must be held. */
  compact(index: number): void {
    if (index <= this.#compactedIndex) return;
    const term = this.term(index);
    assert(term !== null, 'the log is compacted inside what it holds');
    this.#entries = this.#entries.slice(index - this.#compactedIndex);
    this.#compactedIndex = index;
    this.#compactedTerm = term;
  }

  /** The configuration of the newest snapshot: what a restart begins with. */
  snapshotConfig(): Snapshot['config'] {
    return this.#snapshot?.config ?? EMPTY_CONFIG;
  }
}

/** A description of the state before the log, for scripts and tests that begin in the middle. */
export function bareSnapshot(index: number, term: number, config: Snapshot['config']): Snapshot {
  return { index, term, config, data: EMPTY_BYTES };
}
