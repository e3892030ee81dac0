/**
 * PURE: how far the update of one service has come, read from the marks on the tasks it made.
 *
 * Invariants:
 * 1. A mark gets `runningAt` when its task is first seen up and `failedAt` when it is counted as a failure; neither
 *    is ever taken back, so counts survive a new leader and a reaped history.
 * 2. All times are leaders': marks and `meta` stamps. A task that ended before it was seen up never ran for long.
 * 3. A task that was stopped on purpose (drain, scale-down) is no failure of the update.
 */
import { UPDATE_START_DEADLINE_MS } from '../../model/defaults.ts';
import type { Service, Task, TaskUpdateMark, UpdateStatus } from '../../model/objects.ts';
import type { UpdateConfig } from '../../model/spec.ts';
import { isTerminalState, taskStateRank } from '../../model/task-state.ts';
import { isDue } from '../orchestrator/deadline.ts';
import { patchTask, wakeBy, type Draft } from '../orchestrator/draft.ts';
import { byCreation, isActive, isMadeByUpdate, isUp, slotKey } from '../orchestrator/slots.ts';

/** What the updater decides by. */
export interface UpdateProgress {
  /** Keys of the slots this update has made a task for. */
  readonly attempted: ReadonlySet<string>;
  /** Tasks on their way to RUNNING, or settled for less than the delay: each takes one place of `parallelism`. */
  readonly busy: number;
  readonly failures: number;
  /** The newest failure: the one a pause or rollback is laid at the door of. */
  readonly lastFailed: Task | null;
  /** When the last task settled; null while none has. */
  readonly settledAt: number | null;
}

/** Whether the task ended by itself. */
function endedByItself(task: Task): boolean {
  const { state } = task.status;
  return state === 'failed' || state === 'rejected' || state === 'complete';
}

/** Since when the task has made no progress towards RUNNING. A worker that reports pulling keeps it alive. */
function lastProgress(task: Task): number {
  const withWorker = taskStateRank[task.status.state] >= taskStateRank.assigned;
  return withWorker ? Math.max(task.meta.createdAt, task.meta.updatedAt) : task.meta.createdAt;
}

/** The mark as it should now read. */
function nextMark(task: Task, mark: TaskUpdateMark, config: UpdateConfig, nowMs: number): TaskUpdateMark {
  if (mark.failedAt !== undefined) return mark;
  if (mark.runningAt === undefined) {
    if (isUp(task)) return { ...mark, runningAt: nowMs };
    const stuck = isActive(task) && isDue(lastProgress(task), UPDATE_START_DEADLINE_MS, nowMs);
    return endedByItself(task) || stuck ? { ...mark, failedAt: nowMs } : mark;
  }
  if (!endedByItself(task)) return mark;
  const ranMs = task.meta.updatedAt - mark.runningAt;
  return ranMs <= config.monitorMs ? { ...mark, failedAt: nowMs } : mark;
}

/**
 * Reads the progress of the update, and plans the marks that are due.
 * @param ending ids of tasks that this plan asks to stop, should the update go on.
 */
export function readProgress(
  draft: Draft,
  service: Service,
  status: UpdateStatus,
  config: UpdateConfig,
  tasks: Iterable<Task>,
  ending: ReadonlySet<string>,
): UpdateProgress {
  const { nowMs } = draft.context;
  const made = [...tasks].filter((task) => isMadeByUpdate(service, status, task)).sort(byCreation);
  const attempted = new Set<string>();
  let busy = 0;
  let failures = 0;
  let lastFailed: Task | null = null;
  let lastFailedAt = 0;
  let settledAt: number | null = null;
  for (const task of made) {
    attempted.add(slotKey(service, task));
    const mark = task.update as TaskUpdateMark;
    const next = nextMark(task, mark, config, nowMs);
    if (next !== mark) patchTask(draft, task, { update: next });
    if (next.failedAt !== undefined) {
      failures++;
      if (next.failedAt >= lastFailedAt) [lastFailed, lastFailedAt] = [task, next.failedAt];
    }
    const settled = next.runningAt ?? next.failedAt;
    if (settled !== undefined) {
      settledAt = Math.max(settledAt ?? settled, settled);
      if (isDue(settled, config.delayMs, nowMs)) continue;
      busy++;
      wakeBy(draft, settled + config.delayMs);
    } else if (isActive(task) && !ending.has(task.id) && !isTerminalState(task.status.state)) {
      busy++;
      wakeBy(draft, lastProgress(task) + UPDATE_START_DEADLINE_MS);
    }
  }
  return { attempted, busy, failures, lastFailed, settledAt };
}
