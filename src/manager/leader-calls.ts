/**
 * Finds the leader for a caller, and goes on looking while a leader is being elected.
 *
 * Data owned: the callers that wait. Invariants: a call waits at most `LEADER_WAIT_MS` for a leader; it is tried
 * again only where nothing can have been done (no leader, or none that could be reached); nothing is left behind by
 * a call that ended (no timer, no listener).
 */
import { type Clock, sleep } from '../base/clock.ts';
import { SwarmdError } from '../base/errors.ts';
import type { RaftMember } from '../raft/types.ts';
import type { RpcConnection } from '../rpc/types.ts';

export interface LeaderCallsDependencies {
  readonly clock: Clock;
  /** Who leads, as far as known here: this manager itself only once it is ready to. */
  leader(): RaftMember | 'self' | null;
  /** Why a call cannot be served while there is no leader. */
  noLeader(): SwarmdError;
  connect(member: RaftMember, signal: AbortSignal): Promise<RpcConnection>;
}

/** How long a call waits for a leader before it gives up, milliseconds. */
export const LEADER_WAIT_MS = 5_000;
/** Wait before the leader is asked again that was none any more, or could not be reached, milliseconds. */
const ASK_AGAIN_MS = 100;

/** What to do at the leader: by this manager itself, or over a connection to the one that leads. */
export interface AtLeader<T> {
  here(): Promise<T>;
  there(connection: RpcConnection): Promise<T>;
}

/** Calls that the leader serves. */
export class LeaderCalls {
  readonly #dependencies: LeaderCallsDependencies;
  readonly #waiting = new Set<() => void>();
  readonly #stop = new AbortController();

  constructor(dependencies: LeaderCallsDependencies) {
    this.#dependencies = dependencies;
  }

  /** Callers waiting for a leader now. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Who leads may have changed. */
  notify(): void {
    for (const wake of [...this.#waiting]) wake();
  }

  /** Ends every wait with UNAVAILABLE. */
  stop(): void {
    this.#stop.abort();
    this.notify();
  }

  /** Resolves at the next `notify`, or when `signal` aborts. */
  changed(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        signal.removeEventListener('abort', done);
        this.#waiting.delete(done);
        resolve();
      };
      if (signal.aborted) {
        resolve();
        return;
      }
      signal.addEventListener('abort', done, { once: true });
      this.#waiting.add(done);
    });
  }

  /** Runs a call at the leader. NO_LEADER after {@link LEADER_WAIT_MS} without one; CANCELLED by `signal`. */
  async atLeader<T>(signal: AbortSignal, call: AtLeader<T>): Promise<T> {
    const { clock, connect } = this.#dependencies;
    const giveUp = new AbortController();
    const end = (): void => giveUp.abort(new SwarmdError('CANCELLED', 'the call was cancelled'));
    const timer = clock.setTimer(LEADER_WAIT_MS, end);
    signal.addEventListener('abort', end, { once: true });
    try {
      for (;;) {
        const leader = await this.#await(signal, giveUp.signal);
        let connection: RpcConnection | null = null;
        try {
          if (leader !== 'self') connection = await connect(leader, giveUp.signal);
          return await (connection === null ? call.here() : call.there(connection));
        } catch (error) {
          const notReached = leader !== 'self' && connection === null;
          const nothingDone = notReached || (error instanceof SwarmdError && error.code === 'NO_LEADER');
          if (signal.aborted || !nothingDone) throw error;
          if (giveUp.signal.aborted) throw notReached ? this.#unreachable(leader, error) : error;
          await sleep(clock, ASK_AGAIN_MS, giveUp.signal).catch(() => {});
        }
      }
    } finally {
      timer.cancel();
      signal.removeEventListener('abort', end);
    }
  }

  async #await(signal: AbortSignal, giveUp: AbortSignal): Promise<RaftMember | 'self'> {
    for (;;) {
      if (this.#stop.signal.aborted)
        throw new SwarmdError('UNAVAILABLE', 'the daemon is stopping; ask another manager');
      if (signal.aborted) throw new SwarmdError('CANCELLED', 'the call was cancelled');
      const leader = this.#dependencies.leader();
      if (leader !== null) return leader;
      if (giveUp.aborted) throw this.#dependencies.noLeader();
      await this.changed(giveUp);
    }
  }

  #unreachable(leader: RaftMember, cause: unknown): SwarmdError {
    return new SwarmdError(
      'UNAVAILABLE',
      `the leader (node ${leader.nodeId} at ${leader.address}) cannot be reached from this manager; check that it runs, and the network between the two`,
      { cause, details: { nodeId: leader.nodeId, address: leader.address } },
    );
  }
}

/** Runs one thing after another, in the order they came. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  run<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#last.then(task);
    this.#last = result.catch(() => {});
    return result;
  }
}
