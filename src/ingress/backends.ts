/**
 * The backends of one published port, shared by its connections or sessions: whose turn it is, who failed, and how
 * to wait for the first one to appear.
 *
 * Owns the turn. Invariant: waiting is bounded and ends at once when the port closes.
 */
import type { Clock } from '../base/clock.ts';
import {
  backendKey,
  chooseBackend,
  firstTurn,
  keepTurn,
  restBackend,
  type Turn,
  wakeBackend,
} from './balance.ts';
import type { Backend } from './table.ts';

/** Mutable view of one port's backends. */
export class PortBackends {
  readonly #clock: Clock;
  readonly #restMs: number;
  #backends: readonly Backend[] = [];
  #turn: Turn = firstTurn;
  readonly #waiting = new Set<() => void>();

  constructor(options: { readonly restMs: number }, deps: { readonly clock: Clock }) {
    this.#restMs = options.restMs;
    this.#clock = deps.clock;
  }

  get all(): readonly Backend[] {
    return this.#backends;
  }

  /** Replaces the backends and wakes those who wait for one. */
  set(backends: readonly Backend[]): void {
    this.#backends = backends;
    this.#turn = keepTurn(this.#turn, backends);
    this.wakeWaiting();
  }

  /** The next backend for a connection that tried `tried`; null: none left. */
  choose(tried: ReadonlySet<string>): Backend | null {
    const nowMs = this.#clock.monotonicMs();
    const { backend, turn } = chooseBackend(this.#turn, this.#backends, tried, nowMs);
    const isTrial = backend !== null && turn.restingUntilMs.has(backendKey(backend));
    // One connection tries a backend that failed before; the others go on without it until that one is answered.
    this.#turn = isTrial ? restBackend(turn, backend, nowMs + this.#restMs) : turn;
    return backend;
  }

  failed(backend: Backend): void {
    this.#turn = restBackend(this.#turn, backend, this.#clock.monotonicMs() + this.#restMs);
  }

  answered(backend: Backend): void {
    this.#turn = wakeBackend(this.#turn, backend);
  }

  /** Resolves when the backends change or after `delayMs`. */
  change(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        timer.cancel();
        this.#waiting.delete(wake);
        resolve();
      };
      const timer = this.#clock.setTimer(delayMs, wake);
      this.#waiting.add(wake);
    });
  }

  wakeWaiting(): void {
    for (const wake of this.#waiting) wake();
  }
}
