/**
 * PURE: deadlines from stored times.
 *
 * Invariant: a time stamped by another leader whose clock was ahead delays a deadline by at most one more period;
 * a stamp further ahead than that is taken as long past, so nothing ever waits for a clock to catch up.
 */

/** Whether `periodMs` has passed since `stampMs`, by a clock that may differ from the one that stamped. */
export function isDue(stampMs: number, periodMs: number, nowMs: number): boolean {
  const period = Math.max(0, periodMs);
  return nowMs >= stampMs + period || nowMs < stampMs - period;
}
