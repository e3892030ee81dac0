/**
 * Changes of the group as operations: add, remove, hand over. Leader only, one at a time, one step each.
 *
 * Invariants: a joiner is a learner until it nearly has the whole log, so that it never counts for a quorum it
 * cannot help; every operation ends with the change applied here, or with an error that says what is known.
 */
import { SwarmdError } from '../base/errors.ts';
import type { ConfigChange, ConfigChangeStep } from './core/membership.ts';
import type { Core } from './core/state.ts';
import { NOBODY } from './core/types.ts';
import { encodeContacts, isMemberId, type MemberTable } from './members.ts';
import { noLeader } from './reads.ts';
import type { ProposeOutcome, RaftMember } from './types.ts';

/** An addition under way; a removal of the same member withdraws it. */
export interface PendingAdd {
  readonly id: number;
  isWithdrawn: boolean;
}

/** What the operations need of the running node. */
export interface GroupControl {
  readonly adding: Set<PendingAdd>;
  readonly state: Readonly<Core>;
  readonly members: MemberTable;
  assertRunning(): void;
  /** Resolves when `check`, called once a turn, returns true; rejects when it throws. */
  until(check: () => boolean, signal: AbortSignal): Promise<void>;
  /** Why the change may not be proposed now, or null. */
  refusal(change: ConfigChange): string | null;
  /** Proposes the change; null when the core dropped it. */
  propose(change: ConfigChange): Promise<ProposeOutcome> | null;
  transfer(to: number): void;
}

function assertLeader(control: GroupControl): void {
  control.assertRunning();
  const { role, leader } = control.state;
  if (role === 'leader') return;
  if (leader === 0) throw noLeader('change of the raft group');
  throw new SwarmdError('FAILED_PRECONDITION', 'only the leader changes the raft group; ask it', {
    details: { leaderId: leader },
  });
}

/** Adds `member`, or promotes it, or changes its address, until it is as given. A voter is never demoted. */
export async function addMember(
  control: GroupControl,
  member: RaftMember,
  lagEntries: number,
  signal: AbortSignal,
): Promise<void> {
  if (!isMemberId(member.id)) {
    throw new SwarmdError(
      'INVALID_ARGUMENT',
      `${String(member.id)} is not a member id: a positive integer below 2^48`,
    );
  }
  assertLeader(control);
  if (control.members.isExpelled(member.id)) {
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      `member ${member.id} was left behind when the cluster was forced to go on without it; let its node leave and join again`,
    );
  }
  const add: PendingAdd = { id: member.id, isWithdrawn: false };
  control.adding.add(add);
  try {
    await addInSteps(control, member, lagEntries, add, signal);
  } finally {
    control.adding.delete(add);
  }
}

/** Each step looks again at what became of the member meanwhile: a removal must not be undone by a late promotion. */
async function addInSteps(
  control: GroupControl,
  member: RaftMember,
  lagEntries: number,
  add: PendingAdd,
  signal: AbortSignal,
): Promise<void> {
  const { id, address, nodeId } = member;
  const present = (): RaftMember | null => {
    if (add.isWithdrawn) throw removedMeanwhile(id);
    return control.members.get(id);
  };
  const required = (): RaftMember => {
    const known = present();
    if (known === null) throw removedMeanwhile(id);
    return known;
  };
  await change(control, { kind: 'add-learner', id }, member, () => present() === null, signal);
  const hasMoved = (): boolean => required().address !== address || required().nodeId !== nodeId;
  if (hasMoved()) await change(control, { kind: 'update', id }, member, hasMoved, signal);
  if (!member.voter || required().voter) return;
  await control.until(() => required() !== null && caughtUp(control, id, lagEntries), signal);
  await change(control, { kind: 'add-voter', id }, member, () => !required().voter, signal);
}

function removedMeanwhile(id: number): SwarmdError {
  return new SwarmdError(
    'CONFLICT',
    `member ${id} was removed before it was promoted; add it again if it is wanted`,
  );
}

function caughtUp(control: GroupControl, id: number, lagEntries: number): boolean {
  assertLeader(control);
  const progress = control.state.tracker.progress.get(id);
  if (progress === undefined) throw removedMeanwhile(id);
  const lag = control.state.log.lastIndex() - progress.match;
  // A learner that was never heard from has match 0, which in a short log is within the lag.
  return progress.recentActive && progress.match > 0 && progress.state === 'replicate' && lag <= lagEntries;
}

/** Removes a member, also one whose addition is still under way. */
export async function removeMember(control: GroupControl, id: number, signal: AbortSignal): Promise<void> {
  assertLeader(control);
  for (const add of control.adding) if (add.id === id) add.isWithdrawn = true;
  const isDue = (): boolean => {
    const member = control.members.get(id);
    if (member === null) return false;
    const voters = control.members.list.filter((each) => each.voter);
    if (!member.voter || voters.length > 1) return true;
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      'the last voter cannot be removed; add another manager first',
    );
  };
  await change(control, { kind: 'remove', id }, null, isDue, signal);
}

/** Makes one change, unless `isDue` says at the moment it could be proposed that there is nothing to do. */
async function change(
  control: GroupControl,
  step: ConfigChangeStep,
  member: RaftMember | null,
  isDue: () => boolean,
  signal: AbortSignal,
): Promise<void> {
  const context = encodeContacts(member === null ? [] : [member]);
  const wanted: ConfigChange = { transition: 'auto', steps: [step], context };
  const isFree = (): boolean => {
    assertLeader(control);
    return control.refusal(wanted) === null;
  };
  let pending: Promise<ProposeOutcome> | null = null;
  while (pending === null) {
    await control.until(isFree, signal);
    // Another caller may have been first in the same turn.
    if (!isFree()) continue;
    // No change is under way now, so the list of members is what all changes so far led to.
    if (!isDue()) return;
    pending = control.propose(wanted) ?? refusedNow(control);
  }
  const outcome = await pending;
  if (outcome.kind === 'committed') return;
  throw new SwarmdError(
    'OUTCOME_UNKNOWN',
    `leadership was lost while raft member ${step.id} was being changed; look at the members and ask the new leader`,
  );
}

function refusedNow(control: GroupControl): never {
  assertLeader(control);
  throw new SwarmdError(
    'UNAVAILABLE',
    'the leader takes no changes now (handing over, or overloaded); try again',
  );
}

/** Hands leadership over. */
export async function transferLeadership(
  control: GroupControl,
  to: number | null,
  signal: AbortSignal,
): Promise<void> {
  assertLeader(control);
  const { state, members } = control;
  const self = state.config.id;
  const target = to ?? furthestVoter(control);
  if (target === self) return;
  if (target === null || members.get(target)?.voter !== true) {
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      'leadership can only be handed to another voter of the group',
    );
  }
  const { term } = state;
  control.transfer(target);
  await control.until(() => {
    control.assertRunning();
    if (state.role !== 'leader' || state.term !== term) return state.leader !== 0;
    if (state.transferee === target) return false;
    throw new SwarmdError(
      'TIMEOUT',
      `member ${target} did not take over leadership in time; this node still leads`,
    );
  }, signal);
}

/** A leader that is no voter any more hands over: it leads on until another can, so that nobody is left behind. */
export function handOverWhenRemoved(control: GroupControl): void {
  const { state, members } = control;
  if (state.role !== 'leader' || state.transferee !== NOBODY) return;
  if (members.get(state.config.id)?.voter === true) return;
  const target = furthestVoter(control);
  if (target !== null) control.transfer(target);
}

/** The other voter that answered last round (a new leader knows of none) and has the longest log. */
function furthestVoter(control: GroupControl): number | null {
  let best: { readonly id: number; readonly rank: number } | null = null;
  for (const member of control.members.list) {
    const progress = control.state.tracker.progress.get(member.id);
    if (!member.voter || member.id === control.state.config.id || progress === undefined) continue;
    const rank = progress.match + (progress.recentActive ? Number.MAX_SAFE_INTEGER / 2 : 0);
    if (best === null || rank > best.rank) best = { id: member.id, rank };
  }
  return best?.id ?? null;
}
