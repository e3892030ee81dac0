/**
 * The leader's control loop: a change or a wake-up lets every planner plan, and the result is proposed.
 *
 * Invariants: one turn at a time; planners of a turn see one another's effect; the state is read again after every
 * turn until nothing is left to do; no timer is state (deadlines come back from the planners each turn).
 */
import type { Clock, Timer } from '../base/clock.ts';
import { errorMessage } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import { type Action, BATCH_ACTIONS_MAX, type ProposeResult, type Proposer } from './state/actions.ts';
import { encodeBatch } from './state/codec.ts';
import { earlier, type Planner } from './state/planner.ts';
import type { Store } from './state/store.ts';

export interface NamedPlanner {
  readonly name: string;
  readonly plan: Planner;
}

export interface ControlLoopDependencies {
  readonly store: Store;
  readonly proposer: Proposer;
  readonly planners: readonly NamedPlanner[];
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Bytes of one proposal of the loop; well under the limit of an entry. */
const PROPOSAL_BYTES_TARGET = 1_000_000;
/** Wait after a proposal that could not be made, before planning again. */
const RETRY_MS = 100;

/** Runs planners on the leader until stopped. */
export class ControlLoop {
  readonly #dependencies: ControlLoopDependencies;
  readonly #abort = new AbortController();
  #wakeTimer: Timer | null = null;
  #dirty = true;
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
        this.#dependencies.log.error('planning failed', {
          error: errorMessage(error),
          stack: (error as Error).stack,
        });
        this.#wakeAfter(1_000);
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
    const { store, planners, clock, random, log, proposer } = this.#dependencies;
    const nowMs = clock.nowMs();
    let wakeAt: number | null = null;
    const actions = store.tentatively(nowMs, (apply) => {
      for (const planner of planners) {
        const plan = planner.plan(store, { nowMs, random });
        for (const note of plan.notes) log.info(note.message, { planner: planner.name, ...note.fields });
        wakeAt = earlier(wakeAt, plan.wakeAt);
        if (plan.actions.length === 0) continue;
        const refusal = apply(plan.actions);
        if (refusal !== null) log.error('plan does not apply', { planner: planner.name, refusal });
      }
    });
    if (wakeAt !== null) this.#wakeAfter(Math.max(1, wakeAt - clock.nowMs()));
    if (actions.length === 0) return;
    let failed: ProposeResult | undefined;
    for (const batch of split(actions)) {
      const result = await proposer.propose(batch, signal);
      if (result.kind === 'applied') continue;
      // Later batches build on this one: a task must not carry a port that its service did not get.
      failed = result;
      break;
    }
    this.#dirty = true;
    if (failed === undefined) return;
    log.debug('plan not applied', { outcome: failed });
    // A refusal means the state moved on: plan again at once. Otherwise the log is not available.
    if (failed.kind !== 'refused') {
      this.#dirty = false;
      this.#wakeAfter(RETRY_MS);
    }
  }
}

/** Cuts actions into batches bounded in number and bytes. */
function split(actions: readonly Action[]): Action[][] {
  const batches: Action[][] = [];
  for (let from = 0; from < actions.length; from += BATCH_ACTIONS_MAX) {
    splitByBytes(actions.slice(from, from + BATCH_ACTIONS_MAX), batches);
  }
  return batches;
}

function splitByBytes(batch: Action[], into: Action[][]): void {
  if (batch.length > 1 && encodeBatch({ at: 0, actions: batch }).length > PROPOSAL_BYTES_TARGET) {
    const middle = batch.length >> 1;
    splitByBytes(batch.slice(0, middle), into);
    splitByBytes(batch.slice(middle), into);
    return;
  }
  into.push(batch);
}
