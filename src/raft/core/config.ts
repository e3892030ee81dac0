/**
 * The knobs of the consensus core. Every field says its unit, its range and what it costs to get it wrong.
 */
import { assert } from '../../base/assert.ts';
import type { Tracer } from './trace.ts';
import { NOBODY } from './types.ts';

/** Configuration of one consensus core. */
export interface CoreConfig {
  /** This member. Positive; never reused by another member. */
  readonly id: number;
  /** Ticks without news from a leader before a follower campaigns; each wait is drawn from 1 to 2 times this. */
  readonly electionTicks: number;
  /** Ticks between heartbeats; less than `electionTicks`. */
  readonly heartbeatTicks: number;
  /** Index up to which the state machine was applied before the restart; 0 or the snapshot's index. */
  readonly applied: number;
  /** Ask before raising the term, so that a cut-off member cannot disturb a working group when it returns. */
  readonly preVote: boolean;
  /** A leader that hears from no quorum for one election timeout steps down; members ignore votes meanwhile. */
  readonly checkQuorum: boolean;
  /** A leader that removes or demotes itself becomes a follower at once. */
  readonly stepDownOnRemoval: boolean;
  /** Who asks for a vote, or refuses one, says what it knows to be committed: the other may lack a change of the group. */
  readonly shareCommitInElections: boolean;
  /** `safe` asks a quorum for every batch of reads; `lease` trusts clocks and needs `checkQuorum`. */
  readonly readOnly: 'safe' | 'lease';
  /** The driver answers storage messages itself (pipelined); otherwise it calls `advance` after each ready set. */
  readonly asyncStorage: boolean;
  /** A follower drops proposals instead of passing them to the leader. */
  readonly disableProposalForwarding: boolean;
  /** For test scripts only: take any configuration change at any time. */
  readonly disableConfigValidation: boolean;
  /** Bytes of entries in one append message (at least one entry always goes). */
  readonly maxMessageBytes: number;
  /** Append messages in flight to one follower. */
  readonly maxInflightMessages: number;
  /** Payload bytes in flight to one follower; 0 for no limit. */
  readonly maxInflightBytes: number;
  /** Payload bytes a leader holds uncommitted before it refuses proposals. */
  readonly maxUncommittedBytes: number;
  /** Bytes of committed entries handed out and not yet applied. */
  readonly maxApplyingBytes: number;
  /** Is told of every transition, for checks against the specification; null for nobody. */
  readonly tracer: Tracer | null;
}

/** The defaults of swarmd; only the id has none. */
export const coreDefaults: Omit<CoreConfig, 'id'> = {
  electionTicks: 10,
  heartbeatTicks: 1,
  applied: 0,
  preVote: true,
  checkQuorum: true,
  stepDownOnRemoval: true,
  shareCommitInElections: true,
  readOnly: 'safe',
  asyncStorage: true,
  disableProposalForwarding: true,
  disableConfigValidation: false,
  maxMessageBytes: 1024 * 1024,
  maxInflightMessages: 256,
  maxInflightBytes: 8 * 1024 * 1024,
  maxUncommittedBytes: 64 * 1024 * 1024,
  maxApplyingBytes: 16 * 1024 * 1024,
  tracer: null,
};

/** Checks a configuration; a wrong one is a defect of the caller. */
export function checkConfig(config: CoreConfig): void {
  assert(config.id > NOBODY, 'the member id is positive');
  assert(config.heartbeatTicks > 0, 'heartbeatTicks is positive');
  assert(config.electionTicks > config.heartbeatTicks, 'electionTicks is greater than heartbeatTicks');
  assert(config.maxInflightMessages > 0, 'maxInflightMessages is positive');
  assert(
    config.maxInflightBytes === 0 || config.maxInflightBytes >= config.maxMessageBytes,
    'one message fits in flight',
  );
  assert(config.maxApplyingBytes > 0, 'maxApplyingBytes is positive');
  assert(config.readOnly !== 'lease' || config.checkQuorum, 'lease reads need checkQuorum');
}
