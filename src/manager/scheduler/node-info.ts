/**
 * What the scheduler knows of each node: its tasks counted, its resources left, its host ports, its failures.
 *
 * Owns: one NodeInfo a node, built from the view for one plan and updated as the plan assigns tasks.
 * Invariants: `index` is the node's place by id, the last tie-break; reservations and host ports are held
 * until a task leaves RUNNING, whatever is desired of it; only tasks that are wanted count as load.
 */
import type { NodeId, ServiceId, TaskId } from '../../model/ids.ts';
import type { ClusterNode, Task } from '../../model/objects.ts';
import {
  offeredResources,
  resourceClaim,
  takeClaim,
  type AvailableResources,
} from '../../model/resource-claims.ts';
import { taskStateRank } from '../../model/task-state.ts';
import type { StateView } from '../state/view.ts';

/** Time in which failures of a service version on a node count against the node. */
export const FAILURE_WINDOW_MS = 5 * 60_000;

/** A node and what tasks take of it. */
export interface NodeInfo {
  readonly index: number;
  readonly node: ClusterNode;
  /** READY and active: may take new tasks. */
  readonly takesTasks: boolean;
  activeTasks: number;
  readonly activeByService: Map<ServiceId, number>;
  readonly available: AvailableResources;
  /** `tcp/8080` of host-mode ports. */
  readonly hostPorts: Set<string>;
  /** Recent failures by {@link versionKey}. */
  readonly failures: Map<string, number>;
}

/** Names one spec version of one service. */
export function versionKey(task: Pick<Task, 'serviceId' | 'specVersion'>): string {
  return `${task.serviceId}/${task.specVersion}`;
}

/** The host-mode ports with a fixed number that a task needs on its node. */
export function hostPortKeys(task: Pick<Task, 'endpointPorts'>): readonly string[] {
  return task.endpointPorts
    .filter((port) => port.publishMode === 'host' && port.publishedPort !== 0)
    .map((port) => `${port.protocol}/${port.publishedPort}`);
}

/** A node without tasks. */
export function newNodeInfo(node: ClusterNode, index: number): NodeInfo {
  return {
    index,
    node,
    takesTasks: node.status.state === 'ready' && node.spec.availability === 'active',
    activeTasks: 0,
    activeByService: new Map(),
    available: offeredResources(node),
    hostPorts: new Set(),
    failures: new Map(),
  };
}

/** Whether the task still counts as load of its service: not asked to shut down or to go. */
export function isWanted(task: Task): boolean {
  return task.desiredState !== 'shutdown' && task.desiredState !== 'remove';
}

/** Adds an assigned task to its node. */
export function addTask(info: NodeInfo, task: Task): void {
  takeClaim(info.available, resourceClaim(task));
  for (const key of hostPortKeys(task)) info.hostPorts.add(key);
  if (!isWanted(task)) return;
  info.activeTasks++;
  info.activeByService.set(task.serviceId, (info.activeByService.get(task.serviceId) ?? 0) + 1);
}

function addFailure(info: NodeInfo, task: Task, nowMs: number): void {
  const failed = task.status.state === 'failed' || task.status.state === 'rejected';
  if (!failed || task.status.at <= nowMs - FAILURE_WINDOW_MS) return;
  const key = versionKey(task);
  info.failures.set(key, (info.failures.get(key) ?? 0) + 1);
}

/** What a plan starts from. */
export interface SchedulerState {
  readonly nodes: readonly NodeInfo[];
  readonly byId: ReadonlyMap<NodeId, NodeInfo>;
  /** Wanted tasks in PENDING, in the view's order. */
  readonly pending: readonly Task[];
}

/** Whether the task waits for the scheduler. */
function isWaiting(task: Task): boolean {
  return task.status.state === 'pending' && isWanted(task);
}

/** Reads the view; null when no task waits (the common case, found without looking at nodes). */
export function readState(view: StateView, nowMs: number): SchedulerState | null {
  const pending: Task[] = [];
  for (const task of view.all('task')) if (isWaiting(task)) pending.push(task);
  if (pending.length === 0) return null;

  return { ...readNodes(view, nowMs), pending };
}

/** Every node with what its tasks take of it. `without`: a task that is not counted. */
export function readNodes(
  view: StateView,
  nowMs: number,
  without: TaskId | null = null,
): Omit<SchedulerState, 'pending'> {
  const nodes: NodeInfo[] = [];
  const byId = new Map<NodeId, NodeInfo>();
  // By id: the order of the view may differ between replicas that loaded a checkpoint at different times.
  for (const node of [...view.all('node')].toSorted((a, b) => (a.id < b.id ? -1 : 1))) {
    const info = newNodeInfo(node, nodes.length);
    nodes.push(info);
    byId.set(node.id, info);
  }
  for (const task of view.all('task')) {
    if (task.nodeId === '' || task.id === without) continue;
    const info = byId.get(task.nodeId);
    if (info === undefined) continue;
    const rank = taskStateRank[task.status.state];
    if (rank > taskStateRank.running) addFailure(info, task, nowMs);
    else if (rank >= taskStateRank.assigned) addTask(info, task);
  }
  return { nodes, byId };
}
