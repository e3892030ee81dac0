/**
 * PURE: whose turn it is. Round robin over the backends of a port, leaving out for a while those that failed.
 *
 * Invariants: with no failures every backend gets each n-th connection; a backend that failed is chosen before its
 * time is up only when all others failed too, the one whose failure is oldest first; none is chosen twice for one
 * connection.
 */
import type { Backend } from './table.ts';

/** State of one port. Treat as a value: the functions here return a new one. */
export interface Turn {
  /** Index at which the next search starts. */
  readonly next: number;
  /** When each backend that failed may be chosen again, by its key; monotonic milliseconds. */
  readonly restingUntilMs: ReadonlyMap<string, number>;
}

/** Nothing chosen, nothing failed. */
export const firstTurn: Turn = { next: 0, restingUntilMs: new Map() };

/** Identity of a way to a task: a task that changes its port is another backend. */
export function backendKey(backend: Backend): string {
  return `${backend.taskId} ${backend.host} ${backend.port}`;
}

/** The backend for the next try of a connection that has tried `tried` (keys), or null when all were tried. */
export function chooseBackend(
  turn: Turn,
  backends: readonly Backend[],
  tried: ReadonlySet<string>,
  nowMs: number,
): { readonly backend: Backend | null; readonly turn: Turn } {
  let oldest: { readonly backend: Backend; readonly untilMs: number; readonly index: number } | null = null;
  for (let offset = 0; offset < backends.length; offset++) {
    const index = (turn.next + offset) % backends.length;
    const backend = backends[index] as Backend;
    // Keys are made only where they matter: the usual connection finds nothing tried and nothing resting.
    if (tried.size === 0 && turn.restingUntilMs.size === 0) return chosen(turn, backend, index);
    const key = backendKey(backend);
    if (tried.has(key)) continue;
    const untilMs = turn.restingUntilMs.get(key) ?? 0;
    if (untilMs <= nowMs) return chosen(turn, backend, index);
    if (oldest === null || untilMs < oldest.untilMs) oldest = { backend, untilMs, index };
  }
  return oldest === null ? { backend: null, turn } : chosen(turn, oldest.backend, oldest.index);
}

function chosen(
  turn: Turn,
  backend: Backend,
  index: number,
): { readonly backend: Backend; readonly turn: Turn } {
  return { backend, turn: { ...turn, next: index + 1 } };
}

/** Notes that `backend` failed: it rests until `untilMs`. */
export function restBackend(turn: Turn, backend: Backend, untilMs: number): Turn {
  return { ...turn, restingUntilMs: new Map(turn.restingUntilMs).set(backendKey(backend), untilMs) };
}

/** Notes that `backend` answered. */
export function wakeBackend(turn: Turn, backend: Backend): Turn {
  const key = backendKey(backend);
  if (!turn.restingUntilMs.has(key)) return turn;
  const restingUntilMs = new Map(turn.restingUntilMs);
  restingUntilMs.delete(key);
  return { ...turn, restingUntilMs };
}

/** Forgets failures of backends that are gone. */
export function keepTurn(turn: Turn, backends: readonly Backend[]): Turn {
  if (turn.restingUntilMs.size === 0) return turn;
  const keys = new Set(backends.map(backendKey));
  return {
    ...turn,
    restingUntilMs: new Map([...turn.restingUntilMs].filter(([key]) => keys.has(key))),
  };
}
