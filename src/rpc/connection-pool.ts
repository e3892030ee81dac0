/**
 * One outgoing connection per peer address, kept open and opened again when it is lost.
 *
 * Owns those connections. Invariants: at most one attempt or connection per address; attempts are spaced by
 * capped exponential back-off with jitter, so that peers that come back are not stormed; a connection to
 * another node than the one expected is never handed out.
 */
import { type Clock, sleep } from '../base/clock.ts';
import { SwarmdError, toSwarmdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { type Random, randomBelow } from '../base/random.ts';
import { parseAddress } from './address.ts';
import { connect } from './client.ts';
import { createRpcCounters, type RpcCounters } from './counters.ts';
import type { RpcLimits } from './limits.ts';
import type { ClientCredentials, RpcConnection, RpcHandlers } from './types.ts';
import { boundReached, cancelled } from './wire-error.ts';

/** Milliseconds of the first wait after a failure; it doubles with each one. */
export const backoffMinMs = 50;
/** Milliseconds of the longest wait between attempts. */
export const backoffMaxMs = 1000;
/** Addresses a pool connects to. The next one is refused with RESOURCE_EXHAUSTED. */
export const pooledPeersMax = 256;

/** What a pool connects with. */
export interface ConnectionPoolOptions {
  /** Read at each attempt, so that renewed certificates are used. */
  readonly credentials: () => Extract<ClientCredentials, { kind: 'node' }>;
  readonly handlers: RpcHandlers;
  readonly clock: Clock;
  /** For jitter. */
  readonly random: Random;
  readonly log: Logger;
  readonly connectTimeoutMs?: number;
  readonly limits?: Partial<RpcLimits>;
  readonly counters?: RpcCounters;
}

interface Waiter {
  readonly resolve: (connection: RpcConnection) => void;
  readonly reject: (error: SwarmdError) => void;
}

interface PooledPeer {
  readonly address: string;
  readonly host: string;
  readonly port: number;
  /** The node that must answer there; null as long as no caller said. */
  expectNodeId: string | null;
  readonly stop: AbortController;
  readonly waiters: Set<Waiter>;
  connection: RpcConnection | null;
  done: Promise<void>;
}

/** The wait before attempt number `failures` + 1, milliseconds: half of it fixed, half of it random. */
export function backoffMs(failures: number, random: Random): number {
  const full = Math.min(backoffMaxMs, backoffMinMs * 2 ** Math.min(Math.max(0, failures - 1), 16));
  const half = Math.floor(full / 2);
  return half + randomBelow(random, full - half + 1);
}

/** Keeps one reconnecting outgoing connection per address. */
export class ConnectionPool {
  readonly #options: ConnectionPoolOptions;
  readonly #counters: RpcCounters;
  readonly #peers = new Map<string, PooledPeer>();
  #closed = false;

  constructor(options: ConnectionPoolOptions) {
    this.#options = options;
    this.#counters = options.counters ?? createRpcCounters();
  }

  /**
   * The open connection to `address` (`host:port`), or the next one: waits for the attempt under way or the
   * one after the current back-off and rejects with its error. Keeps the connection open from then on. With
   * `expectNodeId` any other node is refused there, for later callers too.
   */
  async get(address: string, expectNodeId?: string, signal?: AbortSignal): Promise<RpcConnection> {
    if (signal?.aborted === true) throw cancelled(signal, `waiting for a connection to ${address}`);
    const peer = this.#peer(address, expectNodeId);
    if (peer instanceof SwarmdError) throw peer;
    if (peer.connection !== null) return peer.connection;
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        peer.waiters.delete(waiter);
        signal?.removeEventListener('abort', onAbort);
      };
      const waiter: Waiter = {
        resolve: (connection) => {
          leave();
          resolve(connection);
        },
        reject: (error) => {
          leave();
          reject(error);
        },
      };
      const onAbort = (): void => {
        waiter.reject(cancelled(signal as AbortSignal, `waiting for a connection to ${address}`));
      };
      peer.waiters.add(waiter);
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** The open connection to `address`, or null; never starts one. */
  current(address: string): RpcConnection | null {
    return this.#peers.get(address)?.connection ?? null;
  }

  /**
   * Sends a notification if the connection is open; otherwise starts connecting, drops it, counts it and
   * returns false.
   */
  notify(address: string, method: string, data: Uint8Array, expectNodeId?: string): boolean {
    const peer = this.#peer(address, expectNodeId);
    if (!(peer instanceof SwarmdError) && peer.connection !== null)
      return peer.connection.notify(method, data);
    this.#counters.notificationsDropped++;
    return false;
  }

  /** Closes the connection to `address` and stops reconnecting: the peer left or moved. */
  release(address: string): void {
    const peer = this.#peers.get(address);
    if (peer !== undefined) this.#drop(peer, 'the peer is no longer needed');
  }

  /** Closes every connection; each is opened again, with the credentials of then, when it is next used. */
  releaseAll(): void {
    for (const peer of [...this.#peers.values()]) this.#drop(peer, 'the credentials of this node changed');
  }

  /** Closes every connection and waits until they are gone; the pool refuses from then on. */
  async closeAll(): Promise<void> {
    this.#closed = true;
    const peers = [...this.#peers.values()];
    for (const peer of peers) this.#drop(peer, 'the node is stopping');
    await Promise.all(peers.map((peer) => peer.done));
  }

  #drop(peer: PooledPeer, reason: string): void {
    if (this.#peers.get(peer.address) === peer) this.#peers.delete(peer.address);
    const error = new SwarmdError('UNAVAILABLE', `the connection to ${peer.address} was given up: ${reason}`);
    peer.stop.abort(error);
    peer.connection?.close(reason);
    peer.connection = null;
    for (const waiter of [...peer.waiters]) waiter.reject(error);
  }

  #peer(address: string, expectNodeId: string | undefined): PooledPeer | SwarmdError {
    if (this.#closed)
      return new SwarmdError('UNAVAILABLE', 'the node is stopping; no connection is made any more');
    const known = this.#peers.get(address);
    if (known !== undefined) {
      const nodeId = known.connection?.peer?.nodeId ?? known.expectNodeId ?? expectNodeId;
      if (expectNodeId === undefined || nodeId === expectNodeId) {
        known.expectNodeId ??= expectNodeId ?? null;
        return known;
      }
      this.#drop(known, `node ${expectNodeId} is expected there now`);
    }
    const parsed = parseAddress(address);
    if (!parsed.ok) return new SwarmdError('INVALID_ARGUMENT', parsed.reason);
    if (this.#peers.size >= pooledPeersMax) {
      return boundReached(`no connection to ${address} was opened`, 'pooledPeersMax', pooledPeersMax);
    }
    const { host, port } = parsed.value;
    const peer: PooledPeer = {
      address,
      host,
      port,
      expectNodeId: expectNodeId ?? null,
      stop: new AbortController(),
      waiters: new Set(),
      connection: null,
      done: Promise.resolve(),
    };
    this.#peers.set(address, peer);
    peer.done = this.#keep(peer);
    return peer;
  }

  /** Connects, waits for the loss, backs off, again, until the peer is dropped. */
  async #keep(peer: PooledPeer): Promise<void> {
    const { clock, random, log } = this.#options;
    const { signal } = peer.stop;
    let failures = 0;
    while (!signal.aborted) {
      const startedMs = clock.monotonicMs();
      try {
        const connection = await this.#connect(peer);
        if (signal.aborted) connection.close('no longer needed');
        else this.#onOpen(peer, connection);
        const reason = await connection.closed;
        peer.connection = null;
        if (!signal.aborted) log.info('a connection to a peer was lost', { address: peer.address, reason });
        // A connection that lasts is a success; one that is cut at once must not make a busy loop.
        if (clock.monotonicMs() - startedMs >= backoffMaxMs) failures = 0;
      } catch (error) {
        if (!signal.aborted && failures === 0)
          log.warn('a peer cannot be reached', { address: peer.address, error });
        for (const waiter of [...peer.waiters]) waiter.reject(toSwarmdError(error));
      }
      failures++;
      // The only rejection of this sleep is the stop, which the loop's condition sees.
      await sleep(clock, backoffMs(failures, random), signal).catch(() => {});
    }
  }

  #connect(peer: PooledPeer): Promise<RpcConnection> {
    const { credentials, handlers, clock, log, connectTimeoutMs, limits } = this.#options;
    return connect({
      host: peer.host,
      port: peer.port,
      credentials: {
        ...credentials(),
        ...(peer.expectNodeId === null ? {} : { expectNodeId: peer.expectNodeId }),
      },
      handlers,
      clock,
      log,
      signal: peer.stop.signal,
      counters: this.#counters,
      ...(connectTimeoutMs === undefined ? {} : { connectTimeoutMs }),
      ...(limits === undefined ? {} : { limits }),
    });
  }

  #onOpen(peer: PooledPeer, connection: RpcConnection): void {
    const nodeId = connection.peer?.nodeId;
    if (peer.expectNodeId !== null && nodeId !== peer.expectNodeId) {
      // A caller named the node while this attempt was already under way.
      connection.close('another node is expected here');
      const message = `the node at ${peer.address} was refused: it is node ${nodeId}, not ${peer.expectNodeId}`;
      throw new SwarmdError('UNAUTHENTICATED', message, { details: { address: peer.address } });
    }
    peer.connection = connection;
    for (const waiter of [...peer.waiters]) waiter.resolve(connection);
  }
}
