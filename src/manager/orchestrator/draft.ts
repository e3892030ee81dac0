/** PURE: a plan under construction, and the actions orchestrators make most. */
import type { Service, Task } from '../../model/objects.ts';
import { taskStateRank, type DesiredState } from '../../model/task-state.ts';
import type { Action, TaskPatch } from '../state/actions.ts';
import { earlier, type Plan, type PlanContext, type PlanNote } from '../state/planner.ts';

/** Collects what one planner decides. */
export interface Draft {
  readonly context: PlanContext;
  readonly actions: Action[];
  readonly notes: PlanNote[];
  wakeAt: number | null;
}

export function newDraft(context: PlanContext): Draft {
  return { context, actions: [], notes: [], wakeAt: null };
}

export function finishPlan(draft: Draft): Plan {
  return { actions: draft.actions, wakeAt: draft.wakeAt, notes: draft.notes };
}

/** Asks to be called again at `atMs` at the latest. */
export function wakeBy(draft: Draft, atMs: number): void {
  draft.wakeAt = earlier(draft.wakeAt, atMs);
}

export function createTask(draft: Draft, task: Task): void {
  draft.actions.push({ kind: 'create', table: 'task', object: task });
}

export function patchTask(draft: Draft, task: Task, patch: TaskPatch): void {
  draft.actions.push({ kind: 'patch-task', id: task.id, patch, expect: null });
}

/** Raises the desired state; nothing when it is there or beyond. */
export function raiseDesired(draft: Draft, task: Task, desiredState: DesiredState): void {
  if (taskStateRank[task.desiredState] < taskStateRank[desiredState]) {
    patchTask(draft, task, { desiredState });
  }
}

/** Replaces the service; refused when it changed since it was read. */
export function updateService(draft: Draft, service: Service): void {
  draft.actions.push({ kind: 'update', table: 'service', object: service, expect: service.meta.version });
}
