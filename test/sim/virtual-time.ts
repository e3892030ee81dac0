/**
 * Virtual time: one queue of events for the whole simulated cluster, and clocks that read it.
 *
 * Data owned: the queue. Invariants: events run in order of time, those of one time in the order they were made;
 * before the next event runs, everything the last one set off (promises, immediates) has run; nothing here or in
 * the code under test sees real time or real timers.
 */
import type { Clock, Timer } from '../../src/base/clock.ts';

/** One life of a simulated process. What belongs to a dead one never runs. */
export class Process {
  readonly name: string;
  alive = true;
  /** Its events wait until then: a pause (SIGSTOP, a collection, a starved machine). */
  pausedUntilMs = 0;

  constructor(name: string) {
    this.name = name;
  }
}

interface Scheduled {
  atMs: number;
  readonly sequence: number;
  readonly owner: Process | null;
  readonly label: string;
  readonly run: () => void;
  cancelled: boolean;
}

/** The wall clock at the start of each run, milliseconds since the epoch. */
export const EPOCH_MS = 1_800_000_000_000;

const realImmediate = globalThis.setImmediate;
const realTimeout = globalThis.setTimeout;
const realSignalTimeout = AbortSignal.timeout;
const realNow = Date.now;
const realRandom = Math.random;

/** The queue of events. */
export class VirtualTime {
  nowMs = 0;
  /** Events run so far. */
  events = 0;
  /** What the code under test did that cannot be repeated, such as reading the real clock. */
  readonly leaks: string[] = [];
  /** Hears of every event before it runs. */
  onEvent: (label: string, owner: Process | null) => void = () => {};
  readonly #heap: Scheduled[] = [];
  #sequence = 0;
  #immediates: (() => void)[] = [];

  /** Events that wait, cancelled ones too. */
  get pending(): number {
    return this.#heap.length;
  }

  /** Runs `run` after `delayMs`, unless `owner` is dead by then; a paused owner's events wait. */
  after(delayMs: number, owner: Process | null, label: string, run: () => void): Timer {
    const atMs = this.nowMs + Math.max(0, delayMs);
    const entry: Scheduled = { atMs, sequence: this.#sequence++, owner, label, run, cancelled: false };
    this.#push(entry);
    return {
      cancel: () => {
        entry.cancelled = true;
      },
    };
  }

  /** Resolves after `delayMs`; never, when `owner` dies first. */
  sleep(delayMs: number, owner: Process | null, label: string): Promise<void> {
    return new Promise((resolve) => void this.after(delayMs, owner, label, resolve));
  }

  /** Runs the next event and what it sets off. */
  async step(): Promise<void> {
    for (;;) {
      const next = this.#pop();
      if (next === null) throw new Error('the simulation has nothing left to do');
      if (next.cancelled || next.owner?.alive === false) continue;
      this.nowMs = Math.max(this.nowMs, next.atMs);
      if (next.owner !== null && next.owner.pausedUntilMs > this.nowMs) {
        next.atMs = next.owner.pausedUntilMs;
        this.#push(next);
        continue;
      }
      this.events += 1;
      this.onEvent(next.label, next.owner);
      next.run();
      await this.settle();
      return;
    }
  }

  /** Runs promises and immediates until none is left. */
  async settle(): Promise<void> {
    for (;;) {
      await new Promise((resolve) => realImmediate(resolve));
      if (this.#immediates.length === 0) return;
      const due = this.#immediates;
      this.#immediates = [];
      for (const run of due) run();
    }
  }

  /** Runs `work` with the process's timers, clocks and randomness replaced: what uses them is repeatable, or noted. */
  async rule<T>(work: () => Promise<T>): Promise<T> {
    const leak = (what: string): void => {
      if (this.leaks.length < 10) this.leaks.push(`${what}: ${new Error().stack?.split('\n')[3]?.trim()}`);
    };
    const replaced = {
      setImmediate: (run: (...args: unknown[]) => void, ...args: unknown[]) => {
        this.#immediates.push(() => run(...args));
        return {};
      },
      setTimeout: (...args: Parameters<typeof realTimeout>) => {
        leak('setTimeout');
        return realTimeout(...args);
      },
    };
    Object.assign(globalThis, replaced);
    AbortSignal.timeout = (delayMs) => {
      const abort = new AbortController();
      this.after(delayMs, null, 'signal timeout', () => abort.abort(new Error('timeout')));
      return abort.signal;
    };
    Date.now = () => {
      leak('Date.now');
      return EPOCH_MS + this.nowMs;
    };
    Math.random = () => {
      leak('Math.random');
      return 0.5;
    };
    try {
      return await work();
    } finally {
      Object.assign(globalThis, { setImmediate: realImmediate, setTimeout: realTimeout });
      AbortSignal.timeout = realSignalTimeout;
      Date.now = realNow;
      Math.random = realRandom;
    }
  }

  #push(entry: Scheduled): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(entry);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(entry, heap[parent] as Scheduled)) break;
      heap[at] = heap[parent] as Scheduled;
      at = parent;
    }
    heap[at] = entry;
  }

  #pop(): Scheduled | null {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined) return null;
    if (heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= heap.length) break;
      const right = heap[child + 1];
      if (right !== undefined && isBefore(right, heap[child] as Scheduled)) child += 1;
      if (!isBefore(heap[child] as Scheduled, last)) break;
      heap[at] = heap[child] as Scheduled;
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(a: Scheduled, b: Scheduled): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.sequence < b.sequence);
}

/** How one machine's clock is wrong. Survives the processes on it. */
export interface Drift {
  /** Local milliseconds in one true millisecond; about 1. */
  rate: number;
  /** Added to the wall clock; jumps change it. */
  offsetMs: number;
  /** Longest time by which a timer fires late: a starved event loop. */
  lateMaxMs: number;
}

/** The clock of one process on a machine that drifts. */
export function driftingClock(
  time: VirtualTime,
  owner: Process,
  drift: Drift,
  late: (max: number) => number,
): Clock {
  // The rate of this life: a monotonic clock does not turn back when the machine's rate changes.
  const { rate } = drift;
  const local = (): number => time.nowMs * rate;
  return {
    nowMs: () => Math.floor(EPOCH_MS + local() + drift.offsetMs),
    monotonicMs: local,
    setTimer: (delayMs, callback) => {
      const extra = drift.lateMaxMs > 0 ? late(drift.lateMaxMs) : 0;
      return time.after(Math.max(0, delayMs) / rate + extra, owner, 'timer', callback);
    },
  };
}
