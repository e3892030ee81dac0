/**
 * Time as a port. Pure code never reads it: a driver reads it and passes numbers in.
 *
 * Invariant: `monotonicMs` never goes backward; `nowMs` (wall clock) may.
 */

/** A cancellable timer. `cancel` after it fired is a no-op. */
export interface Timer {
  cancel(): void;
}

/** The source of time and timers for drivers. */
export interface Clock {
  /** Wall-clock time, milliseconds since the epoch. May jump. */
  nowMs(): number;
  /** Milliseconds from an arbitrary origin. Never goes backward. */
  monotonicMs(): number;
  /** Calls `callback` once after `delayMs` (clamped to 0 .. 2^31-1). The timer keeps the process alive. */
  setTimer(delayMs: number, callback: () => void): Timer;
}

const DELAY_MAX_MS = 2_147_483_647;

/** The machine's own clock. */
export function systemClock(): Clock {
  return {
    nowMs: () => Date.now(),
    monotonicMs: () => performance.now(),
    setTimer(delayMs, callback) {
      const handle = setTimeout(callback, Math.min(Math.max(0, delayMs), DELAY_MAX_MS));
      return { cancel: () => clearTimeout(handle) };
    },
  };
}

/** Resolves after `delayMs`; rejects with the signal's reason when it aborts first. */
export function sleep(clock: Clock, delayMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason as Error);
      return;
    }
    const onAbort = (): void => {
      timer.cancel();
      reject(signal.reason as Error);
    };
    const timer = clock.setTimer(delayMs, () => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    });
    signal.addEventListener('abort', onAbort, { once: true });
  });
}

/** A clock that moves only when told to: for tests and the simulator. */
export class ManualClock implements Clock {
  #now: number;
  #sequence = 0;
  readonly #timers: { at: number; sequence: number; callback: () => void }[] = [];

  constructor(startMs = 0) {
    this.#now = startMs;
  }

  nowMs(): number {
    return this.#now;
  }

  monotonicMs(): number {
    return this.#now;
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const entry = { at: this.#now + Math.max(0, delayMs), sequence: this.#sequence++, callback };
    this.#timers.push(entry);
    return {
      cancel: () => {
        const index = this.#timers.indexOf(entry);
        if (index >= 0) this.#timers.splice(index, 1);
      },
    };
  }

  /** Moves time forward by `deltaMs`, firing the timers that fall due in order. */
  advance(deltaMs: number): void {
    const end = this.#now + deltaMs;
    for (;;) {
      this.#timers.sort((a, b) => a.at - b.at || a.sequence - b.sequence);
      const next = this.#timers[0];
      if (next === undefined || next.at > end) break;
      this.#timers.shift();
      this.#now = Math.max(this.#now, next.at);
      next.callback();
    }
    this.#now = end;
  }
}
