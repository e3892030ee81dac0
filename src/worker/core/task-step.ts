/**
 * One transition of one task: given what is wanted, recorded and observed, the next thing to happen.
 *
 * Invariants: a call makes at most one transition or begins at most one operation; the state never goes back;
 * a fatal error before STARTING ends in REJECTED, from STARTING on in FAILED; a container that was ever started
 * is never started again.
 */
import { assertNever } from '../../base/assert.ts';
import type { TaskStatus } from '../../model/objects.ts';
import { compareTaskStates, isTerminalState, type TaskState } from '../../model/task-state.ts';
import {
  backoffMs,
  isRetriable,
  type LocalTask,
  type Observation,
  type Operation,
  type OperationFailure,
  OUTAGE_CAP_MS,
  PREPARE_ATTEMPTS_MAX,
  RETRY_CAP_MS,
} from './local-task.ts';

/** What a transition leads to. */
export type Advance =
  /** The record changed; with `status` when that is news for the managers. */
  | { readonly kind: 'status'; readonly local: LocalTask }
  | { readonly kind: 'record'; readonly local: LocalTask }
  | { readonly kind: 'run'; readonly operation: Operation }
  | { readonly kind: 'abort'; readonly local: LocalTask }
  | { readonly kind: 'forget' };

/** What a transition depends on besides the task. */
export interface StepContext {
  readonly nowMs: number;
  readonly complete: boolean;
  readonly leaving: boolean;
}

/** The next transition of a task, or null when there is nothing to do for now. */
export function advance(local: LocalTask, context: StepContext): Advance | null {
  const down = wantsDown(local, context);
  if (local.busy !== null) {
    const givesUp = down && !local.aborting && (local.busy === 'prepare' || local.busy === 'create');
    return givesUp ? { kind: 'abort', local: { ...local, aborting: true } } : null;
  }
  if (local.retryAt !== null && context.nowMs < local.retryAt) return null;
  if (local.task === null) return context.complete || context.leaving ? endStray(local) : null;
  if (isTerminalState(local.status.state)) return settle(local, context);
  if (local.observed === 'unknown') return { kind: 'run', operation: 'inspect' };
  return down ? bringDown(local, local.observed, context) : bringUp(local, local.observed, context);
}

/** Whether the task has to end. */
function wantsDown(local: LocalTask, context: StepContext): boolean {
  if (context.leaving || !local.assigned || local.verdict !== null || local.task === null) return true;
  const { desiredState, status } = local.task;
  return desiredState === 'shutdown' || desiredState === 'remove' || isTerminalState(status.state);
}

function endStray(local: LocalTask): Advance {
  if (local.observed === null) return { kind: 'forget' };
  if (local.observed === 'unknown') return { kind: 'run', operation: 'inspect' };
  return { kind: 'run', operation: local.observed.phase === 'running' ? 'stop' : 'remove' };
}

/** A task that has ended: makes sure nothing of it runs, and cleans up once nobody wants to look at it. */
function settle(local: LocalTask, context: StepContext): Advance | null {
  if (local.observed === 'unknown') return { kind: 'run', operation: 'inspect' };
  if (local.observed?.phase === 'running') return { kind: 'run', operation: 'stop' };
  if (local.assigned && !context.leaving) return null;
  return local.observed === null ? { kind: 'forget' } : { kind: 'run', operation: 'remove' };
}

function bringDown(local: LocalTask, observed: Observation | null, context: StepContext): Advance {
  if (observed?.phase === 'running') return { kind: 'run', operation: 'stop' };
  if (local.verdict === null) {
    return withStatus(local, context, 'shutdown', { message: 'shutdown', error: '' });
  }
  const code = observed?.container.exitCode;
  const error =
    code === undefined ? `task: ${local.verdict}` : `task: non-zero exit (${code}): ${local.verdict}`;
  return withStatus(local, context, 'failed', { message: 'failed', error });
}

function bringUp(local: LocalTask, observed: Observation | null, context: StepContext): Advance | null {
  const { state } = local.status;
  switch (state) {
    case 'new':
    case 'pending':
    case 'assigned':
      return withStatus(local, context, 'accepted', { message: 'accepted', error: '' });
    case 'accepted':
      return withStatus(local, context, 'preparing', { message: 'preparing', error: '' });
    case 'preparing':
      if (observed !== null) return withStatus(local, context, 'ready', { message: 'prepared', error: '' });
      return { kind: 'run', operation: local.prepared ? 'create' : 'prepare' };
    case 'ready':
      if (observed === null) {
        return fail(local, context, 'what was made for the task is gone; it was removed by somebody else');
      }
      if (local.task?.desiredState === 'ready' && observed.phase === 'created') return null;
      return withStatus(local, context, 'starting', { message: 'starting', error: '' });
    case 'starting':
    case 'running':
      return keepUp(local, observed, context);
    case 'complete':
    case 'shutdown':
    case 'failed':
    case 'rejected':
    case 'remove':
    case 'orphaned':
      return null;
    default:
      return assertNever(state);
  }
}

/** A task that was or is about to be started. */
function keepUp(local: LocalTask, observed: Observation | null, context: StepContext): Advance | null {
  if (observed === null) {
    return fail(local, context, 'what ran for the task is gone; it was removed by somebody else');
  }
  switch (observed.phase) {
    case 'created':
      if (local.status.state === 'starting') return { kind: 'run', operation: 'start' };
      return fail(local, context, 'what ran for the task was replaced by something that never ran');
    case 'exited':
      return exited(local, observed, context);
    case 'running':
      return running(local, observed, context);
    default:
      return assertNever(observed.phase);
  }
}

function exited(local: LocalTask, observed: Observation, context: StepContext): Advance {
  const code = observed.container.exitCode ?? 0;
  if (code === 0 && observed.error === '') {
    return withStatus(local, context, 'complete', { message: 'finished', error: '' });
  }
  const reason = observed.error === '' ? '' : `: ${observed.error}`;
  return withStatus(local, context, 'failed', {
    message: 'failed',
    error: `task: non-zero exit (${code})${reason}`,
  });
}

function running(local: LocalTask, observed: Observation, context: StepContext): Advance | null {
  if (observed.health === 'unhealthy') {
    return { kind: 'record', local: { ...local, verdict: 'unhealthy container' } };
  }
  if (local.status.state === 'starting' && observed.health !== 'starting') {
    return withStatus(local, context, 'running', { message: 'started', error: '' });
  }
  const facts = withFacts(observed, local.status.state);
  const next: TaskStatus = { ...local.status, ...facts };
  if (sameStatus(next, local.status)) return null;
  return { kind: 'status', local: { ...local, status: { ...next, at: context.nowMs } } };
}

/** Ends the task because it cannot go on: REJECTED before STARTING, FAILED from there on. */
function fail(local: LocalTask, context: StepContext, error: string): Advance {
  const early = compareTaskStates(local.status.state, 'starting') < 0;
  const state = early ? 'rejected' : 'failed';
  return withStatus(local, context, state, { message: state, error });
}

function withFacts(observed: Observation, state: TaskState): Partial<TaskStatus> {
  const { container, ports, health } = observed;
  // A running task stays healthy while its checks start over, as they do after a restart of the worker.
  const healthy = health === 'healthy' || (health === 'starting' && state === 'running');
  return {
    container,
    ...(ports.length > 0 ? { ports } : {}),
    ...(health === undefined ? {} : { healthy }),
  };
}

/** Moves the task to `state`, which must not be behind the recorded one. */
function withStatus(
  local: LocalTask,
  context: StepContext,
  state: TaskState,
  words: { readonly message: string; readonly error: string },
): Advance {
  const observed = local.observed === 'unknown' ? null : local.observed;
  const facts = observed === null ? {} : withFacts(observed, state);
  const note = observed?.note === undefined || isTerminalState(state) ? '' : ` (${observed.note})`;
  const { healthy: _, ...kept } = local.status;
  const status: TaskStatus = {
    ...(isTerminalState(state) ? kept : local.status),
    ...facts,
    state,
    at: context.nowMs,
    message: words.message + note,
    error: words.error,
  };
  return { kind: 'status', local: { ...local, status, attempts: 0, outages: 0, retryAt: null } };
}

function sameStatus(a: TaskStatus, b: TaskStatus): boolean {
  return (
    JSON.stringify([a.container, a.ports, a.healthy]) === JSON.stringify([b.container, b.ports, b.healthy])
  );
}

/** The record after a failed operation; `news` when the managers should hear of it. */
export function afterFailure(
  local: LocalTask,
  operation: Operation,
  failure: OperationFailure,
  nowMs: number,
): { readonly local: LocalTask; readonly news: boolean } {
  const idle: LocalTask = {
    ...local,
    busy: null,
    aborting: false,
    stale: false,
    // Whatever was tried may have been half done, except for pulling and looking.
    observed: operation === 'prepare' ? local.observed : 'unknown',
  };
  if (local.aborting || failure.code === 'CANCELLED') return { local: idle, news: false };
  const attempts = local.attempts + (failure.waits ? 0 : 1);
  const outages = failure.waits ? local.outages + 1 : 0;
  const wait = failure.waits ? backoffMs(outages, OUTAGE_CAP_MS) : backoffMs(attempts, RETRY_CAP_MS);
  const retrying: LocalTask = { ...idle, attempts, outages, retryAt: nowMs + wait };
  if (operation === 'stop' || operation === 'remove' || operation === 'inspect') {
    return { local: retrying, news: false };
  }
  const mayRetry =
    operation === 'start'
      ? failure.code === 'TIMEOUT'
      : isRetriable(failure.code) && attempts < PREPARE_ATTEMPTS_MAX;
  if (failure.waits || mayRetry) {
    const message = `${local.status.state}: will try again`;
    const told = local.status.error === failure.message && local.status.message === message;
    const status = { ...local.status, message, error: failure.message, at: nowMs };
    return { local: told ? retrying : { ...retrying, status }, news: !told };
  }
  const ended = fail({ ...idle, attempts: 0 }, { nowMs, complete: true, leaving: false }, failure.message);
  return { local: ended.kind === 'status' ? ended.local : idle, news: true };
}
