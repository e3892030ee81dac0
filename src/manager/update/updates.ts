/**
 * PURE: rolling updates and rollbacks of replicated and global services.
 *
 * Data used: `service.updateStatus`, and the marks on tasks (`task.update`); nothing else is remembered.
 * Invariants:
 * 1. At most `parallelism` slots have a task of the update on its way to RUNNING, or settled for less than `delay`.
 * 2. A paused update makes no further tasks until the API goes on with it; one that is over begins again only for
 *    slots it could not come to (nodes of a global service that were paused), and then stays what it was, an update
 *    or a rollback.
 * 3. A rollback is never rolled back. An automatic one leaves nothing to roll back to.
 * 4. The present spec is the only target: another update supersedes this one by replacing the service.
 */
import type { Service, Task, UpdateStatus } from '../../model/objects.ts';
import type { UpdateConfig } from '../../model/spec.ts';
import { assertDefined } from '../../base/assert.ts';
import { isDue } from '../orchestrator/deadline.ts';
import { finishPlan, newDraft, updateService, wakeBy, type Draft } from '../orchestrator/draft.ts';
import { nodeVerdict } from '../orchestrator/global.ts';
import { isOccupied, slotsOf, type Slot } from '../orchestrator/slots.ts';
import type { Plan, PlanContext } from '../state/planner.ts';
import type { StateView } from '../state/view.ts';
import { dirtyCheck, isDirtySlot } from './dirty.ts';
import { readProgress, type UpdateProgress } from './progress.ts';
import { clearSlot, replaceSlot } from './slot-step.ts';
import { automaticRollback, laterThan } from './start.ts';

/** Plans the next step of every update. Runs after the orchestrators, which keep slots and restart tasks. */
export function planUpdates(view: StateView, context: PlanContext): Plan {
  const draft = newDraft(context);
  for (const service of view.all('service')) {
    const { kind } = service.spec.mode;
    if (service.pendingDelete || (kind !== 'replicated' && kind !== 'global')) continue;
    planService(draft, view, service);
  }
  return finishPlan(draft);
}

/** Whether the status is one of a rollback. */
function isRollback(status: UpdateStatus): boolean {
  return status.state.startsWith('rollback');
}

function isUnderWay(status: UpdateStatus): boolean {
  return status.state === 'updating' || status.state === 'rollback_started';
}

/** The slots the updater may change: those of nodes that a global service has left are not its to fill. */
function updatableSlots(view: StateView, service: Service): Slot[] {
  const slots = slotsOf(view, service).filter(isOccupied);
  if (service.spec.mode.kind !== 'global') return slots;
  const verdictOf = nodeVerdict(service);
  return slots.filter((slot) => {
    const node = view.get('node', slot.nodeId);
    return node !== undefined && verdictOf(node) === 'run';
  });
}

function planService(draft: Draft, view: StateView, service: Service): void {
  const status = service.updateStatus;
  if (status?.state === 'paused' || status?.state === 'rollback_paused') return;
  const isDirty = dirtyCheck(view, service);
  const slots = updatableSlots(view, service);
  const dirty = slots.filter((slot) => isDirtySlot(slot, isDirty));
  // Once an update is over, only what it never came to (a node that was paused meanwhile) begins it again.
  const isOver = status !== undefined && !isUnderWay(status);
  const begins = isOver ? dirty.some((slot) => !wasTried(slot, isDirty)) : dirty.length > 0;
  if (begins || (status !== undefined && !isOver)) {
    runUpdate(draft, view, service, begin(draft, status, dirty.length), { slots, dirty, isDirty });
    return;
  }
  for (const slot of slots) {
    if (slot.active.length > 1) clearSlot(draft, view, service, slot, isDirty, null);
  }
}

/** Whether the slot has a clean task that is wanted, or its last one ended for good: `clearSlot` sees to the rest. */
function wasTried(slot: Slot, isDirty: (task: Task) => boolean): boolean {
  const last = slot.tasks.at(-1);
  if (last?.finished === true && !isDirty(last)) return true;
  return slot.active.some((task) => !isDirty(task));
}

/** The status the update goes on with: a new one, or the stored one with its slots counted. */
function begin(draft: Draft, status: UpdateStatus | undefined, dirtySlots: number): UpdateStatus {
  if (status !== undefined && isUnderWay(status))
    return status.slots === undefined ? { ...status, slots: dirtySlots } : status;
  const again = status !== undefined && isRollback(status);
  return {
    state: again ? 'rollback_started' : 'updating',
    startedAt: laterThan(status?.startedAt, draft.context.nowMs),
    message: again ? 'rollback in progress' : 'update in progress',
    slots: dirtySlots,
  };
}

interface Work {
  readonly slots: readonly Slot[];
  readonly dirty: readonly Slot[];
  readonly isDirty: ReturnType<typeof dirtyCheck>;
}

function runUpdate(draft: Draft, view: StateView, service: Service, status: UpdateStatus, work: Work): void {
  const config = isRollback(status) ? service.spec.rollback : service.spec.update;
  // What goes on beside the update is planned first, and dropped if the update stops here.
  const clearing = newDraft(draft.context);
  for (const slot of work.slots) {
    if (slot.active.length > 1) clearSlot(clearing, view, service, slot, work.isDirty, config.order);
  }
  const ending = new Set(
    clearing.actions.flatMap((one) => (one.kind === 'patch-task' ? [one.id as string] : [])),
  );
  const tasks = view.tasksOfService(service.id);
  const progress = readProgress(draft, service, status, config, tasks, ending);
  const stopped = failureAction(draft, service, status, config, progress);
  if (stopped?.updateStatus?.state === 'rollback_started') {
    // The way back begins at once; its plan stores the service.
    planService(draft, view, stopped);
    return;
  }
  if (stopped !== null) {
    updateService(draft, stopped);
    return;
  }
  draft.actions.push(...clearing.actions);
  draft.notes.push(...clearing.notes);
  const started = startSlots(draft, service, status, config, progress, work);
  const next = progress.busy + started === 0 ? completion(draft, status, config, progress) : status;
  if (next !== service.updateStatus) updateService(draft, { ...service, updateStatus: next });
}

/** The service as paused or rolled back, when the failures ask for it; else null. */
function failureAction(
  draft: Draft,
  service: Service,
  status: UpdateStatus,
  config: UpdateConfig,
  progress: UpdateProgress,
): Service | null {
  const slots = Math.max(1, status.slots ?? 1);
  if (progress.failures === 0 || progress.failures / slots <= config.maxFailureRatio) return null;
  if (config.failureAction === 'continue') return null;
  const task = assertDefined(progress.lastFailed, 'an update that counts failures knows one').id;
  const fields = { service: service.spec.name, task, failures: progress.failures, slots };
  const rollback = isRollback(status);
  if (config.failureAction === 'rollback' && !rollback) {
    const rolledBack = automaticRollback(service, task, draft.context.nowMs);
    if (rolledBack !== null) {
      draft.notes.push({ message: 'update rolled back', fields });
      return rolledBack;
    }
  }
  const subject = rollback ? 'rollback' : 'update';
  draft.notes.push({ message: `${subject} paused`, fields });
  return {
    ...service,
    updateStatus: {
      ...status,
      state: rollback ? 'rollback_paused' : 'paused',
      message: `${subject} paused due to failure or early termination of task ${task}`,
    },
  };
}

/** Begins as many slots as there is room for, lowest first; returns how many. */
function startSlots(
  draft: Draft,
  service: Service,
  status: UpdateStatus,
  config: UpdateConfig,
  progress: UpdateProgress,
  work: Work,
): number {
  const places = config.parallelism === 0 ? Number.POSITIVE_INFINITY : config.parallelism - progress.busy;
  let started = 0;
  for (const slot of work.dirty) {
    if (started >= places) break;
    // A clean task is there already: made for this update, by a restart, or by one that went the other way.
    if (slot.active.some((task) => !work.isDirty(task))) continue;
    // Its new task ended for good beside an old one (start-first): this update does not try it again.
    if (progress.attempted.has(slot.key) && wasTried(slot, work.isDirty)) continue;
    replaceSlot(draft, service, slot, status, config.order);
    started++;
  }
  return started;
}

/** The status once nothing is left to change: completed when the last task was watched for the monitor time. */
function completion(
  draft: Draft,
  status: UpdateStatus,
  config: UpdateConfig,
  progress: UpdateProgress,
): UpdateStatus {
  const { nowMs } = draft.context;
  const watchMs = config.delayMs + config.monitorMs;
  if (progress.settledAt !== null && !isDue(progress.settledAt, watchMs, nowMs)) {
    wakeBy(draft, progress.settledAt + watchMs);
    return status;
  }
  return {
    ...status,
    state: isRollback(status) ? 'rollback_completed' : 'completed',
    message: isRollback(status) ? 'rollback completed' : 'update completed',
    completedAt: nowMs,
  };
}
