/**
 * The vocabulary of node-to-node RPC: what callers and handlers see of a connection.
 *
 * Both ends of a connection are equal once it is open: each may call, stream and notify the other.
 * Role rules are for the handlers; this layer only proves who the peer is.
 */
import type { SwarmdError } from '../base/errors.ts';
import type { PeerIdentity } from '../pki/node-certificate.ts';

export type { PeerIdentity };

/** Options of one call. Aborting `signal` rejects with CANCELLED and aborts the remote handler's signal. */
export interface RpcCallOptions {
  readonly signal: AbortSignal;
  /** Milliseconds until the call rejects with TIMEOUT; without it only the signal ends the wait. */
  readonly timeoutMs?: number;
}

/** One authenticated, multiplexed connection to a peer. */
export interface RpcConnection {
  /** Unique in this process. */
  readonly id: number;
  /** Who the peer's certificate says it is; null for a client that showed none (it may only join). */
  readonly peer: PeerIdentity | null;
  /** `host:port` of the other end of the socket. */
  readonly remoteAddress: string;
  /**
   * Calls `method` on the peer and resolves with its answer. Rejects with the peer's SwarmdError (same
   * code, message and details), UNAVAILABLE when the connection is lost, TIMEOUT, CANCELLED, or
   * RESOURCE_EXHAUSTED when too many calls are in flight or the message is over its limit.
   */
  call(method: string, params: unknown, options: RpcCallOptions): Promise<unknown>;
  /** Opens a two-way stream of messages; refusals surface in the stream, never as a throw. */
  openStream(method: string, params: unknown, options: { readonly signal: AbortSignal }): RpcStream;
  /**
   * Sends `data` without an answer. False when it was dropped (and counted): the connection is closed,
   * the send bound is reached or the data is over its limit. Those of one event-loop turn share a frame.
   */
  notify(method: string, data: Uint8Array): boolean;
  /** Sends notifications that belong together without waiting for the end of the event-loop turn. */
  notifyNow(method: string, messages: readonly Uint8Array[]): void;
  /** Closes the connection; pending calls and streams end with UNAVAILABLE. Idempotent. */
  close(reason: string): void;
  /** Resolves with the reason once the connection is closed, whoever closed it. */
  readonly closed: Promise<string>;
}

/**
 * A two-way stream of messages with credit-based back-pressure in each direction.
 *
 * Iterate it once. Iteration ends when the peer ended its side and throws the peer's error, or
 * UNAVAILABLE when the connection was lost. Leaving the loop early destroys the stream.
 */
export interface RpcStream extends AsyncIterable<unknown> {
  /** Sends one message, waiting for credit; rejects with the stream's error, or CANCELLED by `signal`. */
  write(message: unknown, signal?: AbortSignal): Promise<void>;
  /** Ends this side; the peer's iteration ends after what was written. */
  end(): void;
  /** Ends both sides at once; the peer sees `error`, or CANCELLED without one. */
  destroy(error?: SwarmdError): void;
  /** Resolves once both sides ended or the stream was destroyed. Never rejects. */
  readonly closed: Promise<void>;
}

/** What a handler knows of the request it serves. */
export interface RpcContext {
  readonly connection: RpcConnection;
  /** Aborts when the caller gives up, the stream closes or the connection is lost. */
  readonly signal: AbortSignal;
}

/** Serves one call: resolves with the answer or rejects with a SwarmdError (others become INTERNAL). */
export type RpcCallHandler = (params: unknown, context: RpcContext) => Promise<unknown>;
/**
 * Serves one stream. Resolving ends the whole stream once what was written is out (what the peer still
 * writes is void); rejecting destroys it with that error.
 */
export type RpcStreamHandler = (params: unknown, stream: RpcStream, context: RpcContext) => Promise<void>;
/** Takes one notification. It must not throw: what it throws is logged and dropped. */
export type RpcNotificationHandler = (data: Uint8Array, context: RpcContext) => void;

/** Everything one end serves, by method name. */
export interface RpcHandlers {
  readonly calls: Readonly<Record<string, RpcCallHandler>>;
  readonly streams: Readonly<Record<string, RpcStreamHandler>>;
  readonly notifications: Readonly<Record<string, RpcNotificationHandler>>;
}

/** What a listening node shows. The chain sent to clients is `certificatePem` and then `rootPem`. */
export interface ServerCredentials {
  readonly rootPem: string;
  readonly certificatePem: string;
  readonly keyPem: string;
}

/** How a client proves itself and what it demands of the server. */
export type ClientCredentials =
  | {
      readonly kind: 'node';
      readonly rootPem: string;
      readonly certificatePem: string;
      readonly keyPem: string;
      /** Refuse a server that is not a manager. */
      readonly expectRole?: 'manager';
      /** Refuse a server with another node id. */
      readonly expectNodeId?: string;
    }
  | {
      /** For a joiner: trusts the manager whose root certificate has the digest of its join token. */
      readonly kind: 'pinned-root';
      /** The 50 base36 digits between the dashes of the join token. */
      readonly digest: string;
    };
