/**
 * The listening end: one TCP port for all node-to-node traffic.
 *
 * Owns the port, the sockets still in their handshake and the open connections. Invariants: a client shows
 * a certificate of this cluster's root, or none (then it may only join, by rule of the handlers); one with
 * any other certificate is told so and dropped; handshakes are bounded in number and time.
 */
import { constants } from 'node:crypto';
import { type IncomingMessage, STATUS_CODES } from 'node:http';
import { createServer as createHttpsServer, type Server as HttpsServer } from 'node:https';
import {
  type AddressInfo,
  createServer as createNetServer,
  type Server as NetServer,
  type Socket,
} from 'node:net';
import { TLSSocket } from 'node:tls';
import { type WebSocket, WebSocketServer } from 'ws';
import type { Clock, Timer } from '../base/clock.ts';
import { errorMessage, SwarmdError, systemErrorCode } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Result } from '../base/result.ts';
import { describeCertificateRefusal, verifyNodeCertificate } from '../pki/node-certificate.ts';
import { formatAddress, type HostPort } from './address.ts';
import { rpcPath } from './client.ts';
import { frameBytesMax, PeerConnection } from './connection.ts';
import { createRpcCounters, type RpcCounters } from './counters.ts';
import {
  anonymousLimits,
  defaultLimits,
  defaultServerLimits,
  type RpcLimits,
  type ServerLimits,
} from './limits.ts';
import { verifyClient } from './peer-verification.ts';
import type { PeerIdentity, RpcConnection, RpcHandlers, ServerCredentials } from './types.ts';

/** Where to listen, as whom, and what to serve. */
export interface ListenOptions {
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
  readonly credentials: ServerCredentials;
  readonly handlers: RpcHandlers;
  readonly clock: Clock;
  readonly log: Logger;
  /** Whether to let a member in, or why not (a removed node): it is told, as PERMISSION_DENIED. */
  readonly admit?: (peer: PeerIdentity) => Result<PeerIdentity>;
  /** Called for each connection before anything it sent is served. */
  readonly onConnection?: (connection: RpcConnection) => void;
  readonly limits?: Partial<RpcLimits>;
  readonly serverLimits?: Partial<ServerLimits>;
  readonly counters?: RpcCounters;
}

/** A socket in its handshake, or of an open connection without a certificate. */
interface Arrival {
  readonly timer: Timer;
  isOpen: boolean;
}

/** Accepts connections from nodes and joiners. */
export class RpcServer {
  readonly #options: ListenOptions;
  readonly #limits: RpcLimits;
  readonly #serverLimits: ServerLimits;
  readonly #counters: RpcCounters;
  readonly #net: NetServer;
  readonly #https: HttpsServer;
  readonly #members: WebSocketServer;
  readonly #joiners: WebSocketServer;
  /** Sockets in their handshake or without a certificate, by remote address. */
  readonly #arrivals = new Map<string, Arrival>();
  readonly #sockets = new Set<Socket>();
  readonly #connections = new Set<PeerConnection>();
  #rootPem: string;
  #port: number;
  #closing: Promise<void> | null = null;

  /**
   * Listens. Rejects with PORT_IN_USE, INVALID_ARGUMENT (the address is not this machine's, or credentials
   * that cannot be used) or PERMISSION_DENIED.
   */
  static async listen(options: ListenOptions): Promise<RpcServer> {
    const server = new RpcServer(options);
    await server.#listen();
    return server;
  }

  private constructor(options: ListenOptions) {
    this.#options = options;
    this.#limits = { ...defaultLimits, ...options.limits };
    this.#serverLimits = { ...defaultServerLimits, ...options.serverLimits };
    this.#counters = options.counters ?? createRpcCounters();
    this.#rootPem = options.credentials.rootPem;
    this.#port = options.port;
    this.#https = createHttpsServer({
      ...tlsOptions(options.credentials, options.clock),
      maxHeaderSize: 8192,
    });
    this.#members = socketServer(this.#limits.messageBytesMax);
    this.#joiners = socketServer(Math.min(anonymousLimits.messageBytesMax, this.#limits.messageBytesMax));
    this.#net = createNetServer({ noDelay: true }, (socket) => this.#onSocket(socket));
    this.#https.on('upgrade', (request, socket, head) => {
      if (socket instanceof TLSSocket) this.#onUpgrade(request, socket, head);
      else socket.destroy();
    });
    this.#https.on('request', (_request, response) => {
      response.writeHead(426, { 'content-type': 'text/plain', connection: 'close' });
      response.end('This is the node-to-node port of swarmd. Use the swarmd command, or its HTTP API.\n');
    });
    this.#https.on('tlsClientError', (error, socket) => {
      options.log.debug('a TLS handshake failed', { error: error.message });
      socket.destroy();
    });
    this.#https.on('clientError', (_error, socket) => socket.destroy());
  }

  #listen(): Promise<void> {
    const { host, port } = this.#options;
    return new Promise((resolve, reject) => {
      const onError = (error: Error): void => reject(describeListenFailure(error, formatAddress(host, port)));
      this.#net.once('error', onError);
      this.#net.listen({ host, port }, () => {
        this.#net.off('error', onError);
        this.#port = (this.#net.address() as AddressInfo).port;
        this.#net.on('error', (error) => this.#options.log.error('the RPC port failed to accept', { error }));
        resolve();
      });
    });
  }

  /** Where this server listens: the host asked for and the actual port. */
  get address(): HostPort {
    return { host: this.#options.host, port: this.#port };
  }

  /** The open connections. */
  connections(): Iterable<RpcConnection> {
    return this.#connections.values();
  }

  /** Uses new credentials for new connections; open ones stay. Throws INVALID_ARGUMENT when unusable. */
  setCredentials(credentials: ServerCredentials): void {
    this.#https.setSecureContext(tlsOptions(credentials, this.#options.clock));
    this.#rootPem = credentials.rootPem;
  }

  #onSocket(socket: Socket): void {
    const { connectionsMax, unauthenticatedMax, handshakeTimeoutMs } = this.#serverLimits;
    const key = keyOf(socket);
    if (
      this.#closing !== null ||
      this.#sockets.size >= connectionsMax ||
      this.#arrivals.size >= unauthenticatedMax
    ) {
      this.#counters.clientsRefused++;
      socket.destroy();
      return;
    }
    const timer = this.#options.clock.setTimer(handshakeTimeoutMs, () => socket.destroy());
    const arrival: Arrival = { timer, isOpen: false };
    this.#arrivals.set(key, arrival);
    this.#sockets.add(socket);
    socket.once('close', () => {
      this.#sockets.delete(socket);
      this.#arrivals.delete(key);
      timer.cancel();
      if (!arrival.isOpen && this.#closing === null) this.#counters.clientsRefused++;
    });
    socket.on('error', () => {});
    this.#https.emit('connection', socket);
  }

  #onUpgrade(request: IncomingMessage, socket: TLSSocket, head: Buffer): void {
    const refuseClient = (status: number, why: string): void => {
      this.#options.log.info('a client was refused', { remoteAddress: keyOf(socket), why });
      endWith(socket, status, why);
    };
    if (request.url !== rpcPath)
      return refuseClient(404, `this node speaks only ${rpcPath}; run the same version on both`);
    const peer = verifyClient(socket, this.#rootPem, this.#options.clock.nowMs());
    if (!peer.ok) return refuseClient(401, peer.reason);
    const admitted = peer.value === null ? null : this.#options.admit?.(peer.value);
    if (admitted?.ok === false) return refuseClient(403, admitted.reason);
    const sockets = peer.value === null ? this.#joiners : this.#members;
    sockets.handleUpgrade(request, socket, head, (webSocket) => this.#onOpen(webSocket, socket, peer.value));
  }

  #onOpen(webSocket: WebSocket, transport: TLSSocket, peer: PeerIdentity | null): void {
    const key = keyOf(transport);
    const arrival = this.#arrivals.get(key);
    arrival?.timer.cancel();
    if (arrival !== undefined) arrival.isOpen = true;
    // A joiner keeps its place among the unauthenticated, so that joiners cannot crowd out members.
    if (peer !== null) this.#arrivals.delete(key);
    const connection = new PeerConnection({
      socket: webSocket,
      transport,
      side: 'server',
      peer,
      anonymousClient: peer === null,
      remoteAddress: key,
      handlers: this.#options.handlers,
      clock: this.#options.clock,
      log: this.#options.log,
      limits: this.#limits,
      counters: this.#counters,
    });
    this.#connections.add(connection);
    void connection.closed.then(() => this.#connections.delete(connection));
    this.#options.onConnection?.(connection);
  }

  /** Stops listening, closes every connection and waits until all sockets are gone. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const stopped = new Promise<void>((resolve) => this.#net.close(() => resolve()));
    const open = [...this.#connections];
    for (const connection of open) connection.close('the node is stopping');
    await Promise.all(open.map((connection) => connection.closed));
    for (const socket of this.#sockets) socket.destroy();
    await stopped;
    this.#https.close();
  }
}

function socketServer(messageBytesMax: number): WebSocketServer {
  return new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: frameBytesMax(messageBytesMax),
  });
}

/** TLS settings of the server. The root goes along in the chain, for joiners that know only its digest. */
function tlsOptions(credentials: ServerCredentials, clock: Clock) {
  const { rootPem, certificatePem, keyPem } = credentials;
  const own = verifyNodeCertificate(certificatePem, rootPem, clock.nowMs());
  if (!own.ok) {
    const why = describeCertificateRefusal(own.reason);
    throw new SwarmdError('INVALID_ARGUMENT', `this node cannot listen with its own certificate: ${why}`);
  }
  return {
    cert: `${certificatePem.trimEnd()}\n${rootPem}`,
    key: keyPem,
    ca: rootPem,
    minVersion: 'TLSv1.3',
    requestCert: true,
    // Clients are judged at the upgrade, where they can be told why they are refused.
    rejectUnauthorized: false,
    // A resumed session would carry a verdict made with older credentials.
    secureOptions: constants.SSL_OP_NO_TICKET,
  } as const;
}

function keyOf(socket: Socket): string {
  return formatAddress(socket.remoteAddress ?? 'unknown', socket.remotePort ?? 0);
}

/** Answers an upgrade request with a refusal in plain text. */
function endWith(socket: Socket, status: number, why: string): void {
  const body = `${why}\n`;
  socket.on('error', () => socket.destroy());
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}

function describeListenFailure(error: Error, address: string): SwarmdError {
  const failure = (
    code: 'PORT_IN_USE' | 'INVALID_ARGUMENT' | 'PERMISSION_DENIED' | 'UNAVAILABLE',
    why: string,
  ) => new SwarmdError(code, `cannot listen on ${address}: ${why}`, { details: { address }, cause: error });
  switch (systemErrorCode(error)) {
    case 'EADDRINUSE':
      return failure('PORT_IN_USE', 'another process listens there; stop it or choose another --listen-addr');
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return failure('INVALID_ARGUMENT', 'that is no address of this machine; choose another --listen-addr');
    case 'EACCES':
      return failure('PERMISSION_DENIED', 'ports below 1024 need root; choose a higher port');
    default:
      return failure('UNAVAILABLE', errorMessage(error));
  }
}
