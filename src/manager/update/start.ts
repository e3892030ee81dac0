/**
 * PURE: what the API does to a service object to begin an update or a rollback. `planUpdates` does the rest.
 *
 * Invariants: a spec version is never used twice, so equal versions mean equal specs; the previous spec is one deep.
 */
import { ok, refuse, type Result } from '../../base/result.ts';
import type { Service } from '../../model/objects.ts';
import type { ServiceSpec } from '../../model/spec.ts';
import { sameData } from './dirty.ts';

function isJob(spec: ServiceSpec): boolean {
  return spec.mode.kind === 'replicated-job' || spec.mode.kind === 'global-job';
}

/** The service with another spec, its former one kept to go back to. Any update under way is superseded. */
function withSpec(service: Service, spec: ServiceSpec, nowMs: number): Service {
  const { updateStatus: _superseded, ...rest } = service;
  return {
    ...rest,
    meta: { ...service.meta, updatedAt: nowMs },
    spec,
    specVersion: service.specVersion + 1,
    previousSpec: service.spec,
    previousSpecVersion: service.specVersion,
    ...(isJob(spec) ? { jobIteration: (service.jobIteration ?? 0) + 1 } : {}),
  };
}

/**
 * The service as updated to `spec`. With the same spec: a paused update or rollback goes on, a job runs again, and
 * anything else stays exactly as it is (also an update under way). Mode and name are the caller's to check.
 */
export function startUpdate(service: Service, spec: ServiceSpec, nowMs: number): Service {
  if (!sameData(service.spec, spec)) return withSpec(service, spec, nowMs);
  const { updateStatus, ...rest } = service;
  if (isJob(spec)) return { ...rest, jobIteration: (service.jobIteration ?? 0) + 1 };
  switch (updateStatus?.state) {
    case 'paused':
      return { ...rest, meta: { ...service.meta, updatedAt: nowMs } };
    case 'rollback_paused':
      return { ...service, updateStatus: manualRollback(service, nowMs) };
    default:
      return service;
  }
}

/** The service as rolled back to its previous spec; the two swap, so a second rollback goes forward again. */
export function startRollback(service: Service, nowMs: number): Result<Service> {
  if (service.previousSpec === undefined) {
    return refuse(`service ${service.spec.name} does not have a previous spec to roll back to`);
  }
  const swapped = withSpec(service, service.previousSpec, nowMs);
  return ok({ ...swapped, updateStatus: manualRollback(service, nowMs) });
}

function manualRollback(service: Service, nowMs: number): NonNullable<Service['updateStatus']> {
  return {
    state: 'rollback_started',
    startedAt: laterThan(service.updateStatus?.startedAt, nowMs),
    message: 'manually requested rollback',
  };
}

/** `nowMs`, or just after the update before: the start of an update tells its tasks from those of another. */
export function laterThan(before: number | undefined, nowMs: number): number {
  return before === undefined ? nowMs : Math.max(nowMs, before + 1);
}

/** The service as rolled back by a failed update; null when there is no previous spec. Not to be undone. */
export function automaticRollback(service: Service, taskId: string, nowMs: number): Service | null {
  if (service.previousSpec === undefined) return null;
  const { previousSpec: _restored, previousSpecVersion: _version, ...rest } = service;
  return {
    ...rest,
    spec: service.previousSpec,
    specVersion: service.specVersion + 1,
    updateStatus: {
      state: 'rollback_started',
      startedAt: laterThan(service.updateStatus?.startedAt, nowMs),
      message: `update rolled back due to failure or early termination of task ${taskId}`,
    },
  };
}
