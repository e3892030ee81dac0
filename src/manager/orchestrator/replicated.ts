/**
 * PURE: replicated services. Keeps the wanted number of slots occupied.
 *
 * Invariants: slots count from 1, the lowest free one is filled first; scaling down asks whole slots to go, in the
 * order of `keepOrder`; a service being deleted asks all of its tasks to go.
 */
import type { Service } from '../../model/objects.ts';
import type { Plan, PlanContext } from '../state/planner.ts';
import type { StateView } from '../state/view.ts';
import { createTask, finishPlan, newDraft, raiseDesired, type Draft } from './draft.ts';
import { superviseSlot } from './restart.ts';
import { isOccupied, keepOrder, slotsOf } from './slots.ts';
import { newTask } from './task-factory.ts';

/** Plans every replicated service. */
export function planReplicated(view: StateView, context: PlanContext): Plan {
  const draft = newDraft(context);
  for (const service of view.all('service')) {
    if (service.spec.mode.kind !== 'replicated') continue;
    if (service.pendingDelete) removeAllTasks(draft, view, service);
    else planService(draft, view, service, service.spec.mode.replicas);
  }
  return finishPlan(draft);
}

/** Asks every task of the service to go. */
export function removeAllTasks(draft: Draft, view: StateView, service: Service): void {
  for (const task of view.tasksOfService(service.id)) raiseDesired(draft, task, 'remove');
}

function planService(draft: Draft, view: StateView, service: Service, replicas: number): void {
  const slots = slotsOf(view, service);
  const occupied = slots.filter(isOccupied);
  const kept = occupied.length > replicas ? keepOrder(occupied).slice(0, replicas) : occupied;
  for (const slot of kept) superviseSlot(draft, view, service, slot.active);

  const used = new Set(kept.map((slot) => slot.number));
  for (let number = 1; used.size < replicas; number++) {
    if (used.has(number)) continue;
    used.add(number);
    createTask(draft, newTask(service, { slot: number, nodeId: '', desiredState: 'running' }, draft.context));
  }
  // What is left of slots that are no longer used goes with its history.
  for (const slot of slots) {
    if (used.has(slot.number)) continue;
    for (const task of slot.tasks) raiseDesired(draft, task, 'remove');
  }
}
