/**
 * What followers and candidates do with each message.
 */
import { becomeLeader, campaign, hup, poll } from './election.ts';
import type { StepOutcome } from './leader.ts';
import { broadcastAppend, handleAppend, handleHeartbeat, handleSnapshot } from './replication.ts';
import { becomeFollower, type Core, send } from './state.ts';
import { type Message, NOBODY } from './types.ts';

/** Handles a message as follower. */
export function stepFollower(core: Core, received: Message): StepOutcome {
  switch (received.type) {
    case 'append':
    case 'heartbeat':
    case 'snapshot':
      core.electionElapsed = 0;
      core.leader = received.from;
      takeFromLeader(core, received);
      return 'ok';
    case 'propose':
      if (core.leader === NOBODY || core.config.disableProposalForwarding) return 'dropped';
      send(core, { ...received, to: core.leader });
      return 'ok';
    case 'read-index':
    case 'transfer-leader':
      // A transfer is decided by the term's leader, so the request gets this node's term like any message.
      if (core.leader !== NOBODY) send(core, { ...received, to: core.leader });
      return 'ok';
    case 'forget-leader':
      // With lease reads the leader relies on being remembered.
      if (core.config.readOnly !== 'lease') core.leader = NOBODY;
      return 'ok';
    case 'timeout-now':
      // Handed over by the leader itself: no pre-vote, and its lease does not count.
      hup(core, 'transfer');
      return 'ok';
    case 'read-index-response':
      core.readStates.push({ index: received.index, context: received.context });
      return 'ok';
    default:
      return 'ok';
  }
}

/** Handles a message as candidate or pre-candidate. */
export function stepCandidate(core: Core, received: Message): StepOutcome {
  switch (received.type) {
    case 'propose':
      return 'dropped';
    case 'append':
    case 'heartbeat':
    case 'snapshot':
      // Of this term, so somebody else won it.
      becomeFollower(core, received.term, received.from);
      takeFromLeader(core, received);
      return 'ok';
    case 'vote-response':
    case 'pre-vote-response':
      onVote(core, received);
      return 'ok';
    default:
      return 'ok';
  }
}

function takeFromLeader(core: Core, received: Message): void {
  if (received.type === 'append') handleAppend(core, received);
  else if (received.type === 'heartbeat') handleHeartbeat(core, received);
  else handleSnapshot(core, received);
}

function onVote(core: Core, received: Message): void {
  // An answer to the other kind of vote is a leftover.
  const expected = core.role === 'pre-candidate' ? 'pre-vote-response' : 'vote-response';
  if (received.type !== expected) return;
  // A refusal may tell of commits that this log holds already. Among them may be the removal of the very
  // member that refuses: without it this candidate would need its vote forever.
  if (received.reject) core.log.maybeCommit(received.commit, received.logTerm);
  const result = poll(core, received.from, !received.reject);
  if (result === 'won') {
    if (core.role === 'pre-candidate') {
      campaign(core, 'election');
    } else {
      becomeLeader(core);
      broadcastAppend(core);
    }
  } else if (result === 'lost') {
    becomeFollower(core, core.term, NOBODY);
  }
}
