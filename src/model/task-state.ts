/**
 * Task states: the one table used by code, checks and docs.
 *
 * Invariants: an observed state only rises; managers own states up to ASSIGNED, the worker the rest
 * (a manager may also mark a task of a dead node ORPHANED or FAILED).
 */

/** Every state with its rank. Only ranks are compared. */
export const taskStateRank = {
  new: 0,
  pending: 64,
  assigned: 192,
  accepted: 256,
  preparing: 320,
  ready: 384,
  starting: 448,
  running: 512,
  complete: 576,
  shutdown: 640,
  failed: 704,
  rejected: 768,
  remove: 800,
  orphaned: 832,
} as const;

export type TaskState = keyof typeof taskStateRank;

/** States a manager may ask for. */
export type DesiredState = 'ready' | 'running' | 'complete' | 'shutdown' | 'remove';

export type TaskStateOwner = 'manager' | 'worker' | 'desired-only';

/** Who may move a task into a state. */
export const taskStateOwner: Readonly<Record<TaskState, TaskStateOwner>> = {
  new: 'manager',
  pending: 'manager',
  assigned: 'manager',
  accepted: 'worker',
  preparing: 'worker',
  ready: 'worker',
  starting: 'worker',
  running: 'worker',
  complete: 'worker',
  shutdown: 'worker',
  failed: 'worker',
  rejected: 'worker',
  remove: 'desired-only',
  orphaned: 'manager',
};

/** Negative when `a` is before `b`, 0 when equal, positive when after. */
export function compareTaskStates(a: TaskState, b: TaskState): number {
  return taskStateRank[a] - taskStateRank[b];
}

/** Whether the task has ended: nothing of it runs and nothing of it ever will. */
export function isTerminalState(state: TaskState): boolean {
  return taskStateRank[state] > taskStateRank.running;
}

/** Whether `value` names a state (for values read from a peer). */
export function isTaskState(value: unknown): value is TaskState {
  return typeof value === 'string' && Object.hasOwn(taskStateRank, value);
}
