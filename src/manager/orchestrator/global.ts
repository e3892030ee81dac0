/**
 * PURE: global services. One task for each node that fits.
 *
 * Invariants: a task has slot 0 and its node set from the start; a node that is DOWN, drained, or that constraints
 * or platforms leave out, is asked to stop its task; a paused node, or one without the runtime, keeps what runs and
 * gets nothing new.
 */
import type { NodeId } from '../../model/ids.ts';
import type { ClusterNode, Service } from '../../model/objects.ts';
import { isTerminalState } from '../../model/task-state.ts';
import type { Plan, PlanContext } from '../state/planner.ts';
import type { StateView } from '../state/view.ts';
import { createTask, finishPlan, newDraft, raiseDesired, type Draft } from './draft.ts';
import { isDrained, isLost, placementCheck } from './node-fit.ts';
import { removeAllTasks } from './replicated.ts';
import { superviseSlot } from './restart.ts';
import { isOccupied, slotsOf, type Slot } from './slots.ts';
import { newTask } from './task-factory.ts';

/** How a global service stands to a node: run there, keep what runs and add nothing, or stop. */
export type NodeVerdict = 'run' | 'keep' | 'stop';

/** Prepares the verdict on nodes for one service. */
export function nodeVerdict(service: Service): (node: ClusterNode) => NodeVerdict {
  const { placement, runtime } = service.spec.task;
  const fits = placementCheck(placement);
  return (node) => {
    if (isLost(node) || isDrained(node) || !fits(node)) return 'stop';
    if (node.spec.availability === 'pause' || !node.description.runtimes.includes(runtime)) return 'keep';
    return 'run';
  };
}

/** Plans every global service. */
export function planGlobal(view: StateView, context: PlanContext): Plan {
  const draft = newDraft(context);
  for (const service of view.all('service')) {
    if (service.spec.mode.kind !== 'global') continue;
    if (service.pendingDelete) removeAllTasks(draft, view, service);
    else planService(draft, view, service);
  }
  return finishPlan(draft);
}

function planService(draft: Draft, view: StateView, service: Service): void {
  const verdictOf = nodeVerdict(service);
  const slots = new Map<string, Slot>(slotsOf(view, service).map((slot) => [slot.key, slot]));
  for (const node of view.all('node')) {
    const slot = slots.get(node.id);
    slots.delete(node.id);
    planNode(draft, view, service, node.id, slot, verdictOf(node));
  }
  // Their nodes were removed.
  for (const slot of slots.values()) stop(draft, slot, () => true);
}

function planNode(
  draft: Draft,
  view: StateView,
  service: Service,
  nodeId: NodeId,
  slot: Slot | undefined,
  verdict: NodeVerdict,
): void {
  switch (verdict) {
    case 'stop':
      if (slot !== undefined) stop(draft, slot, () => true);
      return;
    case 'keep':
      if (slot !== undefined) stop(draft, slot, isTerminalState);
      return;
    case 'run':
      if (slot !== undefined && isOccupied(slot)) superviseSlot(draft, view, service, slot.active);
      else createTask(draft, newTask(service, { slot: 0, nodeId, desiredState: 'running' }, draft.context));
  }
}

/** Shuts down those of the slot's wanted tasks whose state `which` accepts. */
function stop(
  draft: Draft,
  slot: Slot,
  which: (state: Slot['tasks'][number]['status']['state']) => boolean,
): void {
  for (const task of slot.active) {
    if (which(task.status.state)) raiseDesired(draft, task, 'shutdown');
  }
}
