/**
 * PURE: the change of one slot from old tasks to new ones.
 *
 * Invariants: stop-first makes the new task in the plan that stops the old ones, and it starts after they stopped;
 * start-first stops the old ones only once a new one is up, unless it cannot be placed beside them.
 */
import type { Service, Task, UpdateStatus } from '../../model/objects.ts';
import { claimFits, offeredResources, resourceClaim, takeClaim } from '../../model/resource-claims.ts';
import type { UpdateConfig } from '../../model/spec.ts';
import { isTerminalState, taskStateRank } from '../../model/task-state.ts';
import { createTask, raiseDesired, type Draft } from '../orchestrator/draft.ts';
import { isLost, placementCheck } from '../orchestrator/node-fit.ts';
import { byCreation, isStopped, isUp, type Slot } from '../orchestrator/slots.ts';
import { newTask } from '../orchestrator/task-factory.ts';
import type { StateView } from '../state/view.ts';

/** Makes the new task of a slot that has none yet. */
export function replaceSlot(
  draft: Draft,
  service: Service,
  slot: Slot,
  status: UpdateStatus,
  order: UpdateConfig['order'],
): void {
  const { context } = draft;
  const alive = slot.active.filter((task) => !isTerminalState(task.status.state));
  const before = alive.findLast(isUp) ?? alive.at(-1);
  const waits = order === 'stop-first' && before !== undefined;
  const task = newTask(
    service,
    {
      slot: slot.number,
      nodeId: slot.nodeId,
      desiredState: waits ? 'ready' : 'running',
      ...(waits ? { delayedStart: { notBefore: context.nowMs, afterTask: before.id } } : {}),
      update: { startedAt: status.startedAt },
    },
    context,
  );
  createTask(draft, task);
  for (const old of slot.active) {
    if (order === 'stop-first' || isTerminalState(old.status.state)) raiseDesired(draft, old, 'shutdown');
  }
}

/** Stops all of several equals but the one that is up, else has not ended, else is the oldest; returns that one. */
function keepBest(draft: Draft, tasks: readonly Task[]): Task | undefined {
  const ordered = tasks.toSorted(byCreation);
  const best =
    ordered.find(isUp) ?? ordered.find((task) => !isTerminalState(task.status.state)) ?? ordered[0];
  for (const task of ordered) if (task !== best) raiseDesired(draft, task, 'shutdown');
  return best;
}

/**
 * Clears a slot that has more than one wanted task.
 * @param order null: no update is under way, an old task goes only once a new one is up.
 */
export function clearSlot(
  draft: Draft,
  view: StateView,
  service: Service,
  slot: Slot,
  isDirty: (task: Task) => boolean,
  order: UpdateConfig['order'] | null,
): void {
  // The rebalancer ends the moves it began: the old task goes once the new one is up.
  if (
    order === null &&
    slot.active.some((task) => task.movedFrom !== undefined && !isUp(task) && !isDirty(task))
  )
    return;
  const keep = keepBest(
    draft,
    slot.active.filter((task) => !isDirty(task)),
  );
  const old = keepBest(draft, slot.active.filter(isDirty));
  if (keep === undefined || old === undefined) return;
  if (isUp(keep) || order === 'stop-first' || isTerminalState(old.status.state)) {
    raiseDesired(draft, old, 'shutdown');
  } else if (order === 'start-first' && standsInTheWay(view, service, keep, old)) {
    raiseDesired(draft, old, 'shutdown');
    draft.notes.push({
      message: 'start-first task cannot be placed beside the old one; stopping the old one first',
      fields: { service: service.spec.name, task: keep.id, oldTask: old.id, reason: keep.status.error },
    });
  }
}

/**
 * Whether the scheduler refused the new task and stopping the old one may make room: the old one's node would take
 * it, and what they contend for is a host port, a place under the limit of replicas per node, or reservations.
 */
function standsInTheWay(view: StateView, service: Service, task: Task, old: Task): boolean {
  if (task.status.state !== 'pending' || task.status.error === '') return false;
  if (old.nodeId === '' || isStopped(old)) return false;
  const node = view.get('node', old.nodeId);
  if (node === undefined || isLost(node) || node.status.state !== 'ready') return false;
  if (node.spec.availability !== 'active' || !node.description.runtimes.includes(task.spec.runtime))
    return false;
  const { placement } = task.spec;
  if (!placementCheck(placement)(node)) return false;

  const left = offeredResources(node);
  const all = offeredResources(node);
  for (const other of view.tasksOfNode(node.id)) {
    const rank = taskStateRank[other.status.state];
    if (rank < taskStateRank.assigned || rank > taskStateRank.running) continue;
    takeClaim(all, resourceClaim(other));
    if (other.id !== old.id) takeClaim(left, resourceClaim(other));
  }
  const claim = resourceClaim(task);
  if (!claimFits(left, claim)) return false;
  if (!claimFits(all, claim)) return true;
  const hostPorts = service.spec.endpoint.ports.some(
    (port) => port.publishMode === 'host' && port.publishedPort !== 0,
  );
  return hostPorts || placement.maxReplicasPerNode > 0;
}
