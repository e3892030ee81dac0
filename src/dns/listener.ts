/**
 * Sockets of the DNS server on one address: UDP and TCP on the same port, raw messages in and out.
 *
 * Owns the sockets and the TCP connections. Invariants: at most {@link CONNECTIONS_MAX} connections, each with a
 * bounded number of questions in flight and an idle limit; a message that is too long ends its connection.
 */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, isIPv6, type Server, type Socket } from 'node:net';
import { SwarmdError, systemErrorCode } from '../base/errors.ts';

export type Transport = 'udp' | 'tcp';

/** Where a message came from. */
export interface MessageOrigin {
  readonly address: string;
  readonly transport: Transport;
}

/** Answers one message; null: nothing is said. It must not reject. */
export type MessageHandler = (message: Buffer, origin: MessageOrigin) => Promise<Buffer | null>;

/** Longest question accepted, bytes. */
export const QUERY_BYTES_MAX = 4_096;
/** TCP connections of one listener; more are closed at once. */
export const CONNECTIONS_MAX = 256;
const PIPELINE_MAX = 16;
const IDLE_MS = 10_000;
const PORT_TRIES = 10;

/** UDP and TCP sockets bound to one address. */
export class DnsListener {
  readonly host: string;
  readonly port: number;
  readonly #udp: UdpSocket;
  readonly #tcp: Server;
  readonly #connections = new Set<Socket>();
  readonly #handler: MessageHandler;

  private constructor(host: string, udp: UdpSocket, tcp: Server, handler: MessageHandler) {
    this.host = host;
    this.port = udp.address().port;
    this.#udp = udp;
    this.#tcp = tcp;
    this.#handler = handler;
    udp.on('message', (message, from) => {
      void handler(message, { address: from.address, transport: 'udp' }).then((answer) => {
        if (answer !== null) this.#send(answer, from.port, from.address);
      });
    });
    // Errors of a send (a client that is gone) concern that client only.
    udp.on('error', () => {});
    tcp.on('error', () => {});
    tcp.maxConnections = CONNECTIONS_MAX;
    tcp.on('connection', (socket) => this.#serve(socket));
  }

  /**
   * Binds both sockets; port 0 takes any port free for both. Rejects with PORT_IN_USE, UNAVAILABLE (the address does
   * not exist on this machine, yet) or PERMISSION_DENIED.
   */
  static async open(host: string, port: number, handler: MessageHandler): Promise<DnsListener> {
    for (let tries = 1; ; tries++) {
      const tcp = createServer({ allowHalfOpen: true, noDelay: true });
      const udp = createSocket({ type: isIPv6(host) ? 'udp6' : 'udp4' });
      try {
        tcp.listen({ host, port });
        await once(tcp, 'listening');
        const bound = tcp.address();
        udp.bind({ address: host, port: typeof bound === 'object' && bound !== null ? bound.port : port });
        await once(udp, 'listening');
        return new DnsListener(host, udp, tcp, handler);
      } catch (cause) {
        if (tcp.listening) tcp.close();
        udp.close();
        // With port 0 the other protocol may have the port that one was given.
        if (port === 0 && systemErrorCode(cause) === 'EADDRINUSE' && tries < PORT_TRIES) continue;
        throw listenError(host, port, cause);
      }
    }
  }

  /** Closes the sockets and every connection. */
  async close(): Promise<void> {
    for (const socket of this.#connections) socket.destroy();
    await Promise.all([
      new Promise<void>((resolve) => this.#tcp.close(() => resolve())),
      new Promise<void>((resolve) => this.#udp.close(() => resolve())),
    ]);
  }

  #send(answer: Buffer, port: number, address: string): void {
    try {
      this.#udp.send(answer, port, address, () => {});
    } catch {
      // The listener was closed while the answer was being found.
    }
  }

  #serve(socket: Socket): void {
    this.#connections.add(socket);
    const origin: MessageOrigin = { address: socket.remoteAddress ?? '', transport: 'tcp' };
    let pending: Buffer = Buffer.alloc(0);
    let inFlight = 0;
    let ended = false;
    const settle = (): void => {
      if (inFlight < PIPELINE_MAX) socket.resume();
      if (ended && inFlight === 0) socket.end();
    };
    const answerOne = async (message: Buffer): Promise<void> => {
      const answer = await this.#handler(message, origin);
      inFlight--;
      if (answer === null) socket.destroy();
      else if (socket.writable) socket.write(frame(answer));
      settle();
    };
    socket.setTimeout(IDLE_MS, () => socket.destroy());
    socket.on('error', () => {});
    socket.on('close', () => this.#connections.delete(socket));
    socket.on('end', () => {
      ended = true;
      settle();
    });
    socket.on('data', (chunk: Buffer) => {
      pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
      while (pending.length >= 2) {
        const length = pending.readUInt16BE(0);
        if (length > QUERY_BYTES_MAX) {
          socket.destroy();
          return;
        }
        if (pending.length < 2 + length) break;
        const message = pending.subarray(2, 2 + length);
        pending = pending.subarray(2 + length);
        inFlight++;
        void answerOne(message);
      }
      if (inFlight >= PIPELINE_MAX) socket.pause();
    });
  }
}

/** A message with the two-byte length that TCP needs before it. */
export function frame(message: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  return Buffer.concat([length, message]);
}

function listenError(host: string, port: number, cause: unknown): SwarmdError {
  const where = `${isIPv6(host) ? `[${host}]` : host}:${port}`;
  const details = { host, port };
  switch (systemErrorCode(cause)) {
    case 'EADDRINUSE':
      return new SwarmdError(
        'PORT_IN_USE',
        `the DNS address ${where} is in use by another process; stop it or choose another address`,
        { cause, details },
      );
    case 'EADDRNOTAVAIL':
      return new SwarmdError('UNAVAILABLE', `the DNS address ${where} is not on this machine`, {
        cause,
        details,
      });
    case 'EACCES':
      return new SwarmdError(
        'PERMISSION_DENIED',
        `the DNS address ${where} may not be taken without root; choose a port above 1023`,
        { cause, details },
      );
    default:
      return new SwarmdError('INTERNAL', `the DNS server cannot listen on ${where}`, { cause, details });
  }
}
