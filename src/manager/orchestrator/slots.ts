/**
 * PURE: the tasks of a service by slot (replicated) or node (global), and the order of scaling down.
 *
 * Invariants: a task with desired state REMOVE belongs to no slot; tasks of a slot are oldest first; a slot is
 * occupied while a task is wanted there, or its last one ended for good.
 */
import type { NodeId } from '../../model/ids.ts';
import type { Service, Task, UpdateStatus } from '../../model/objects.ts';
import { isTerminalState, taskStateRank } from '../../model/task-state.ts';
import type { StateView } from '../state/view.ts';

/** One slot of a replicated service, or one node of a global one. */
export interface Slot {
  /** Slot number as text, or node id. */
  readonly key: string;
  readonly number: number;
  /** '' for replicated services. */
  readonly nodeId: NodeId | '';
  readonly tasks: readonly Task[];
  /** Those wanted: desired READY or RUNNING. */
  readonly active: readonly Task[];
  /** The last task, when it ended and is not to be replaced. */
  readonly finished: Task | null;
}

/** Whether the managers want the task to run. */
export function isActive(task: Task): boolean {
  return taskStateRank[task.desiredState] <= taskStateRank.running;
}

/** Whether the task has ended, or can never begin: no worker was told of it and none will be. */
export function isStopped(task: Task): boolean {
  if (isTerminalState(task.status.state)) return true;
  const told = taskStateRank[task.status.state] >= taskStateRank.assigned;
  return !told && taskStateRank[task.desiredState] >= taskStateRank.shutdown;
}

/** Whether the task does its work: running, and no health check says otherwise. */
export function isUp(task: Task): boolean {
  return task.status.state === 'running' && task.status.healthy !== false;
}

/**
 * Order of creation: by spec version first, which no clock can turn round. Of tasks made in the same millisecond
 * the ones asked to end come first, the one that finished its slot last; ids settle the rest, so that the order of a
 * table's iteration never matters.
 */
export function byCreation(a: Task, b: Task): number {
  return (
    a.specVersion - b.specVersion ||
    a.meta.createdAt - b.meta.createdAt ||
    taskStateRank[b.desiredState] - taskStateRank[a.desiredState] ||
    Number(a.finished === true) - Number(b.finished === true) ||
    (a.id < b.id ? -1 : 1)
  );
}

/** Whether the task was made by the update (or rollback) that `status` tells of. */
export function isMadeByUpdate(service: Service, status: UpdateStatus, task: Task): boolean {
  return task.specVersion === service.specVersion && task.update?.startedAt === status.startedAt;
}

/** Whether tasks of the service belong to nodes instead of slots. */
export function isGlobal(service: Service): boolean {
  return service.spec.mode.kind === 'global' || service.spec.mode.kind === 'global-job';
}

/** The key of the slot a task belongs to. */
export function slotKey(service: Service, task: Task): string {
  return isGlobal(service) ? task.nodeId : String(task.slot);
}

function makeSlot(service: Service, key: string, tasks: Task[]): Slot {
  if (tasks.length > 1) tasks.sort(byCreation);
  const active = tasks.filter(isActive);
  const last = tasks.at(-1);
  return {
    key,
    number: last?.slot ?? 0,
    nodeId: isGlobal(service) ? (last?.nodeId ?? '') : '',
    tasks,
    active,
    finished: active.length === 0 && last?.finished === true ? last : null,
  };
}

/** Every slot that has tasks, lowest first (by number, then node id). */
export function slotsOf(view: StateView, service: Service): Slot[] {
  const groups = new Map<string, Task[]>();
  for (const task of view.tasksOfService(service.id)) {
    if (task.desiredState === 'remove') continue;
    const key = slotKey(service, task);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [task]);
    else group.push(task);
  }
  return [...groups]
    .map(([key, tasks]) => makeSlot(service, key, tasks))
    .sort((a, b) => a.number - b.number || (a.key < b.key ? -1 : 1));
}

export function isOccupied(slot: Slot): boolean {
  return slot.active.length > 0 || slot.finished !== null;
}

/** The task that stands for the slot in the order of scaling down: one that runs, else the newest. */
function standIn(slot: Slot): Task | undefined {
  return slot.active.find((task) => task.status.state === 'running') ?? slot.active.at(-1);
}

/**
 * Occupied slots, the ones to keep first: so that the most crowded nodes lose first, of those the slots that do
 * not run, of those the highest. What has no node yet, and what has ended, goes before everything else.
 */
export function keepOrder(slots: readonly Slot[]): Slot[] {
  const ranked = slots.map((slot) => {
    const task = standIn(slot);
    return { slot, nodeId: task?.nodeId ?? '', running: task?.status.state === 'running', copy: 0 };
  });
  ranked.sort((a, b) => Number(b.running) - Number(a.running) || a.slot.number - b.slot.number);
  const copies = new Map<string, number>();
  for (const entry of ranked) {
    if (entry.nodeId === '') {
      entry.copy = Number.POSITIVE_INFINITY;
      continue;
    }
    entry.copy = (copies.get(entry.nodeId) ?? 0) + 1;
    copies.set(entry.nodeId, entry.copy);
  }
  // A stable sort: within one copy number the order above holds. Infinities are equal, so no subtraction.
  ranked.sort((a, b) => (a.copy === b.copy ? 0 : a.copy < b.copy ? -1 : 1));
  return ranked.map((entry) => entry.slot);
}
