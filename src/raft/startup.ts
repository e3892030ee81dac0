/**
 * From an opened storage to the state a member starts with.
 *
 * Invariant: an empty storage is used only when the caller said what it is to become, so that a lost folder is
 * never mistaken for a new group.
 */
import { SwarmdError } from '../base/errors.ts';
import { encodeConfigChange } from './core/config-codec.ts';
import { StableLog } from './core/stable-log.ts';
import type { Entry, HardState } from './core/types.ts';
import { forcedStart, withBatch } from './forced-start.ts';
import { encodeContacts, isMemberId, MemberTable } from './members.ts';
import { type LogBatch, readSnapshotState, type StoredState } from './storage.ts';
import type { RaftMember, RaftNodeOptions } from './types.ts';

/** What a member starts with. */
export interface Started {
  readonly stable: StableLog;
  readonly members: MemberTable;
  readonly hardState: HardState;
}

/** Takes over the state of a snapshot at `index`. */
export type RestoreState = (state: Uint8Array, index: number) => void;

/** Loads the storage, initialises an empty one, and restores the state machine from the snapshot. */
export async function prepareStorage(options: RaftNodeOptions, restoreState: RestoreState): Promise<Started> {
  const { storage, memberId } = options;
  if (!isMemberId(memberId)) {
    throw new SwarmdError(
      'INVALID_ARGUMENT',
      `${String(memberId)} is not a member id: a positive integer below 2^48`,
    );
  }
  const stored = await storage.load();
  if (stored.memberId === null) {
    if (options.forceNewCluster !== true) return initialise(options);
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      'the raft folder is empty, so there is no cluster to go on with; start a new one with "swarmd init"',
    );
  }
  if (stored.memberId !== memberId) {
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      `the raft folder belongs to member ${stored.memberId}, not ${memberId}; give this node its own state folder`,
    );
  }
  if (options.forceNewCluster !== true) return restore(options, stored, restoreState);
  const batch = forcedStart(stored, memberId);
  if (batch === null) return restore(options, stored, restoreState);
  await storage.append(batch);
  return restore(options, withBatch(stored, batch), restoreState);
}

async function initialise(options: RaftNodeOptions): Promise<Started> {
  const { storage, memberId, bootstrap } = options;
  if (bootstrap === undefined && options.join !== true) {
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      'the raft folder is empty; start a new cluster or join one (a lost folder cannot be replaced by an empty one)',
    );
  }
  const batch = bootstrap === undefined ? emptyBatch : firstBatch(bootstrap, memberId);
  await storage.initialise(memberId, batch);
  const stable = StableLog.empty();
  stable.append(batch.entries);
  const members = new MemberTable(stable.snapshotConfig(), []);
  return { stable, members, hardState: batch.hardState };
}

type FirstBatch = LogBatch & { readonly hardState: HardState };

const emptyBatch: FirstBatch = { hardState: { term: 0, vote: 0, commit: 0 }, entries: [] };

/** A new group's log begins with the entry that makes its first member a voter. */
function firstBatch(member: RaftMember, memberId: number): FirstBatch {
  if (member.id !== memberId) {
    throw new SwarmdError('INVALID_ARGUMENT', 'a new cluster begins with this node itself as its member');
  }
  const data = encodeConfigChange({
    transition: 'auto',
    steps: [{ kind: 'add-voter', id: member.id }],
    context: encodeContacts([member]),
  });
  const entry: Entry = { term: 1, index: 1, kind: 'config', data };
  return { hardState: { term: 1, vote: 0, commit: 1 }, entries: [entry] };
}

async function restore(
  options: RaftNodeOptions,
  stored: StoredState,
  restoreState: RestoreState,
): Promise<Started> {
  const { snapshot } = stored;
  const stable = new StableLog(stored);
  const members = new MemberTable(stable.snapshotConfig(), []);
  if (snapshot === null) return { stable, members, hardState: stored.hardState };
  const state = await readSnapshotState(options.storage, snapshot.index, snapshot.term);
  if (state === null) {
    throw new SwarmdError(
      'CORRUPT',
      'the raft snapshot has no state; remove this node from the cluster, empty its data folder and join again',
    );
  }
  restoreState(state, snapshot.index);
  members.restore(snapshot.config, snapshot.data, snapshot.index);
  // The commit index is written lazily; a snapshot holds committed entries only.
  const commit = Math.max(stored.hardState.commit, snapshot.index);
  return { stable, members, hardState: { ...stored.hardState, commit } };
}
