/**
 * Many waiting callers on few abort signals: one listener a signal, since adding a listener to an EventTarget
 * costs time proportional to the listeners it has.
 */

/** Calls back for every item of a signal that aborts. */
export class AbortWatch<T extends object> {
  readonly #onAbort: (item: T, reason: unknown) => void;
  readonly #watched = new Map<AbortSignal, { readonly items: Set<T>; readonly stop: () => void }>();

  constructor(onAbort: (item: T, reason: unknown) => void) {
    this.#onAbort = onAbort;
  }

  /** Watches `signal`, which must not be aborted yet, for `item`. */
  add(signal: AbortSignal, item: T): void {
    const watched = this.#watched.get(signal);
    if (watched !== undefined) {
      watched.items.add(item);
      return;
    }
    const items = new Set([item]);
    const onAbort = (): void => {
      this.#watched.delete(signal);
      for (const each of items) this.#onAbort(each, signal.reason);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    this.#watched.set(signal, { items, stop: () => signal.removeEventListener('abort', onAbort) });
  }

  /** Stops watching for `item`. */
  remove(signal: AbortSignal, item: T): void {
    const watched = this.#watched.get(signal);
    if (watched === undefined || !watched.items.delete(item) || watched.items.size > 0) return;
    watched.stop();
    this.#watched.delete(signal);
  }
}
