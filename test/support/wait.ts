/** Waiting for a condition with a bound, for tests that watch real processes. */
import { setTimeout as delay } from 'node:timers/promises';

/** How long and how often to look. */
export interface WaitOptions {
  readonly timeoutMs?: number;
  readonly everyMs?: number;
}

/**
 * Calls `probe` until it returns something other than undefined or false, and returns that. A probe that throws has
 * not succeeded yet. Rejects after `timeoutMs` (default 10 s) with `what` and the last failure.
 */
export async function waitFor<T>(
  what: string,
  probe: () => Promise<T | undefined | false> | T | undefined | false,
  { timeoutMs = 10_000, everyMs = 25 }: WaitOptions = {},
): Promise<T> {
  const deadlineMs = performance.now() + timeoutMs;
  let failure: unknown = 'the condition did not hold';
  for (;;) {
    try {
      const value = await probe();
      if (value !== undefined && value !== false) return value;
    } catch (error) {
      failure = error;
    }
    if (performance.now() >= deadlineMs) {
      const reason = failure instanceof Error ? failure.message : String(failure);
      throw new Error(`waited ${timeoutMs} ms for ${what}: ${reason}`, { cause: failure });
    }
    await delay(everyMs);
  }
}
