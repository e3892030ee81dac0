/**
 * The user-space ingress proxy: every published port answers on this node and leads to a running task on any node.
 *
 * Owns one listener a published port. Invariants: a port that cannot be taken is reported by `status`, logged once
 * and tried again, and never stops the others; removing a port or backend leaves established TCP connections to
 * finish; nothing waits without a bound.
 */
import type { Clock, Timer } from '../base/clock.ts';
import { SwarmdError, systemErrorCode } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { PortProtocol } from '../model/spec.ts';
import type { RoutingState } from '../worker/types.ts';
import { PortBackends } from './backends.ts';
import { buildIngressTable, portKey, type PublishedPort } from './table.ts';
import { TcpPort } from './tcp-port.ts';
import { UdpPort } from './udp-port.ts';

/** Options of {@link IngressProxy}. Times are milliseconds. */
export interface IngressOptions {
  readonly nodeId: string;
  /** Whether this node reaches addresses of task networks (the overlay rung). */
  readonly overlay: boolean;
  /** TCP connections at a time for each port; one more is closed at once. Default 10,000. */
  readonly connectionsMax?: number;
  /** UDP sessions at a time for each port; the longest idle makes room. Default 4,096. */
  readonly sessionsMax?: number;
  /** Time a backend has to accept. Default 2,000. */
  readonly connectMs?: number;
  /** Time a connection waits for a backend that answers before it is reset. Default 5,000. */
  readonly waitMs?: number;
  /** Time a backend that failed is left out. Default 2,000. */
  readonly restMs?: number;
  /** Life of an idle UDP session. Default 60,000. */
  readonly sessionIdleMs?: number;
  /** Time between tries to take a port. Default 2,000. */
  readonly retryMs?: number;
}

/** What {@link IngressProxy} works with. */
export interface IngressDependencies {
  readonly clock: Clock;
  readonly logger: Logger;
}

/** One published port on this node. */
export interface IngressPortStatus {
  readonly port: number;
  readonly protocol: PortProtocol;
  readonly serviceName: string;
  readonly state: 'listening' | 'failed' | 'starting';
  /** Why it failed, with what to do; empty otherwise. */
  readonly error: string;
  readonly backends: number;
  /** Open TCP connections or UDP sessions. */
  readonly connections: number;
}

interface OpenPort {
  readonly protocol: PortProtocol;
  readonly port: number;
  serviceName: string;
  readonly backends: PortBackends;
  listener: TcpPort | UdpPort | null;
  error: SwarmdError | null;
  opening: Promise<void> | null;
  timer: Timer | null;
  closed: boolean;
}

/** The ingress proxy. Give it every routing state; `close` it. */
export class IngressProxy {
  readonly #options: IngressOptions;
  readonly #deps: IngressDependencies;
  /** By `protocol/port`. */
  readonly #ports = new Map<string, OpenPort>();
  /** Listeners of removed ports whose last connections have not ended. */
  readonly #draining = new Set<TcpPort>();
  readonly #closings = new Set<Promise<void>>();
  #closed = false;

  constructor(options: IngressOptions, deps: IngressDependencies) {
    this.#options = options;
    this.#deps = deps;
  }

  /** Takes the new routing state: ports are opened and closed, new connections follow it at once. */
  update(routing: RoutingState): void {
    if (this.#closed) return;
    const table = buildIngressTable(routing, this.#options);
    for (const [key, open] of this.#ports) {
      if (table.has(key)) continue;
      this.#ports.delete(key);
      this.#track(this.#drain(open));
    }
    for (const published of table.values()) this.#apply(published);
  }

  /** Every published port with its state, sorted by protocol and port. */
  status(): IngressPortStatus[] {
    return [...this.#ports.values()]
      .map((open) => ({
        port: open.port,
        protocol: open.protocol,
        serviceName: open.serviceName,
        state: statusOf(open),
        error: open.error?.message ?? '',
        backends: open.backends.all.length,
        connections: open.listener?.connections ?? 0,
      }))
      .toSorted((a, b) => a.protocol.localeCompare(b.protocol) || a.port - b.port);
  }

  /** Closes every port and connection. */
  async close(): Promise<void> {
    this.#closed = true;
    const ports = [...this.#ports.values()];
    this.#ports.clear();
    await Promise.all(
      ports.map(async (open) => {
        this.#cancel(open);
        await open.opening;
        await open.listener?.close();
      }),
    );
    await Promise.all([...this.#draining].map((listener) => listener.close()));
    await Promise.all(this.#closings);
  }

  #apply(published: PublishedPort): void {
    const key = portKey(published.protocol, published.port);
    const known = this.#ports.get(key);
    if (known !== undefined) {
      known.serviceName = published.serviceName;
      known.backends.set(published.backends);
      if (known.listener instanceof UdpPort) known.listener.dropRemoved();
      return;
    }
    const backends = new PortBackends({ restMs: this.#options.restMs ?? 2_000 }, this.#deps);
    backends.set(published.backends);
    const open: OpenPort = {
      protocol: published.protocol,
      port: published.port,
      serviceName: published.serviceName,
      backends,
      listener: null,
      error: null,
      opening: null,
      timer: null,
      closed: false,
    };
    this.#ports.set(key, open);
    this.#open(open);
  }

  #open(open: OpenPort): void {
    open.timer = null;
    const listener = this.#listener(open);
    if (listener === null) {
      const where = portKey(open.protocol, open.port);
      open.error = new SwarmdError(
        'INVALID_ARGUMENT',
        `${where} cannot be published through the ingress proxy: it carries tcp and udp only; use host mode`,
      );
      this.#deps.logger.warn('published port cannot be served', { port: where, error: open.error });
      return;
    }
    const work = async (): Promise<void> => {
      try {
        await listener.open();
        open.error = null;
        if (open.closed) await listener.close();
        else open.listener = listener;
      } catch (cause) {
        this.#failed(open, cause);
      }
    };
    open.opening = work().finally(() => {
      open.opening = null;
    });
  }

  #listener({ protocol, port, backends }: OpenPort): TcpPort | UdpPort | null {
    const { clock } = this.#deps;
    const { connectionsMax, sessionsMax, connectMs, waitMs, sessionIdleMs } = this.#options;
    switch (protocol) {
      case 'tcp':
        return new TcpPort(
          {
            port,
            connectionsMax: connectionsMax ?? 10_000,
            connectMs: connectMs ?? 2_000,
            waitMs: waitMs ?? 5_000,
          },
          { backends, clock },
        );
      case 'udp':
        return new UdpPort(
          { port, sessionsMax: sessionsMax ?? 4_096, idleMs: sessionIdleMs ?? 60_000 },
          { backends, clock },
        );
      case 'sctp':
        return null;
    }
  }

  #failed(open: OpenPort, cause: unknown): void {
    const error = portError(open, cause);
    if (open.error?.message !== error.message) {
      this.#deps.logger.warn('published port cannot be taken on this node', {
        port: open.port,
        protocol: open.protocol,
        service: open.serviceName,
        code: error.code,
        error,
      });
    }
    open.error = error;
    if (open.closed) return;
    // A port this proxy is itself letting go of is free in a moment.
    const delayMs = this.#closings.size > 0 ? 50 : (this.#options.retryMs ?? 2_000);
    open.timer = this.#deps.clock.setTimer(delayMs, () => this.#open(open));
  }

  #cancel(open: OpenPort): void {
    open.closed = true;
    open.timer?.cancel();
    open.timer = null;
  }

  /** Frees the port at once and leaves its TCP connections to finish. */
  async #drain(open: OpenPort): Promise<void> {
    this.#cancel(open);
    open.backends.set([]);
    await open.opening;
    const { listener } = open;
    if (listener instanceof TcpPort) {
      this.#draining.add(listener);
      await listener.stopAccepting();
      this.#draining.delete(listener);
    } else {
      await listener?.close();
    }
  }

  #track(work: Promise<void>): void {
    this.#closings.add(work);
    void work.finally(() => this.#closings.delete(work));
  }
}

function statusOf(open: OpenPort): IngressPortStatus['state'] {
  if (open.listener !== null) return 'listening';
  return open.error === null ? 'starting' : 'failed';
}

function portError({ protocol, port, serviceName }: OpenPort, cause: unknown): SwarmdError {
  const where = portKey(protocol, port);
  const details = { protocol, port, service: serviceName };
  switch (systemErrorCode(cause)) {
    case 'EADDRINUSE':
      return new SwarmdError(
        'PORT_IN_USE',
        `port ${where} of service ${serviceName} is in use on this node by another process; stop it, or publish another port`,
        { cause, details },
      );
    case 'EACCES':
      return new SwarmdError(
        'PERMISSION_DENIED',
        `port ${where} of service ${serviceName} may not be taken without root; publish a port above 1023`,
        { cause, details },
      );
    default:
      return new SwarmdError('INTERNAL', `port ${where} of service ${serviceName} cannot be listened on`, {
        cause,
        details,
      });
  }
}
