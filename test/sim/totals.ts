/** What a number of runs came to: seeds clean, speed, faults drawn, what was exercised. */
import type { SimulationResult } from './simulation.ts';

/** Facts that are about one run only. */
const SINGLE = new Set(['managers', 'workers', 'convergedMs']);

/** Sums over runs. */
export class Totals {
  clean = 0;
  failed = 0;
  #events = 0;
  #slowestMs = 0;
  readonly #faults = new Map<string, number>();
  readonly #facts = new Map<string, number>();

  add({ events, problems, facts }: SimulationResult): void {
    if (problems.length === 0) this.clean += 1;
    else this.failed += 1;
    this.#events += events;
    const { faults, convergedMs } = facts;
    this.#slowestMs = Math.max(this.#slowestMs, Number(convergedMs ?? 0));
    for (const [kind, times] of Object.entries(faults as Record<string, number>))
      count(this.#faults, kind, times);
    for (const [name, value] of Object.entries(facts))
      if (typeof value === 'number' && !SINGLE.has(name)) count(this.#facts, name, value);
  }

  /** A few lines about all runs. */
  describe(seconds: number): string {
    const speed = Math.round(this.#events / seconds);
    return [
      `${this.clean} seeds clean, ${this.failed} failed; ${this.#events} events in ${seconds.toFixed(1)} s: ${speed} events/s`,
      `faults: ${list(this.#faults)}`,
      `seen: ${list(this.#facts)}; slowest convergence ${this.#slowestMs} ms`,
    ].join('\n');
  }
}

function count(map: Map<string, number>, key: string, by: number): void {
  map.set(key, (map.get(key) ?? 0) + by);
}

function list(map: ReadonlyMap<string, number>): string {
  return [...map]
    .sort((a, b) => b[1] - a[1])
    .map(([name, times]) => `${name} ${times}`)
    .join(', ');
}
