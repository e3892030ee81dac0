/**
 * Going on alone: what the log of one surviving member gets before it starts as the whole group.
 *
 * Invariants: one atomic write, and none at all when the member is the whole group already, so that a crash before,
 * in or after it, or a second start with the same option, changes nothing more; every other member is expelled by
 * its id, which is never reused, so that none of them is ever listened to again; the term leaps ahead of any that
 * the others can have reached.
 *
 * Entries beyond the commit index that is durable here are kept, unlike etcd: the lost majority may have acknowledged
 * any of them, and one that it had replaced was never answered with more than "unknown", so applying it breaks no
 * promise. What they say of the group is followed first, then undone; all whom they name are expelled, too.
 */
import { SwarmdError } from '../base/errors.ts';
import { coreDefaults } from './core/config.ts';
import { configChangeOf, encodeConfigChange, leaveJointChange } from './core/config-codec.ts';
import { applyChange, type ChangeState, type ConfigChange, restoreConfig } from './core/membership.ts';
import { configState, isJoint } from './core/tracker.ts';
import { type ConfigState, EMPTY_CONFIG, type Entry, type HardState } from './core/types.ts';
import { type Contact, decodeContacts, encodeContacts, MemberTable } from './members.ts';
import type { LogBatch, StoredState } from './storage.ts';

/** How far the term leaps: an election a second takes others twelve days to catch up. */
export const FORCED_TERM_LEAP = 2 ** 20;

/** A group as the log tells of it, up to some entry. */
interface Walk {
  state: ChangeState;
  commit: number;
  readonly contacts: Map<number, Contact>;
}

function configOf(walk: Walk): ConfigState {
  return configState(walk.state.membership);
}

function takeConfigEntry(walk: Walk, entry: Entry): void {
  const change = configChangeOf(entry.data);
  for (const contact of decodeContacts(change.context)) walk.contacts.set(contact.id, contact);
  takeChange(walk, change);
}

function takeChange(walk: Walk, change: ConfigChange): void {
  const result = applyChange({ ...walk.state, limits: coreDefaults, lastIndex: walk.commit }, change);
  // A change that is refused is refused by every member alike, and changes nothing.
  if (result.ok) walk.state = result.value;
}

/** Whether `self` alone decides what is committed. */
function decidesAlone(walk: Walk, self: number): boolean {
  const { incoming, outgoing } = walk.state.membership;
  return outgoing.size === 0 && incoming.size === 1 && incoming.has(self);
}

/** Follows the log to the last entry that is known to be committed. */
function walkCommitted(stored: Pick<StoredState, 'snapshot' | 'hardState' | 'entries'>, self: number): Walk {
  const { snapshot, hardState } = stored;
  const from = snapshot?.index ?? 0;
  const contacts = snapshot === null ? [] : decodeContacts(snapshot.data);
  const walk: Walk = {
    state: restoreConfig(coreDefaults, from, snapshot?.config ?? EMPTY_CONFIG),
    commit: Math.max(from, hardState.commit),
    contacts: new Map(contacts.map((contact) => [contact.id, contact])),
  };
  for (const entry of stored.entries) {
    if (entry.index <= from) continue;
    if (entry.index > walk.commit) {
      if (!decidesAlone(walk, self)) break;
      walk.commit = entry.index;
    }
    if (entry.kind === 'config') takeConfigEntry(walk, entry);
  }
  return walk;
}

/** The group as of the last entry that `stored` knows to be committed. */
export function committedGroup(stored: Pick<StoredState, 'snapshot' | 'hardState' | 'entries'>): MemberTable {
  const nobody = 0;
  const walk = walkCommitted(stored, nobody);
  return new MemberTable(configOf(walk), [...walk.contacts.values()]);
}

function idsOf(config: ConfigState): Set<number> {
  return new Set([...config.voters, ...config.votersOutgoing, ...config.learners, ...config.learnersNext]);
}

/** Follows the log to its end. Returns everyone but `self` of the group that was, or that an entry since names. */
function walkTail(walk: Walk, tail: readonly Entry[], self: number): number[] {
  const ids = idsOf(configOf(walk));
  for (const entry of tail) {
    walk.commit = entry.index;
    if (entry.kind !== 'config') continue;
    takeConfigEntry(walk, entry);
    for (const step of configChangeOf(entry.data).steps) ids.add(step.id);
  }
  ids.delete(self);
  ids.delete(0);
  return [...ids].sort((a, b) => a - b);
}

/** The changes that leave `self` as the only member, one at a time; the first one names who is expelled. */
function changesTo(walk: Walk, self: number, expelled: readonly number[]): ConfigChange[] {
  const changes: ConfigChange[] = [];
  const add = (change: ConfigChange): void => {
    changes.push(change);
    takeChange(walk, change);
  };
  const step = (kind: 'add-voter' | 'remove' | 'update', id: number): void =>
    add({ transition: 'auto', steps: [{ kind, id }], context: leaveJointChange.context });
  if (isJoint(walk.state.membership)) add(leaveJointChange);
  if (!walk.state.membership.incoming.has(self)) step('add-voter', self);
  for (const id of idsOf(configOf(walk))) if (id !== self) step('remove', id);
  if (changes.length === 0) step('update', self);
  const rows = expelled.map(
    (id): Contact => ({
      ...(walk.contacts.get(id) ?? { id, nodeId: '', address: '' }),
      expelled: true,
    }),
  );
  return changes.map((change, i) => (i === 0 ? { ...change, context: encodeContacts(rows) } : change));
}

/**
 * What to write so that `self` is the whole group; null when it is already. FAILED_PRECONDITION for a member that
 * never received any state of its group.
 */
export function forcedStart(
  stored: StoredState,
  self: number,
): (LogBatch & { readonly hardState: HardState }) | null {
  const walk = walkCommitted(stored, self);
  if (walk.state.membership.incoming.size === 0) {
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      'this manager joined but never received the state of its cluster, so it cannot go on alone; force the new cluster on a manager that took part',
    );
  }
  const tail = stored.entries.filter((entry) => entry.index > walk.commit);
  const expelled = walkTail(walk, tail, self);
  if (expelled.length === 0 && decidesAlone(walk, self)) return null;
  const lastTerm = stored.entries.at(-1)?.term ?? stored.snapshot?.term ?? 0;
  const term = Math.max(stored.hardState.term, lastTerm) + FORCED_TERM_LEAP;
  const first = walk.commit + 1;
  const entries = changesTo(walk, self, expelled).map((change, i): Entry => {
    return { term, index: first + i, kind: 'config', data: encodeConfigChange(change) };
  });
  // Nobody else led this term, and nobody will: its vote is given.
  return { entries, hardState: { term, vote: self, commit: first + entries.length - 1 } };
}

/** What the storage holds once `batch` is written. */
export function withBatch(
  stored: StoredState,
  batch: LogBatch & { readonly hardState: HardState },
): StoredState {
  const first = batch.entries[0]?.index ?? Number.POSITIVE_INFINITY;
  const kept = stored.entries.filter((entry) => entry.index < first);
  return { ...stored, hardState: batch.hardState, entries: [...kept, ...batch.entries] };
}
