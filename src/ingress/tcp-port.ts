/**
 * One published TCP port: accepts, finds a task that answers, and carries bytes both ways.
 *
 * Owns the listening socket and its connections. Invariants: a client sees an error only after every backend was
 * tried and the wait for another one is over; each direction ends on its own (half-close) and is read no faster than
 * the other side takes it; a reset on one side is a reset on the other, so that a cut body never looks complete;
 * established connections outlive the removal of their backend.
 */
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Clock } from '../base/clock.ts';
import { systemErrorCode } from '../base/errors.ts';
import { backendKey } from './balance.ts';
import type { PortBackends } from './backends.ts';
import type { Backend } from './table.ts';

/** Bounds of one TCP port. Times are milliseconds. */
export interface TcpPortOptions {
  readonly port: number;
  /** Connections at a time; one more is closed as soon as it is accepted. */
  readonly connectionsMax: number;
  /** Time a backend has to accept a connection. */
  readonly connectMs: number;
  /** Time a connection waits for a backend that answers, before it is reset. */
  readonly waitMs: number;
}

/** Failures that are this node's own and say nothing about the backend. */
const OWN_FAILURES = new Set(['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM', 'EADDRNOTAVAIL', 'EAGAIN']);
/** Time after which the next backend is tried beside one that has not answered, milliseconds. */
const HEDGE_MS = 250;
/** Time between tries when every backend refused, milliseconds. */
const RETRY_MS = 100;
const KEEP_ALIVE_MS = 60_000;

/** A published TCP port. */
export class TcpPort {
  readonly #options: TcpPortOptions;
  readonly #backends: PortBackends;
  readonly #clock: Clock;
  readonly #clients = new Set<Socket>();
  #server: Server | null = null;
  #closed = false;
  /** Connections turned away because of the bound. */
  refused = 0;
  /** Connections that found no backend. */
  unserved = 0;

  constructor(options: TcpPortOptions, deps: { readonly backends: PortBackends; readonly clock: Clock }) {
    this.#options = options;
    this.#backends = deps.backends;
    this.#clock = deps.clock;
  }

  get connections(): number {
    return this.#clients.size;
  }

  /** The bound port, or the one asked for. */
  get port(): number {
    const bound = this.#server?.address();
    return typeof bound === 'object' && bound !== null ? bound.port : this.#options.port;
  }

  /** Listens on every address, IPv4 and IPv6. Rejects with the system's error. */
  async open(): Promise<void> {
    try {
      await this.#listen('::');
    } catch (error) {
      if (!isWithoutIpv6(error)) throw error;
      await this.#listen('0.0.0.0');
    }
  }

  /** Stops accepting. Established connections go on; `closed` tells when the last has ended. */
  stopAccepting(): Promise<void> {
    this.#closed = true;
    this.#backends.wakeWaiting();
    return new Promise((resolve) => {
      if (this.#server === null) resolve();
      else this.#server.close(() => resolve());
    });
  }

  /** Stops accepting and ends every connection. */
  async close(): Promise<void> {
    const closed = this.stopAccepting();
    for (const client of this.#clients) client.destroy();
    await closed;
  }

  #listen(host: string): Promise<void> {
    const server = createServer({ allowHalfOpen: true, noDelay: true, pauseOnConnect: true });
    server.maxConnections = this.#options.connectionsMax;
    server.on('drop', () => {
      this.refused++;
    });
    server.on('connection', (client) => void this.#accept(client));
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host, port: this.#options.port, backlog: 4_096 }, () => {
        server.off('error', reject);
        // Failing to accept one connection (no file descriptor left) must not end the port.
        server.on('error', () => {});
        this.#server = server;
        resolve();
      });
    });
  }

  async #accept(client: Socket): Promise<void> {
    this.#clients.add(client);
    client.once('close', () => this.#clients.delete(client));
    client.on('error', () => client.destroy());
    const upstream = await this.#reach(client);
    if (client.destroyed) {
      upstream?.destroy();
    } else if (upstream === null) {
      this.unserved++;
      client.resetAndDestroy();
    } else {
      join(client, upstream);
    }
  }

  /** A connection to a backend; null when none answered in time, the client left or the port closed. */
  async #reach(client: Socket): Promise<Socket | null> {
    const deadlineMs = this.#clock.monotonicMs() + this.#options.waitMs;
    const tried = new Set<string>();
    let dials: Dial[] = [];
    try {
      while (!client.destroyed && !this.#closed) {
        const backend = this.#backends.choose(tried);
        if (backend !== null) {
          tried.add(backendKey(backend));
          dials.push(this.#dial(backend));
        }
        if (dials.length > 0) {
          // One that does not answer at once is given company, not time: its node may be dead.
          await this.#firstOutcome(dials, backend === null ? this.#options.connectMs : HEDGE_MS);
        } else {
          const leftMs = deadlineMs - this.#clock.monotonicMs();
          if (leftMs <= 0) return null;
          await this.#backends.change(tried.size === 0 ? leftMs : Math.min(leftMs, RETRY_MS));
          tried.clear();
        }
        const reached = dials.find((dial) => dial.outcome === 'connected');
        if (reached !== undefined) {
          dials = dials.filter((dial) => dial !== reached);
          return reached.socket;
        }
        if (dials.some((dial) => dial.outcome === 'own-failure')) return null;
        dials = dials.filter((dial) => dial.outcome === 'pending');
      }
      return null;
    } finally {
      for (const dial of dials) dial.socket.destroy();
    }
  }

  /** Resolves when one of `dials` has an outcome, or after `waitMs`. */
  async #firstOutcome(dials: readonly Dial[], waitMs: number): Promise<void> {
    const late = Promise.withResolvers<void>();
    const timer = this.#clock.setTimer(waitMs, late.resolve);
    await Promise.race([...dials.map((dial) => dial.settled), late.promise]);
    timer.cancel();
  }

  #dial(backend: Backend): Dial {
    const { host, port } = backend;
    const startedMs = this.#clock.monotonicMs();
    const socket = connect({ host, port, allowHalfOpen: true, noDelay: true });
    const { promise: settled, resolve } = Promise.withResolvers<void>();
    const dial: Dial = { socket, settled, outcome: 'pending' };
    const settle = (outcome: Dial['outcome']): void => {
      timer.cancel();
      if (dial.outcome !== 'pending') return;
      dial.outcome = outcome;
      resolve();
    };
    const timer = this.#clock.setTimer(this.#options.connectMs, () => {
      this.#backends.failed(backend);
      settle('failed');
      socket.destroy();
    });
    socket.on('error', (error) => {
      const own = OWN_FAILURES.has(systemErrorCode(error) ?? '');
      if (!own && dial.outcome === 'pending') this.#backends.failed(backend);
      settle(own ? 'own-failure' : 'failed');
      socket.destroy();
    });
    socket.once('connect', () => {
      this.#backends.answered(backend);
      settle('connected');
    });
    socket.once('close', () => {
      // Given up for another one that was quicker: what took so long is not asked first again.
      if (dial.outcome === 'pending' && this.#clock.monotonicMs() - startedMs >= HEDGE_MS) {
        this.#backends.failed(backend);
      }
      settle('failed');
    });
    return dial;
  }
}

/** A connection being made. */
interface Dial {
  readonly socket: Socket;
  /** Resolves once `outcome` is known. */
  readonly settled: Promise<void>;
  outcome: 'pending' | 'connected' | 'failed' | 'own-failure';
}

/** Carries bytes both ways until both sides are done or one breaks. */
function join(client: Socket, upstream: Socket): void {
  client.setKeepAlive(true, KEEP_ALIVE_MS);
  upstream.setKeepAlive(true, KEEP_ALIVE_MS);
  linkClose(client, upstream);
  linkClose(upstream, client);
  client.pipe(upstream);
  upstream.pipe(client);
}

/** When `from` is gone before it had said and heard everything, `to` is reset. Else `to` ends by itself, flushed. */
function linkClose(from: Socket, to: Socket): void {
  from.once('close', (hadError) => {
    if (to.destroyed || (!hadError && from.readableEnded && from.writableFinished)) return;
    to.resetAndDestroy();
  });
}

/** Whether the error says that this machine has no IPv6. */
export function isWithoutIpv6(error: unknown): boolean {
  const code = systemErrorCode(error);
  return code === 'EAFNOSUPPORT' || code === 'EADDRNOTAVAIL' || code === 'EINVAL';
}
