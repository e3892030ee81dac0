/**
 * The send queue of one connection: packs records into frames and knows how much is unsent.
 *
 * Owns the encoded records not yet given to the socket, and the count of bytes the socket still holds.
 * Invariants: records leave in the order they came; what is queued in an event-loop turn leaves at its end
 * in as few frames as the batch size allows, or earlier when a batch is full; a frame of several records is
 * never larger than a batch.
 */
import { type EncodedRecord, joinRecords, recordHeadBytes } from './frame.ts';
import { batchBytes } from './limits.ts';

/** Gives a frame to the socket; `done` is called once the socket no longer holds it. */
export type SendFrame = (frame: Buffer, done: () => void) => void;

/** Packs records into frames for one socket. */
export class Outbox {
  readonly #sendFrame: SendFrame;
  readonly #onProgress: () => void;
  #records: EncodedRecord[] = [];
  #queuedBytes = 0;
  #heldBytes = 0;
  #immediate: NodeJS.Immediate | null = null;
  #stopped = false;

  /** `onProgress` is called each time the socket took bytes off our hands. */
  constructor(sendFrame: SendFrame, onProgress: () => void) {
    this.#sendFrame = sendFrame;
    this.#onProgress = onProgress;
  }

  /** Bytes queued here and held by the socket. */
  get unsentBytes(): number {
    return this.#queuedBytes + this.#heldBytes;
  }

  /** Queues a record. Its bytes must not change until they are sent. */
  post(record: EncodedRecord): void {
    if (this.#stopped) return;
    const bytes = recordHeadBytes + record.bytes;
    if (this.#records.length > 0 && this.#queuedBytes + bytes > batchBytes) this.flush();
    this.#records.push(record);
    this.#queuedBytes += bytes;
    if (this.#queuedBytes >= batchBytes) this.flush();
    else this.#immediate ??= setImmediate(() => this.flush());
  }

  /** Sends what is queued now. */
  flush(): void {
    if (this.#immediate !== null) clearImmediate(this.#immediate);
    this.#immediate = null;
    if (this.#records.length === 0) return;
    const frame = joinRecords(this.#records);
    this.#records = [];
    this.#queuedBytes = 0;
    this.#heldBytes += frame.byteLength;
    this.#sendFrame(frame, () => {
      this.#heldBytes -= frame.byteLength;
      this.#onProgress();
    });
  }

  /** Drops what is queued and takes nothing more. */
  stop(): void {
    this.#stopped = true;
    if (this.#immediate !== null) clearImmediate(this.#immediate);
    this.#immediate = null;
    this.#records = [];
    this.#queuedBytes = 0;
  }
}
