/**
 * The calls of one connection: those made here that wait for an answer, and those served here.
 *
 * Invariants: every call made settles exactly once (answer, error, timeout, cancel, connection lost); at
 * most `callsInFlightMax` run each way; a call served gets exactly one reply, or none once it was cancelled.
 */
import type { Clock } from '../base/clock.ts';
import { errorMessage, SwarmdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { ok, type Result, refuse } from '../base/result.ts';
import { type EncodedRecord, encodeRecord, isMethodName, type RpcRecord, type WireError } from './frame.ts';
import type { RpcCallHandler, RpcCallOptions, RpcConnection } from './types.ts';
import {
  boundReached,
  cancelled,
  escalateAssertion,
  fromWireError,
  tooLarge,
  toWireError,
} from './wire-error.ts';

/** What the call tables need of their connection. */
export interface CallLink {
  readonly clock: Clock;
  readonly log: Logger;
  /** Names the peer in messages. */
  readonly peerName: string;
  readonly callsInFlightMax: number;
  readonly sendMessageBytesMax: number;
  readonly sendBytesMax: number;
  /** Whether unsent bytes reached `sendBytesMax`. */
  isFull(): boolean;
  post(record: EncodedRecord): void;
}

interface PendingCall {
  settle(outcome: Result<unknown, SwarmdError>): void;
}

/** Encodes a record and holds it to the size limit; `what` names it in the refusal. */
export function encodeWithin(
  record: RpcRecord,
  what: string,
  bytesMax: number,
): Result<EncodedRecord, SwarmdError> {
  let encoded: EncodedRecord;
  try {
    encoded = encodeRecord(record);
  } catch (cause) {
    const message = `${what} is not plain data and cannot be sent: ${errorMessage(cause)}`;
    return refuse(new SwarmdError('INVALID_ARGUMENT', message, { cause }));
  }
  if (encoded.bytes > bytesMax) return refuse(tooLarge(what, encoded.bytes, bytesMax));
  return ok(encoded);
}

/** Calls made here. */
export class OutgoingCalls {
  readonly #link: CallLink;
  readonly #pending = new Map<number, PendingCall>();
  #lastId = 0;

  constructor(link: CallLink) {
    this.#link = link;
  }

  /** Sends a call and settles with its outcome. */
  async call(method: string, params: unknown, options: RpcCallOptions): Promise<unknown> {
    const { signal, timeoutMs } = options;
    const link = this.#link;
    const what = `call "${method}" to ${link.peerName}`;
    if (signal.aborted) throw cancelled(signal, what);
    if (!isMethodName(method)) throw new SwarmdError('INVALID_ARGUMENT', `${what} has no usable method name`);
    if (this.#pending.size >= link.callsInFlightMax) {
      throw boundReached(
        `${what} was not sent, too many calls are in flight`,
        'callsInFlightMax',
        link.callsInFlightMax,
      );
    }
    if (link.isFull()) {
      throw boundReached(
        `${what} was not sent, too many bytes are unsent`,
        'sendBytesMax',
        link.sendBytesMax,
      );
    }
    const id = this.#lastId + 1;
    const encoded = encodeWithin({ kind: 'call', id, method, params }, what, link.sendMessageBytesMax);
    if (!encoded.ok) throw encoded.reason;
    this.#lastId = id;
    link.post(encoded.value);
    return this.#wait(id, what, signal, timeoutMs);
  }

  #wait(id: number, what: string, signal: AbortSignal, timeoutMs: number | undefined): Promise<unknown> {
    const link = this.#link;
    return new Promise((resolve, reject) => {
      const settle = (outcome: Result<unknown, SwarmdError>): void => {
        this.#pending.delete(id);
        timer?.cancel();
        signal.removeEventListener('abort', onAbort);
        if (outcome.ok) resolve(outcome.value);
        else reject(outcome.reason);
      };
      const giveUp = (error: SwarmdError): void => {
        link.post(encodeRecord({ kind: 'cancel', id }));
        settle(refuse(error));
      };
      const onAbort = (): void => giveUp(cancelled(signal, what));
      const timer =
        timeoutMs === undefined
          ? null
          : link.clock.setTimer(timeoutMs, () => {
              giveUp(new SwarmdError('TIMEOUT', `${what} was not answered within ${timeoutMs} ms`));
            });
      signal.addEventListener('abort', onAbort, { once: true });
      this.#pending.set(id, { settle });
    });
  }

  /** Takes the peer's answer; false when no such call was ever made. */
  onAnswer(id: number, value: unknown): boolean {
    this.#pending.get(id)?.settle(ok(value));
    return id <= this.#lastId;
  }

  /** Takes the peer's refusal; false when no such call was ever made. */
  onError(id: number, error: WireError): boolean {
    this.#pending.get(id)?.settle(refuse(fromWireError(error)));
    return id <= this.#lastId;
  }

  /** Settles every call with `error`: the connection is gone. */
  failAll(error: SwarmdError): void {
    for (const call of [...this.#pending.values()]) call.settle(refuse(error));
  }
}

/** Calls served here. */
export class IncomingCalls {
  readonly #link: CallLink;
  readonly #handlers: Readonly<Record<string, RpcCallHandler>>;
  readonly #connection: RpcConnection;
  readonly #running = new Map<number, AbortController>();
  #lastId = 0;

  constructor(link: CallLink, handlers: Readonly<Record<string, RpcCallHandler>>, connection: RpcConnection) {
    this.#link = link;
    this.#handlers = handlers;
    this.#connection = connection;
  }

  /** Starts serving a call; false when the peer reused a number. */
  onCall(id: number, method: string, params: unknown): boolean {
    if (id <= this.#lastId) return false;
    this.#lastId = id;
    const { callsInFlightMax } = this.#link;
    if (this.#running.size >= callsInFlightMax) {
      this.#refuse(id, boundReached(`call "${method}" was not served`, 'callsInFlightMax', callsInFlightMax));
      return true;
    }
    const handler = Object.hasOwn(this.#handlers, method) ? this.#handlers[method] : undefined;
    if (handler === undefined) {
      this.#refuse(
        id,
        new SwarmdError(
          'INVALID_ARGUMENT',
          `this node serves no call "${method}"; it may run another version`,
        ),
      );
      return true;
    }
    const controller = new AbortController();
    this.#running.set(id, controller);
    void this.#run(id, method, params, handler, controller.signal);
    return true;
  }

  async #run(
    id: number,
    method: string,
    params: unknown,
    handler: RpcCallHandler,
    signal: AbortSignal,
  ): Promise<void> {
    try {
      const value = await handler(params, { connection: this.#connection, signal });
      if (!signal.aborted) this.#answer(id, method, value);
    } catch (error) {
      escalateAssertion(error);
      if (!signal.aborted) this.#refuse(id, error);
      if (!(error instanceof SwarmdError) && !signal.aborted) {
        this.#link.log.error('a call handler failed', { method, error });
      }
    } finally {
      this.#running.delete(id);
    }
  }

  #answer(id: number, method: string, value: unknown): void {
    const link = this.#link;
    if (link.isFull()) {
      this.#refuse(
        id,
        boundReached(
          `the answer to "${method}" was not sent, too many bytes are unsent`,
          'sendBytesMax',
          link.sendBytesMax,
        ),
      );
      return;
    }
    const encoded = encodeWithin(
      { kind: 'answer', id, value },
      `the answer to "${method}"`,
      link.sendMessageBytesMax,
    );
    if (encoded.ok) link.post(encoded.value);
    else this.#refuse(id, encoded.reason);
  }

  #refuse(id: number, error: unknown): void {
    this.#link.post(encodeRecord({ kind: 'call-error', id, error: toWireError(error) }));
  }

  /** The caller gave up: aborts the handler's signal; the call counts until its handler settles. */
  onCancel(id: number): void {
    this.#running.get(id)?.abort(new SwarmdError('CANCELLED', 'the caller gave up'));
  }

  /** Aborts every handler's signal with `error`: the connection is gone. */
  abortAll(error: SwarmdError): void {
    for (const controller of this.#running.values()) controller.abort(error);
  }
}
