/**
 * PURE: whether tasks differ from what their service now asks for.
 *
 * Invariant: a task made from the service's present spec version is clean; so is one whose spec differs only in
 * placement while its node still fits.
 */
import type { Service, Task } from '../../model/objects.ts';
import type { TaskSpec } from '../../model/spec.ts';
import type { StateView } from '../state/view.ts';
import { placementCheck } from '../orchestrator/node-fit.ts';
import type { Slot } from '../orchestrator/slots.ts';

/** Deep equality of plain data. A member that is absent and one that is undefined are the same. */
export function sameData(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (Array.isArray(a) || Array.isArray(b)) {
    return (
      Array.isArray(a) &&
      Array.isArray(b) &&
      a.length === b.length &&
      a.every((value, index) => sameData(value, b[index]))
    );
  }
  const left = a as Record<string, unknown>;
  const right = b as Record<string, unknown>;
  const names = new Set([...Object.keys(left), ...Object.keys(right)]);
  for (const name of names) if (!sameData(left[name], right[name])) return false;
  return true;
}

type SpecDifference = 'none' | 'placement' | 'more';

function compareSpecs(a: TaskSpec, b: TaskSpec): SpecDifference {
  if (sameData(a, b)) return 'none';
  return sameData({ ...a, placement: null }, { ...b, placement: null }) ? 'placement' : 'more';
}

/**
 * The last comparison of each task's spec. Specs are replaced, never mutated, so an answer stays right; without it
 * every plan would compare every task that is older than its service.
 */
const compared = new WeakMap<TaskSpec, { readonly against: TaskSpec; readonly difference: SpecDifference }>();

function specDifference(task: TaskSpec, service: TaskSpec): SpecDifference {
  const known = compared.get(task);
  if (known?.against === service) return known.difference;
  const difference = compareSpecs(task, service);
  compared.set(task, { against: service, difference });
  return difference;
}

/** Prepares the check of tasks against their service. */
export function dirtyCheck(view: StateView, service: Service): (task: Task) => boolean {
  const fits = placementCheck(service.spec.task.placement);
  return (task) => {
    if (task.specVersion === service.specVersion) return false;
    if (task.endpointSpec !== undefined && !sameData(task.endpointSpec, service.spec.endpoint)) return true;
    const difference = specDifference(task.spec, service.spec.task);
    if (difference !== 'placement') return difference === 'more';
    const node = task.nodeId === '' ? undefined : view.get('node', task.nodeId);
    return node === undefined || !fits(node);
  };
}

/** Whether something of the slot must change: a wanted task, or the last one where it ended for good. */
export function isDirtySlot(slot: Slot, isDirty: (task: Task) => boolean): boolean {
  if (slot.finished !== null) return isDirty(slot.finished);
  return slot.active.some(isDirty);
}
