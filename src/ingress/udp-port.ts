/**
 * One published UDP port: each client address and port is a session with one backend.
 *
 * Owns the listening socket and a socket a session. Invariants: at most `sessionsMax` sessions, the longest idle
 * goes when one more comes; a session ends when it is idle, when its backend is removed and when the backend
 * refuses: the client's next datagram starts another one elsewhere. Answers leave from the address the system picks,
 * which on a host with several addresses may not be the one the client called.
 */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import type { Clock, Timer } from '../base/clock.ts';
import { backendKey } from './balance.ts';
import type { PortBackends } from './backends.ts';
import type { Backend } from './table.ts';
import { isWithoutIpv6 } from './tcp-port.ts';

/** Bounds of one UDP port. Times are milliseconds. */
export interface UdpPortOptions {
  readonly port: number;
  readonly sessionsMax: number;
  /** A session without a datagram either way for this long ends. */
  readonly idleMs: number;
}

interface Session {
  readonly backend: Backend;
  readonly socket: Socket;
  /** Datagrams from before the socket was connected; null once it is. */
  early: Buffer[] | null;
  lastUsedMs: number;
  closed: boolean;
}

/** Datagrams kept for a session whose socket is not connected yet; later ones are dropped. */
const EARLY_MAX = 16;

/** A published UDP port. */
export class UdpPort {
  readonly #options: UdpPortOptions;
  readonly #backends: PortBackends;
  readonly #clock: Clock;
  /** By client `address port`, the longest idle first. */
  readonly #sessions = new Map<string, Session>();
  #socket: Socket | null = null;
  #sweep: Timer | null = null;
  /** Datagrams dropped because there was no backend. */
  unserved = 0;

  constructor(options: UdpPortOptions, deps: { readonly backends: PortBackends; readonly clock: Clock }) {
    this.#options = options;
    this.#backends = deps.backends;
    this.#clock = deps.clock;
  }

  get connections(): number {
    return this.#sessions.size;
  }

  /** The bound port, or the one asked for. */
  get port(): number {
    return this.#socket?.address().port ?? this.#options.port;
  }

  /** Listens on every address, IPv4 and IPv6. Rejects with the system's error. */
  async open(): Promise<void> {
    try {
      await this.#listen('udp6');
    } catch (error) {
      if (!isWithoutIpv6(error)) throw error;
      await this.#listen('udp4');
    }
    this.#scheduleSweep();
  }

  /** Ends the sessions of backends that are no longer there. */
  dropRemoved(): void {
    const keys = new Set(this.#backends.all.map(backendKey));
    for (const [client, session] of this.#sessions) {
      if (!keys.has(backendKey(session.backend))) this.#end(client, session);
    }
  }

  /** Closes the port and every session. */
  async close(): Promise<void> {
    this.#sweep?.cancel();
    this.#sweep = null;
    for (const [client, session] of this.#sessions) this.#end(client, session);
    const socket = this.#socket;
    this.#socket = null;
    if (socket !== null) await new Promise<void>((resolve) => socket.close(() => resolve()));
  }

  #listen(type: 'udp4' | 'udp6'): Promise<void> {
    const socket = createSocket({ type });
    return new Promise((resolve, reject) => {
      socket.once('error', (error) => {
        socket.close();
        reject(error);
      });
      socket.bind({ port: this.#options.port, exclusive: true }, () => {
        socket.removeAllListeners('error');
        socket.on('error', () => {});
        socket.on('message', (datagram, from) => this.#receive(datagram, from));
        this.#socket = socket;
        resolve();
      });
    });
  }

  #receive(datagram: Buffer, from: RemoteInfo): void {
    const client = `${from.address} ${from.port}`;
    let session = this.#sessions.get(client);
    if (session === undefined) {
      const backend = this.#backends.choose(new Set());
      if (backend === null) {
        this.unserved++;
        return;
      }
      this.#makeRoom();
      session = this.#begin(client, from, backend);
    } else {
      this.#sessions.delete(client);
    }
    this.#sessions.set(client, session);
    session.lastUsedMs = this.#clock.monotonicMs();
    if (session.early === null) send(session.socket, datagram);
    else if (session.early.length < EARLY_MAX) session.early.push(datagram);
  }

  #begin(client: string, from: RemoteInfo, backend: Backend): Session {
    const socket = createSocket(backend.host.includes(':') ? 'udp6' : 'udp4');
    const session: Session = { backend, socket, early: [], lastUsedMs: 0, closed: false };
    socket.on('error', () => {
      // The backend's host refused: its port is closed.
      this.#backends.failed(backend);
      this.#end(client, session);
    });
    socket.on('message', (answer) => {
      session.lastUsedMs = this.#clock.monotonicMs();
      this.#backends.answered(backend);
      try {
        this.#socket?.send(answer, from.port, from.address, () => {});
      } catch {
        // The client's address cannot be sent to: UDP may lose datagrams.
      }
    });
    socket.connect(backend.port, backend.host, () => {
      if (session.closed) return;
      for (const datagram of session.early ?? []) send(socket, datagram);
      session.early = null;
    });
    return session;
  }

  #makeRoom(): void {
    if (this.#sessions.size < this.#options.sessionsMax) return;
    const oldest = this.#sessions.entries().next();
    if (oldest.done !== true) this.#end(...oldest.value);
  }

  #end(client: string, session: Session): void {
    if (this.#sessions.get(client) === session) this.#sessions.delete(client);
    if (session.closed) return;
    session.closed = true;
    session.socket.close();
  }

  #scheduleSweep(): void {
    this.#sweep = this.#clock.setTimer(Math.max(50, this.#options.idleMs / 4), () => {
      const idleSinceMs = this.#clock.monotonicMs() - this.#options.idleMs;
      for (const [client, session] of this.#sessions) {
        if (session.lastUsedMs <= idleSinceMs) this.#end(client, session);
      }
      this.#scheduleSweep();
    });
  }
}

/** Sends; a datagram that cannot be sent is lost, as UDP allows. */
function send(socket: Socket, datagram: Buffer): void {
  try {
    socket.send(datagram, () => {});
  } catch {
    // The socket was closed by an error that is still to be reported.
  }
}
