/**
 * What the two halves of a member say to each other: the driver (consensus, log, peers) and the node (the state
 * machine and everybody who uses it).
 *
 * Invariants: plain data, byte arrays and errors only, so that the halves can live in different threads; each
 * direction keeps its order. So an answer that follows an entry is taken after that entry was applied.
 */
import type { ProposeOutcome, RaftMember, RaftStatus } from './types.ts';

/** A change of the group, or a handover; ends with `called`. */
export type GroupCall =
  | { readonly kind: 'add'; readonly member: RaftMember }
  | { readonly kind: 'remove'; readonly memberId: number }
  | { readonly kind: 'transfer'; readonly to: number | null };

/** From the node to the driver. Ids are the node's, never used twice. */
export type ToDriver =
  | { readonly kind: 'propose'; readonly id: number; readonly data: Uint8Array }
  | { readonly kind: 'read'; readonly id: number }
  | { readonly kind: 'call'; readonly id: number; readonly call: GroupCall }
  /** The caller of a `call` gave up. */
  | { readonly kind: 'cancel'; readonly id: number }
  /** From a peer. */
  | { readonly kind: 'frame'; readonly frame: Uint8Array }
  /** A member is at another address by now. */
  | { readonly kind: 'moved'; readonly memberId: number; readonly address: string }
  /** Everything up to `index` is applied. */
  | { readonly kind: 'applied'; readonly index: number }
  /** The answer to `take-snapshot`. */
  | { readonly kind: 'snapshot'; readonly index: number; readonly state: Uint8Array }
  /** The state machine broke. */
  | { readonly kind: 'failed'; readonly error: Error }
  | { readonly kind: 'stop' };

/** A committed entry. Without data it is one that the state machine has no part in. */
export interface CommittedEntry {
  readonly index: number;
  readonly data: Uint8Array;
  /** Id of the proposal of this node that it is; 0 for none. */
  readonly proposal: number;
}

/** Frames that were dropped, by why. */
export interface RefusedFrames {
  /** Could not be decoded. */
  readonly malformed: number;
  /** From a member that the group was forced to go on without. */
  readonly expelled: number;
}

/** What a driver knows of its group. */
export interface DriverStatus extends Omit<RaftStatus, 'appliedIndex'> {
  /** The members where this one reaches them: by the log, or by `moved`. */
  readonly reach: readonly RaftMember[];
  readonly refusedFrames: RefusedFrames;
}

/** Why a proposal did not commit, as far as is known here. */
export type NotCommitted = Exclude<ProposeOutcome, { readonly kind: 'committed' }>;

/** From the driver to the node. */
export type FromDriver =
  | { readonly kind: 'status'; readonly status: DriverStatus }
  | { readonly kind: 'apply'; readonly entries: readonly CommittedEntry[]; readonly commitIndex: number }
  /** Replaces the whole state. */
  | { readonly kind: 'restore'; readonly index: number; readonly state: Uint8Array }
  /** Asks for the state as it is when this is taken: `index` is the last entry sent so far. */
  | { readonly kind: 'take-snapshot'; readonly index: number }
  | { readonly kind: 'not-committed'; readonly ids: readonly number[]; readonly outcome: NotCommitted }
  /** The reads see everything acknowledged before them once `index` is applied. */
  | { readonly kind: 'read'; readonly ids: readonly number[]; readonly index: number }
  | { readonly kind: 'read-failed'; readonly ids: readonly number[]; readonly error: Error }
  | { readonly kind: 'called'; readonly id: number; readonly error: Error | null }
  /** Storage or an invariant failed; nothing follows. */
  | { readonly kind: 'fatal'; readonly error: Error }
  | { readonly kind: 'stopped' };
