/**
 * PURE: rolling updates and rollbacks of replicated and global services.
 *
 * Data used: `service.updateStatus`, and the marks on tasks (`task.update`); nothing else is remembered.
 * Invariants:
 * 1. At most `parallelism` slots have a task of the update on its way to RUNNING, or settled for less than `delay`.
 * 2. An update that was paused, completed or rolled back makes no further tasks until the API starts another.
 * 3. A rollback is never rolled back. An automatic one leaves nothing to roll back to.
 * 4. The present spec is the only target: another update supersedes this one by replacing the service.
 */
import type { Service, UpdateStatus } from '../../model/objects.ts';
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
import { automaticRollback } from './start.ts';

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

function isUnderWay(status: UpdateStatus | undefined): status is UpdateStatus {
  return status?.state === 'updating' || status?.state === 'rollback_started';
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
  if (status !== undefined && !isUnderWay(status)) {
    for (const slot of slotsOf(view, service)) {
      if (slot.active.length > 1) clearSlot(draft, view, service, slot, isDirty, null);
    }
    return;
  }
  const slots = updatableSlots(view, service);
  const dirty = slots.filter((slot) => isDirtySlot(slot, isDirty));
  if (status === undefined && dirty.length === 0) {
    for (const slot of slots) {
      if (slot.active.length > 1) clearSlot(draft, view, service, slot, isDirty, null);
    }
    return;
  }
  runUpdate(draft, view, service, begin(draft, status, dirty.length), { slots, dirty, isDirty });
}

/** The status the update goes on with: a new one, or the stored one with its slots counted. */
function begin(draft: Draft, status: UpdateStatus | undefined, dirtySlots: number): UpdateStatus {
  if (status === undefined) {
    return {
      state: 'updating',
      startedAt: draft.context.nowMs,
      message: 'update in progress',
      slots: dirtySlots,
    };
  }
  return status.slots === undefined ? { ...status, slots: dirtySlots } : status;
}

interface Work {
  readonly slots: readonly Slot[];
  readonly dirty: readonly Slot[];
  readonly isDirty: ReturnType<typeof dirtyCheck>;
}

function runUpdate(draft: Draft, view: StateView, service: Service, status: UpdateStatus, work: Work): void {
  const config = isRollback(status) ? service.spec.rollback : service.spec.update;
  const tasks = view.tasksOfService(service.id);
  const progress = readProgress(draft, service, status, config, tasks);
  const stopped = failureAction(draft, service, status, config, progress);
  if (stopped !== null) {
    updateService(draft, stopped);
    return;
  }
  for (const slot of work.slots) {
    if (slot.active.length > 1) clearSlot(draft, view, service, slot, work.isDirty, config.order);
  }
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
    if (progress.attempted.has(slot.key)) continue;
    // A clean task is there already (from a restart, or an update that went the other way): no new one is needed.
    if (slot.active.some((task) => !work.isDirty(task))) continue;
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
