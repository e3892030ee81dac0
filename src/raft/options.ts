/**
 * The options of a member, with their defaults filled in.
 */
import { type CoreConfig, coreDefaults } from './core/config.ts';
import type { RaftNodeOptions } from './types.ts';

/** Every option but those that only matter to an empty storage. */
export type ResolvedOptions = Required<Omit<RaftNodeOptions, 'bootstrap' | 'join'>>;

/** Entries applied in one turn: more would keep heartbeats waiting. */
const APPLY_BYTES_A_TURN = 1024 * 1024;
const MEBIBYTE = 1024 * 1024;

/** Fills in the defaults. */
export function resolveOptions(options: RaftNodeOptions): ResolvedOptions {
  return {
    storage: options.storage,
    memberId: options.memberId,
    tickMs: options.tickMs ?? 100,
    electionTicks: options.electionTicks ?? 10,
    snapshotEntries: options.snapshotEntries ?? 10_000,
    snapshotBytes: options.snapshotBytes ?? 64 * MEBIBYTE,
    snapshotKeepEntries: options.snapshotKeepEntries ?? 5_000,
    maxEntryBytes: options.maxEntryBytes ?? 1.5 * MEBIBYTE,
    maxUncommittedBytes: options.maxUncommittedBytes ?? coreDefaults.maxUncommittedBytes,
    promotionLagEntries: options.promotionLagEntries ?? 1_000,
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
    maxUncommittedBytes: options.maxUncommittedBytes,
    maxApplyingBytes: APPLY_BYTES_A_TURN,
  };
}
