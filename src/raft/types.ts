/**
 * The contract between the consensus driver and the rest of swarmd.
 *
 * Invariants: a state machine is deterministic and total (it refuses by value, never by throwing); everything
 * that crosses this border is plain data, so that the driver can live in a worker thread of its own.
 */
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { FromDriver } from './messages.ts';
import type { RaftStorage } from './storage.ts';

/** What the log drives: one replica of the replicated state. */
export interface StateMachine {
  /** Applies one committed entry. Deterministic and total; the result is handed to the proposer on this node. */
  apply(index: number, data: Uint8Array): unknown;
  /** The whole state as bytes that `restore` accepts. */
  snapshot(): Uint8Array;
  /** Replaces the whole state by a snapshot taken after entry `index` was applied. */
  restore(data: Uint8Array, index: number): void;
}

/** Why a proposal was not taken. All of them are safe to try again. */
export type RefusalReason = 'not-leader' | 'busy' | 'too-large' | 'stopping';

/** What became of a proposal. */
export type ProposeOutcome =
  | { readonly kind: 'committed'; readonly index: number; readonly result: unknown }
  | { readonly kind: 'refused'; readonly reason: RefusalReason; readonly leaderId: number | null }
  /** Leadership was lost, or the caller gave up, while the entry was in flight: it may or may not be applied. */
  | { readonly kind: 'unknown'; readonly reason: string };

/** One member of the consensus group. */
export interface RaftMember {
  /** A random positive integer of at most 48 bits, never reused. */
  readonly id: number;
  readonly nodeId: string;
  /** Where its peers reach it, as `host:port`. */
  readonly address: string;
  /** False for a learner, which receives the log but has no vote. */
  readonly voter: boolean;
}

/** Carries encoded messages to peers. Best effort: it may lose, duplicate or reorder them. */
export interface RaftTransport {
  /** Hands over messages for one member; never throws, never blocks. */
  send(to: RaftMember, messages: readonly Uint8Array[]): void;
}

/** What a node knows of its group. */
export interface RaftStatus {
  readonly role: 'leader' | 'follower' | 'candidate' | 'learner';
  readonly term: number;
  readonly leaderId: number | null;
  readonly memberId: number;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  readonly members: readonly RaftMember[];
  /** Members that the group was forced to go on without: their ids are never listened to again. */
  readonly expelled: readonly number[];
}

/** How to run one member. Only `storage`, `memberId` and one of `bootstrap` and `join` must be given. */
export interface RaftNodeOptions {
  /** Opened by the caller; closed by `stop`, and when opening the node fails. */
  readonly storage: RaftStorage;
  readonly memberId: number;
  /** On an empty storage: begin a new group with this member, itself, as the only voter. */
  readonly bootstrap?: RaftMember;
  /** On an empty storage: wait for a leader that added this member to its group. */
  readonly join?: boolean;
  /**
   * On a storage in use: go on as the only member of the group, for good. For a majority that is lost: what only
   * the others knew is lost with them, and none of them may come back. Without effect on a group of one.
   */
  readonly forceNewCluster?: boolean;
  /** Milliseconds a tick; 100. Heartbeats go every tick. */
  readonly tickMs?: number;
  /** Ticks without a leader before an election; drawn from 1 to 2 times this; 10. */
  readonly electionTicks?: number;
  /** Entries applied since the last snapshot that make a new one; 10,000. */
  readonly snapshotEntries?: number;
  /** Payload bytes applied since the last snapshot that make a new one; 64 MB. */
  readonly snapshotBytes?: number;
  /**
   * Milliseconds between snapshots that the number of entries asks for; 5,000. At thousands of changes a second,
   * writing the state again and again would cost more than replaying the log.
   */
  readonly snapshotIntervalMs?: number;
  /** Entries kept behind a snapshot, so that a slow follower need not be sent one; 5,000. */
  readonly snapshotKeepEntries?: number;
  /** Bytes of one proposal; 1.5 MB. */
  readonly maxEntryBytes?: number;
  /** Payload bytes not yet applied before proposals are refused as busy; 64 MB. */
  readonly maxUncommittedBytes?: number;
  /** Bytes of entries in one message to a peer (at least one entry always goes); 1 MB. */
  readonly maxMessageBytes?: number;
  /** Messages with entries in flight to one peer; 256. */
  readonly maxInflightMessages?: number;
  /** Entries a learner may lack when it is promoted; 1,000. */
  readonly promotionLagEntries?: number;
}

/** What the driver works with; each is a port with a test double. */
export interface RaftDriverDependencies {
  readonly transport: RaftTransport;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Tells the node; see `messages.ts`. */
  emit(message: FromDriver): void;
  /** Runs a function after the events at hand; `setImmediate` unless a simulator gives its own. */
  readonly defer?: (run: () => void) => void;
}

/** What a node works with. */
export interface RaftNodeEvents {
  readonly stateMachine: StateMachine;
  /** Called when the role, term, leader or membership changed (not on every commit). */
  onStatus(status: RaftStatus): void;
  /** Called once when storage or an invariant failed. The node acknowledges nothing afterwards. */
  onFatal(error: Error): void;
}

/** What a node and a driver in one thread work with. */
export interface RaftNodeDependencies extends Omit<RaftDriverDependencies, 'emit'>, RaftNodeEvents {}
