/**
 * The open streams of one connection, by number, in both directions.
 *
 * Invariants: streams opened here have this side's parity, those of the peer the other, so numbers never
 * collide; at most `streamsOpenMax` are open each way; records for a stream that is over are ignored,
 * records for one that never was are a violation.
 */
import { SwarmdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { encodeWithin } from './calls.ts';
import { type EncodedRecord, encodeRecord, isMethodName, type RpcRecord } from './frame.ts';
import type { RpcLimits } from './limits.ts';
import { PeerStream, type StreamLink } from './stream.ts';
import type { RpcConnection, RpcStream, RpcStreamHandler } from './types.ts';
import { boundReached, cancelled, escalateAssertion, toWireError } from './wire-error.ts';

/** What the stream table needs of its connection. */
export interface StreamTableLink {
  readonly log: Logger;
  readonly peerName: string;
  readonly limits: RpcLimits;
  /** Bound of streams the peer may open, and bytes of a message it takes. */
  readonly acceptMax: number;
  readonly sendMessageBytesMax: number;
  isBusy(): boolean;
  post(record: EncodedRecord): void;
  onViolation(what: string): void;
}

/** Records that belong to a stream. */
export type StreamRecord = Extract<
  RpcRecord,
  { readonly kind: 'open' | 'end' | 'finish' | 'destroy' | 'credit' | 'message' }
>;

/** The open streams of a connection. */
export class StreamTable {
  readonly #link: StreamTableLink;
  readonly #handlers: Readonly<Record<string, RpcStreamHandler>>;
  readonly #connection: RpcConnection;
  readonly #streams = new Map<number, PeerStream>();
  #openedHere = 0;
  #openedByPeer = 0;
  #nextId: number;
  #lastPeerId: number;

  constructor(
    link: StreamTableLink,
    handlers: Readonly<Record<string, RpcStreamHandler>>,
    connection: RpcConnection,
    isClient: boolean,
  ) {
    this.#link = link;
    this.#handlers = handlers;
    this.#connection = connection;
    this.#nextId = isClient ? 1 : 2;
    this.#lastPeerId = isClient ? 0 : -1;
  }

  /** Opens a stream; what refuses it surfaces in the stream. */
  open(method: string, params: unknown, signal: AbortSignal, lost: SwarmdError | null): RpcStream {
    const { limits, peerName } = this.#link;
    const name = `stream "${method}" with ${peerName}`;
    const id = this.#nextId;
    this.#nextId += 2;
    const refused = (error: SwarmdError): RpcStream => {
      const stream = new PeerStream(
        id,
        this.#streamLink(name, () => {}),
      );
      stream.fail(error);
      return stream;
    };
    if (lost !== null) return refused(lost);
    if (signal.aborted) return refused(cancelled(signal, name));
    if (!isMethodName(method)) {
      return refused(new SwarmdError('INVALID_ARGUMENT', `${name} has no usable method name`));
    }
    if (this.#openedHere >= limits.streamsOpenMax) {
      return refused(boundReached(`${name} was not opened`, 'streamsOpenMax', limits.streamsOpenMax));
    }
    const record: RpcRecord = { kind: 'open', id, method, params };
    const encoded = encodeWithin(record, `the request of ${name}`, this.#link.sendMessageBytesMax);
    if (!encoded.ok) return refused(encoded.reason);
    this.#link.post(encoded.value);
    this.#openedHere++;
    const onAbort = (): void => stream.destroy(cancelled(signal, name));
    const stream = this.#add(id, name, () => {
      this.#openedHere--;
      signal.removeEventListener('abort', onAbort);
    });
    signal.addEventListener('abort', onAbort, { once: true });
    return stream;
  }

  #add(id: number, name: string, onOver: () => void): PeerStream {
    const stream = new PeerStream(
      id,
      this.#streamLink(name, () => {
        this.#streams.delete(id);
        onOver();
      }),
    );
    this.#streams.set(id, stream);
    return stream;
  }

  #streamLink(name: string, onOver: () => void): StreamLink {
    const link = this.#link;
    return {
      name,
      onOver,
      windowBytes: link.limits.streamWindowBytes,
      writesWaitingMax: link.limits.streamWritesWaitingMax,
      sendMessageBytesMax: link.sendMessageBytesMax,
      isBusy: () => link.isBusy(),
      post: (record) => link.post(record),
      onViolation: (what) => link.onViolation(what),
    };
  }

  /** Takes a stream record of the peer. */
  onRecord(record: StreamRecord): void {
    if (record.kind === 'open') {
      this.#accept(record.id, record.method, record.params);
      return;
    }
    const stream = this.#streams.get(record.id);
    if (stream === undefined) {
      if (!this.#wasOpen(record.id)) this.#link.onViolation('a record for a stream that never was');
      return;
    }
    switch (record.kind) {
      case 'message':
        return stream.onMessage(record.value);
      case 'end':
        return stream.onEnd();
      case 'finish':
        return stream.onFinish();
      case 'destroy':
        return stream.onDestroy(record.error);
      case 'credit':
        return stream.onCredit(record.bytes);
    }
  }

  #isOurs(id: number): boolean {
    return id % 2 === this.#nextId % 2;
  }

  #wasOpen(id: number): boolean {
    return this.#isOurs(id) ? id < this.#nextId : id <= this.#lastPeerId;
  }

  #accept(id: number, method: string, params: unknown): void {
    if (this.#isOurs(id) || id <= this.#lastPeerId) {
      this.#link.onViolation('a stream with a number it may not use');
      return;
    }
    this.#lastPeerId = id;
    const { acceptMax } = this.#link;
    const handler = Object.hasOwn(this.#handlers, method) ? this.#handlers[method] : undefined;
    if (this.#openedByPeer >= acceptMax) {
      this.#refuse(id, boundReached(`stream "${method}" was not accepted`, 'streamsOpenMax', acceptMax));
    } else if (handler === undefined) {
      const message = `this node serves no stream "${method}"; it may run another version`;
      this.#refuse(id, new SwarmdError('INVALID_ARGUMENT', message));
    } else {
      this.#serve(id, method, params, handler);
    }
  }

  #refuse(id: number, error: SwarmdError): void {
    this.#link.post(encodeRecord({ kind: 'destroy', id, error: toWireError(error) }));
  }

  #serve(id: number, method: string, params: unknown, handler: RpcStreamHandler): void {
    const controller = new AbortController();
    const name = `stream "${method}" with ${this.#link.peerName}`;
    this.#openedByPeer++;
    let open = 2;
    // The place is free again when the stream is over and its handler returned, whichever comes last.
    const leave = (): void => {
      open--;
      if (open === 0) this.#openedByPeer--;
    };
    const stream = this.#add(id, name, () => {
      controller.abort(new SwarmdError('CANCELLED', `${name} is over`));
      leave();
    });
    void this.#run(method, params, handler, stream, controller.signal).finally(leave);
  }

  async #run(
    method: string,
    params: unknown,
    handler: RpcStreamHandler,
    stream: PeerStream,
    signal: AbortSignal,
  ): Promise<void> {
    try {
      await handler(params, stream, { connection: this.#connection, signal });
      stream.finish();
    } catch (error) {
      escalateAssertion(error);
      if (!(error instanceof SwarmdError) && !signal.aborted) {
        this.#link.log.error('a stream handler failed', { method, error });
      }
      stream.destroyWith(error);
    }
  }

  /** Lets waiting writes go on: unsent bytes went down. */
  pump(): void {
    for (const stream of this.#streams.values()) {
      if (this.#link.isBusy()) return;
      stream.pump();
    }
  }

  /** Ends every stream with `error`: the connection is gone. */
  failAll(error: SwarmdError): void {
    for (const stream of [...this.#streams.values()]) stream.fail(error);
  }
}
