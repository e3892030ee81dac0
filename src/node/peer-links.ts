/**
 * How consensus reaches its peers: straight from thread to thread where the network allows it, else through the
 * port that every manager has.
 *
 * Data owned: the connections out of the consensus thread.
 * Invariants: a frame is sent at most once; a peer is believed by its certificate, on either way; what cannot be
 * sent now is lost (consensus repeats itself).
 */
import type { Clock } from '../base/clock.ts';
import { errorMessage } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { RaftMember } from '../raft/types.ts';
import { formatAddress, parseAddress } from '../rpc/address.ts';
import { ConnectionPool } from '../rpc/connection-pool.ts';
import type { ClientCredentials } from '../rpc/types.ts';

/** Notification with a frame of consensus. */
export const RAFT_METHOD = 'raft';
/** Call that tells where a manager's consensus thread listens: `{ port }`. */
export const ENDPOINT_METHOD = 'raft.endpoint';

/** Wait before a straight connection is tried again, milliseconds. */
const RETRY_MS = 2_000;
/** Bound of one attempt, milliseconds. */
const ATTEMPT_MS = 3_000;

export interface PeerLinksOptions {
  readonly credentials: () => Extract<ClientCredentials, { kind: 'node' }>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

interface Link {
  readonly address: string;
  /** Where its thread listens, once a connection to it stood. */
  straight: string | null;
  retryAtMs: number;
  isBusy: boolean;
  isWarned: boolean;
}

/** The connections of one consensus thread. */
export class PeerLinks {
  readonly #options: PeerLinksOptions;
  /** By the address of the manager. */
  readonly #managers: ConnectionPool;
  /** By the address of its thread. */
  readonly #threads: ConnectionPool;
  readonly #links = new Map<number, Link>();
  readonly #stop = new AbortController();

  constructor(options: PeerLinksOptions) {
    this.#options = options;
    const pool = { ...options, handlers: { calls: {}, streams: {}, notifications: {} } };
    this.#managers = new ConnectionPool(pool);
    this.#threads = new ConnectionPool(pool);
  }

  /** Sends frames to a member; never throws, never waits. */
  send(to: RaftMember, frames: readonly Uint8Array[]): void {
    let link = this.#links.get(to.id);
    if (link?.address !== to.address) {
      if (link !== undefined) this.#forget(link);
      link = { address: to.address, straight: null, retryAtMs: 0, isBusy: false, isWarned: false };
      this.#links.set(to.id, link);
    }
    const connection = link.straight === null ? null : this.#threads.current(link.straight);
    if (connection !== null) {
      connection.notifyNow(RAFT_METHOD, frames);
      return;
    }
    if (!link.isBusy && this.#options.clock.monotonicMs() >= link.retryAtMs) void this.#connect(to, link);
    for (const frame of frames) this.#managers.notify(to.address, RAFT_METHOD, frame, to.nodeId);
  }

  /** Asks the manager where its thread listens, and connects there; later frames go that way. */
  async #connect(to: RaftMember, link: Link): Promise<void> {
    link.isBusy = true;
    const { clock, log } = this.#options;
    const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout(ATTEMPT_MS)]);
    let straight: string | null = null;
    try {
      const manager = await this.#managers.get(to.address, to.nodeId, signal);
      const answer = (await manager.call(ENDPOINT_METHOD, null, { signal })) as { readonly port?: unknown };
      straight = threadAddress(to.address, answer.port);
      const connection = await this.#threads.get(straight, to.nodeId, signal);
      link.straight = straight;
      link.isWarned = false;
      void connection.closed.then(() => this.#lost(link));
      if (this.#links.get(to.id) === link) this.#managers.release(to.address);
      else this.#forget(link);
    } catch (error) {
      if (straight !== null) this.#threads.release(straight);
      link.retryAtMs = clock.monotonicMs() + RETRY_MS;
      if (straight !== null && !link.isWarned && !this.#stop.signal.aborted) {
        link.isWarned = true;
        log.warn(
          'consensus cannot reach a manager straight and goes through its main port; let managers reach this address of one another',
          { to: to.nodeId, address: straight, error: errorMessage(error) },
        );
      }
    } finally {
      link.isBusy = false;
    }
  }

  #lost(link: Link): void {
    if (link.straight !== null) this.#threads.release(link.straight);
    link.straight = null;
  }

  #forget(link: Link): void {
    this.#lost(link);
    this.#managers.release(link.address);
  }

  /** Opens every connection anew, with the credentials of now. */
  renew(): void {
    this.#managers.releaseAll();
    this.#threads.releaseAll();
  }

  /** Closes every connection. */
  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.all([this.#managers.closeAll(), this.#threads.closeAll()]);
  }
}

function threadAddress(address: string, port: unknown): string {
  const parsed = parseAddress(address);
  if (!parsed.ok) throw new Error(parsed.reason);
  if (!Number.isInteger(port) || (port as number) < 1 || (port as number) > 65_535)
    throw new Error('the manager does not tell where its consensus listens; it may run another version');
  return formatAddress(parsed.value.host, port as number);
}
