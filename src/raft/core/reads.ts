/**
 * The leader's side of linearizable reads: postponed until it may answer, confirmed by a quorum, answered.
 */
import { assert } from '../../base/assert.ts';
import { addRead, type PendingRead } from './read-index.ts';
import { broadcastHeartbeat } from './replication.ts';
import { committedInCurrentTerm, type Core, send } from './state.ts';
import { isSingleton } from './tracker.ts';
import { type Message, message, NOBODY } from './types.ts';

/** Reads a leader keeps waiting for its first commit; more are dropped, and their senders ask again. */
const POSTPONED_READS_MAX = 1024;

/** Takes a batch of reads, from this node's driver or a follower. */
export function requestRead(core: Core, request: Message): void {
  const { membership } = core.tracker;
  // A leader that was removed still leads for a moment, but not alone.
  const isAlone = isSingleton(membership) && membership.incoming.has(core.config.id);
  if (isAlone && committedInCurrentTerm(core)) {
    answer(core, request, core.log.committed);
  } else if (!committedInCurrentTerm(core)) {
    // An older commit index may miss what the last leader acknowledged.
    if (core.postponedReads.length < POSTPONED_READS_MAX) core.postponedReads.push(request);
  } else {
    confirm(core, request);
  }
}

/** Takes up the postponed reads once an entry of this term is committed. */
export function releasePostponedReads(core: Core): void {
  if (core.postponedReads.length === 0 || !committedInCurrentTerm(core)) return;
  const postponed = core.postponedReads;
  core.postponedReads = [];
  for (const request of postponed) requestRead(core, request);
}

function confirm(core: Core, request: Message): void {
  assert(core.role === 'leader', 'only a leader confirms reads');
  if (core.config.readOnly === 'lease') {
    answer(core, request, core.log.committed);
    return;
  }
  const context = addRead(core.reads, request, core.log.committed, core.config.id);
  broadcastHeartbeat(core, context);
}

/** Answers confirmed batches. */
export function answerReads(core: Core, confirmed: readonly PendingRead[]): void {
  for (const read of confirmed) answer(core, read.request, read.index);
}

function answer(core: Core, request: Message, index: number): void {
  const { context, from } = request;
  if (from === NOBODY || from === core.config.id) core.readStates.push({ index, context });
  else send(core, message('read-index-response', from, { index, context }));
}
