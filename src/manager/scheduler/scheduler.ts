/**
 * The scheduler: waiting tasks to nodes. A planner: same view and time, same plan.
 *
 * Invariants: a task is assigned only to a node that passes every filter with all earlier assignments of the plan
 * counted; preassigned tasks go first; the same input gives the same placement; a task that cannot be placed keeps
 * its reason, rewritten only when the reason changes (counts alone at most once in REASON_REFRESH_MS).
 */
import type { NodeId } from '../../model/ids.ts';
import type { Task } from '../../model/objects.ts';
import type { Action } from '../state/actions.ts';
import { earlier, emptyPlan, type Plan, type PlanContext, type PlanNote } from '../state/planner.ts';
import type { StateView } from '../state/view.ts';
import { preparePipeline, type Pipeline } from './filters.ts';
import { addTask, readState, versionKey, type NodeInfo, type SchedulerState } from './node-info.ts';
import { buildSpreadTree } from './spread-tree.ts';

/** Status text of a task that was just assigned. */
export const ASSIGNED_MESSAGE = 'scheduler assigned task to node';

/** Node counts in a reason are brought up to date at most this often, however often nodes come and go. */
export const REASON_REFRESH_MS = 30_000;

/** Actions under construction. */
interface Draft {
  readonly nowMs: number;
  readonly actions: Action[];
  /** Tasks that found no node, to be explained once all others are placed, so that the reason holds. */
  readonly unplaced: Unplaced[];
  assigned: number;
  wakeAt: number | null;
}

interface Unplaced {
  readonly tasks: readonly Task[];
  readonly pipeline: Pipeline;
  /** Nodes that were looked at. */
  readonly nodes: readonly NodeInfo[];
}

/** Plans the placement of every task in PENDING. */
export function planScheduling(view: StateView, context: PlanContext): Plan {
  const state = readState(view, context.nowMs);
  if (state === null) return emptyPlan;
  const draft: Draft = { nowMs: context.nowMs, actions: [], unplaced: [], assigned: 0, wakeAt: null };

  const groups = new Map<string, Task[]>();
  for (const task of state.pending) {
    if (task.nodeId !== '') {
      placePreassigned(state, task, draft);
      continue;
    }
    const key = versionKey(task);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [task]);
    else group.push(task);
  }
  for (const group of groups.values()) placeGroup(state, group, draft);
  for (const { tasks, pipeline, nodes } of draft.unplaced) {
    const reason = pipeline.explain(nodes);
    for (const task of tasks) explainTask(task, reason, draft);
  }
  return { actions: draft.actions, wakeAt: draft.wakeAt, notes: notesOf(draft) };
}

function notesOf(draft: Draft): readonly PlanNote[] {
  if (draft.assigned === 0) return [];
  const unplaced = draft.unplaced.reduce((sum, { tasks }) => sum + tasks.length, 0);
  return [{ message: 'tasks scheduled', fields: { assigned: draft.assigned, unplaced } }];
}

/** A task with a preset node (global services) is only checked for fit. */
function placePreassigned(state: SchedulerState, task: Task, draft: Draft): void {
  const info = state.byId.get(task.nodeId as NodeId);
  // Without its node the task is the orchestrator's to remove.
  if (info === undefined) return;
  const pipeline = preparePipeline(task);
  if (pipeline.accepts(info)) assign(task, info, draft);
  else draft.unplaced.push({ tasks: [task], pipeline, nodes: [info] });
}

/** Places tasks of one service and spec version, which all pass or fail the same filters. */
function placeGroup(state: SchedulerState, tasks: readonly Task[], draft: Draft): void {
  const first = tasks[0] as Task;
  const pipeline = preparePipeline(first);
  const tree = buildSpreadTree(
    state.nodes,
    {
      serviceId: first.serviceId,
      version: versionKey(first),
      keys: first.spec.placement.preferences.map((preference) => preference.spread),
    },
    pipeline.accepts,
  );
  for (const [index, task] of tasks.entries()) {
    const info = tree.best();
    if (info === null) {
      draft.unplaced.push({ tasks: tasks.slice(index), pipeline, nodes: state.nodes });
      return;
    }
    assign(task, info, draft);
    tree.placed(pipeline.accepts(info));
  }
}

function assign(task: Task, info: NodeInfo, draft: Draft): void {
  const generic = task.spec.resources.reservations?.generic;
  draft.actions.push({
    kind: 'patch-task',
    id: task.id,
    expect: task.meta.version,
    patch: {
      nodeId: info.node.id,
      status: { state: 'assigned', at: draft.nowMs, message: ASSIGNED_MESSAGE, error: '' },
      ...(generic === undefined || Object.keys(generic).length === 0 ? {} : { genericResources: generic }),
    },
  });
  draft.assigned++;
  addTask(info, task);
}

/** The reason without its numbers: what must differ for the text to be rewritten at once. */
function withoutCounts(reason: string): string {
  return reason.replace(/\b\d+ nodes?\b/g, '# nodes');
}

function explainTask(task: Task, reason: string, draft: Draft): void {
  const { status } = task;
  if (status.error === reason) return;
  const refreshAt = status.at + REASON_REFRESH_MS;
  if (withoutCounts(status.error) === withoutCounts(reason) && draft.nowMs < refreshAt) {
    draft.wakeAt = earlier(draft.wakeAt, refreshAt);
    return;
  }
  draft.actions.push({
    kind: 'patch-task',
    id: task.id,
    expect: task.meta.version,
    patch: { status: { ...status, at: draft.nowMs, message: reason, error: reason } },
  });
}
