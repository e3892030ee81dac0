/**
 * Linearizable reads on their way: batched a turn, confirmed by the leader, then waiting to be applied.
 *
 * Invariants: a batch's context is never used twice by any member (an old answer must not confirm a new read);
 * every read is answered once, with an index or an error.
 */
import { SwarmdError } from '../base/errors.ts';
import type { Random } from '../base/random.ts';
import { AbortWatch } from './abort-watch.ts';

interface Read {
  readonly signal: AbortSignal;
  readonly resolve: (index: number) => void;
  readonly reject: (error: unknown) => void;
}

interface Batch {
  readonly reads: readonly Read[];
  ticks: number;
}

const CONTEXT_LIMIT = 2 ** 48;

/** The error of a read that cannot be served now. */
export function noLeader(what: string): SwarmdError {
  return new SwarmdError('NO_LEADER', `${what}: this node knows no leader; try again when one is elected`);
}

/** The reads of one node. */
export class Reads {
  #queue: Read[] = [];
  readonly #batches = new Map<number, Batch>();
  #waiting: { readonly index: number; readonly read: Read }[] = [];
  #context: number;
  /** An aborted read stays in its batch; answering it again does nothing. */
  readonly #aborts = new AbortWatch<Read>((read, reason) => read.reject(reason));

  constructor(random: Random) {
    // 48 random bits, then counting: no other member, nor this one before a restart, is likely near.
    this.#context = (random.uint32() % 0x1_0000) * 0x1_0000_0000 + random.uint32();
  }

  /** Queues a read; rejects with the signal's reason when it aborts first. */
  enqueue(signal: AbortSignal): Promise<number> {
    if (signal.aborted) return Promise.reject(signal.reason as Error);
    return new Promise((resolve, reject) => {
      const read: Read = { signal, resolve, reject };
      this.#aborts.add(signal, read);
      this.#queue.push(read);
    });
  }

  /** Turns the queue into one batch; returns its context, or null when nothing is queued. */
  startBatch(): number | null {
    if (this.#queue.length === 0) return null;
    this.#context = (this.#context + 1) % CONTEXT_LIMIT;
    // Zero means "no context".
    if (this.#context === 0) this.#context = 1;
    this.#batches.set(this.#context, { reads: this.#queue, ticks: 0 });
    this.#queue = [];
    return this.#context;
  }

  /** Notes the read index of a batch; its reads wait until `index` is applied. */
  confirmed(context: number, index: number): void {
    const batch = this.#batches.get(context);
    if (batch === undefined) return;
    this.#batches.delete(context);
    for (const read of batch.reads) this.#waiting.push({ index, read });
  }

  /** Answers what `applied` covers. */
  applied(applied: number): void {
    if (this.#waiting.length === 0) return;
    const still = this.#waiting.filter(({ index }) => index > applied);
    const ready = this.#waiting.filter(({ index }) => index <= applied);
    this.#waiting = still;
    for (const { index, read } of ready) this.#resolve(read, index);
  }

  /** Counts a tick; batches unanswered for `maxTicks` are queued again (their message may be lost). */
  tick(maxTicks: number): void {
    for (const [context, batch] of this.#batches) {
      batch.ticks++;
      if (batch.ticks < maxTicks) continue;
      this.#batches.delete(context);
      this.#queue.push(...batch.reads);
    }
  }

  get queued(): number {
    return this.#queue.length;
  }

  /** Rejects everything that is not confirmed yet. */
  rejectUnconfirmed(error: SwarmdError): void {
    const reads = [...this.#queue];
    for (const batch of this.#batches.values()) reads.push(...batch.reads);
    this.#queue = [];
    this.#batches.clear();
    for (const read of reads) this.#reject(read, error);
  }

  /** Rejects everything. */
  rejectAll(error: SwarmdError): void {
    this.rejectUnconfirmed(error);
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { read } of waiting) this.#reject(read, error);
  }

  #resolve(read: Read, index: number): void {
    this.#aborts.remove(read.signal, read);
    read.resolve(index);
  }

  #reject(read: Read, error: unknown): void {
    this.#aborts.remove(read.signal, read);
    read.reject(error as Error);
  }
}
