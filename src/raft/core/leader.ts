/**
 * What a leader does with each message.
 */
import { acknowledgeRead } from './read-index.ts';
import {
  acknowledge,
  becomeProbe,
  becomeReplicate,
  canBumpCommit,
  decrease,
  type Progress,
} from './progress.ts';
import { answerReads, releasePostponedReads, requestRead } from './reads.ts';
import { guardConfigChanges } from './reconfigure.ts';
import {
  appendEntries,
  broadcastAppend,
  broadcastHeartbeat,
  maybeCommit,
  sendAppend,
} from './replication.ts';
import { abortTransfer, becomeFollower, type Core, send } from './state.ts';
import { quorumActive, voteResult } from './tracker.ts';
import { type Message, message, NOBODY } from './types.ts';

/** Whether a proposal was taken; a dropped one leaves no trace. */
export type StepOutcome = 'ok' | 'dropped';

/** Handles a message as leader. */
export function stepLeader(core: Core, received: Message): StepOutcome {
  switch (received.type) {
    case 'beat':
      broadcastHeartbeat(core);
      return 'ok';
    case 'check-quorum':
      checkQuorum(core);
      return 'ok';
    case 'propose':
      return propose(core, received);
    case 'read-index':
      requestRead(core, received);
      return 'ok';
    default:
      break;
  }
  const progress = core.tracker.progress.get(received.from);
  if (progress === undefined) return 'ok';
  if (received.type === 'append-response') onAppendResponse(core, received, progress);
  else if (received.type === 'heartbeat-response') onHeartbeatResponse(core, received, progress);
  else if (received.type === 'snapshot-status') onSnapshotStatus(received, progress);
  else if (received.type === 'unreachable' && progress.state === 'replicate') becomeProbe(progress);
  else if (received.type === 'transfer-leader') onTransfer(core, received, progress);
  return 'ok';
}

function checkQuorum(core: Core): void {
  if (!quorumActive(core.tracker)) {
    core.notes.push({ kind: 'quorum-lost', term: core.term });
    becomeFollower(core, core.term, NOBODY);
  }
  for (const [id, progress] of core.tracker.progress) {
    if (id !== core.config.id) progress.recentActive = false;
  }
}

function propose(core: Core, received: Message): StepOutcome {
  // Removed from the group, or handing over: an entry taken now would likely be lost or delay the handover.
  if (!core.tracker.progress.has(core.config.id) || core.transferee !== NOBODY) return 'dropped';
  const pendingBefore = core.pendingConfigIndex;
  if (!appendEntries(core, guardConfigChanges(core, received.entries))) {
    core.pendingConfigIndex = pendingBefore;
    return 'dropped';
  }
  broadcastAppend(core);
  return 'ok';
}

function onAppendResponse(core: Core, received: Message, progress: Progress): void {
  progress.recentActive = true;
  if (received.reject) {
    onReject(core, received, progress);
    return;
  }
  const isNews = acknowledge(progress, received.index);
  // An answer that moves nothing may still end a probe: the follower's log matches.
  if (!isNews && !(progress.match === received.index && progress.state === 'probe')) return;
  if (progress.state === 'probe') {
    becomeReplicate(progress);
  } else if (progress.state === 'snapshot') {
    // Enough arrived to continue from the log, by this snapshot or another one.
    if (progress.match + 1 >= core.log.firstIndex()) {
      becomeProbe(progress);
      becomeReplicate(progress);
    }
  } else {
    progress.inflights.freeUpTo(received.index);
  }
  const isPeer = received.from !== core.config.id;
  if (maybeCommit(core)) {
    releasePostponedReads(core);
    broadcastAppend(core);
  } else if (isPeer && canBumpCommit(progress, core.log.committed)) {
    sendAppend(core, received.from);
  }
  // The window has room now: fill it.
  while (isPeer && sendAppend(core, received.from, false));
  if (received.from === core.transferee && progress.match === core.log.lastIndex()) {
    send(core, message('timeout-now', received.from));
  }
}

function onReject(core: Core, received: Message, progress: Progress): void {
  let hint = received.rejectHint;
  // The follower named the term at its hint: skip our entries of later terms too.
  if (received.logTerm > 0) hint = core.log.findConflictByTerm(hint, received.logTerm).index;
  if (!decrease(progress, received.index, hint)) return;
  if (progress.state === 'replicate') becomeProbe(progress);
  sendAppend(core, received.from);
}

function onHeartbeatResponse(core: Core, received: Message, progress: Progress): void {
  progress.recentActive = true;
  progress.paused = false;
  // Also a follower whose window is full gets an empty append: its answer shows whether messages were lost.
  if (progress.match < core.log.lastIndex() || progress.state === 'probe') sendAppend(core, received.from);
  if (core.config.readOnly !== 'safe' || received.context === 0) return;
  const won = (acks: ReadonlyMap<number, boolean>): boolean => voteResult(core.tracker, acks) === 'won';
  answerReads(core, acknowledgeRead(core.reads, received.from, received.context, won));
}

function onSnapshotStatus(received: Message, progress: Progress): void {
  if (progress.state !== 'snapshot') return;
  if (received.reject) progress.pendingSnapshot = 0;
  becomeProbe(progress);
  // Arrived: wait for its acknowledgement. Failed: wait for a heartbeat before trying again.
  progress.paused = true;
}

function onTransfer(core: Core, received: Message, progress: Progress): void {
  const to = received.from;
  if (progress.isLearner || to === core.transferee) return;
  abortTransfer(core);
  if (to === core.config.id) return;
  core.electionElapsed = 0;
  core.transferee = to;
  if (progress.match === core.log.lastIndex()) {
    send(core, message('timeout-now', to));
  } else {
    progress.paused = false;
    sendAppend(core, to);
  }
}
