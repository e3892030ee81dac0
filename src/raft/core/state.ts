/**
 * The state of one consensus core, and the moves between roles that need nothing but that state.
 *
 * Data owned: everything a member knows. Only the functions of this folder change it, one call at a time.
 * Invariants: the term never decreases; one vote a term; messages that promise something durable wait in
 * `afterAppend` until the driver persisted what they promise.
 */
import { assert } from '../../base/assert.ts';
import { type Random, randomBelow } from '../../base/random.ts';
import type { CoreConfig } from './config.ts';
import type { RaftLog } from './log.ts';
import { newReadQueue, type ReadQueue } from './read-index.ts';
import { trace, traceMessage } from './trace.ts';
import { resetProgress, type Tracker } from './tracker.ts';
import { type ConfigState, type Message, NOBODY, type ReadState, type Role } from './types.ts';

/** What happened, for the driver to log. Pure code never logs. */
export type Note =
  | { readonly kind: 'became'; readonly role: Role; readonly term: number; readonly leader: number }
  | { readonly kind: 'quorum-lost'; readonly term: number }
  | { readonly kind: 'config-switched'; readonly config: ConfigState }
  | { readonly kind: 'config-refused'; readonly reason: string }
  | { readonly kind: 'snapshot-restored'; readonly index: number; readonly term: number }
  | { readonly kind: 'snapshot-ignored'; readonly index: number; readonly reason: string }
  | { readonly kind: 'snapshot-wanted'; readonly by: number }
  | { readonly kind: 'transfer-aborted'; readonly to: number };

/** One consensus core. */
export interface Core {
  readonly config: CoreConfig;
  readonly random: Random;
  readonly log: RaftLog;
  readonly tracker: Tracker;
  term: number;
  vote: number;
  role: Role;
  leader: number;
  isLearner: boolean;
  /** Who leadership is being handed to, or NOBODY. */
  transferee: number;
  /** Index of the newest configuration change that may not be applied yet; no other is taken before it is. */
  pendingConfigIndex: number;
  /** Payload bytes this leader appended and did not apply yet. */
  uncommittedBytes: number;
  electionElapsed: number;
  heartbeatElapsed: number;
  /** Ticks until this follower campaigns; drawn anew at every change of role or term. */
  electionDueTicks: number;
  reads: ReadQueue;
  /** Reads that arrived before this leader committed an entry of its term. */
  postponedReads: Message[];
  readStates: ReadState[];
  /** To be sent as they are. */
  messages: Message[];
  /** To be delivered once everything appended before is durable. */
  afterAppend: Message[];
  notes: Note[];
}

/** Queues a message, stamped with this member and its term. */
export function send(core: Core, draft: Message): void {
  const isVote =
    draft.type === 'vote' ||
    draft.type === 'vote-response' ||
    draft.type === 'pre-vote' ||
    draft.type === 'pre-vote-response';
  let term = draft.term;
  if (isVote) {
    // A pre-vote speaks of the next term, its answer of the candidate's: the sender must say which.
    assert(term !== 0, 'a vote names its term');
  } else {
    assert(term === 0, 'only votes choose their term');
    const isForwarded = draft.type === 'propose' || draft.type === 'read-index';
    if (!isForwarded) term = core.term;
  }
  const stamped = { ...draft, from: draft.from === NOBODY ? core.config.id : draft.from, term };
  if (
    draft.type === 'append-response' ||
    draft.type === 'vote-response' ||
    draft.type === 'pre-vote-response'
  ) {
    core.afterAppend.push(stamped);
  } else {
    assert(stamped.to !== core.config.id, 'a member sends itself only what waits for durability');
    core.messages.push(stamped);
  }
  traceMessage(core, 'Send', stamped);
}

function reset(core: Core, term: number): void {
  if (core.term !== term) {
    core.term = term;
    core.vote = NOBODY;
  }
  core.leader = NOBODY;
  core.electionElapsed = 0;
  core.heartbeatElapsed = 0;
  core.electionDueTicks = core.config.electionTicks + randomBelow(core.random, core.config.electionTicks);
  core.transferee = NOBODY;
  core.tracker.votes = new Map();
  resetProgress(core.tracker, core.config.id, core.log.lastIndex());
  core.pendingConfigIndex = 0;
  core.uncommittedBytes = 0;
  core.reads = newReadQueue();
  core.postponedReads = [];
}

/** Follows `leader` (or nobody yet) in `term`. */
export function becomeFollower(core: Core, term: number, leader: number): void {
  reset(core, term);
  core.leader = leader;
  core.role = 'follower';
  core.notes.push({ kind: 'became', role: 'follower', term, leader });
  trace(core, 'BecomeFollower');
}

/** Stands for election in the next term, voting for itself. */
export function becomeCandidate(core: Core): void {
  assert(core.role !== 'leader', 'a leader does not campaign');
  reset(core, core.term + 1);
  core.vote = core.config.id;
  core.role = 'candidate';
  core.notes.push({ kind: 'became', role: 'candidate', term: core.term, leader: NOBODY });
  trace(core, 'BecomeCandidate');
}

/** Asks whether an election could be won, without touching term or vote. */
export function becomePreCandidate(core: Core): void {
  assert(core.role !== 'leader', 'a leader does not campaign');
  core.tracker.votes = new Map();
  core.leader = NOBODY;
  core.role = 'pre-candidate';
  core.notes.push({ kind: 'became', role: 'pre-candidate', term: core.term, leader: NOBODY });
}

/** Takes the role of leader in the term it was elected for; `election.ts` does what must follow. */
export function startLeadership(core: Core): void {
  reset(core, core.term);
  core.leader = core.config.id;
  core.role = 'leader';
  core.notes.push({ kind: 'became', role: 'leader', term: core.term, leader: core.leader });
  trace(core, 'BecomeLeader');
}

/** Whether this member may become leader: a voter with a whole log. */
export function promotable(core: Core): boolean {
  const own = core.tracker.progress.get(core.config.id);
  return own !== undefined && !own.isLearner && !core.log.hasPendingSnapshot();
}

/** Whether the newest committed entry is of the current term: only then a leader knows all that is committed. */
export function committedInCurrentTerm(core: Core): boolean {
  return core.log.term(core.log.committed) === core.term;
}

/**
 * What this member tells of commits to those it asks for votes or refuses one: the other may need to know of a
 * change of the group that only this member knows to be committed. Zeroes when it shall tell nothing.
 */
export function sharedCommit(core: Core): { readonly commit: number; readonly commitTerm: number } {
  const commit = core.config.shareCommitInElections ? core.log.committed : 0;
  return { commit, commitTerm: commit === 0 ? 0 : (core.log.term(commit) ?? 0) };
}

/** Gives up handing over leadership. */
export function abortTransfer(core: Core): void {
  if (core.transferee !== NOBODY) core.notes.push({ kind: 'transfer-aborted', to: core.transferee });
  core.transferee = NOBODY;
}
