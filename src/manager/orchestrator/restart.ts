/**
 * PURE: restart supervision. A task that ended, or whose node is drained or gone, is replaced as its policy says.
 *
 * Invariants:
 * 1. A slot gets at most one replacement a plan, and none while a newer task of it is wanted.
 * 2. Every time compared is a leader's: `meta` stamps of the log, never `status.at`, which is a worker's clock. The
 *    death of a task is `meta.updatedAt` of its last report, so a worker's wrong clock changes no delay.
 * 3. The restarts of a slot travel from task to replacement (`restarts`), so neither the reaper nor a new leader
 *    loses count. A move off a drained or lost node is no restart and does not count.
 * 4. `finished` is decided once, when the task ends, and never reconsidered.
 * 5. A replacement that dies before its own delay is over is replaced when it is over, so that a task that cannot
 *    even be prepared is not tried again and again at full speed.
 */
import { STOP_WAIT_MS, WINDOW_RESTARTS_MAX } from '../../model/defaults.ts';
import type { ClusterNode, RestartHistory, Service, Task } from '../../model/objects.ts';
import { isTerminalState } from '../../model/task-state.ts';
import type { Plan, PlanContext } from '../state/planner.ts';
import type { StateView } from '../state/view.ts';
import { isDue } from './deadline.ts';
import { createTask, finishPlan, newDraft, patchTask, raiseDesired, wakeBy, type Draft } from './draft.ts';
import { isDrained, isLost } from './node-fit.ts';
import { isGlobal, isStopped } from './slots.ts';
import { newTask } from './task-factory.ts';

/** Why a wanted task needs a replacement. */
export type RestartCause = 'ended' | 'node-drained' | 'node-lost';

/** Why the task needs a replacement; null when it does not. A task without a node waits for the scheduler. */
export function restartCause(task: Task, node: ClusterNode | undefined): RestartCause | null {
  if (isTerminalState(task.status.state)) return 'ended';
  if (task.nodeId === '') return null;
  if (isLost(node)) return 'node-lost';
  return isDrained(node) ? 'node-drained' : null;
}

/** When the task ended, by the leader's clock; for one that was not to start yet, when it would have. */
function endedAt(task: Task): number {
  const { updatedAt } = task.meta;
  if (task.desiredState !== 'ready' || task.delayedStart === undefined) return updatedAt;
  return Math.max(updatedAt, task.delayedStart.notBefore);
}

/** Whether the task died while its start was still delayed. */
function isStillDelayed(task: Task, nowMs: number): boolean {
  if (task.desiredState !== 'ready' || task.delayedStart === undefined) return false;
  const { createdAt } = task.meta;
  return !isDue(createdAt, task.delayedStart.notBefore - createdAt, nowMs);
}

/** Restarts that count against the policy of a task that just ended. */
function countedRestarts(task: Task): number {
  const history = task.restarts;
  if (history === undefined) return 0;
  const { windowMs } = task.spec.restart;
  if (windowMs === 0) return history.count;
  const from = endedAt(task) - windowMs;
  return history.times.filter((time) => time > from).length;
}

/** Whether the policy wants a replacement. `condition: none` means the task is started once, wherever it was. */
export function mayRestart(task: Task, cause: RestartCause, isJob = false): boolean {
  const { condition, maxAttempts, windowMs } = task.spec.restart;
  if (condition === 'none') return false;
  if (cause !== 'ended') return true;
  if ((condition === 'on-failure' || isJob) && task.status.state === 'complete') return false;
  if (maxAttempts === 0) return true;
  const limit = windowMs === 0 ? maxAttempts : Math.min(maxAttempts, WINDOW_RESTARTS_MAX);
  return countedRestarts(task) < limit;
}

/** The history the replacement carries: counted per spec version, and only where the policy limits restarts. */
function historyAfter(service: Service, task: Task, cause: RestartCause): RestartHistory | undefined {
  const { maxAttempts, windowMs } = service.spec.task.restart;
  if (maxAttempts === 0) return undefined;
  const past = task.specVersion === service.specVersion ? task.restarts : undefined;
  if (cause !== 'ended') return past;
  const at = endedAt(task);
  const kept = windowMs === 0 ? [] : [...(past?.times ?? []), at].filter((time) => time > at - windowMs);
  const limit = Math.min(maxAttempts, WINDOW_RESTARTS_MAX);
  return { count: (past?.count ?? 0) + 1, times: kept.slice(-limit) };
}

/** Whether the replacement need not wait for the delay of its policy: its place has changed anyway. */
function isNodeGone(task: Task, node: ClusterNode | undefined): boolean {
  return task.nodeId !== '' && (isLost(node) || isDrained(node));
}

/**
 * The task a replacement waits for: the one it replaces, or the one that one was waiting for, if it never started
 * and that one still runs. Null when there is nothing to wait for.
 */
function predecessor(view: StateView, task: Task): Task | null {
  const earlierId = task.desiredState === 'ready' ? task.delayedStart?.afterTask : undefined;
  const before = earlierId === undefined ? undefined : view.get('task', earlierId);
  if (!isOutOfTheWay(view, before)) return before as Task;
  return isOutOfTheWay(view, task) ? null : task;
}

/** The replacement of a task: it waits for the delay and for the old one to stop, or wants to run at once. */
function replacement(draft: Draft, view: StateView, service: Service, task: Task, cause: RestartCause): Task {
  const { context } = draft;
  const node = nodeOf(view, task);
  const delayed = cause === 'ended' && !isNodeGone(task, node);
  const notBefore = delayed ? endedAt(task) + task.spec.restart.delayMs : context.nowMs;
  const before = predecessor(view, task);
  const waits =
    before !== null || (delayed && !isDue(endedAt(task), task.spec.restart.delayMs, context.nowMs));
  const restarts = historyAfter(service, task, cause);
  return newTask(
    service,
    {
      slot: task.slot,
      nodeId: isGlobal(service) ? task.nodeId : '',
      desiredState: waits ? 'ready' : runningState(service),
      ...(waits ? { delayedStart: { notBefore, afterTask: before?.id ?? task.id } } : {}),
      ...(restarts === undefined ? {} : { restarts }),
    },
    context,
  );
}

/** What a started task of the service is asked to reach. */
export function runningState(service: Service): 'running' | 'complete' {
  const { kind } = service.spec.mode;
  return kind === 'replicated-job' || kind === 'global-job' ? 'complete' : 'running';
}

/**
 * Replaces those of the wanted tasks of one slot (oldest first) that need it.
 * A task with a newer wanted one beside it is only shut down: that one is its replacement.
 * @returns whether the slot still wants a task afterwards; false when its last one ended for good.
 */
export function superviseSlot(
  draft: Draft,
  view: StateView,
  service: Service,
  wanted: readonly Task[],
): boolean {
  for (const task of wanted.slice(0, -1)) {
    if (restartCause(task, nodeOf(view, task)) !== null) raiseDesired(draft, task, 'shutdown');
  }
  const task = wanted.at(-1);
  if (task === undefined) return false;
  const node = nodeOf(view, task);
  const cause = restartCause(task, node);
  if (cause === null) return true;
  if (!mayRestart(task, cause, runningState(service) === 'complete')) {
    patchTask(draft, task, { desiredState: 'shutdown', finished: true });
    return wanted.length > 1;
  }
  if (cause === 'ended' && !isNodeGone(task, node) && isStillDelayed(task, draft.context.nowMs)) {
    wakeBy(draft, task.delayedStart?.notBefore ?? draft.context.nowMs);
    return true;
  }
  createTask(draft, replacement(draft, view, service, task, cause));
  patchTask(draft, task, { desiredState: 'shutdown' });
  return true;
}

function nodeOf(view: StateView, task: Task): ClusterNode | undefined {
  return task.nodeId === '' ? undefined : view.get('node', task.nodeId);
}

/** Whether the task before has stopped, or nothing can be learned of it any more. */
function isOutOfTheWay(view: StateView, before: Task | undefined): boolean {
  if (before === undefined || isStopped(before)) return true;
  return before.nodeId !== '' && isLost(view.get('node', before.nodeId));
}

/** Starts replacements whose delay is over and whose predecessor has stopped (or was waited for long enough). */
export function planDelayedStarts(view: StateView, context: PlanContext): Plan {
  const draft = newDraft(context);
  for (const task of view.all('task')) {
    if (task.desiredState !== 'ready' || isTerminalState(task.status.state)) continue;
    const service = view.get('service', task.serviceId);
    if (service === undefined || service.pendingDelete) continue;
    const { createdAt } = task.meta;
    const { notBefore, afterTask } = task.delayedStart ?? { notBefore: createdAt, afterTask: null };
    if (!isDue(createdAt, notBefore - createdAt, context.nowMs)) {
      wakeBy(draft, notBefore);
      continue;
    }
    const before = afterTask === null ? undefined : view.get('task', afterTask);
    if (!isOutOfTheWay(view, before) && !isDue(createdAt, STOP_WAIT_MS, context.nowMs)) {
      wakeBy(draft, createdAt + STOP_WAIT_MS);
      continue;
    }
    raiseDesired(draft, task, runningState(service));
  }
  return finishPlan(draft);
}
