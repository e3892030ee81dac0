/**
 * The worker's reconcile machine: events in, the next state and effects out.
 *
 * Data owned: the record of every task on this node.
 * Invariants: nothing found in a runtime is removed before a complete set of assignments came in this life of
 * the worker; effects of one call are in the order they must be carried out; `wakeAt` is when the machine wants
 * a `wake` event at the latest.
 */
import { assertNever } from '../../base/assert.ts';
import type { TaskId } from '../../model/ids.ts';
import type { Task, TaskStatus } from '../../model/objects.ts';
import { compareTaskStates } from '../../model/task-state.ts';
import {
  DRAIN_MS,
  type LocalTask,
  type Observation,
  type WorkerEffect,
  type WorkerEvent,
  type WorkerState,
} from './local-task.ts';
import { advance, afterFailure } from './task-step.ts';

/** A worker that knows nothing yet. */
export function initialWorkerState(): WorkerState {
  return { tasks: new Map(), complete: false, leaving: false, sequence: 0 };
}

/** What one event leads to. */
export interface WorkerStep {
  readonly state: WorkerState;
  readonly effects: readonly WorkerEffect[];
  /** Wall-clock milliseconds; null: only events matter. */
  readonly wakeAt: number | null;
}

/** Takes one event at time `nowMs`. */
export function reconcile(state: WorkerState, event: WorkerEvent, nowMs: number): WorkerStep {
  const draft: Draft = {
    tasks: new Map(state.tasks),
    complete: state.complete,
    leaving: state.leaving,
    sequence: state.sequence,
    effects: [],
    nowMs,
  };
  for (const id of absorb(draft, event)) settleTask(draft, id);
  const { tasks, complete, leaving, sequence, effects } = draft;
  return { state: { tasks, complete, leaving, sequence }, effects, wakeAt: earliestRetry(tasks, nowMs) };
}

/** The state being built by one call. */
interface Draft {
  readonly tasks: Map<TaskId, LocalTask>;
  complete: boolean;
  leaving: boolean;
  sequence: number;
  readonly effects: WorkerEffect[];
  readonly nowMs: number;
}

/** Puts the event into the records; answers with the tasks that may have something to do now. */
function absorb(draft: Draft, event: WorkerEvent): Iterable<TaskId> {
  switch (event.kind) {
    case 'restored':
      for (const { task, status } of event.tasks) {
        draft.tasks.set(task.id, { ...newRecord(task, status), observed: 'unknown' });
      }
      return [...draft.tasks.keys()];
    case 'assignments':
      return absorbAssignments(draft, event);
    case 'listed':
      return absorbList(draft, event);
    case 'changed':
      return absorbChange(draft, event.taskId);
    case 'done':
      return absorbDone(draft, event);
    case 'failed':
      return absorbFailure(draft, event);
    case 'wake':
      return [...draft.tasks.keys()];
    case 'leave':
      draft.leaving = true;
      for (const [id, local] of draft.tasks) draft.tasks.set(id, { ...local, retryAt: null });
      return [...draft.tasks.keys()];
    default:
      return assertNever(event);
  }
}

function newRecord(task: Task, status: TaskStatus): LocalTask {
  return {
    id: task.id,
    runtime: task.spec.runtime,
    task,
    assigned: true,
    status,
    // A task no worker ever took up cannot have anything in a runtime.
    observed: compareTaskStates(status.state, 'assigned') <= 0 ? null : 'unknown',
    busy: null,
    aborting: false,
    stale: false,
    prepared: false,
    verdict: null,
    attempts: 0,
    outages: 0,
    retryAt: null,
    touched: 0,
  };
}

function absorbAssignments(
  draft: Draft,
  event: Extract<WorkerEvent, { kind: 'assignments' }>,
): Iterable<TaskId> {
  const affected = new Set<TaskId>();
  for (const task of event.put) {
    affected.add(task.id);
    const local = draft.tasks.get(task.id);
    const next = local === undefined ? newRecord(task, task.status) : reassigned(local, task, draft.nowMs);
    draft.tasks.set(task.id, next);
    if (isNews(local, task)) draft.effects.push({ kind: 'persist', task, status: next.status });
    // What the managers missed while the worker was away.
    if (local !== undefined && event.complete && differs(next.status, task.status)) {
      draft.effects.push({ kind: 'report', taskId: task.id, status: next.status });
    }
  }
  const gone = event.complete
    ? [...draft.tasks.keys()].filter((id) => !affected.has(id))
    : event.remove.filter((id) => draft.tasks.has(id));
  for (const id of gone) {
    const local = draft.tasks.get(id);
    if (local === undefined) continue;
    draft.tasks.set(id, { ...local, assigned: false, retryAt: null });
    affected.add(id);
  }
  if (event.complete) draft.complete = true;
  return affected;
}

/** Whether an assigned task says more than the managers' echo of its status. */
function isNews(local: LocalTask | undefined, task: Task): boolean {
  const known = local?.task ?? null;
  return known === null || known.desiredState !== task.desiredState || known.specVersion !== task.specVersion;
}

function reassigned(local: LocalTask, task: Task, nowMs: number): LocalTask {
  const wanted = local.task?.desiredState !== task.desiredState;
  const retryAt = wanted && isReached(local, task) ? nowMs + DRAIN_MS : null;
  // A stray that turns out to be assigned takes over what the managers know of it.
  const status = local.task === null ? task.status : local.status;
  return { ...local, task, assigned: true, status, retryAt: wanted ? retryAt : local.retryAt };
}

/**
 * Whether others may be on their way to a task that is to end now. The same change of the state took back its routes
 * on every node; those that are a moment behind must still find it.
 */
function isReached({ status }: LocalTask, task: Task): boolean {
  const ends = task.desiredState === 'shutdown' || task.desiredState === 'remove';
  return ends && status.state === 'running' && task.endpointPorts.length + task.networks.length > 0;
}

function differs(a: TaskStatus, b: TaskStatus): boolean {
  return (
    JSON.stringify([a.state, a.error, a.healthy, a.ports]) !==
    JSON.stringify([b.state, b.error, b.healthy, b.ports])
  );
}

function absorbList(draft: Draft, event: Extract<WorkerEvent, { kind: 'listed' }>): Iterable<TaskId> {
  const affected = new Set<TaskId>();
  const found = new Map(event.tasks.map((observation) => [observation.taskId, observation] as const));
  for (const [id, local] of draft.tasks) {
    if (local.runtime !== event.runtime || local.busy !== null || local.touched > event.since) continue;
    draft.tasks.set(id, {
      ...local,
      observed: found.get(id) ?? null,
      outages: 0,
      // The runtime answers again: what waited for that waits no longer.
      retryAt: local.outages > 0 ? null : local.retryAt,
    });
    affected.add(id);
  }
  for (const [id, observation] of found) {
    if (draft.tasks.has(id)) continue;
    draft.tasks.set(id, stray(observation, event, draft.nowMs));
    affected.add(id);
  }
  return affected;
}

function stray(
  observation: Observation,
  event: Extract<WorkerEvent, { kind: 'listed' }>,
  nowMs: number,
): LocalTask {
  return {
    id: observation.taskId,
    runtime: event.runtime,
    task: null,
    assigned: false,
    status: { state: 'assigned', at: nowMs, message: 'found', error: '' },
    observed: observation,
    busy: null,
    aborting: false,
    stale: false,
    prepared: false,
    verdict: null,
    attempts: 0,
    outages: 0,
    retryAt: null,
    touched: event.since,
  };
}

function absorbChange(draft: Draft, id: TaskId): Iterable<TaskId> {
  const local = draft.tasks.get(id);
  if (local === undefined) return [];
  draft.sequence += 1;
  const busy = local.busy !== null;
  draft.tasks.set(id, {
    ...local,
    observed: busy ? local.observed : 'unknown',
    stale: busy,
    touched: draft.sequence,
  });
  return [id];
}

function absorbDone(draft: Draft, event: Extract<WorkerEvent, { kind: 'done' }>): Iterable<TaskId> {
  const local = draft.tasks.get(event.taskId);
  if (local === undefined || local.busy !== event.operation) return [];
  draft.sequence += 1;
  draft.tasks.set(local.id, {
    ...local,
    busy: null,
    aborting: false,
    // Pulling does not look at the task itself.
    observed: local.stale ? 'unknown' : event.operation === 'prepare' ? local.observed : event.observed,
    stale: false,
    prepared: local.prepared || event.operation === 'prepare',
    attempts: 0,
    outages: 0,
    // Set while the operation was under way: the managers asked for something else.
    retryAt: local.retryAt,
    touched: draft.sequence,
  });
  return [local.id];
}

function absorbFailure(draft: Draft, event: Extract<WorkerEvent, { kind: 'failed' }>): Iterable<TaskId> {
  const local = draft.tasks.get(event.taskId);
  if (local === undefined || local.busy !== event.operation) return [];
  draft.sequence += 1;
  const result = afterFailure(local, event.operation, event.failure, draft.nowMs);
  draft.tasks.set(local.id, { ...result.local, touched: draft.sequence });
  if (result.news) tell(draft, result.local);
  return [local.id];
}

function tell(draft: Draft, local: LocalTask): void {
  if (local.task === null) return;
  draft.effects.push({ kind: 'persist', task: local.task, status: local.status });
  if (local.assigned) draft.effects.push({ kind: 'report', taskId: local.id, status: local.status });
}

/** Advances one task until it waits for something. */
function settleTask(draft: Draft, id: TaskId): void {
  for (;;) {
    const local = draft.tasks.get(id);
    if (local === undefined) return;
    const next = advance(local, draft);
    if (next === null) return;
    switch (next.kind) {
      case 'status':
        draft.tasks.set(id, next.local);
        tell(draft, next.local);
        break;
      case 'record':
        draft.tasks.set(id, next.local);
        break;
      case 'abort':
        draft.tasks.set(id, next.local);
        draft.effects.push({ kind: 'abort', taskId: id });
        return;
      case 'forget':
        draft.tasks.delete(id);
        draft.effects.push({ kind: 'forget', taskId: id });
        return;
      case 'run':
        draft.sequence += 1;
        draft.tasks.set(id, { ...local, busy: next.operation, retryAt: null, touched: draft.sequence });
        draft.effects.push({
          kind: 'run',
          taskId: id,
          runtime: local.runtime,
          operation: next.operation,
          task: local.task,
        });
        return;
      default:
        assertNever(next);
    }
  }
}

function earliestRetry(tasks: ReadonlyMap<TaskId, LocalTask>, nowMs: number): number | null {
  let earliest: number | null = null;
  for (const { retryAt, busy } of tasks.values()) {
    if (busy !== null || retryAt === null || retryAt <= nowMs) continue;
    if (earliest === null || retryAt < earliest) earliest = retryAt;
  }
  return earliest;
}
