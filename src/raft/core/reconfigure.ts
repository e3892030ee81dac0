/**
 * Configuration changes in the running protocol: when one may be proposed, and what applying it does.
 *
 * Invariants: at most one change is unapplied at a time; a leader proposes none before its own term has
 * committed (the one of 2015); a change counts from the moment it is applied.
 */
import { configChangeOf } from './config-codec.ts';
import { applyChange, type ChangeState, type ConfigChange, leavesJoint } from './membership.ts';
import { takeConfirmed } from './read-index.ts';
import { answerReads } from './reads.ts';
import { broadcastAppend, maybeCommit, sendAppend } from './replication.ts';
import { abortTransfer, becomeFollower, type Core, promotable } from './state.ts';
import { traceChange, traceSwitch } from './trace.ts';
import { configState, isJoint, members, voteResult } from './tracker.ts';
import { type ConfigState, EMPTY_BYTES, type Entry, NOBODY } from './types.ts';

type Draft = Pick<Entry, 'kind' | 'data'>;

/** Why a configuration change may not be proposed now, or null when it may. */
export function configChangeRefusal(core: Core, change: ConfigChange): string | null {
  if (core.pendingConfigIndex > core.log.applied) return 'another change is not applied yet';
  const joint = isJoint(core.tracker.membership);
  if (joint && !leavesJoint(change)) return 'the joint configuration must be left first';
  if (!joint && leavesJoint(change)) return 'there is no joint configuration to leave';
  return null;
}

/** Replaces changes that may not be proposed by empty entries, and notes the one that may. */
export function guardConfigChanges(core: Core, drafts: readonly Draft[]): readonly Draft[] {
  return drafts.map((draft, position) => {
    if (draft.kind !== 'config') return draft;
    const change = configChangeOf(draft.data);
    const refusal = configChangeRefusal(core, change);
    if (refusal !== null && !core.config.disableConfigValidation) {
      core.notes.push({ kind: 'config-refused', reason: refusal });
      return { kind: 'normal', data: EMPTY_BYTES };
    }
    core.pendingConfigIndex = core.log.lastIndex() + position + 1;
    traceChange(core, change.steps);
    return draft;
  });
}

/** Applies a committed change; the driver calls this for every `config` entry, in order. */
export function applyConfigChange(core: Core, change: ConfigChange): ConfigState {
  const { tracker } = core;
  const result = applyChange(
    {
      membership: tracker.membership,
      progress: tracker.progress,
      limits: tracker.limits,
      lastIndex: core.log.lastIndex(),
    },
    change,
  );
  if (!result.ok) {
    // Every member refuses the same committed change the same way.
    core.notes.push({ kind: 'config-refused', reason: result.reason });
    return configState(tracker.membership);
  }
  return switchTo(core, result.value);
}

function switchTo(core: Core, state: ChangeState): ConfigState {
  traceSwitch(core, state.membership.incoming);
  const { tracker } = core;
  tracker.membership = state.membership;
  tracker.progress = state.progress;
  const config = configState(tracker.membership);
  core.notes.push({ kind: 'config-switched', config });
  const own = tracker.progress.get(core.config.id);
  core.isLearner = own?.isLearner ?? false;
  if (core.role !== 'leader') {
    // A candidate may learn in the middle of its election that it was removed: it must not win any more.
    if (core.role !== 'follower' && !promotable(core)) becomeFollower(core, core.term, NOBODY);
    return config;
  }
  if (own === undefined || own.isLearner) {
    // Removed or demoted. Its last heartbeats are out; a successor will be elected.
    if (core.config.stepDownOnRemoval) becomeFollower(core, core.term, NOBODY);
    return config;
  }
  if (maybeCommit(core)) {
    // A smaller quorum may have committed more.
    broadcastAppend(core);
  } else {
    for (const [id] of members(tracker)) {
      if (id !== core.config.id) sendAppend(core, id, false);
    }
  }
  // Reads may have waited for a member that has no say any more.
  answerReads(
    core,
    takeConfirmed(core.reads, (acks) => voteResult(tracker, acks) === 'won'),
  );
  const { incoming, outgoing } = tracker.membership;
  if (core.transferee !== NOBODY && !incoming.has(core.transferee) && !outgoing.has(core.transferee)) {
    abortTransfer(core);
  }
  return config;
}
