/**
 * One open connection: a WebSocket over mutual TLS, shared by calls, streams and notifications both ways.
 *
 * Owns the socket, its keepalive and its tables of calls and streams. Invariants: nothing the peer sends
 * can throw out of here; what breaks the protocol closes this connection and no other; once it is closed
 * every call and stream has ended with UNAVAILABLE, and `closed` resolves after the socket is gone.
 */
import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';
import type { Clock, Timer } from '../base/clock.ts';
import { errorMessage, SwarmdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { type CallLink, IncomingCalls, OutgoingCalls } from './calls.ts';
import type { RpcCounters } from './counters.ts';
import {
  cutRecord,
  decodeRecord,
  type EncodedRecord,
  encodeRecord,
  isMethodName,
  type RpcRecord,
} from './frame.ts';
import { anonymousLimits, batchBytes, type RpcLimits } from './limits.ts';
import { Outbox } from './outbox.ts';
import { type StreamTableLink, StreamTable } from './streams.ts';
import type {
  PeerIdentity,
  RpcCallOptions,
  RpcConnection,
  RpcContext,
  RpcHandlers,
  RpcStream,
} from './types.ts';
import { escalateAssertion } from './wire-error.ts';

/** What a connection is made of. */
export interface PeerConnectionOptions {
  readonly socket: WebSocket;
  /** The socket under it. */
  readonly transport: Socket;
  /** Which end of the TLS connection this is. */
  readonly side: 'client' | 'server';
  readonly peer: PeerIdentity | null;
  /** Whether a client certificate was shown; without one the server's side takes little. */
  readonly anonymousClient: boolean;
  readonly remoteAddress: string;
  readonly handlers: RpcHandlers;
  readonly clock: Clock;
  readonly log: Logger;
  readonly limits: RpcLimits;
  readonly counters: RpcCounters;
}

const closeNormal = 1000;
const closeProtocol = 1002;
/** Bytes of the reason in a WebSocket close frame. */
const closeReasonBytesMax = 123;

let lastConnectionId = 0;

/** The largest frame a peer of this side may send. */
export function frameBytesMax(messageBytesMax: number): number {
  return Math.max(messageBytesMax + 16, batchBytes);
}

/** One end of an open connection. */
export class PeerConnection implements RpcConnection {
  readonly id: number;
  readonly peer: PeerIdentity | null;
  readonly remoteAddress: string;
  readonly closed: Promise<string>;
  readonly #options: PeerConnectionOptions;
  readonly #log: Logger;
  readonly #peerName: string;
  readonly #receiveBytesMax: number;
  readonly #sendMessageBytesMax: number;
  readonly #outbox: Outbox;
  readonly #outgoing: OutgoingCalls;
  readonly #incoming: IncomingCalls;
  readonly #streams: StreamTable;
  readonly #notifyContext: RpcContext;
  readonly #gone = new AbortController();
  #resolveClosed: (reason: string) => void = () => {};
  #closing: { readonly reason: string; readonly error: SwarmdError } | null = null;
  #keepalive: Timer | null = null;
  #cutTimer: Timer | null = null;
  #silentTicks = 0;
  #bytesRead = 0;

  constructor(options: PeerConnectionOptions) {
    const { limits, peer, remoteAddress, anonymousClient, side } = options;
    this.id = ++lastConnectionId;
    this.peer = peer;
    this.remoteAddress = remoteAddress;
    this.#options = options;
    this.#peerName =
      peer === null
        ? `a joining node at ${remoteAddress}`
        : `${peer.role} ${peer.nodeId} at ${remoteAddress}`;
    this.#log = options.log.child({ connection: this.id, peer: peer?.nodeId ?? null, remoteAddress });
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    const restricted = Math.min(anonymousLimits.messageBytesMax, limits.messageBytesMax);
    this.#receiveBytesMax = anonymousClient && side === 'server' ? restricted : limits.messageBytesMax;
    this.#sendMessageBytesMax = anonymousClient && side === 'client' ? restricted : limits.messageBytesMax;
    this.#outbox = new Outbox(
      (frame, done) => options.socket.send(frame, { binary: true }, done),
      () => this.#streams.pump(),
    );
    const isServingAnonymous = anonymousClient && side === 'server';
    const callLink = this.#callLink(isServingAnonymous);
    this.#outgoing = new OutgoingCalls(this.#callLink(false));
    this.#incoming = new IncomingCalls(callLink, options.handlers.calls, this);
    const streamLink = this.#streamLink(isServingAnonymous);
    this.#streams = new StreamTable(streamLink, options.handlers.streams, this, side === 'client');
    this.#notifyContext = { connection: this, signal: this.#gone.signal };
    this.#listen();
    this.#scheduleKeepalive();
  }

  #callLink(restricted: boolean): CallLink {
    const { clock, limits } = this.#options;
    return {
      clock,
      log: this.#log,
      peerName: this.#peerName,
      callsInFlightMax: restricted ? anonymousLimits.callsInFlightMax : limits.callsInFlightMax,
      sendMessageBytesMax: this.#sendMessageBytesMax,
      sendBytesMax: limits.sendBytesMax,
      isFull: () => this.#outbox.unsentBytes >= limits.sendBytesMax,
      post: (record) => this.#post(record),
    };
  }

  #streamLink(restricted: boolean): StreamTableLink {
    const { limits } = this.#options;
    return {
      log: this.#log,
      peerName: this.#peerName,
      limits,
      acceptMax: restricted ? anonymousLimits.streamsOpenMax : limits.streamsOpenMax,
      sendMessageBytesMax: this.#sendMessageBytesMax,
      isBusy: () => this.#outbox.unsentBytes >= limits.streamSendBytes,
      post: (record) => this.#post(record),
      onViolation: (what) => this.#onViolation(what),
    };
  }

  async call(method: string, params: unknown, options: RpcCallOptions): Promise<unknown> {
    if (this.#closing !== null) throw this.#closing.error;
    return this.#outgoing.call(method, params, options);
  }

  openStream(method: string, params: unknown, options: { readonly signal: AbortSignal }): RpcStream {
    return this.#streams.open(method, params, options.signal, this.#closing?.error ?? null);
  }

  notify(method: string, data: Uint8Array): boolean {
    const { limits, counters } = this.#options;
    const isFull = this.#outbox.unsentBytes + data.byteLength > limits.sendBytesMax;
    if (this.#closing === null && !isFull && isMethodName(method)) {
      const record = encodeRecord({ kind: 'notify', method, data });
      if (record.bytes <= this.#sendMessageBytesMax) {
        this.#post(record);
        return true;
      }
    }
    counters.notificationsDropped++;
    return false;
  }

  notifyNow(method: string, messages: readonly Uint8Array[]): void {
    for (const data of messages) this.notify(method, data);
    this.#outbox.flush();
  }

  close(reason: string): void {
    this.#shutDown(closeNormal, reason, `it was closed here: ${reason}`);
  }

  #post(record: EncodedRecord): void {
    if (this.#closing !== null) return;
    this.#outbox.post(record);
    const { sendBytesCut } = this.#options.limits;
    if (this.#outbox.unsentBytes >= sendBytesCut) {
      this.#cut(`the peer does not read: ${sendBytesCut} bytes (sendBytesCut) are unsent`);
    }
  }

  #listen(): void {
    const { socket } = this.#options;
    socket.on('message', (data: Buffer, isBinary: boolean) => {
      if (this.#closing !== null) return;
      if (isBinary) this.#onFrame(data);
      else this.#onViolation('a text frame');
    });
    socket.on('error', (error) => {
      const isViolation = 'code' in error && String(error.code).startsWith('WS_ERR');
      if (isViolation) this.#onViolation(`a broken frame (${error.message})`);
      else this.#shutDown(closeNormal, error.message, errorMessage(error));
    });
    socket.on('close', (code, reason) => {
      const text = reason.toString('utf8');
      this.#shutDown(
        closeNormal,
        '',
        text === '' ? `the peer went away (code ${code})` : `the peer closed it: ${text}`,
      );
      this.#onGone();
    });
  }

  #onFrame(frame: Buffer): void {
    let at = 0;
    while (at < frame.byteLength && this.#closing === null) {
      const raw = cutRecord(frame, at, this.#receiveBytesMax);
      if (!raw.ok) return this.#onViolation(raw.reason);
      at = raw.value.next;
      const record = decodeRecord(raw.value);
      if (!record.ok) return this.#onViolation(record.reason);
      this.#onRecord(record.value);
    }
  }

  #onRecord(record: RpcRecord): void {
    switch (record.kind) {
      case 'notify':
        return this.#onNotify(record.method, record.data);
      case 'call':
        if (!this.#incoming.onCall(record.id, record.method, record.params))
          this.#onViolation('a call number twice');
        return;
      case 'cancel':
        return this.#incoming.onCancel(record.id);
      case 'answer':
        if (!this.#outgoing.onAnswer(record.id, record.value)) this.#onViolation('an answer to no call');
        return;
      case 'call-error':
        if (!this.#outgoing.onError(record.id, record.error)) this.#onViolation('an answer to no call');
        return;
      default:
        return this.#streams.onRecord(record);
    }
  }

  #onNotify(method: string, data: Uint8Array): void {
    const { handlers, counters } = this.#options;
    const handler = Object.hasOwn(handlers.notifications, method)
      ? handlers.notifications[method]
      : undefined;
    if (handler === undefined) {
      counters.notificationsRefused++;
      return;
    }
    try {
      handler(data, this.#notifyContext);
    } catch (error) {
      counters.notificationsRefused++;
      escalateAssertion(error);
      this.#log.error('a notification handler failed', { method, error });
    }
  }

  #onViolation(what: string): void {
    if (this.#closing !== null) return;
    this.#options.counters.protocolViolations++;
    this.#log.warn('the peer broke the protocol', { what });
    this.#shutDown(closeProtocol, `you sent ${what}`, `the peer sent ${what}`);
  }

  /** Ends everything pending, says goodbye, and cuts the socket if the peer does not answer that. */
  #shutDown(code: number, farewell: string, reason: string): void {
    if (this.#closing !== null) return;
    const { socket, limits, clock } = this.#options;
    const message = `the connection to ${this.#peerName} is closed: ${reason}`;
    const error = new SwarmdError('UNAVAILABLE', message, { details: { remoteAddress: this.remoteAddress } });
    this.#closing = { reason, error };
    this.#log.debug('connection closes', { reason });
    this.#outbox.flush();
    this.#outbox.stop();
    this.#outgoing.failAll(error);
    this.#incoming.abortAll(error);
    this.#streams.failAll(error);
    this.#gone.abort(error);
    this.#cutTimer = clock.setTimer(limits.closeTimeoutMs, () => socket.terminate());
    socket.close(code, clip(farewell));
  }

  /** Ends the connection without a goodbye: the peer would not get it. */
  #cut(reason: string): void {
    if (this.#closing === null) this.#options.counters.deadPeers++;
    this.#shutDown(closeNormal, '', reason);
    this.#options.socket.terminate();
  }

  #onGone(): void {
    this.#keepalive?.cancel();
    this.#cutTimer?.cancel();
    this.#resolveClosed(this.#closing?.reason ?? 'the socket is gone');
  }

  #scheduleKeepalive(): void {
    const { clock, limits } = this.#options;
    this.#keepalive = clock.setTimer(limits.pingIntervalMs, () => {
      this.#onKeepalive();
      if (this.#closing === null) this.#scheduleKeepalive();
    });
  }

  /**
   * Pings, and counts intervals in which no byte came (half a large message is a sign of life too). Counting
   * intervals, not time, keeps a stall of this process from looking like the peer's death: after a stall
   * one interval is over, not many.
   */
  #onKeepalive(): void {
    if (this.#closing !== null) return;
    const { socket, transport, limits, clock } = this.#options;
    if (transport.bytesRead !== this.#bytesRead) this.#silentTicks = 0;
    this.#bytesRead = transport.bytesRead;
    const silentMs = this.#silentTicks * limits.pingIntervalMs;
    if (silentMs >= limits.pingTimeoutMs) {
      this.#cut(`the peer was silent for ${silentMs} ms (pingTimeoutMs)`);
      return;
    }
    if (socket.bufferedAmount >= limits.sendBytesCut) {
      this.#cut(`the peer does not read: ${socket.bufferedAmount} bytes are unsent`);
      return;
    }
    const expiresAtMs = this.peer?.certificateExpiresAtMs;
    if (expiresAtMs !== undefined && expiresAtMs < clock.nowMs()) {
      this.#shutDown(closeNormal, 'your certificate expired', "the peer's certificate expired");
      return;
    }
    this.#silentTicks++;
    socket.ping();
  }
}

/** The text, cut to what a close frame holds. */
function clip(text: string): string {
  let clipped = text;
  while (Buffer.byteLength(clipped, 'utf8') > closeReasonBytesMax) clipped = clipped.slice(0, -1);
  return clipped;
}
