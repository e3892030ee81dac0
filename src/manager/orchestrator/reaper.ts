/**
 * PURE: what leaves the state. Tasks that are over, services whose tasks are gone, tasks of nodes lost for good.
 *
 * Invariants: a task that a worker may still run is never deleted while its node is known; a task still wanted is
 * never deleted; failures that an update under way counts, and the record that a slot is finished, are kept.
 */
import { defaultClusterSpec } from '../../model/defaults.ts';
import type { ClusterNode, Service, Task } from '../../model/objects.ts';
import { isTerminalState, taskStateRank } from '../../model/task-state.ts';
import type { Plan, PlanContext } from '../state/planner.ts';
import type { StateView } from '../state/view.ts';
import { isDue } from './deadline.ts';
import { finishPlan, newDraft, patchTask, raiseDesired, wakeBy, type Draft } from './draft.ts';
import { byCreation, isMadeByUpdate, isStopped, slotKey } from './slots.ts';

/** Plans everything that can be dropped. */
export function planReaping(view: StateView, context: PlanContext): Plan {
  const draft = newDraft(context);
  const [cluster] = view.all('cluster');
  const { taskHistoryLimit, orphanAfterMs } = cluster?.spec ?? defaultClusterSpec;
  for (const node of view.all('node')) orphanTasks(draft, view, node, orphanAfterMs);

  const dropped = new Set<string>();
  const ended = new Map<Service, Task[]>();
  for (const task of view.all('task')) {
    const service = view.get('service', task.serviceId);
    if (isDisposable(view, task, service)) {
      drop(draft, task);
      dropped.add(task.id);
    } else if (service === undefined) raiseDesired(draft, task, 'remove');
    else if (isHistory(task)) push(ended, service, task);
  }
  for (const [service, tasks] of ended) trimHistory(draft, view, service, tasks, taskHistoryLimit);

  for (const service of view.all('service')) {
    if (!service.pendingDelete) continue;
    const left = [...view.tasksOfService(service.id)].some((task) => !dropped.has(task.id));
    if (left) continue;
    draft.actions.push({ kind: 'delete', table: 'service', id: service.id, expect: service.meta.version });
  }
  return finishPlan(draft);
}

function push<K>(groups: Map<K, Task[]>, key: K, task: Task): void {
  const group = groups.get(key);
  if (group === undefined) groups.set(key, [task]);
  else group.push(task);
}

function drop(draft: Draft, task: Task): void {
  draft.actions.push({ kind: 'delete', table: 'task', id: task.id, expect: null });
}

/** Whether the managers asked the task to end. */
function isToEnd(task: Task): boolean {
  return taskStateRank[task.desiredState] >= taskStateRank.shutdown;
}

/** Whether nothing needs the task any more: asked to go and stopped, never given to a node, or its node removed. */
function isDisposable(view: StateView, task: Task, service: Service | undefined): boolean {
  const leaves = service === undefined || task.desiredState === 'remove';
  if (!leaves && !isToEnd(task)) return false;
  if (leaves && isStopped(task)) return true;
  if (isStopped(task) && !isTerminalState(task.status.state)) return task.update === undefined;
  return task.nodeId !== '' && view.get('node', task.nodeId) === undefined;
}

/** Whether the task is kept only to be looked at. */
function isHistory(task: Task): boolean {
  return task.desiredState === 'shutdown' && isStopped(task);
}

/** Deletes the oldest of a service's ended tasks where a slot has more tasks than the limit (below 0: no limit). */
function trimHistory(draft: Draft, view: StateView, service: Service, ended: Task[], limit: number): void {
  if (limit < 0 || ended.length === 0) return;
  const slots = new Map<string, Task[]>();
  for (const task of ended) push(slots, slotKey(service, task), task);
  const crowded = [...slots.values()].some((tasks) => tasks.length >= limit);
  if (!crowded) return;

  const counts = new Map<string, number>();
  const newest = new Map<string, Task>();
  for (const task of view.tasksOfService(service.id)) {
    const key = slotKey(service, task);
    counts.set(key, (counts.get(key) ?? 0) + 1);
    const known = newest.get(key);
    if (known === undefined || byCreation(known, task) < 0) newest.set(key, task);
  }
  for (const [key, tasks] of slots) {
    let excess = (counts.get(key) ?? 0) - limit;
    for (const task of tasks.sort(byCreation)) {
      if (excess <= 0) break;
      if (isCounted(service, task) || (task.finished === true && newest.get(key) === task)) continue;
      drop(draft, task);
      excess--;
    }
  }
}

/** Whether an update under way reads its progress from the task. */
function isCounted(service: Service, task: Task): boolean {
  const status = service.updateStatus;
  if (status?.state !== 'updating' && status?.state !== 'rollback_started') return false;
  return isMadeByUpdate(service, status, task);
}

/** Gives up the tasks of a node that has been DOWN for too long. */
function orphanTasks(draft: Draft, view: StateView, node: ClusterNode, orphanAfterMs: number): void {
  if (node.status.state !== 'down') return;
  const { nowMs } = draft.context;
  const since = node.status.since ?? node.meta.updatedAt;
  for (const task of view.tasksOfNode(node.id)) {
    const rank = taskStateRank[task.status.state];
    if (rank < taskStateRank.assigned || rank > taskStateRank.running) continue;
    if (!isDue(since, orphanAfterMs, nowMs)) {
      wakeBy(draft, since + orphanAfterMs);
      return;
    }
    const message = 'the node was down for too long; the task is given up';
    patchTask(draft, task, { status: { ...task.status, state: 'orphaned', at: nowMs, message } });
  }
}
