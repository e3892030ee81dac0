/**
 * Configuration changes: how one configuration turns into the next, directly or through a joint one.
 *
 * Invariants: a direct step changes at most one voter; a configuration always has an incoming voter; a voter
 * that is demoted inside a joint configuration keeps its vote in the outgoing half until that is left.
 * @see Raft dissertation §4.1, §4.3
 */
import { assert } from '../../base/assert.ts';
import { ok, refuse, type Result } from '../../base/result.ts';
import { newProgress, type Progress } from './progress.ts';
import {
  emptyMembership,
  type InflightLimits,
  isJoint,
  type Membership,
  type ProgressMap,
} from './tracker.ts';
import type { ConfigState } from './types.ts';

/** One member's part in a change. `update` changes nothing here: it carries the context to every member. */
export interface ConfigChangeStep {
  readonly kind: 'add-voter' | 'add-learner' | 'remove' | 'update';
  readonly id: number;
}

/**
 * A change of the configuration, as an entry carries it. Without steps (and `auto`) it leaves a joint
 * configuration. `auto` goes through a joint configuration only when more than one step asks for it.
 */
export interface ConfigChange {
  readonly transition: 'auto' | 'joint-implicit' | 'joint-explicit';
  readonly steps: readonly ConfigChangeStep[];
  /** The driver's own bytes. */
  readonly context: Uint8Array;
}

/** A configuration and the progress of its members. */
export interface ChangeState {
  readonly membership: Membership;
  readonly progress: ProgressMap;
}

/** What a change starts from. */
export interface ChangeBase extends ChangeState {
  readonly limits: InflightLimits;
  readonly lastIndex: number;
}

interface Draft {
  readonly base: ChangeBase;
  readonly incoming: Set<number>;
  outgoing: Set<number>;
  readonly learners: Set<number>;
  readonly learnersNext: Set<number>;
  readonly progress: Map<number, Progress>;
  autoLeave: boolean;
}

/** Whether the change leaves a joint configuration. */
export function leavesJoint(change: ConfigChange): boolean {
  return change.transition === 'auto' && change.steps.length === 0;
}

/** Whether the change goes through a joint configuration, and if so whether that is left automatically. */
export function entersJoint(change: ConfigChange): { readonly autoLeave: boolean } | null {
  if (change.transition === 'auto' && change.steps.length <= 1) return null;
  return { autoLeave: change.transition !== 'joint-explicit' };
}

/** The configuration after `change`, or why it cannot be made. */
export function applyChange(base: ChangeBase, change: ConfigChange): Result<ChangeState> {
  if (leavesJoint(change)) return leaveJoint(base);
  const joint = entersJoint(change);
  return joint === null ? simple(base, change.steps) : enterJoint(base, joint.autoLeave, change.steps);
}

/** Moves to a joint configuration: the present voters together with the voters after `steps`. */
export function enterJoint(
  base: ChangeBase,
  autoLeave: boolean,
  steps: readonly ConfigChangeStep[],
): Result<ChangeState> {
  if (isJoint(base.membership)) return refuse('config is already joint');
  if (base.membership.incoming.size === 0) return refuse("can't make a zero-voter config joint");
  const draft = draftOf(base);
  draft.outgoing = new Set(draft.incoming);
  const reason = takeSteps(draft, steps);
  if (reason !== null) return refuse(reason);
  draft.autoLeave = autoLeave;
  return ok(finish(draft));
}

/** Leaves a joint configuration: only the incoming voters remain. */
export function leaveJoint(base: ChangeBase): Result<ChangeState> {
  if (!isJoint(base.membership)) return refuse("can't leave a non-joint config");
  const draft = draftOf(base);
  for (const id of draft.learnersNext) {
    draft.learners.add(id);
    setLearner(draft, id, true);
  }
  draft.learnersNext.clear();
  for (const id of draft.outgoing) {
    if (!draft.incoming.has(id) && !draft.learners.has(id)) draft.progress.delete(id);
  }
  draft.outgoing = new Set();
  draft.autoLeave = false;
  return ok(finish(draft));
}

/** Changes at most one voter, and any number of learners, in one step. */
export function simple(base: ChangeBase, steps: readonly ConfigChangeStep[]): Result<ChangeState> {
  if (isJoint(base.membership)) return refuse("can't apply simple config change in joint config");
  const draft = draftOf(base);
  const reason = takeSteps(draft, steps);
  if (reason !== null) return refuse(reason);
  if (draft.incoming.symmetricDifference(base.membership.incoming).size > 1) {
    return refuse('more than one voter changed without entering joint config');
  }
  return ok(finish(draft));
}

/** Rebuilds the configuration that a snapshot or the hard state names. */
export function restoreConfig(limits: InflightLimits, lastIndex: number, config: ConfigState): ChangeState {
  const incoming: ConfigChangeStep[] = [
    ...config.votersOutgoing.map((id) => ({ kind: 'remove', id }) as const),
    ...config.voters.map((id) => ({ kind: 'add-voter', id }) as const),
    ...config.learners.map((id) => ({ kind: 'add-learner', id }) as const),
    ...config.learnersNext.map((id) => ({ kind: 'add-learner', id }) as const),
  ];
  let state: ChangeState = { membership: emptyMembership, progress: new Map() };
  const take = (result: Result<ChangeState>): void => {
    assert(result.ok, `a stored configuration is valid: ${result.ok ? '' : result.reason}`);
    state = result.value;
  };
  const base = (): ChangeBase => ({ ...state, limits, lastIndex });
  if (config.votersOutgoing.length === 0) {
    for (const step of incoming) take(simple(base(), [step]));
  } else {
    for (const id of config.votersOutgoing) take(simple(base(), [{ kind: 'add-voter', id }]));
    take(enterJoint(base(), config.autoLeave, incoming));
  }
  return state;
}

function draftOf(base: ChangeBase): Draft {
  const { membership } = base;
  return {
    base,
    incoming: new Set(membership.incoming),
    outgoing: new Set(membership.outgoing),
    learners: new Set(membership.learners),
    learnersNext: new Set(membership.learnersNext),
    progress: new Map(base.progress),
    autoLeave: membership.autoLeave,
  };
}

function takeSteps(draft: Draft, steps: readonly ConfigChangeStep[]): string | null {
  for (const step of steps) {
    // An entry whose change was refused at proposal time may carry the id 0.
    if (step.id === 0) continue;
    if (step.kind === 'add-voter') makeVoter(draft, step.id);
    else if (step.kind === 'add-learner') makeLearner(draft, step.id);
    else if (step.kind === 'remove') remove(draft, step.id);
  }
  return draft.incoming.size === 0 ? 'removed all voters' : null;
}

function makeVoter(draft: Draft, id: number): void {
  if (!draft.progress.has(id)) {
    addProgress(draft, id, false);
  } else {
    setLearner(draft, id, false);
    draft.learners.delete(id);
    draft.learnersNext.delete(id);
  }
  draft.incoming.add(id);
}

function makeLearner(draft: Draft, id: number): void {
  const progress = draft.progress.get(id);
  if (progress === undefined) {
    addProgress(draft, id, true);
    draft.learners.add(id);
    return;
  }
  if (progress.isLearner) return;
  remove(draft, id);
  draft.progress.set(id, progress);
  if (draft.outgoing.has(id)) {
    draft.learnersNext.add(id);
  } else {
    setLearner(draft, id, true);
    draft.learners.add(id);
  }
}

function remove(draft: Draft, id: number): void {
  if (!draft.progress.has(id)) return;
  draft.incoming.delete(id);
  draft.learners.delete(id);
  draft.learnersNext.delete(id);
  // An outgoing voter keeps its vote, and so its progress, until the joint configuration is left.
  if (!draft.outgoing.has(id)) draft.progress.delete(id);
}

function addProgress(draft: Draft, id: number, isLearner: boolean): void {
  // A newcomer counts as active, so that the next quorum check does not depose the leader that added it.
  const next = Math.max(draft.base.lastIndex, 1);
  const fresh = newProgress({ match: 0, next, isLearner, recentActive: true, ...draft.base.limits });
  draft.progress.set(id, fresh);
}

function setLearner(draft: Draft, id: number, isLearner: boolean): void {
  const progress = draft.progress.get(id);
  assert(progress !== undefined, 'a member has a progress');
  if (progress.isLearner !== isLearner) draft.progress.set(id, { ...progress, isLearner });
}

function finish(draft: Draft): ChangeState {
  const { incoming, outgoing, learners, learnersNext, progress, autoLeave } = draft;
  for (const id of learners) assert(!incoming.has(id) && !outgoing.has(id), 'a learner is no voter');
  for (const id of learnersNext) assert(outgoing.has(id), 'a future learner is an outgoing voter');
  const ids = new Set([...incoming, ...outgoing, ...learners]);
  assert(ids.size === progress.size, 'exactly the members have a progress');
  return { membership: { incoming, outgoing, learners, learnersNext, autoLeave }, progress };
}
