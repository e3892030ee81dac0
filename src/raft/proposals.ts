/**
 * Proposals on their way: queued until the driver's next turn, then in flight until their entry is applied.
 *
 * Invariants: every proposal is answered exactly once; one that entered the log is never answered "refused"
 * unless another entry took its place; the queue is bounded in number and bytes.
 */
import { AbortWatch } from './abort-watch.ts';
import { EMPTY_BYTES } from './core/types.ts';
import type { ProposeOutcome, RefusalReason } from './types.ts';

/** One proposal and who waits for it. */
interface Proposal {
  readonly data: Uint8Array;
  readonly signal: AbortSignal | null;
  readonly resolve: (outcome: ProposeOutcome) => void;
  settled: boolean;
}

const GAVE_UP = 'the caller gave up';
/** Bounds of the proposal queue: beyond them proposals are refused as busy. */
export const proposalLimits = {
  queueEntries: 16_384,
  queueBytes: 64 * 1024 * 1024,
  /** Payload bytes handed to the core at once, all or none. */
  batchBytes: 1024 * 1024,
} as const;

/** The proposals of one node. */
export class Proposals {
  #queue: Proposal[] = [];
  #queuedBytes = 0;
  readonly #aborts = new AbortWatch<Proposal>((proposal) => {
    this.#settle(proposal, { kind: 'unknown', reason: GAVE_UP });
  });
  readonly #inFlight = new Map<number, { readonly term: number; readonly proposal: Proposal }>();

  get queued(): number {
    return this.#queue.length;
  }

  /** Queues a proposal; a full queue refuses it as busy. */
  enqueue(data: Uint8Array, signal: AbortSignal, leaderId: number | null): Promise<ProposeOutcome> {
    if (
      this.#queue.length >= proposalLimits.queueEntries ||
      this.#queuedBytes + data.length > proposalLimits.queueBytes
    ) {
      return Promise.resolve({ kind: 'refused', reason: 'busy', leaderId });
    }
    if (signal.aborted) return Promise.resolve({ kind: 'unknown', reason: GAVE_UP });
    return new Promise((resolve) => {
      const proposal: Proposal = { data, signal, resolve, settled: false };
      this.#aborts.add(signal, proposal);
      this.#queue.push(proposal);
      this.#queuedBytes += data.length;
    });
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
    const queue = this.#queue.filter((proposal) => !proposal.settled);
    this.#queue = [];
    this.#queuedBytes = 0;
    for (let start = 0; start < queue.length; ) {
      const end = batchEnd(queue, start);
      const batch = queue.slice(start, end);
      start = end;
      if (!propose(batch.map((proposal) => proposal.data))) {
        const { reason, leaderId } = refusal();
        for (const proposal of batch) this.#settle(proposal, { kind: 'refused', reason, leaderId });
        continue;
      }
      const { term, lastIndex } = place();
      const first = lastIndex - batch.length + 1;
      batch.forEach((proposal, position) => this.#inFlight.set(first + position, { term, proposal }));
    }
  }

  /** Follows an entry that is in the log already; resolves when it is applied, or its fate is unknown. */
  track(index: number, term: number): Promise<ProposeOutcome> {
    return new Promise((resolve) => {
      const proposal: Proposal = { data: EMPTY_BYTES, signal: null, resolve, settled: false };
      this.#inFlight.set(index, { term, proposal });
    });
  }

  /** Answers the proposal at `index`, if it is one of this node's, with what its entry did. */
  applied(index: number, term: number, result: unknown): void {
    const waiting = this.#inFlight.get(index);
    if (waiting === undefined) return;
    this.#inFlight.delete(index);
    const outcome: ProposeOutcome =
      waiting.term === term
        ? { kind: 'committed', index, result }
        : { kind: 'refused', reason: 'not-leader', leaderId: null };
    this.#settle(waiting.proposal, outcome);
  }

  /** Answers everything queued. */
  refuseQueued(reason: RefusalReason, leaderId: number | null): void {
    const queue = this.#queue;
    this.#queue = [];
    this.#queuedBytes = 0;
    for (const proposal of queue) this.#settle(proposal, { kind: 'refused', reason, leaderId });
  }

  /** Answers everything in flight: nobody here will learn what becomes of it. */
  abandon(reason: string): void {
    const waiting = [...this.#inFlight.values()];
    this.#inFlight.clear();
    for (const { proposal } of waiting) this.#settle(proposal, { kind: 'unknown', reason });
  }

  #settle(proposal: Proposal, outcome: ProposeOutcome): void {
    if (proposal.settled) return;
    proposal.settled = true;
    if (proposal.signal !== null) this.#aborts.remove(proposal.signal, proposal);
    proposal.resolve(outcome);
  }
}

function batchEnd(queue: readonly Proposal[], start: number): number {
  let bytes = 0;
  let end = start;
  while (end < queue.length) {
    bytes += (queue[end] as Proposal).data.length;
    if (bytes > proposalLimits.batchBytes && end > start) break;
    end++;
  }
  return end;
}
