/** What run.ts tells a member of the benchmark's group. */
import type { RaftMember } from '../../src/raft/types.ts';
import type { ServerCredentials } from '../../src/rpc/types.ts';

export interface MemberSettings {
  readonly self: RaftMember;
  readonly folder: string;
  readonly port: number;
  readonly bootstrap: boolean;
  readonly tickMs: number;
  readonly electionTicks: number;
  readonly credentials: ServerCredentials;
}

/** One way of putting load on a group, whatever it is made of. */
export interface Target {
  readonly name: string;
  /** Writes one value of 256 bytes under a key; resolves once it is committed, rejects otherwise. */
  put(key: string): Promise<void>;
  /** Reads a key linearizably. */
  get(key: string): Promise<void>;
  close(): Promise<void>;
}

export const VALUE_BYTES = 256;
