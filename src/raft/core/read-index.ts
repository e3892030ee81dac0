/**
 * Reads that are linearizable without writing: a read waits until a quorum confirmed the leader after the read
 * arrived, and then until everything committed at its arrival is applied.
 *
 * Invariants: a batch's context is used once within a leadership (a stale acknowledgement carries an older term
 * or an older context); batches are confirmed in order, so confirming one confirms all before it.
 * @see Raft dissertation §6.4
 */
import type { Message } from './types.ts';

/** One waiting batch of reads. */
export interface PendingRead {
  readonly request: Message;
  /** The commit index when the batch arrived. */
  readonly index: number;
  /** This leadership's own number for the batch; heartbeats carry it. */
  readonly context: number;
  readonly acks: Map<number, boolean>;
}

/** The waiting reads of one leadership. */
export interface ReadQueue {
  lastContext: number;
  readonly pending: PendingRead[];
}

export function newReadQueue(): ReadQueue {
  return { lastContext: 0, pending: [] };
}

/** Adds a batch, already acknowledged by the leader itself; returns its context. */
export function addRead(queue: ReadQueue, request: Message, commit: number, self: number): number {
  queue.lastContext++;
  const acks = new Map([[self, true]]);
  queue.pending.push({ request, index: commit, context: queue.lastContext, acks });
  return queue.lastContext;
}

/** The newest context still waiting, for periodic heartbeats to repeat; 0 when nothing waits. */
export function newestContext(queue: ReadQueue): number {
  return queue.pending.at(-1)?.context ?? 0;
}

/**
 * Notes that `from` answered a heartbeat with `context`, and removes what is confirmed.
 * An answer to a newer heartbeat also confirms every older batch.
 */
export function acknowledgeRead(
  queue: ReadQueue,
  from: number,
  context: number,
  won: (acks: ReadonlyMap<number, boolean>) => boolean,
): readonly PendingRead[] {
  for (const read of queue.pending) {
    if (read.context <= context) read.acks.set(from, true);
  }
  return takeConfirmed(queue, won);
}

/** Removes what is confirmed: the newest batch that is, and every older one. A smaller group may need no new answer. */
export function takeConfirmed(
  queue: ReadQueue,
  won: (acks: ReadonlyMap<number, boolean>) => boolean,
): readonly PendingRead[] {
  const newest = queue.pending.findLastIndex((read) => won(read.acks));
  return queue.pending.splice(0, newest + 1);
}
