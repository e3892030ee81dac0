/** The shape of every planner: state in, actions out. */
import type { Random } from '../../base/random.ts';
import type { Action } from './actions.ts';
import type { StateView } from './view.ts';

export interface PlanContext {
  /** Wall-clock milliseconds. */
  readonly nowMs: number;
  readonly random: Random;
}

/** Something worth a log line; `message` is constant. */
export interface PlanNote {
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

export interface Plan {
  readonly actions: readonly Action[];
  /** When to plan again even if nothing changes (wall-clock ms); null: not needed. */
  readonly wakeAt: number | null;
  readonly notes: readonly PlanNote[];
}

/** Total and deterministic: the same view, time and random numbers give the same plan. */
export type Planner = (view: StateView, context: PlanContext) => Plan;

export const emptyPlan: Plan = { actions: [], wakeAt: null, notes: [] };

/** The earlier of two wake-up times. */
export function earlier(a: number | null, b: number | null): number | null {
  if (a === null) return b;
  if (b === null) return a;
  return Math.min(a, b);
}
