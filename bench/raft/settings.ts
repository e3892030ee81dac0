/** What the parts of the benchmark know of each other. */
import type { RaftMember } from '../../src/raft/types.ts';
import type { ServerCredentials } from '../../src/rpc/types.ts';

/** What a member process of swarmd's group is told. */
export interface MemberSettings {
  readonly self: RaftMember;
  readonly folder: string;
  readonly port: number;
  readonly bootstrap: boolean;
  readonly tickMs: number;
  readonly electionTicks: number;
  readonly credentials: ServerCredentials;
}

/** How fast a group notices that its leader is gone. */
export interface Timing {
  readonly name: string;
  readonly tickMs: number;
  readonly electionTicks: number;
}

/** One way of putting load on a group, whatever it is made of. */
export interface Target {
  /** Writes one value of 256 bytes under a key; resolves once it is committed, rejects otherwise. */
  put(key: string): Promise<void>;
  /** Reads a key linearizably. */
  get(key: string): Promise<void>;
  close(): Promise<void>;
}

/** A running group of three members, 0 to 2. */
export interface Group {
  /** The member that leads; waits for one, and for the group to be whole. */
  leader(): Promise<number>;
  /** A client over `connections` to one member. */
  target(member: number, connections: number): Promise<Target>;
  kill(member: number, signal: 'SIGKILL' | 'SIGTERM'): Promise<void>;
  /** Starts a member that was killed. */
  start(member: number): Promise<void>;
  /** Starts a member that was killed as a new one: with an empty folder, in place of the old one. */
  replace(member: number): Promise<void>;
  /** Whether a member has everything that the group holds. */
  hasAll(member: number): Promise<boolean>;
  stop(): Promise<void>;
}

export const VALUE_BYTES = 256;

/** Waits until `condition` holds, two minutes at most; polls every `everyMs`. */
export async function until(what: string, condition: () => Promise<boolean>, everyMs = 10): Promise<void> {
  const deadline = performance.now() + 120_000;
  while (!(await condition().catch(() => false))) {
    if (performance.now() > deadline) throw new Error(`not in two minutes: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}
