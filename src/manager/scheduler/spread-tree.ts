/**
 * Nodes that can take a group of tasks, ordered: a tree with one level a spread preference, a heap at each leaf.
 *
 * Owns: the tree of one group, built once and updated after each assignment, so that placing a task costs the
 * logarithm of the nodes and not a sort.
 * Invariants: a heap's top is its best node (fewest failures from FAILURES_MIN on, then tasks of the service, then
 * tasks, then lowest id); a branch's `tasks` counts the service's tasks on all its nodes, usable or not.
 */
import { spreadValue } from '../../model/constraint.ts';
import type { ServiceId } from '../../model/ids.ts';
import type { NodeInfo } from './node-info.ts';

/** Failures of a service version on a node, within the window, from which the node is used last. */
export const FAILURES_MIN = 5;

interface Branch {
  /** Active tasks of the service below. */
  tasks: number;
  /** Branches that still have room; null at a leaf. */
  children: Branch[] | null;
  readonly heap: NodeInfo[];
}

/** Where the next task of a group goes. */
export interface SpreadTree {
  /** The best node left, or null when none has room. */
  best(): NodeInfo | null;
  /** To be called after a task was added to the node `best` returned; `fits`: whether it can take another. */
  placed(fits: boolean): void;
}

/** Negative when `a` should be used before `b`. */
export function nodeOrder(serviceId: ServiceId, version: string): (a: NodeInfo, b: NodeInfo) => number {
  const faults = (info: NodeInfo): number => {
    const count = info.failures.size === 0 ? 0 : (info.failures.get(version) ?? 0);
    return count >= FAILURES_MIN ? count : 0;
  };
  return (a, b) =>
    faults(a) - faults(b) ||
    (a.activeByService.get(serviceId) ?? 0) - (b.activeByService.get(serviceId) ?? 0) ||
    a.activeTasks - b.activeTasks ||
    a.index - b.index;
}

function siftDown(heap: NodeInfo[], start: number, order: (a: NodeInfo, b: NodeInfo) => number): void {
  let at = start;
  const item = heap[at] as NodeInfo;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && order(heap[child + 1] as NodeInfo, heap[child] as NodeInfo) < 0) child++;
    if (order(item, heap[child] as NodeInfo) <= 0) break;
    heap[at] = heap[child] as NodeInfo;
    at = child;
  }
  heap[at] = item;
}

function heapify(heap: NodeInfo[], order: (a: NodeInfo, b: NodeInfo) => number): void {
  for (let at = (heap.length >> 1) - 1; at >= 0; at--) siftDown(heap, at, order);
}

function removeTop(heap: NodeInfo[], order: (a: NodeInfo, b: NodeInfo) => number): void {
  const last = heap.pop();
  if (heap.length === 0 || last === undefined) return;
  heap[0] = last;
  siftDown(heap, 0, order);
}

/** Grows the tree from all nodes; only those `accepts` takes become usable. Empty branches are cut. */
function grow(
  nodes: readonly NodeInfo[],
  keys: readonly string[],
  serviceId: ServiceId,
  accepts: (info: NodeInfo) => boolean,
  order: (a: NodeInfo, b: NodeInfo) => number,
): Branch {
  const tasks = nodes.reduce((sum, info) => sum + (info.activeByService.get(serviceId) ?? 0), 0);
  const [key, ...rest] = keys;
  if (key === undefined) {
    const heap = nodes.filter(accepts);
    heapify(heap, order);
    return { tasks, children: null, heap };
  }
  const groups = Map.groupBy(nodes, (info) => spreadValue(key, info.node));
  const children = [...groups.values()].map((group) => grow(group, rest, serviceId, accepts, order));
  return { tasks, children: children.filter(hasRoom), heap: [] };
}

function hasRoom(branch: Branch): boolean {
  return branch.children === null ? branch.heap.length > 0 : branch.children.length > 0;
}

/** Builds the tree of one group. `keys` are spread keys, outermost first. */
export function buildSpreadTree(
  nodes: readonly NodeInfo[],
  group: { readonly serviceId: ServiceId; readonly version: string; readonly keys: readonly string[] },
  accepts: (info: NodeInfo) => boolean,
): SpreadTree {
  const order = nodeOrder(group.serviceId, group.version);
  const root = grow(nodes, group.keys, group.serviceId, accepts, order);

  const bestOf = (branch: Branch): NodeInfo | null => {
    if (branch.children === null) return branch.heap[0] ?? null;
    const child = chooseChild(branch.children);
    return child === null ? null : bestOf(child);
  };
  /** The branch with the fewest tasks; among equals the one with the better node, so that load evens out. */
  const chooseChild = (children: readonly Branch[]): Branch | null => {
    let chosen: Branch | null = null;
    let chosenBest: NodeInfo | null = null;
    for (const child of children) {
      if (chosen !== null && child.tasks > chosen.tasks) continue;
      const best = bestOf(child);
      if (best === null) continue;
      if (
        chosen === null ||
        chosenBest === null ||
        child.tasks < chosen.tasks ||
        order(best, chosenBest) < 0
      ) {
        chosen = child;
        chosenBest = best;
      }
    }
    return chosen;
  };

  let path: Branch[] = [];
  return {
    best() {
      path = [root];
      let branch = root;
      while (branch.children !== null) {
        const child = chooseChild(branch.children);
        if (child === null) return null;
        path.push(child);
        branch = child;
      }
      return branch.heap[0] ?? null;
    },
    placed(fits) {
      for (const branch of path) branch.tasks++;
      const leaf = path.at(-1) as Branch;
      if (fits) siftDown(leaf.heap, 0, order);
      else removeTop(leaf.heap, order);
      for (let depth = path.length - 1; depth > 0; depth--) {
        const branch = path[depth] as Branch;
        const parent = path[depth - 1] as Branch;
        if (!hasRoom(branch)) parent.children = parent.children?.filter((child) => child !== branch) ?? null;
      }
    },
  };
}
