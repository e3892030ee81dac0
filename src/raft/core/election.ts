/**
 * Elections: who may stand, how votes are asked for and counted, and what a new leader does first.
 *
 * Invariants: a member with a committed but unapplied configuration change does not stand (it may not know who
 * its voters are); a new leader appends an empty entry, since it can commit older ones only through its own.
 * @see Raft §5.2, §5.4; dissertation §9.6 (pre-vote)
 */
import { assert, assertDefined } from '../../base/assert.ts';
import { becomeReplicate } from './progress.ts';
import type { VoteResult } from './quorum.ts';
import { appendEntries } from './replication.ts';
import {
  becomeCandidate,
  becomePreCandidate,
  type Core,
  promotable,
  send,
  sharedCommit,
  startLeadership,
} from './state.ts';
import { recordVote, voterIds, voteResult } from './tracker.ts';
import { EMPTY_BYTES, FORCED_CAMPAIGN, message } from './types.ts';

/** Why a member campaigns: to probe first, in earnest, or because the leader asked it to take over. */
export type Campaign = 'pre-election' | 'election' | 'transfer';

/** Campaigns, unless this member may not. */
export function hup(core: Core, campaignKind: Campaign): void {
  if (core.role === 'leader' || !promotable(core) || hasUnappliedConfigChange(core)) return;
  campaign(core, campaignKind);
}

function hasUnappliedConfigChange(core: Core): boolean {
  const { log } = core;
  // While a snapshot waits there is nothing to scan: what it covers counts as applied.
  for (let low = Math.max(log.applied + 1, log.firstIndex()); low <= log.committed; ) {
    const page = log.slice(low, log.committed + 1, core.config.maxApplyingBytes);
    if (page.some((entry) => entry.kind === 'config')) return true;
    low += page.length;
  }
  return false;
}

/** Asks every voter for its vote, or for a promise of it. */
export function campaign(core: Core, campaignKind: Campaign): void {
  if (!promotable(core)) return;
  const isPre = campaignKind === 'pre-election';
  if (isPre) becomePreCandidate(core);
  else becomeCandidate(core);
  const term = isPre ? core.term + 1 : core.term;
  const context = campaignKind === 'transfer' ? FORCED_CAMPAIGN : 0;
  for (const id of voterIds(core.tracker.membership)) {
    if (id === core.config.id) {
      // Its own vote counts once it is durable, like any other.
      send(core, message(isPre ? 'pre-vote-response' : 'vote-response', id, { term }));
      continue;
    }
    const index = core.log.lastIndex();
    const logTerm = core.log.lastTerm();
    const { commit, commitTerm } = sharedCommit(core);
    const fields = { term, index, logTerm, context, commit, rejectHint: commitTerm };
    send(core, message(isPre ? 'pre-vote' : 'vote', id, fields));
  }
}

/** Counts an answer; says how the vote then stands. */
export function poll(core: Core, id: number, granted: boolean): VoteResult {
  recordVote(core.tracker, id, granted);
  return voteResult(core.tracker, core.tracker.votes);
}

/** Takes office in the term it was elected for. */
export function becomeLeader(core: Core): void {
  assert(core.role === 'candidate', 'only a candidate becomes leader');
  startLeadership(core);
  const own = assertDefined(core.tracker.progress.get(core.config.id), 'a leader is a member');
  becomeReplicate(own);
  own.recentActive = true;
  // An inherited tail may hold a configuration change: none is taken before all of it is applied.
  core.pendingConfigIndex = core.log.lastIndex();
  const appended = appendEntries(core, [{ kind: 'normal', data: EMPTY_BYTES }]);
  assert(appended, 'an empty entry always has room');
}
