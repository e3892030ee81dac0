/**
 * The entrance of every message: terms are compared here, votes are cast here, and the rest goes to the role.
 *
 * Invariants: a message of an older term changes nothing (but may be answered so that its sender learns the
 * term); with `checkQuorum` a member that hears from a live leader ignores votes, unless that leader asked.
 * @see Raft §5.1, §5.4.1; dissertation §6.4.1, §9.6
 */
import { leaveJointChange, encodeConfigChange } from './config-codec.ts';
import { hup } from './election.ts';
import { stepCandidate, stepFollower } from './follower.ts';
import { type StepOutcome, stepLeader } from './leader.ts';
import { releaseUncommitted } from './replication.ts';
import { abortTransfer, becomeFollower, type Core, promotable, send, sharedCommit } from './state.ts';
import { traceMessage } from './trace.ts';
import { entriesBytes, FORCED_CAMPAIGN, type Message, message, NOBODY, payloadBytes } from './types.ts';

/** Moves time forward by one tick. */
export function tick(core: Core): void {
  core.electionElapsed++;
  if (core.role !== 'leader') {
    if (promotable(core) && core.electionElapsed >= core.electionDueTicks) {
      core.electionElapsed = 0;
      step(core, message('hup', core.config.id));
    }
    return;
  }
  core.heartbeatElapsed++;
  if (core.electionElapsed >= core.config.electionTicks) {
    core.electionElapsed = 0;
    if (core.config.checkQuorum) step(core, message('check-quorum', core.config.id));
    // A handover that took this long will not succeed; proposals must not wait for it longer.
    if (isLeader(core)) abortTransfer(core);
  }
  if (isLeader(core) && core.heartbeatElapsed >= core.config.heartbeatTicks) {
    core.heartbeatElapsed = 0;
    step(core, message('beat', core.config.id));
  }
}

/** Asked anew after every step that may depose the leader (the type checker would remember the old answer). */
function isLeader(core: Core): boolean {
  return core.role === 'leader';
}

/** Takes one message, from a peer or from this node's driver. */
export function step(core: Core, received: Message): StepOutcome {
  traceMessage(core, 'Receive', received);
  if (received.term !== 0 && received.term > core.term) {
    if (!enterTerm(core, received)) return 'ok';
  } else if (received.term !== 0 && received.term < core.term) {
    onOldTerm(core, received);
    return 'ok';
  }
  switch (received.type) {
    case 'hup':
      hup(core, core.config.preVote ? 'pre-election' : 'election');
      return 'ok';
    case 'storage-append-response':
      if (received.index !== 0) core.log.stableTo(received.index, received.logTerm);
      if (received.snapshot !== null) installed(core, received.snapshot.index);
      return 'ok';
    case 'storage-apply-response':
      onApplied(core, received);
      return 'ok';
    case 'vote':
    case 'pre-vote':
      onVoteRequest(core, received);
      return 'ok';
    default:
      if (core.role === 'leader') return stepLeader(core, received);
      if (core.role === 'follower') return stepFollower(core, received);
      return stepCandidate(core, received);
  }
}

/** Deals with a newer term; false when the message must be ignored altogether. */
function enterTerm(core: Core, received: Message): boolean {
  const { type } = received;
  if (type === 'vote' || type === 'pre-vote') {
    const forced = received.context === FORCED_CAMPAIGN;
    const inLease =
      core.config.checkQuorum && core.leader !== NOBODY && core.electionElapsed < core.config.electionTicks;
    if (inLease && !forced) return false;
  }
  if (type === 'pre-vote') return true;
  // A promised pre-vote carries the term to come; the term changes only when the election begins.
  if (type === 'pre-vote-response' && !received.reject) return true;
  const isFromLeader = type === 'append' || type === 'heartbeat' || type === 'snapshot';
  becomeFollower(core, received.term, isFromLeader ? received.from : NOBODY);
  return true;
}

function onOldTerm(core: Core, received: Message): void {
  const { type, from } = received;
  if ((core.config.checkQuorum || core.config.preVote) && (type === 'heartbeat' || type === 'append')) {
    // An old leader is alive. Without this answer a member whose term ran ahead while it was cut off could
    // neither follow that leader nor, because of leases and pre-votes, ever depose it.
    send(core, message('append-response', from));
  } else if (type === 'pre-vote') {
    send(core, message('pre-vote-response', from, { term: core.term, reject: true }));
  } else if (type === 'storage-append-response' && received.snapshot !== null) {
    // The entries of that write may have been replaced since, so they do not count; a snapshot never is.
    installed(core, received.snapshot.index);
  }
}

function onVoteRequest(core: Core, received: Message): void {
  const isPre = received.type === 'pre-vote';
  const canVote =
    core.vote === received.from ||
    (core.vote === NOBODY && core.leader === NOBODY) ||
    (isPre && received.term > core.term);
  const type = isPre ? 'pre-vote-response' : 'vote-response';
  // A learner votes too when asked: the candidate may know of its promotion before it does.
  if (canVote && core.log.isUpToDate(received.index, received.logTerm)) {
    // The candidate's term, not ours: a pre-candidate would ignore an answer from its own past.
    send(core, message(type, received.from, { term: received.term }));
    if (!isPre) {
      core.electionElapsed = 0;
      core.vote = received.from;
    }
  } else {
    // Among what the candidate knows to be committed may be the promotion of this very member, which must stand
    // itself when its log is the longer one.
    core.log.maybeCommit(received.commit, received.rejectHint);
    const { commit, commitTerm: logTerm } = sharedCommit(core);
    send(core, message(type, received.from, { term: core.term, reject: true, commit, logTerm }));
  }
}

function installed(core: Core, index: number): void {
  core.log.stableSnapshotTo(index);
  appliedTo(core, index, 0);
}

function onApplied(core: Core, received: Message): void {
  const last = received.entries.at(-1);
  if (last === undefined) return;
  appliedTo(core, last.index, entriesBytes(received.entries));
  releaseUncommitted(core, payloadBytes(received.entries));
}

function appliedTo(core: Core, index: number, bytes: number): void {
  const applied = Math.max(index, core.log.applied);
  core.log.appliedTo(applied, bytes);
  if (core.role !== 'leader' || !core.tracker.membership.autoLeave || applied < core.pendingConfigIndex)
    return;
  // The joint configuration is in force: leave it. If this is dropped, the next applied entry tries again.
  const data = encodeConfigChange(leaveJointChange);
  const entry = { term: 0, index: 0, kind: 'config', data } as const;
  step(core, message('propose', core.config.id, { entries: [entry] }));
}
