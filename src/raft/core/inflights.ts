/**
 * The sliding window of append messages sent to one follower and not yet acknowledged.
 *
 * Invariants: last indexes in the window ascend; the count never exceeds the message limit. The byte limit is
 * soft: the message that crosses it is still taken, and the window is full from then on.
 */
import { assert } from '../../base/assert.ts';

interface Inflight {
  readonly lastIndex: number;
  readonly bytes: number;
}

/** A window of messages in flight. */
export class Inflights {
  readonly #maxMessages: number;
  readonly #maxBytes: number;
  #window: Inflight[] = [];
  /** Acknowledged messages at the head of `#window`, dropped in batches. */
  #start = 0;
  #bytes = 0;

  /** `maxBytes` 0 means no byte limit. */
  constructor(maxMessages: number, maxBytes: number) {
    this.#maxMessages = maxMessages;
    this.#maxBytes = maxBytes;
  }

  get count(): number {
    return this.#window.length - this.#start;
  }

  /** Whether the next message must wait. */
  full(): boolean {
    return this.count >= this.#maxMessages || (this.#maxBytes !== 0 && this.#bytes >= this.#maxBytes);
  }

  /** Records a message whose last entry is `lastIndex`. */
  add(lastIndex: number, bytes: number): void {
    assert(!this.full(), 'no message is sent past a full window');
    this.#window.push({ lastIndex, bytes });
    this.#bytes += bytes;
  }

  /** Frees every message whose entries are all at or below `index`. */
  freeUpTo(index: number): void {
    while (this.#start < this.#window.length) {
      const head = this.#window[this.#start] as Inflight;
      if (head.lastIndex > index) break;
      this.#bytes -= head.bytes;
      this.#start++;
    }
    if (this.#start === this.#window.length) {
      this.#window = [];
      this.#start = 0;
    } else if (this.#start > 64 && this.#start * 2 > this.#window.length) {
      this.#window = this.#window.slice(this.#start);
      this.#start = 0;
    }
  }

  /** Forgets everything in flight. */
  reset(): void {
    this.#window = [];
    this.#start = 0;
    this.#bytes = 0;
  }
}
