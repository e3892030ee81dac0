/**
 * Linearizable reads on their way: batched a turn, confirmed by the leader.
 *
 * Invariants: a batch's context is never used twice by any member (an old answer must not confirm a new read);
 * every read is answered once, with an index or an error.
 */
import { SwarmdError } from '../base/errors.ts';
import type { Random } from '../base/random.ts';

interface Batch {
  readonly ids: number[];
  ticks: number;
}

const CONTEXT_LIMIT = 2 ** 48;

/** The error of a read that cannot be served now. */
export function noLeader(what: string): SwarmdError {
  return new SwarmdError('NO_LEADER', `${what}: this node knows no leader; try again when one is elected`);
}

/** The reads of one driver, by their ids. */
export class Reads {
  #queue: number[] = [];
  readonly #batches = new Map<number, Batch>();
  #context: number;

  constructor(random: Random) {
    // 48 random bits, then counting: no other member, nor this one before a restart, is likely near.
    this.#context = (random.uint32() % 0x1_0000) * 0x1_0000_0000 + random.uint32();
  }

  /** Queues a read. */
  enqueue(id: number): void {
    this.#queue.push(id);
  }

  /** Turns the queue into one batch; returns its context, or null when nothing is queued. */
  startBatch(): number | null {
    if (this.#queue.length === 0) return null;
    this.#context = (this.#context + 1) % CONTEXT_LIMIT;
    // Zero means "no context".
    if (this.#context === 0) this.#context = 1;
    this.#batches.set(this.#context, { ids: this.#queue, ticks: 0 });
    this.#queue = [];
    return this.#context;
  }

  /** The reads of a batch that the leader confirmed; none when it is not known here (any more). */
  confirmed(context: number): readonly number[] {
    const batch = this.#batches.get(context);
    this.#batches.delete(context);
    return batch?.ids ?? [];
  }

  /** Counts a tick; batches unanswered for `maxTicks` are queued again (their message may be lost). */
  tick(maxTicks: number): void {
    for (const [context, batch] of this.#batches) {
      batch.ticks++;
      if (batch.ticks < maxTicks) continue;
      this.#batches.delete(context);
      this.#queue.push(...batch.ids);
    }
  }

  get queued(): number {
    return this.#queue.length;
  }

  /** Takes out every read that is not confirmed yet. */
  takeUnconfirmed(): number[] {
    const ids = [...this.#queue];
    for (const batch of this.#batches.values()) ids.push(...batch.ids);
    this.#queue = [];
    this.#batches.clear();
    return ids;
  }
}
