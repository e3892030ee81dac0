/**
 * Opening a connection: TCP, TLS, who is there, then the upgrade to the message protocol.
 *
 * Invariant: nothing but the TLS handshake is sent before the server's identity is verified.
 */
import type { IncomingMessage } from 'node:http';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { WebSocket } from 'ws';
import type { Clock } from '../base/clock.ts';
import { errorMessage, SwarmdError, systemErrorCode } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { formatAddress } from './address.ts';
import { frameBytesMax, PeerConnection } from './connection.ts';
import { createRpcCounters, type RpcCounters } from './counters.ts';
import { connectTimeoutMs, defaultLimits, refusalBytesMax, type RpcLimits } from './limits.ts';
import { verifyServer } from './peer-verification.ts';
import type { ClientCredentials, PeerIdentity, RpcConnection, RpcHandlers } from './types.ts';
import { cancelled } from './wire-error.ts';

/** The path of the upgrade request; a new protocol version gets a new one. */
export const rpcPath = '/swarmd/rpc/1';

/** Where to connect and as whom. */
export interface ConnectOptions {
  readonly host: string;
  readonly port: number;
  readonly credentials: ClientCredentials;
  /** What this side serves on the connection. */
  readonly handlers: RpcHandlers;
  readonly clock: Clock;
  readonly log: Logger;
  /** Aborting it ends the attempt, not a connection already open. */
  readonly signal: AbortSignal;
  /** Milliseconds for the whole attempt; default {@link connectTimeoutMs}. */
  readonly connectTimeoutMs?: number;
  readonly limits?: Partial<RpcLimits>;
  readonly counters?: RpcCounters;
}

/**
 * Connects to a node. Rejects with UNAVAILABLE (cannot be reached), UNAUTHENTICATED (one side does not
 * believe the other), PERMISSION_DENIED (believed, but not let in), INVALID_ARGUMENT (own credentials
 * unusable) or CANCELLED.
 */
export async function connect(options: ConnectOptions): Promise<RpcConnection> {
  const { host, port, clock, signal } = options;
  const address = formatAddress(host, port);
  if (signal.aborted) throw cancelled(signal, `connecting to ${address}`);
  const socket = openTls(options, address);
  const timeoutMs = options.connectTimeoutMs ?? connectTimeoutMs;
  const onAbort = (): void => {
    socket.destroy(cancelled(signal, `connecting to ${address}`));
  };
  const timer = clock.setTimer(timeoutMs, () => {
    socket.destroy(unreachable(address, `no answer within ${timeoutMs} ms`));
  });
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    await secured(socket);
    const verified = verifyServer(socket, options.credentials, clock.nowMs());
    if (!verified.ok) {
      throw new SwarmdError('UNAUTHENTICATED', `the node at ${address} was refused: ${verified.reason}`, {
        details: { address },
      });
    }
    return await upgrade(options, socket, address, verified.value);
  } catch (error) {
    socket.destroy();
    throw socket.errored instanceof SwarmdError ? socket.errored : describeFailure(error, address);
  } finally {
    timer.cancel();
    signal.removeEventListener('abort', onAbort);
  }
}

function openTls(options: ConnectOptions, address: string): TLSSocket {
  const { host, port, credentials } = options;
  try {
    const socket = connectTls({
      host,
      port,
      minVersion: 'TLSv1.3',
      // The chain is judged by verifyServer, which checks identity instead of host name.
      rejectUnauthorized: false,
      ...(credentials.kind === 'node'
        ? { ca: credentials.rootPem, cert: credentials.certificatePem, key: credentials.keyPem }
        : {}),
    });
    socket.setNoDelay(true);
    return socket;
  } catch (cause) {
    throw new SwarmdError(
      'INVALID_ARGUMENT',
      `cannot connect to ${address}: this node's own certificate or key cannot be used (${errorMessage(cause)})`,
      { cause },
    );
  }
}

function secured(socket: TLSSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('secureConnect', () => {
      socket.off('error', reject);
      // Errors from here on reach the upgrade request; without a listener one in between would be fatal.
      socket.on('error', () => {});
      resolve();
    });
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('the connection was closed during the TLS handshake')));
  });
}

function upgrade(
  options: ConnectOptions,
  transport: TLSSocket,
  address: string,
  peer: PeerIdentity,
): Promise<RpcConnection> {
  const limits = { ...defaultLimits, ...options.limits };
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://${formatAddress(options.host, options.port)}${rpcPath}`, {
      createConnection: () => transport,
      perMessageDeflate: false,
      maxPayload: frameBytesMax(limits.messageBytesMax),
      // Masking protects plain-text proxies, of which TLS has none; an all-zero mask is skipped.
      generateMask: (mask) => mask.fill(0),
    });
    socket.once('error', reject);
    socket.once('unexpected-response', (_request, response) => {
      void readRefusal(response).then((text) => {
        reject(refused(address, response.statusCode ?? 0, text));
        transport.destroy();
      });
    });
    socket.once('open', () => {
      socket.off('error', reject);
      resolve(
        new PeerConnection({
          socket,
          transport,
          side: 'client',
          peer,
          anonymousClient: options.credentials.kind === 'pinned-root',
          remoteAddress: formatAddress(
            transport.remoteAddress ?? options.host,
            transport.remotePort ?? options.port,
          ),
          handlers: options.handlers,
          clock: options.clock,
          log: options.log,
          limits,
          counters: options.counters ?? createRpcCounters(),
        }),
      );
    });
  });
}

/** The text of a refusal, as far as the bound goes. */
function readRefusal(response: IncomingMessage): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    const done = (): void => resolve(text.slice(0, refusalBytesMax).trim());
    response.setEncoding('utf8');
    response.on('data', (part: string) => {
      text += part;
      if (text.length > refusalBytesMax) done();
    });
    response.on('end', done);
    response.on('error', done);
    response.on('close', done);
  });
}

function refused(address: string, status: number, text: string): SwarmdError {
  const message = `the node at ${address} refused this node: ${text === '' ? `HTTP status ${status}` : text}`;
  if (status === 401) return new SwarmdError('UNAUTHENTICATED', message, { details: { address } });
  if (status === 403) return new SwarmdError('PERMISSION_DENIED', message, { details: { address } });
  return new SwarmdError('UNAVAILABLE', message, { details: { address, status } });
}

function unreachable(address: string, why: string, cause?: unknown): SwarmdError {
  return new SwarmdError(
    'UNAVAILABLE',
    `cannot reach a swarmd node at ${address}: ${why}; check that the address is right, that swarmd runs there, and that no firewall blocks the TCP port`,
    { details: { address }, cause },
  );
}

const reasons: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'the connection was refused',
  ECONNRESET: 'the connection was reset during the handshake',
  EPIPE: 'the connection was closed during the handshake',
  EHOSTUNREACH: 'there is no route to the host',
  ENETUNREACH: 'there is no route to the network',
  ETIMEDOUT: 'no answer',
  ENOTFOUND: 'the host name is not known',
  EAI_AGAIN: 'the host name cannot be looked up now',
};

function describeFailure(error: unknown, address: string): SwarmdError {
  if (error instanceof SwarmdError) return error;
  const code = systemErrorCode(error);
  if (code?.startsWith('ERR_SSL') === true || code === 'EPROTO') {
    return unreachable(address, `what answers there does not speak swarmd's TLS (${code})`, error);
  }
  return unreachable(address, (code === undefined ? undefined : reasons[code]) ?? errorMessage(error), error);
}
