/**
 * One end of a two-way message stream with credit-based back-pressure.
 *
 * Invariants: a writer sends only while it has credit, so the reader holds at most the window and one
 * message unread; credit returns when messages are read; messages arrive in order and exactly once or the
 * stream ends with an error; what the peer wrote before it ended, failed or vanished is still delivered;
 * `closed` resolves exactly once.
 */
import { SwarmdError, toSwarmdError } from '../base/errors.ts';
import { type Result, refuse } from '../base/result.ts';
import { encodeWithin } from './calls.ts';
import { type EncodedRecord, encodeRecord, type WireError } from './frame.ts';
import { streamMessageOverheadBytes } from './limits.ts';
import { decodeValue, encodeValue } from './message-pack.ts';
import type { RpcStream } from './types.ts';
import { boundReached, cancelled, fromWireError, toWireError } from './wire-error.ts';

/** What a stream needs of its connection. */
export interface StreamLink {
  readonly windowBytes: number;
  readonly writesWaitingMax: number;
  readonly sendMessageBytesMax: number;
  /** Names the stream and the peer in messages. */
  readonly name: string;
  /** Whether so much is unsent that stream writes must wait. */
  isBusy(): boolean;
  post(record: EncodedRecord): void;
  /** The stream is over on both sides. */
  onOver(): void;
  /** The peer sent what it must not. */
  onViolation(what: string): void;
}

interface WaitingWrite {
  readonly record: EncodedRecord;
  readonly cost: number;
  readonly done: (error: SwarmdError | null) => void;
}

interface WaitingRead {
  readonly resolve: (result: IteratorResult<unknown, undefined>) => void;
  readonly reject: (error: SwarmdError) => void;
}

function costOf(valueBytes: number): number {
  return valueBytes + streamMessageOverheadBytes;
}

/** One end of a stream. */
export class PeerStream implements RpcStream {
  readonly id: number;
  readonly closed: Promise<void>;
  readonly #link: StreamLink;
  #resolveClosed: () => void = () => {};

  #credit: number;
  #writes: WaitingWrite[] = [];
  #farewell: 'none' | 'end' | 'finish' = 'none';
  #farewellSent = false;

  #unread: Uint8Array[] = [];
  #unreturnedBytes = 0;
  #readBytes = 0;
  #reader: WaitingRead | null = null;
  #remoteEnded = false;

  #over = false;
  #failure: SwarmdError | null = null;

  constructor(id: number, link: StreamLink) {
    this.id = id;
    this.#link = link;
    this.#credit = link.windowBytes;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  async write(message: unknown, signal?: AbortSignal): Promise<void> {
    const { name, writesWaitingMax } = this.#link;
    if (signal?.aborted === true) throw cancelled(signal, `a write to ${name}`);
    if (this.#farewell !== 'none' || this.#over) throw this.#notWritable();
    const encoded = this.#encode(message);
    if (!encoded.ok) throw encoded.reason;
    if (this.#writes.length >= writesWaitingMax) {
      throw boundReached(`a write to ${name} was refused`, 'streamWritesWaitingMax', writesWaitingMax);
    }
    await new Promise<void>((resolve, reject) => {
      const onAbort = (): void => {
        this.#writes = this.#writes.filter((waiting) => waiting !== write);
        write.done(cancelled(signal as AbortSignal, `a write to ${name}`));
        this.pump();
      };
      const write: WaitingWrite = {
        ...encoded.value,
        done: (error) => {
          signal?.removeEventListener('abort', onAbort);
          if (error === null) resolve();
          else reject(error);
        },
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#writes.push(write);
      this.pump();
    });
  }

  #encode(message: unknown): Result<{ record: EncodedRecord; cost: number }, SwarmdError> {
    const what = `a message on ${this.#link.name}`;
    let value: Uint8Array;
    try {
      value = encodeValue(message);
    } catch (cause) {
      return refuse(
        new SwarmdError('INVALID_ARGUMENT', `${what} is not plain data and cannot be sent`, { cause }),
      );
    }
    const encoded = encodeWithin(
      { kind: 'message', id: this.id, value },
      what,
      this.#link.sendMessageBytesMax,
    );
    if (!encoded.ok) return encoded;
    return { ok: true, value: { record: encoded.value, cost: costOf(value.byteLength) } };
  }

  #notWritable(): SwarmdError {
    if (this.#failure !== null) return this.#failure;
    const who = this.#farewell === 'none' ? 'the peer finished it' : 'this side ended it';
    return new SwarmdError('FAILED_PRECONDITION', `${this.#link.name} takes no more messages: ${who}`);
  }

  /** Sends what credit and the socket allow; the connection calls it when unsent bytes went down. */
  pump(): void {
    while (!this.#over && this.#writes.length > 0 && this.#credit > 0 && !this.#link.isBusy()) {
      const write = this.#writes.shift() as WaitingWrite;
      this.#credit -= write.cost;
      this.#link.post(write.record);
      write.done(null);
    }
    if (this.#over || this.#writes.length > 0 || this.#farewell === 'none' || this.#farewellSent) return;
    this.#farewellSent = true;
    this.#link.post(encodeRecord({ kind: this.#farewell, id: this.id }));
    if (this.#farewell === 'finish' || this.#remoteEnded) this.#leave();
  }

  end(): void {
    if (this.#over || this.#farewell !== 'none') return;
    this.#farewell = 'end';
    this.pump();
  }

  /** The handler returned: what it wrote goes out, then the stream is over on both sides. */
  finish(): void {
    if (this.#over) return;
    this.#farewell = 'finish';
    this.#farewellSent = false;
    this.pump();
  }

  destroy(error?: SwarmdError): void {
    this.#unread = [];
    if (this.#over) return;
    const failure = error ?? new SwarmdError('CANCELLED', `${this.#link.name} was ended early`);
    this.#link.post(encodeRecord({ kind: 'destroy', id: this.id, error: toWireError(failure) }));
    this.fail(failure);
  }

  /** The handler failed: ends the stream with what it threw; what it wrote and read is void. */
  destroyWith(error: unknown): void {
    this.destroy(toSwarmdError(error));
  }

  /** Ends the stream with `error` without telling the peer. */
  fail(error: SwarmdError): void {
    if (this.#over) return;
    this.#failure = error;
    this.#leave();
  }

  #leave(): void {
    this.#over = true;
    this.#remoteEnded = true;
    for (const write of this.#writes.splice(0)) write.done(this.#notWritable());
    this.#wakeReader();
    this.#link.onOver();
    this.#resolveClosed();
  }

  /** Takes a message of the peer. */
  onMessage(value: Uint8Array): void {
    if (this.#over) return;
    if (this.#remoteEnded) return this.#link.onViolation('a stream message after its end');
    if (this.#unreturnedBytes >= this.#link.windowBytes) {
      return this.#link.onViolation('a stream message without credit');
    }
    this.#unreturnedBytes += costOf(value.byteLength);
    // A small message must not keep the whole frame it came in alive while it waits to be read.
    this.#unread.push(value.byteLength * 2 < value.buffer.byteLength ? Uint8Array.from(value) : value);
    this.#wakeReader();
  }

  /** The peer writes no more. */
  onEnd(): void {
    if (this.#over) return;
    this.#remoteEnded = true;
    if (this.#farewellSent) this.#leave();
    else this.#wakeReader();
  }

  /** The peer's handler returned. */
  onFinish(): void {
    if (!this.#over) this.#leave();
  }

  /** The peer destroyed the stream. */
  onDestroy(error: WireError): void {
    this.fail(fromWireError(error));
  }

  /** The peer read `bytes` more. */
  onCredit(bytes: number): void {
    if (this.#over) return;
    this.#credit += bytes;
    if (this.#credit > this.#link.windowBytes)
      return this.#link.onViolation('more stream credit than was used');
    this.pump();
  }

  [Symbol.asyncIterator](): AsyncIterator<unknown, undefined> {
    return {
      next: () => this.#next(),
      return: () => {
        this.destroy();
        return Promise.resolve({ done: true, value: undefined });
      },
    };
  }

  #next(): Promise<IteratorResult<unknown, undefined>> {
    if (this.#reader !== null) {
      const message = `${this.#link.name} is already being read; read a stream from one place`;
      return Promise.reject(new SwarmdError('FAILED_PRECONDITION', message));
    }
    return new Promise((resolve, reject) => {
      this.#reader = { resolve, reject };
      this.#wakeReader();
    });
  }

  #wakeReader(): void {
    const reader = this.#reader;
    if (reader === null) return;
    const bytes = this.#unread.shift();
    if (bytes !== undefined) {
      this.#reader = null;
      this.#deliver(bytes, reader);
    } else if (this.#failure !== null) {
      this.#reader = null;
      reader.reject(this.#failure);
    } else if (this.#remoteEnded) {
      this.#reader = null;
      reader.resolve({ done: true, value: undefined });
    }
  }

  #deliver(bytes: Uint8Array, reader: WaitingRead): void {
    this.#returnCredit(costOf(bytes.byteLength));
    const decoded = decodeValue(bytes);
    if (decoded.ok) {
      reader.resolve({ done: false, value: decoded.value });
      return;
    }
    this.#link.onViolation(`a stream message with ${decoded.reason}`);
    this.fail(new SwarmdError('CORRUPT', `${this.#link.name} received ${decoded.reason}`));
    reader.reject(
      this.#failure ?? new SwarmdError('CORRUPT', `${this.#link.name} received ${decoded.reason}`),
    );
  }

  /** Returns credit in halves of the window: fewer records, and the writer never runs dry meanwhile. */
  #returnCredit(cost: number): void {
    if (this.#remoteEnded) return;
    this.#readBytes += cost;
    if (this.#readBytes * 2 < this.#link.windowBytes) return;
    this.#link.post(encodeRecord({ kind: 'credit', id: this.id, bytes: this.#readBytes }));
    this.#unreturnedBytes -= this.#readBytes;
    this.#readBytes = 0;
  }
}
