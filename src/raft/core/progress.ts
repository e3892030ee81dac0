/**
 * What a leader knows about one follower's log, and how fast it may send.
 *
 * Data owned: one record a follower, replaced when leadership or membership begins.
 * Invariants: match < next; in `probe` one message at a time and `next` is a guess; in `replicate` messages are
 * pipelined and `next` runs ahead of what is acknowledged; in `snapshot` nothing is sent until it arrives.
 */
import { Inflights } from './inflights.ts';

/** How a follower is being fed. */
export type ProgressState = 'probe' | 'replicate' | 'snapshot';

/** The leader's view of one follower. */
export interface Progress {
  /** Highest index known to be durable on the follower and equal to the leader's log. */
  match: number;
  /** The next index to send. */
  next: number;
  /** Highest commit index sent and not known to be lost. */
  sentCommit: number;
  state: ProgressState;
  /** Index of the snapshot under way in state `snapshot`, else 0. */
  pendingSnapshot: number;
  /** Whether anything was heard since the last quorum check. */
  recentActive: boolean;
  /** Whether sending waits: a probe is out, or the window is full. */
  paused: boolean;
  readonly inflights: Inflights;
  isLearner: boolean;
}

/** A fresh record for a follower. */
export function newProgress(fields: {
  match: number;
  next: number;
  isLearner: boolean;
  recentActive: boolean;
  maxInflightMessages: number;
  maxInflightBytes: number;
}): Progress {
  return {
    match: fields.match,
    next: fields.next,
    sentCommit: 0,
    state: 'probe',
    pendingSnapshot: 0,
    recentActive: fields.recentActive,
    paused: false,
    inflights: new Inflights(fields.maxInflightMessages, fields.maxInflightBytes),
    isLearner: fields.isLearner,
  };
}

function enter(progress: Progress, state: ProgressState): void {
  progress.paused = false;
  progress.pendingSnapshot = 0;
  progress.state = state;
  progress.inflights.reset();
}

function clampSentCommit(progress: Progress): void {
  progress.sentCommit = Math.min(progress.sentCommit, progress.next - 1);
}

/** Starts probing after the last known match, or after the snapshot that was under way. */
export function becomeProbe(progress: Progress): void {
  const snapshot = progress.state === 'snapshot' ? progress.pendingSnapshot : 0;
  enter(progress, 'probe');
  progress.next = Math.max(progress.match + 1, snapshot + 1);
  clampSentCommit(progress);
}

/** Starts pipelining after the last known match. */
export function becomeReplicate(progress: Progress): void {
  enter(progress, 'replicate');
  progress.next = progress.match + 1;
}

/** Stops sending until the snapshot at `index` arrived or failed. */
export function becomeSnapshot(progress: Progress, index: number): void {
  enter(progress, 'snapshot');
  progress.pendingSnapshot = index;
  progress.next = index + 1;
  progress.sentCommit = index;
}

/** Accounts for an append message with `count` entries of `bytes` payload that was just sent. */
export function sentEntries(progress: Progress, count: number, bytes: number): void {
  if (progress.state === 'replicate') {
    if (count > 0) {
      progress.next += count;
      progress.inflights.add(progress.next - 1, bytes);
    }
    // A full window may still carry one empty append, to learn whether the messages in it were lost.
    progress.paused = progress.inflights.full();
  } else if (progress.state === 'probe' && count > 0) {
    progress.paused = true;
  }
}

/** Records that `commit` was sent along. */
export function sentCommit(progress: Progress, commit: number): void {
  progress.sentCommit = commit;
}

/** Whether sending `commit` could tell the follower something new. */
export function canBumpCommit(progress: Progress, commit: number): boolean {
  return commit > progress.sentCommit && progress.sentCommit < progress.next - 1;
}

/** Takes an acknowledgement up to `index`; false when it is stale. */
export function acknowledge(progress: Progress, index: number): boolean {
  if (index <= progress.match) return false;
  progress.match = index;
  progress.next = Math.max(progress.next, index + 1);
  progress.paused = false;
  return true;
}

/** Takes a rejection of the append after `rejected`, with a hint where logs may match; false when stale. */
export function decrease(progress: Progress, rejected: number, matchHint: number): boolean {
  if (progress.state === 'replicate') {
    if (rejected <= progress.match) return false;
    progress.next = progress.match + 1;
    clampSentCommit(progress);
    return true;
  }
  // A probe has one message out, so a rejection of any other index is an old one.
  if (progress.next - 1 !== rejected) return false;
  progress.next = Math.max(Math.min(rejected, matchHint + 1), progress.match + 1);
  clampSentCommit(progress);
  progress.paused = false;
  return true;
}

/** Whether nothing may be sent to the follower now. */
export function isPaused(progress: Progress): boolean {
  return progress.state === 'snapshot' || progress.paused;
}
