/**
 * The tail of the log that is not known to be durable yet, and a snapshot received but not yet installed.
 *
 * Invariants: entries are dense from `offset`; those below `offsetInProgress` were handed to the log writer;
 * an acknowledgement counts only when it names the term of the entry still at its index (a writer may finish
 * late, after the entry was replaced: the ABA problem of asynchronous writes).
 */
import { assert, assertDefined } from '../../base/assert.ts';
import type { Entry, Snapshot } from './types.ts';

/** The volatile tail of the log. */
export class Unstable {
  #snapshot: Snapshot | null = null;
  #snapshotInProgress = false;
  #entries: Entry[] = [];
  #offset: number;
  #offsetInProgress: number;

  /** `offset` is the index the first volatile entry will get. */
  constructor(offset: number) {
    this.#offset = offset;
    this.#offsetInProgress = offset;
  }

  get offset(): number {
    return this.#offset;
  }

  get snapshot(): Snapshot | null {
    return this.#snapshot;
  }

  /** The last index known here, or null when the durable log knows better. */
  lastIndex(): number | null {
    if (this.#entries.length > 0) return this.#offset + this.#entries.length - 1;
    return this.#snapshot?.index ?? null;
  }

  /** The term at `index`, or null when it is not known here. */
  term(index: number): number | null {
    if (index < this.#offset) return this.#snapshot?.index === index ? this.#snapshot.term : null;
    return this.#entries[index - this.#offset]?.term ?? null;
  }

  /** Entries not handed to the writer yet. */
  nextEntries(): readonly Entry[] {
    return this.#entries.slice(this.#offsetInProgress - this.#offset);
  }

  hasNextEntries(): boolean {
    return this.#entries.length > this.#offsetInProgress - this.#offset;
  }

  hasEntries(): boolean {
    return this.#entries.length > 0;
  }

  /** The snapshot, unless it was handed out already. */
  nextSnapshot(): Snapshot | null {
    return this.#snapshotInProgress ? null : this.#snapshot;
  }

  /** Notes that everything `next...` returned was handed to the writer. */
  acceptInProgress(): void {
    this.#offsetInProgress = this.#offset + this.#entries.length;
    if (this.#snapshot !== null) this.#snapshotInProgress = true;
  }

  /** Drops entries that became durable up to `index`, if the entry there still has `term`. */
  stableTo(index: number, term: number): void {
    if (index < this.#offset || this.term(index) !== term) return;
    this.#entries = this.#entries.slice(index + 1 - this.#offset);
    this.#offset = index + 1;
    this.#offsetInProgress = Math.max(this.#offsetInProgress, this.#offset);
  }

  /** Drops the snapshot once it is installed. */
  stableSnapshotTo(index: number): void {
    if (this.#snapshot?.index !== index) return;
    this.#snapshot = null;
    this.#snapshotInProgress = false;
  }

  /** Replaces everything by a snapshot. */
  restore(snapshot: Snapshot): void {
    this.#offset = snapshot.index + 1;
    this.#offsetInProgress = this.#offset;
    this.#entries = [];
    this.#snapshot = snapshot;
    this.#snapshotInProgress = false;
  }

  /** Appends entries, dropping whatever stands at or after the first of them. */
  truncateAndAppend(entries: readonly Entry[]): void {
    const from = assertDefined(entries[0], 'something to append').index;
    if (from <= this.#offset) {
      // Everything volatile is replaced, and maybe something durable too: the writer will truncate the disk.
      this.#entries = [...entries];
      this.#offset = from;
      this.#offsetInProgress = from;
      return;
    }
    const keep = from - this.#offset;
    assert(keep <= this.#entries.length, 'appended entries leave no gap');
    if (keep < this.#entries.length) this.#entries = this.#entries.slice(0, keep);
    for (const entry of entries) this.#entries.push(entry);
    this.#offsetInProgress = Math.min(this.#offsetInProgress, from);
  }

  /** Entries `low <= index < high`, all of them here. */
  slice(low: number, high: number): readonly Entry[] {
    assert(
      low >= this.#offset && high <= this.#offset + this.#entries.length,
      'volatile entries are read in bounds',
    );
    return this.#entries.slice(low - this.#offset, high - this.#offset);
  }
}
