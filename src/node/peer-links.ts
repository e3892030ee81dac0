/**
 * How consensus reaches its peers: straight from thread to thread where the network allows it, else through the
 * port that every manager has.
 *
 * Data owned: the connections out of the consensus thread.
 * Invariants: a frame is sent at most once; a peer is believed by its certificate, on either way; what cannot be
 * sent now is lost (consensus repeats itself); every member is connected to before there is anything to send, since an
 * election must not wait for handshakes.
 */
import { type Clock, sleep } from '../base/clock.ts';
import { errorMessage } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { RaftMember } from '../raft/types.ts';
import { formatAddress, parseAddress } from '../rpc/address.ts';
import { backoffMs, ConnectionPool } from '../rpc/connection-pool.ts';
import type { ClientCredentials, RpcConnection } from '../rpc/types.ts';

/** Notification with a frame of consensus. */
export const RAFT_METHOD = 'raft';
/** Call that tells where a manager's consensus thread listens: `{ port }`. */
export const ENDPOINT_METHOD = 'raft.endpoint';

/** Bound of one attempt, milliseconds. */
const ATTEMPT_MS = 3_000;

export interface PeerLinksOptions {
  readonly credentials: () => Extract<ClientCredentials, { kind: 'node' }>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

interface Link {
  readonly to: RaftMember;
  readonly stop: AbortController;
  /** Where its thread listens, while a connection to it stands. */
  straight: string | null;
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

  constructor(options: PeerLinksOptions) {
    this.#options = options;
    const pool = { ...options, handlers: { calls: {}, streams: {}, notifications: {} } };
    this.#managers = new ConnectionPool(pool);
    this.#threads = new ConnectionPool(pool);
  }

  /** Keeps connections to these members, and to no others. */
  connect(members: readonly RaftMember[]): void {
    const wanted = new Map(members.map((member) => [member.id, member]));
    for (const [id, link] of this.#links) {
      const { address, nodeId } = link.to;
      const member = wanted.get(id);
      if (member?.address === address && member.nodeId === nodeId) wanted.delete(id);
      else this.#forget(link);
    }
    for (const member of wanted.values()) this.#link(member);
  }

  /** Sends frames to a member; never throws, never waits. */
  send(to: RaftMember, frames: readonly Uint8Array[]): void {
    const link = this.#links.get(to.id);
    const straight = link?.straight ?? null;
    const connection = straight === null ? null : this.#threads.current(straight);
    if (connection !== null) connection.notifyNow(RAFT_METHOD, frames);
    else for (const frame of frames) this.#managers.notify(to.address, RAFT_METHOD, frame, to.nodeId);
  }

  #link(to: RaftMember): void {
    const link: Link = { to, stop: new AbortController(), straight: null, isWarned: false };
    this.#links.set(to.id, link);
    void this.#keep(link);
  }

  /** Connects, waits for the loss, and again, until the member is one no more. */
  async #keep(link: Link): Promise<void> {
    const { clock, random } = this.#options;
    const { signal } = link.stop;
    for (let failures = 0; !signal.aborted; ) {
      const connection = await this.#open(link);
      // The only rejection of the sleep is the stop, which the loop's condition sees.
      failures = connection === null ? failures + 1 : 0;
      if (connection === null) await sleep(clock, backoffMs(failures, random), signal).catch(() => {});
      else await connection.closed;
      if (link.straight !== null) this.#threads.release(link.straight);
      link.straight = null;
    }
  }

  /**
   * Asks the manager where its thread listens, and connects there; frames go that way from then on. Null where that
   * cannot be had now.
   */
  async #open(link: Link): Promise<RpcConnection | null> {
    const { address, nodeId } = link.to;
    const signal = AbortSignal.any([link.stop.signal, AbortSignal.timeout(ATTEMPT_MS)]);
    let straight: string | null = null;
    try {
      const manager = await this.#managers.get(address, nodeId, signal);
      const answer = (await manager.call(ENDPOINT_METHOD, null, { signal })) as { readonly port?: unknown };
      straight = threadAddress(address, answer.port);
      const connection = await this.#threads.get(straight, nodeId, signal);
      link.straight = straight;
      link.isWarned = false;
      this.#managers.release(address);
      return connection;
    } catch (error) {
      if (straight !== null) this.#threads.release(straight);
      if (straight !== null && !link.isWarned && !signal.aborted) {
        link.isWarned = true;
        this.#options.log.warn(
          'consensus cannot reach a manager straight and goes through its main port; let managers reach this address of one another',
          { to: nodeId, address: straight, error: errorMessage(error) },
        );
      }
      return null;
    }
  }

  #forget(link: Link): void {
    link.stop.abort();
    if (this.#links.get(link.to.id) === link) this.#links.delete(link.to.id);
    if (link.straight !== null) this.#threads.release(link.straight);
    this.#managers.release(link.to.address);
  }

  /** Opens every connection anew, with the credentials of now. */
  renew(): void {
    this.#managers.releaseAll();
    this.#threads.releaseAll();
  }

  /** Closes every connection. */
  async close(): Promise<void> {
    for (const link of this.#links.values()) link.stop.abort();
    this.#links.clear();
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
