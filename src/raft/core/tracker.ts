/**
 * The members under the configuration in force, the progress of each, and the votes of the running election.
 *
 * Invariant: `progress` has exactly the voters (both halves) and learners of `membership`.
 */
import { type Progress, newProgress } from './progress.ts';
import { jointCommitted, jointVote, type VoteResult } from './quorum.ts';
import type { ConfigState } from './types.ts';

/** The configuration in force, as sets. */
export interface Membership {
  readonly incoming: ReadonlySet<number>;
  /** Empty unless the configuration is joint. */
  readonly outgoing: ReadonlySet<number>;
  readonly learners: ReadonlySet<number>;
  readonly learnersNext: ReadonlySet<number>;
  readonly autoLeave: boolean;
}

export type ProgressMap = ReadonlyMap<number, Progress>;

/** Limits of the window of messages in flight, for each follower. */
export interface InflightLimits {
  readonly maxInflightMessages: number;
  readonly maxInflightBytes: number;
}

/** Members, progress and votes. */
export interface Tracker {
  membership: Membership;
  progress: ProgressMap;
  votes: Map<number, boolean>;
  readonly limits: InflightLimits;
}

const NO_ONE: ReadonlySet<number> = new Set();

/** A configuration without members. */
export const emptyMembership: Membership = {
  incoming: NO_ONE,
  outgoing: NO_ONE,
  learners: NO_ONE,
  learnersNext: NO_ONE,
  autoLeave: false,
};

/** A tracker without members. */
export function newTracker(limits: InflightLimits): Tracker {
  return { membership: emptyMembership, progress: new Map(), votes: new Map(), limits };
}

function ascending(ids: Iterable<number>): number[] {
  return [...ids].sort((a, b) => a - b);
}

/** The configuration as it is stored and sent. */
export function configState(membership: Membership): ConfigState {
  return {
    voters: ascending(membership.incoming),
    votersOutgoing: ascending(membership.outgoing),
    learners: ascending(membership.learners),
    learnersNext: ascending(membership.learnersNext),
    autoLeave: membership.autoLeave,
  };
}

/** Whether a joint configuration is in force. */
export function isJoint(membership: Membership): boolean {
  return membership.outgoing.size > 0;
}

/** Whether this group has one voter only, so that it needs nobody's answer. */
export function isSingleton(membership: Membership): boolean {
  return membership.incoming.size === 1 && membership.outgoing.size === 0;
}

/** Every voter of either half, ascending. */
export function voterIds(membership: Membership): number[] {
  return ascending(new Set([...membership.incoming, ...membership.outgoing]));
}

/** Every member with its progress, by ascending id (a fixed order keeps runs reproducible). */
export function members(tracker: Tracker): [number, Progress][] {
  return [...tracker.progress].sort((a, b) => a[0] - b[0]);
}

/** The highest index durable on a quorum. */
export function quorumMatch(tracker: Tracker): number {
  const acked = (id: number): number => tracker.progress.get(id)?.match ?? 0;
  return jointCommitted(tracker.membership.incoming, tracker.membership.outgoing, acked);
}

/** Whether a quorum of voters was heard from since the flags were last cleared. */
export function quorumActive(tracker: Tracker): boolean {
  const votes = new Map<number, boolean>();
  for (const [id, progress] of tracker.progress) {
    if (!progress.isLearner) votes.set(id, progress.recentActive);
  }
  return voteResult(tracker, votes) === 'won';
}

/** Notes the first answer of a member; later ones are ignored. */
export function recordVote(tracker: Tracker, id: number, granted: boolean): void {
  if (!tracker.votes.has(id)) tracker.votes.set(id, granted);
}

/** How the given votes stand under the configuration in force. */
export function voteResult(tracker: Tracker, votes: ReadonlyMap<number, boolean>): VoteResult {
  return jointVote(tracker.membership.incoming, tracker.membership.outgoing, votes);
}

/** Starts every member's progress over, as a new leader (or a node that is none) must. */
export function resetProgress(tracker: Tracker, self: number, lastIndex: number): void {
  const fresh = new Map<number, Progress>();
  for (const [id, old] of tracker.progress) {
    fresh.set(
      id,
      newProgress({
        match: id === self ? lastIndex : 0,
        next: lastIndex + 1,
        isLearner: old.isLearner,
        recentActive: false,
        ...tracker.limits,
      }),
    );
  }
  tracker.progress = fresh;
}
