/**
 * Health checks as the worker runs them for processes: when to check, and what the results say.
 *
 * Invariants: one check at a time; failures in the start period do not count, a success ends it; `retries`
 * failures in a row make the task unhealthy.
 */
import { ok, type Result, refuse } from '../../base/result.ts';
import type { HealthCheck } from '../../model/spec.ts';

/** A check with its defaults filled in. Durations in milliseconds. */
export interface HealthPlan {
  readonly command:
    | { readonly kind: 'argv'; readonly argv: readonly string[] }
    | { readonly kind: 'shell'; readonly line: string };
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly startPeriodMs: number;
  readonly retries: number;
}

export const HEALTH_INTERVAL_MS = 30_000;
export const HEALTH_TIMEOUT_MS = 30_000;
export const HEALTH_RETRIES = 3;

export interface HealthState {
  readonly health: 'starting' | 'healthy' | 'unhealthy';
  readonly startedAtMs: number;
  /** Failures in a row that count. */
  readonly failures: number;
  /** When the next check begins. */
  readonly nextAtMs: number;
  /** What the last failed check said, one line. */
  readonly output: string;
}

/** The plan of a health check; null when there is none. Refuses a test of unknown form. */
export function healthPlan(check: HealthCheck | undefined): Result<HealthPlan | null> {
  const [kind, ...rest] = check?.test ?? [];
  if (check === undefined || kind === undefined || kind === 'NONE') return ok(null);
  const times = {
    intervalMs: positive(check.intervalMs, HEALTH_INTERVAL_MS),
    timeoutMs: positive(check.timeoutMs, HEALTH_TIMEOUT_MS),
    startPeriodMs: Math.max(0, check.startPeriodMs ?? 0),
    retries: Math.floor(positive(check.retries, HEALTH_RETRIES)),
  };
  const first = rest[0];
  if (kind === 'CMD' && first !== undefined) {
    return ok({ command: { kind: 'argv', argv: rest }, ...times });
  }
  if (kind === 'CMD-SHELL' && first !== undefined && rest.length === 1) {
    return ok({ command: { kind: 'shell', line: first }, ...times });
  }
  return refuse(
    `health check test ${JSON.stringify(check.test)} is none of NONE, CMD argv..., CMD-SHELL command`,
  );
}

function positive(value: number | undefined, fallback: number): number {
  return value === undefined || value <= 0 ? fallback : value;
}

/** A task that started at `startedAtMs` and was never checked. */
export function initialHealth(plan: HealthPlan, startedAtMs: number, nowMs: number): HealthState {
  return {
    health: 'starting',
    startedAtMs,
    failures: 0,
    nextAtMs: Math.max(nowMs, startedAtMs + Math.min(plan.intervalMs, firstCheckMs(plan))),
    output: '',
  };
}

/** In a start period checks come more often, so that a task is not held back by a long interval. */
function firstCheckMs(plan: HealthPlan): number {
  return plan.startPeriodMs > 0 ? Math.min(plan.intervalMs, 5_000, plan.startPeriodMs) : plan.intervalMs;
}

/** The state after a check ended at `nowMs`. */
export function afterCheck(
  plan: HealthPlan,
  state: HealthState,
  result: { readonly passed: boolean; readonly output: string },
  nowMs: number,
): HealthState {
  if (result.passed) {
    return { ...state, health: 'healthy', failures: 0, nextAtMs: nowMs + plan.intervalMs, output: '' };
  }
  const inStartPeriod = state.health === 'starting' && nowMs < state.startedAtMs + plan.startPeriodMs;
  const failures = inStartPeriod ? state.failures : state.failures + 1;
  return {
    ...state,
    health: failures >= plan.retries ? 'unhealthy' : state.health,
    failures,
    nextAtMs: nowMs + (inStartPeriod ? firstCheckMs(plan) : plan.intervalMs),
    output: result.output,
  };
}
