/**
 * PURE: rebalancing. Moves tasks of services that ask for it to nodes that came back or joined.
 *
 * Invariants:
 * 1. Start-first: the task that is moved is asked to stop only once the new one is up, so a move never lowers the
 *    number of running tasks.
 * 2. Every move lowers, at the outermost level where the two places differ (branch of a preference, else node), a
 *    count that is at least `margin` (2 or more) above the other's. The sum of their squares falls with each move, so
 *    moves end, and none is ever taken back.
 * 3. At most `maxMoves` moves of a service are under way; none begins while an update runs or a slot is not up.
 * 4. A node gets tasks only after its record has been unchanged for `cooldownMs`; after a move that failed the service
 *    waits as long. Both follow from stored times, so a new leader goes on where the old one stopped.
 */
import { spreadValue } from '../../model/constraint.ts';
import { UPDATE_START_DEADLINE_MS } from '../../model/defaults.ts';
import type { NodeId } from '../../model/ids.ts';
import type { Service, Task } from '../../model/objects.ts';
import type { RebalanceConfig } from '../../model/spec.ts';
import { isTerminalState } from '../../model/task-state.ts';
import { preparePipeline } from '../scheduler/filters.ts';
import { addTask, readNodes, versionKey, type NodeInfo } from '../scheduler/node-info.ts';
import { buildSpreadTree, FAILURES_MIN } from '../scheduler/spread-tree.ts';
import type { Plan, PlanContext } from '../state/planner.ts';
import type { StateView } from '../state/view.ts';
import { isDue } from './deadline.ts';
import { createTask, finishPlan, newDraft, raiseDesired, wakeBy, type Draft } from './draft.ts';
import { isOccupied, isStopped, isUp, slotsOf, type Slot } from './slots.ts';
import { newTask } from './task-factory.ts';

/** Plans the moves of every service that asks for rebalancing, and ends those under way. */
export function planRebalancing(view: StateView, context: PlanContext): Plan {
  const draft = newDraft(context);
  for (const service of view.all('service')) {
    if (service.pendingDelete || service.spec.mode.kind !== 'replicated') continue;
    const slots = slotsOf(view, service);
    const moving = slots.filter((slot) => slot.active.some((task) => task.movedFrom !== undefined));
    const planned = draft.actions.length;
    const underWay = moving.filter((slot) => followMove(draft, view, service, slot)).length;
    // What just ended shows in the state of the next turn: whether it failed, and what is free.
    if (draft.actions.length > planned) continue;
    const config = service.spec.rebalance;
    if (config === undefined || underWay >= config.maxMoves) continue;
    if (isSettled(draft, view, service, config, slots)) {
      beginMoves(draft, view, service, config, slots, underWay);
    }
  }
  return finishPlan(draft);
}

function isUpdating(service: Service): boolean {
  const state = service.updateStatus?.state;
  return state !== undefined && state !== 'completed' && state !== 'rollback_completed';
}

/** Ends a move that is done or has failed. @returns whether it is still under way. */
function followMove(draft: Draft, view: StateView, service: Service, slot: Slot): boolean {
  const task = slot.active.findLast((one) => one.movedFrom !== undefined);
  const old = task?.movedFrom === undefined ? undefined : view.get('task', task.movedFrom);
  // Once the old task is on its way out, the new one is a task like any other.
  if (task === undefined || old === undefined || !slot.active.includes(old)) return false;
  if (isUp(task)) {
    raiseDesired(draft, old, 'shutdown');
    return false;
  }
  const deadline = task.meta.createdAt + UPDATE_START_DEADLINE_MS;
  const isLate = isDue(task.meta.createdAt, UPDATE_START_DEADLINE_MS, draft.context.nowMs);
  const cannotBePlaced = task.status.state === 'pending' && task.status.error !== '';
  const isOver = isTerminalState(task.status.state) || isLate || cannotBePlaced || isUpdating(service);
  // Where the old one has ended too, its replacement is the restart policy's.
  if (isOver || !isUp(old)) {
    raiseDesired(draft, task, 'shutdown');
    return false;
  }
  wakeBy(draft, deadline);
  return true;
}

/** Whether every slot is up with the present version, no update runs, and no move failed a short while ago. */
function isSettled(
  draft: Draft,
  view: StateView,
  service: Service,
  config: RebalanceConfig,
  slots: readonly Slot[],
): boolean {
  if (service.spec.mode.kind !== 'replicated' || isUpdating(service)) return false;
  const occupied = slots.filter(isOccupied);
  if (occupied.length !== service.spec.mode.replicas) return false;
  if (!occupied.every((slot) => slot.active.some(isUp))) return false;
  for (const task of view.tasksOfService(service.id)) {
    if (task.movedFrom === undefined || isWantedOrStoppedWell(view, task)) continue;
    const at = task.meta.updatedAt;
    if (isDue(at, config.cooldownMs, draft.context.nowMs)) continue;
    wakeBy(draft, at + config.cooldownMs);
    return false;
  }
  return true;
}

/** Whether a moved task is in use, or gave up its place after the one it came from was stopped. */
function isWantedOrStoppedWell(view: StateView, task: Task): boolean {
  if (task.desiredState === 'running') return true;
  const old = task.movedFrom === undefined ? undefined : view.get('task', task.movedFrom);
  return old === undefined || isStopped(old) || old.desiredState !== 'running';
}

function beginMoves(
  draft: Draft,
  view: StateView,
  service: Service,
  config: RebalanceConfig,
  slots: readonly Slot[],
  underWay: number,
): void {
  const still = slots.flatMap((slot) => {
    const task = slot.active.length === 1 ? slot.active[0] : undefined;
    return task !== undefined && isUp(task) ? [task] : [];
  });
  const sample = still[0];
  if (sample === undefined) return;
  const { nodes, byId } = readNodes(view, draft.context.nowMs);
  // A task on its way out, or beside the one it replaces, counts twice: wait until it has gone.
  const counted = nodes.reduce((sum, info) => sum + (info.activeByService.get(service.id) ?? 0), 0);
  let toBegin = Math.min(
    config.maxMoves - underWay,
    counted === slots.filter(isOccupied).length ? Infinity : 0,
  );
  const infoOf = (task: Task): NodeInfo => byId.get(task.nodeId as NodeId) as NodeInfo;
  const moved = new Set<Task>();
  while (toBegin > 0) {
    const target = bestTarget(draft, service, config, sample, nodes);
    if (target === null) return;
    const source = still
      .filter((task) => !moved.has(task) && task.nodeId !== '' && byId.has(task.nodeId))
      .map((task) => ({ task, gain: gainOf(service, sample, nodes, infoOf(task), target) }))
      .toSorted((a, b) => b.gain - a.gain || b.task.slot - a.task.slot)[0];
    if (source === undefined || source.gain < config.margin) return;
    moved.add(source.task);
    move(draft, service, source.task, target, infoOf(source.task));
    toBegin--;
  }
}

/** Where the scheduler would put the next task, of the nodes that have been quiet long enough. */
function bestTarget(
  draft: Draft,
  service: Service,
  config: RebalanceConfig,
  sample: Task,
  nodes: readonly NodeInfo[],
): NodeInfo | null {
  const probe = { ...sample, spec: service.spec.task, specVersion: service.specVersion };
  const pipeline = preparePipeline(probe);
  const version = versionKey(probe);
  const accepts = (info: NodeInfo): boolean => {
    if (!pipeline.accepts(info) || (info.failures.get(version) ?? 0) >= FAILURES_MIN) return false;
    const since = Math.max(info.node.status.since ?? 0, info.node.meta.updatedAt);
    if (isDue(since, config.cooldownMs, draft.context.nowMs)) return true;
    wakeBy(draft, since + config.cooldownMs);
    return false;
  };
  const keys = probe.spec.placement.preferences.map((preference) => preference.spread);
  return buildSpreadTree(nodes, { serviceId: service.id, version, keys }, accepts).best();
}

/** By how much the source's count is above the target's at the outermost level where they differ. */
function gainOf(
  service: Service,
  sample: Task,
  nodes: readonly NodeInfo[],
  source: NodeInfo,
  target: NodeInfo,
): number {
  if (source === target) return 0;
  const countOf = (info: NodeInfo): number => info.activeByService.get(service.id) ?? 0;
  let peers = nodes;
  for (const { spread } of sample.spec.placement.preferences) {
    const from = spreadValue(spread, source.node);
    const to = spreadValue(spread, target.node);
    const sum = (value: string): number =>
      peers.reduce((all, info) => all + (spreadValue(spread, info.node) === value ? countOf(info) : 0), 0);
    if (from !== to) return sum(from) - sum(to);
    peers = peers.filter((info) => spreadValue(spread, info.node) === from);
  }
  return countOf(source) - countOf(target);
}

function move(draft: Draft, service: Service, old: Task, target: NodeInfo, source: NodeInfo): void {
  const task = newTask(
    service,
    { slot: old.slot, nodeId: target.node.id, desiredState: 'running', movedFrom: old.id },
    draft.context,
  );
  createTask(draft, task);
  addTask(target, task);
  source.activeByService.set(service.id, (source.activeByService.get(service.id) ?? 1) - 1);
  draft.notes.push({
    message: 'task moves to even out its service',
    fields: { service: service.spec.name, slot: old.slot, from: source.node.id, to: target.node.id },
  });
}
