/**
 * How far a service is from what was asked: a pure view over the service, its tasks and the nodes.
 *
 * Invariant: a view is `converged` only when no update is under way and every wanted task runs the current spec.
 */
import { sameValue } from '../stack/diff.ts';
import type { ServiceView } from '../model/api.ts';
import type { ClusterNode, Task } from '../model/objects.ts';
import { isTerminalState, taskStateRank } from '../model/task-state.ts';

/** Slots shown one by one at most; beyond, only the overall line. */
export const SLOT_LINES_MAX = 20;

export interface ProgressView {
  readonly state: 'progressing' | 'converged' | 'paused' | 'rolled-back' | 'rollback-paused';
  readonly done: number;
  readonly wanted: number;
  /** `overall progress: …`, then a line a slot. */
  readonly lines: readonly string[];
  /** Errors worth telling once, newest last. */
  readonly errors: readonly string[];
  /** What an ended update says. */
  readonly message: string;
}

const BAR_STATES = [
  'new',
  'pending',
  'assigned',
  'accepted',
  'preparing',
  'ready',
  'starting',
  'running',
] as const;

/** `[=====>   ]`, further right the nearer the task is to running. */
function bar(state: Task['status']['state']): string {
  const reached = BAR_STATES.filter((step) => taskStateRank[step] <= taskStateRank[state]).length;
  const width = BAR_STATES.length;
  return `[${'='.repeat(reached)}>${' '.repeat(width - reached)}]`;
}

interface Slot {
  readonly name: string;
  /** The task that should run, newest first. */
  readonly current: Task | undefined;
  readonly lastFailed: Task | undefined;
}

/** The view of one service now. `nodes` are all nodes of the cluster. */
export function progressView(
  service: ServiceView,
  tasks: readonly Task[],
  nodes: readonly ClusterNode[],
): ProgressView {
  const { mode } = service.spec;
  if (mode.kind === 'replicated-job' || mode.kind === 'global-job') return jobView(service, tasks);
  const slots =
    mode.kind === 'replicated' ? replicatedSlots(tasks, mode.replicas) : globalSlots(tasks, nodes);
  const wanted =
    mode.kind === 'replicated' ? mode.replicas : Math.max(slots.length, service.taskCounts.desired);
  const done = slots.filter((slot) => slot.current !== undefined && isDone(service, slot.current)).length;
  const surplus = tasks.filter(
    (task) => task.desiredState === 'running' && !isTerminalState(task.status.state),
  ).length;
  const settled = done === wanted && surplus <= wanted;
  const lines = [`overall progress: ${done} out of ${wanted} tasks`];
  if (slots.length <= SLOT_LINES_MAX) {
    for (const slot of slots)
      lines.push(slotLine(slot, mode.kind === 'replicated' ? `${slot.name}/${wanted}` : slot.name));
  }
  const outcome = updateOutcome(service);
  const state = outcome ?? (settled && !isUpdating(service) ? 'converged' : 'progressing');
  const errors = slots.flatMap((slot) => slotErrors(service, slot));
  return { state, done, wanted, lines, errors, message: service.updateStatus?.message ?? '' };
}

function isUpdating(service: ServiceView): boolean {
  const state = service.updateStatus?.state;
  return state === 'updating' || state === 'rollback_started';
}

function updateOutcome(service: ServiceView): ProgressView['state'] | null {
  switch (service.updateStatus?.state) {
    case 'paused':
      return 'paused';
    case 'rollback_paused':
      return 'rollback-paused';
    case 'rollback_completed':
      return 'rolled-back';
    default:
      return null;
  }
}

/** Running, wanted, and made from what the service asks now (where it may run does not matter). */
function isDone(service: ServiceView, task: Task): boolean {
  if (task.status.state !== 'running' || task.desiredState !== 'running') return false;
  if (task.specVersion === service.specVersion) return true;
  const placement = service.spec.task.placement;
  return sameValue({ ...task.spec, placement }, service.spec.task) && samePorts(service, task);
}

function samePorts(service: ServiceView, task: Task): boolean {
  const shape = (ports: Task['endpointPorts']): string =>
    JSON.stringify(ports.map((port) => [port.targetPort, port.protocol, port.publishMode]));
  return shape(service.spec.endpoint.ports) === shape(task.endpointPorts);
}

function newestFirst(a: Task, b: Task): number {
  return b.meta.createdAt - a.meta.createdAt || b.meta.version - a.meta.version;
}

function isWanted(task: Task): boolean {
  return task.desiredState === 'running' || task.desiredState === 'ready';
}

function slotOf(name: string, tasks: readonly Task[]): Slot {
  const sorted = [...tasks].sort(newestFirst);
  return {
    name,
    current: sorted.find((task) => isWanted(task) && !isTerminalState(task.status.state)),
    lastFailed: sorted.find((task) => task.status.error !== '' && isTerminalState(task.status.state)),
  };
}

function replicatedSlots(tasks: readonly Task[], replicas: number): Slot[] {
  const bySlot = new Map<number, Task[]>();
  for (const task of tasks) {
    if (task.desiredState === 'remove') continue;
    bySlot.set(task.slot, [...(bySlot.get(task.slot) ?? []), task]);
  }
  // Slots are usually 1..n, but the lowest may be gone for a moment while a removed one stops.
  const used = [...bySlot.keys()].filter((slot) => bySlot.get(slot)?.some(isWanted)).sort((a, b) => a - b);
  const slots = used.slice(0, replicas);
  for (let next = 1; slots.length < replicas; next++) if (!slots.includes(next)) slots.push(next);
  return slots.sort((a, b) => a - b).map((slot, i) => slotOf(String(i + 1), bySlot.get(slot) ?? []));
}

function globalSlots(tasks: readonly Task[], nodes: readonly ClusterNode[]): Slot[] {
  const byNode = new Map<string, Task[]>();
  for (const task of tasks) {
    if (task.nodeId !== '' && task.desiredState !== 'remove')
      byNode.set(task.nodeId, [...(byNode.get(task.nodeId) ?? []), task]);
  }
  return [...byNode]
    .filter(([, own]) => own.some(isWanted))
    .map(([nodeId, own]) => {
      const hostname = nodes.find((node) => node.id === nodeId)?.description.hostname;
      return slotOf(hostname ?? nodeId.slice(0, 12), own);
    })
    .sort((a, b) => a.name.localeCompare(b.name));
}

function slotLine(slot: Slot, label: string): string {
  const task = slot.current;
  if (task === undefined) {
    const failed = slot.lastFailed;
    return failed === undefined
      ? `${label}: waiting`
      : `${label}: ${failed.status.state} (${failed.status.error})`;
  }
  const waiting =
    task.status.state === 'pending' && task.status.message !== '' ? ` ${task.status.message}` : '';
  return `${label}: ${task.status.state.padEnd(9)} ${bar(task.status.state)}${waiting}`;
}

function slotErrors(service: ServiceView, slot: Slot): string[] {
  const errors: string[] = [];
  const failed = slot.lastFailed;
  if (failed !== undefined && failed.specVersion === service.specVersion) {
    errors.push(`task ${failed.id.slice(0, 12)} ${failed.status.state}: ${failed.status.error}`);
  }
  const waiting = slot.current;
  if (waiting?.status.state === 'pending' && /no suitable node/.test(waiting.status.message)) {
    errors.push(waiting.status.message);
  }
  // It is tried again (an image that cannot be pulled now); until then this is why nothing happens.
  if (waiting !== undefined && !isTerminalState(waiting.status.state) && waiting.status.error !== '') {
    errors.push(`task ${waiting.id.slice(0, 12)} ${waiting.status.state}: ${waiting.status.error}`);
  }
  return errors;
}

function jobView(service: ServiceView, tasks: readonly Task[]): ProgressView {
  const { mode } = service.spec;
  const own = tasks.filter(
    (task) => task.jobIteration === service.jobIteration && task.desiredState !== 'remove',
  );
  const done = own.filter((task) => task.status.state === 'complete').length;
  const active = own.filter((task) => !isTerminalState(task.status.state)).length;
  const wanted =
    mode.kind === 'replicated-job' ? mode.totalCompletions : Math.max(own.length, service.taskCounts.desired);
  const failed = own.filter((task) => task.status.error !== '');
  return {
    state: done >= wanted && wanted > 0 && active === 0 ? 'converged' : 'progressing',
    done,
    wanted,
    lines: [`job progress: ${done} out of ${wanted} complete`, `active tasks: ${active}`],
    errors: failed.map((task) => `task ${task.id.slice(0, 12)} ${task.status.state}: ${task.status.error}`),
    message: '',
  };
}
