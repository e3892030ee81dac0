/**
 * The options of a member, with their defaults filled in.
 */
import { type CoreConfig, coreDefaults } from './core/config.ts';
import type { RaftNodeOptions } from './types.ts';

/** Every option but those that only matter to an empty storage. */
export type ResolvedOptions = Required<Omit<RaftNodeOptions, 'bootstrap' | 'join' | 'forceNewCluster'>>;

const MEBIBYTE = 1024 * 1024;

/** Defaults of a member's options. */
export const raftLimits = {
  tickMs: 100,
  electionTicks: 10,
  snapshotEntries: 10_000,
  snapshotBytes: 64 * MEBIBYTE,
  snapshotKeepEntries: 5_000,
  snapshotIntervalMs: 5_000,
  maxEntryBytes: 1.5 * MEBIBYTE,
  maxUncommittedBytes: 64 * MEBIBYTE,
  promotionLagEntries: 1_000,
  /** Entries applied in one turn: more would keep heartbeats waiting. */
  maxApplyBytes: MEBIBYTE,
} as const;

/** Fills in the defaults. */
export function resolveOptions(options: RaftNodeOptions): ResolvedOptions {
  return {
    storage: options.storage,
    memberId: options.memberId,
    tickMs: options.tickMs ?? raftLimits.tickMs,
    electionTicks: options.electionTicks ?? raftLimits.electionTicks,
    snapshotEntries: options.snapshotEntries ?? raftLimits.snapshotEntries,
    snapshotBytes: options.snapshotBytes ?? raftLimits.snapshotBytes,
    snapshotIntervalMs: options.snapshotIntervalMs ?? raftLimits.snapshotIntervalMs,
    snapshotKeepEntries: options.snapshotKeepEntries ?? raftLimits.snapshotKeepEntries,
    maxEntryBytes: options.maxEntryBytes ?? raftLimits.maxEntryBytes,
    maxUncommittedBytes: options.maxUncommittedBytes ?? raftLimits.maxUncommittedBytes,
    maxMessageBytes: options.maxMessageBytes ?? coreDefaults.maxMessageBytes,
    maxInflightMessages: options.maxInflightMessages ?? coreDefaults.maxInflightMessages,
    promotionLagEntries: options.promotionLagEntries ?? raftLimits.promotionLagEntries,
  };
}

/** The core's configuration under these options; `applied` is the index of the snapshot it starts from. */
export function coreConfig(options: ResolvedOptions, applied: number): CoreConfig {
  return {
    ...coreDefaults,
    id: options.memberId,
    electionTicks: options.electionTicks,
    applied,
    // A removed leader hands over first; see the driver.
    stepDownOnRemoval: false,
    maxMessageBytes: options.maxMessageBytes,
    maxInflightMessages: options.maxInflightMessages,
    maxUncommittedBytes: options.maxUncommittedBytes,
    maxApplyingBytes: raftLimits.maxApplyBytes,
  };
}
