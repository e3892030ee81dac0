/**
 * The leader's control loop: a change or a wake-up lets every planner plan, and the result is proposed.
 *
 * Invariants: one turn at a time; planners of a turn see one another's effect; the state is read again after every
 * turn until nothing is left to do; no timer is state (deadlines come back from the planners each turn).
 */
import type { Clock, Timer } from '../base/clock.ts';
import { errorMessage } from '../base/errors.ts';
import type { LogFields, Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { Action, Proposer, ProposeResult, Refusal } from './state/actions.ts';
import type { NamedPlanner } from './forecast/planner-chain.ts';
import { earlier } from './state/planner.ts';
import { splitActions } from './state/split.ts';
import type { Store } from './state/store.ts';

export interface ControlLoopDependencies {
  readonly store: Store;
  readonly proposer: Proposer;
  readonly planners: readonly NamedPlanner[];
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Wait after a proposal that could not be made, before planning again, milliseconds. */
const RETRY_MS = 100;
/** Plans refused in a row before the next one waits: a plan that is always refused must not fill the log. */
const REFUSALS_MAX = 10;
/** Wait after a defect (a planner that threw, a plan that is refused here or too large), milliseconds. */
const DEFECT_RETRY_MS = 1_000;

/** Runs planners on the leader until stopped. */
export class ControlLoop {
  readonly #dependencies: ControlLoopDependencies;
  readonly #abort = new AbortController();
  #wakeTimer: Timer | null = null;
  #dirty = true;
  #refusals = 0;
  #wake: (() => void) | null = null;
  #running: Promise<void> | null = null;

  constructor(dependencies: ControlLoopDependencies) {
    this.#dependencies = dependencies;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Plans soon. Cheap: many wake-ups before a turn count as one. */
  wake(): void {
    this.#dirty = true;
    this.#wake?.();
  }

  async stop(): Promise<void> {
    this.#abort.abort(new Error('the control loop stops'));
    this.wake();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#abort;
    while (!signal.aborted) {
      if (!this.#dirty) await this.#idle();
      if (signal.aborted) break;
      // Everything that arrives in this event-loop turn is planned together.
      await new Promise((resolve) => setImmediate(resolve));
      this.#dirty = false;
      this.#wakeTimer?.cancel();
      this.#wakeTimer = null;
      try {
        await this.#turn(signal);
      } catch (error) {
        if (signal.aborted) break;
        this.#logDefect('planning failed', error, {});
        this.#wakeAfter(DEFECT_RETRY_MS);
      }
    }
    this.#wakeTimer?.cancel();
  }

  #idle(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = null;
        resolve();
      };
    });
  }

  #wakeAfter(delayMs: number): void {
    this.#wakeTimer?.cancel();
    this.#wakeTimer = this.#dependencies.clock.setTimer(delayMs, () => this.wake());
  }

  async #turn(signal: AbortSignal): Promise<void> {
    const { store, clock, log, proposer } = this.#dependencies;
    const nowMs = clock.nowMs();
    let wakeAt: number | null = null;
    const actions = store.tentatively(nowMs, (apply) => {
      wakeAt = this.#plan(nowMs, apply);
    });
    if (wakeAt !== null) this.#wakeAfter(Math.max(1, wakeAt - clock.nowMs()));
    if (actions.length === 0) return;
    let failed: ProposeResult | undefined;
    for (const batch of splitActions(actions)) {
      const result = await proposer.propose(batch, signal);
      if (result.kind === 'applied') continue;
      // Later batches build on this one: a task must not carry a port that its service did not get.
      failed = result;
      break;
    }
    this.#dirty = true;
    if (failed === undefined) {
      this.#refusals = 0;
      return;
    }
    // A refusal means the state moved on: plan again at once. Otherwise the log is not available.
    if (failed.kind === 'refused') {
      log.debug('plan refused', { refusal: failed.refusal });
      this.#refusals += 1;
      if (this.#refusals % REFUSALS_MAX !== 0) return;
      log.warn('plans are refused again and again', { refusal: failed.refusal, times: this.#refusals });
      this.#dirty = false;
      this.#wakeAfter(DEFECT_RETRY_MS);
      return;
    }
    this.#dirty = false;
    if (failed.kind === 'too-large') log.error('plan too large for the log', { bytes: failed.bytes });
    else log.debug('plan not applied', { outcome: failed });
    this.#wakeAfter(failed.kind === 'too-large' ? DEFECT_RETRY_MS : RETRY_MS);
  }

  /** Lets every planner plan on what those before it planned; returns when to plan again. */
  #plan(nowMs: number, apply: (actions: readonly Action[]) => Refusal | null): number | null {
    const { store, planners, random, log } = this.#dependencies;
    let wakeAt: number | null = null;
    for (const planner of planners) {
      try {
        const plan = planner.plan(store, { nowMs, random });
        for (const note of plan.notes) log.info(note.message, { planner: planner.name, ...note.fields });
        wakeAt = earlier(wakeAt, plan.wakeAt);
        const refusal = plan.actions.length === 0 ? null : apply(plan.actions);
        if (refusal !== null) log.error('plan does not apply', { planner: planner.name, refusal });
      } catch (error) {
        // One object that one planner cannot cope with must not stop the work of all the others.
        this.#logDefect('a planner failed', error, { planner: planner.name });
        wakeAt = earlier(wakeAt, nowMs + DEFECT_RETRY_MS);
      }
    }
    return wakeAt;
  }

  #logDefect(message: string, error: unknown, fields: LogFields): void {
    const stack = error instanceof Error ? error.stack : undefined;
    this.#dependencies.log.error(message, { error: errorMessage(error), stack, ...fields });
  }
}
