/**
 * Callers that wait for the node to reach some state, checked once a turn.
 */

interface Condition {
  readonly check: () => boolean;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** The waiting callers of one node. */
export class Conditions {
  #waiting: Condition[] = [];

  /** Resolves when `check` returns true; rejects when it throws, or with the signal's reason. */
  until(check: () => boolean, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const remove = (): void => {
        signal.removeEventListener('abort', onAbort);
        this.#waiting = this.#waiting.filter((each) => each !== condition);
      };
      const onAbort = (): void => {
        remove();
        reject(signal.reason as Error);
      };
      const condition: Condition = {
        check,
        resolve: () => {
          remove();
          resolve();
        },
        reject: (error) => {
          remove();
          reject(error as Error);
        },
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#waiting.push(condition);
      this.#try(condition);
    });
  }

  /** Checks every waiting condition. */
  poll(): void {
    if (this.#waiting.length === 0) return;
    for (const condition of [...this.#waiting]) this.#try(condition);
  }

  /** Rejects every caller. */
  rejectAll(error: Error): void {
    for (const condition of [...this.#waiting]) condition.reject(error);
  }

  #try(condition: Condition): void {
    try {
      if (condition.check()) condition.resolve();
    } catch (error) {
      condition.reject(error);
    }
  }
}
