/**
 * Task statuses on their way to the managers.
 *
 * Data owned: the last status of each task that no manager has acknowledged yet.
 * Invariants: one entry a task, the newest; an entry leaves only when that very status was acknowledged, or the
 * task is forgotten. Bounded by the number of tasks on the node.
 */
import type { TaskId } from '../../model/ids.ts';
import type { StatusReport } from '../../model/wire.ts';
import type { TaskStatus } from '../../model/objects.ts';

export type Outbox = ReadonlyMap<TaskId, TaskStatus>;
export type StatusUpdates = StatusReport['updates'];

/** Adds or replaces the status of a task. */
export function post(outbox: Outbox, taskId: TaskId, status: TaskStatus): Outbox {
  return new Map(outbox).set(taskId, status);
}

/** Drops a task nobody asks about any more. */
export function forget(outbox: Outbox, taskId: TaskId): Outbox {
  if (!outbox.has(taskId)) return outbox;
  const next = new Map(outbox);
  next.delete(taskId);
  return next;
}

/** The next report: the oldest entries, at most `limit`. */
export function nextReport(outbox: Outbox, limit: number): StatusUpdates {
  const updates: { taskId: TaskId; status: TaskStatus }[] = [];
  for (const [taskId, status] of outbox) {
    if (updates.length >= limit) break;
    updates.push({ taskId, status });
  }
  return updates;
}

/** Takes out what was acknowledged, except where something newer came in meanwhile. */
export function acknowledge(outbox: Outbox, updates: StatusUpdates): Outbox {
  const next = new Map(outbox);
  for (const { taskId, status } of updates) if (next.get(taskId) === status) next.delete(taskId);
  return next;
}
