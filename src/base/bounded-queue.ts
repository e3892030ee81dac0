/**
 * A first-in first-out queue with a bound, for one consumer.
 *
 * Invariants: never holds more than `capacity` items; an item refused by `push` is not in the queue;
 * after `close` the consumer drains what is there and then sees the end.
 */

/** Bounded queue with an asynchronous consumer. */
export class BoundedQueue<T> {
  readonly #capacity: number;
  #items: T[] = [];
  #closed = false;
  #wake: (() => void) | null = null;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get size(): number {
    return this.#items.length;
  }

  /** Adds an item; false when the queue is full or closed (the item is not taken). */
  push(item: T): boolean {
    if (this.#closed || this.#items.length >= this.#capacity) return false;
    this.#items.push(item);
    this.#notify();
    return true;
  }

  /** Ends the queue. What is queued is still delivered. */
  close(): void {
    this.#closed = true;
    this.#notify();
  }

  /** Takes everything queued, waiting for at least one item; an empty array means closed and drained. */
  async takeAll(signal: AbortSignal): Promise<T[]> {
    while (this.#items.length === 0 && !this.#closed) {
      signal.throwIfAborted();
      await new Promise<void>((resolve) => {
        const done = (): void => {
          signal.removeEventListener('abort', done);
          this.#wake = null;
          resolve();
        };
        this.#wake = done;
        signal.addEventListener('abort', done, { once: true });
      });
    }
    const items = this.#items;
    this.#items = [];
    return items;
  }

  #notify(): void {
    this.#wake?.();
  }
}
