/**
 * Proposals on their way: queued until the driver's next turn, then in flight until their entry is committed.
 *
 * Invariants: every proposal is answered exactly once; one that entered the log is never answered "refused"
 * unless another entry took its place; the queue is bounded in number and bytes.
 */
import type { NotCommitted } from './messages.ts';
import type { ProposeOutcome, RefusalReason } from './types.ts';

interface Queued {
  readonly id: number;
  readonly data: Uint8Array;
}

/** An entry in the log whose end somebody waits for: the proposer `id`, or the driver itself. */
interface InFlight {
  readonly term: number;
  readonly id: number;
  readonly resolve: ((outcome: ProposeOutcome) => void) | null;
}

/** Bounds of the proposal queue: beyond them proposals are refused as busy. */
export const proposalLimits = {
  queueEntries: 16_384,
  queueBytes: 64 * 1024 * 1024,
  /** Payload bytes handed to the core at once, all or none. */
  batchBytes: 1024 * 1024,
} as const;

/** The proposals of one driver. */
export class Proposals {
  readonly #answer: (ids: readonly number[], outcome: NotCommitted) => void;
  #queue: Queued[] = [];
  #queuedBytes = 0;
  readonly #inFlight = new Map<number, InFlight>();

  /** `answer` is called with those that did not commit. */
  constructor(answer: (ids: readonly number[], outcome: NotCommitted) => void) {
    this.#answer = answer;
  }

  get queued(): number {
    return this.#queue.length;
  }

  /** Queues a proposal; a full queue refuses it as busy. */
  enqueue(id: number, data: Uint8Array, leaderId: number | null): void {
    const bytes = this.#queuedBytes + data.length;
    if (this.#queue.length >= proposalLimits.queueEntries || bytes > proposalLimits.queueBytes) {
      this.#answer([id], { kind: 'refused', reason: 'busy', leaderId });
      return;
    }
    this.#queue.push({ id, data });
    this.#queuedBytes = bytes;
  }

  /**
   * Hands the queue to the core in batches. `propose` says whether the core took a batch; `place` gives the
   * term and index of the last entry it took.
   */
  submit(
    propose: (payloads: readonly Uint8Array[]) => boolean,
    place: () => { readonly term: number; readonly lastIndex: number },
    refusal: () => { readonly reason: RefusalReason; readonly leaderId: number | null },
  ): void {
    const queue = this.#takeQueue();
    for (let start = 0; start < queue.length; ) {
      const end = batchEnd(queue, start);
      const batch = queue.slice(start, end);
      start = end;
      if (!propose(batch.map(({ data }) => data))) {
        this.#answer(idsOf(batch), { kind: 'refused', ...refusal() });
        continue;
      }
      const { term, lastIndex } = place();
      const first = lastIndex - batch.length + 1;
      batch.forEach(({ id }, position) => this.#inFlight.set(first + position, { term, id, resolve: null }));
    }
  }

  /** Follows an entry that is in the log already; resolves when it is committed, or its fate is unknown. */
  track(index: number, term: number): Promise<ProposeOutcome> {
    return new Promise((resolve) => {
      this.#inFlight.set(index, { term, id: 0, resolve });
    });
  }

  /** The proposal that the committed entry at `index` is, or 0. One whose place it took is refused. */
  committed(index: number, term: number): number {
    const waiting = this.#inFlight.get(index);
    if (waiting === undefined) return 0;
    this.#inFlight.delete(index);
    if (waiting.term !== term) {
      this.#settle([waiting], { kind: 'refused', reason: 'not-leader', leaderId: null });
      return 0;
    }
    waiting.resolve?.({ kind: 'committed', index, result: undefined });
    return waiting.id;
  }

  /** Answers everything queued. */
  refuseQueued(reason: RefusalReason, leaderId: number | null): void {
    const queue = this.#takeQueue();
    if (queue.length > 0) this.#answer(idsOf(queue), { kind: 'refused', reason, leaderId });
  }

  /** Answers everything in flight: nobody here will learn what becomes of it. */
  abandon(reason: string): void {
    const waiting = [...this.#inFlight.values()];
    this.#inFlight.clear();
    this.#settle(waiting, { kind: 'unknown', reason });
  }

  #takeQueue(): Queued[] {
    const queue = this.#queue;
    this.#queue = [];
    this.#queuedBytes = 0;
    return queue;
  }

  #settle(waiting: readonly InFlight[], outcome: NotCommitted): void {
    const ids: number[] = [];
    for (const { id, resolve } of waiting) {
      if (resolve === null) ids.push(id);
      else resolve(outcome);
    }
    if (ids.length > 0) this.#answer(ids, outcome);
  }
}

function idsOf(queued: readonly Queued[]): number[] {
  return queued.map(({ id }) => id);
}

function batchEnd(queue: readonly Queued[], start: number): number {
  let bytes = 0;
  let end = start;
  while (end < queue.length) {
    bytes += (queue[end] as Queued).data.length;
    if (bytes > proposalLimits.batchBytes && end > start) break;
    end++;
  }
  return end;
}
