/**
 * What a worker knows of one task, and the vocabulary of its reconcile machine.
 *
 * Invariants: at most one operation of a task is under way (`busy`); `observed` is what the runtime last said,
 * or 'unknown' when it must be asked again; `status.state` only rises.
 */
import type { ErrorCode } from '../../base/errors.ts';
import type { TaskId } from '../../model/ids.ts';
import type { ContainerStatus, PortMapping, Task, TaskStatus } from '../../model/objects.ts';
import type { RuntimeKind } from '../../model/spec.ts';

/** What the runtime says of a task (the shape of the Runtime port's answer). */
export interface Observation {
  readonly taskId: TaskId;
  readonly phase: 'created' | 'running' | 'exited';
  readonly container: ContainerStatus;
  readonly ports: readonly PortMapping[];
  readonly health?: 'starting' | 'healthy' | 'unhealthy';
  readonly error: string;
  readonly note?: string;
  readonly finishedAtMs?: number;
}

/** What the driver can be asked to do for a task. Each ends in a `done` or `failed` event. */
export type Operation = 'prepare' | 'create' | 'start' | 'stop' | 'remove' | 'inspect';

/** One task on this node. */
export interface LocalTask {
  readonly id: TaskId;
  readonly runtime: RuntimeKind;
  /** As last assigned; null: found in a runtime without any record of it (a stray). */
  readonly task: Task | null;
  /** False once the managers took it out of the assignments. */
  readonly assigned: boolean;
  readonly status: TaskStatus;
  /** null: the runtime holds nothing for it. */
  readonly observed: Observation | null | 'unknown';
  readonly busy: Operation | null;
  /** The operation under way was asked to give up. */
  readonly aborting: boolean;
  /** Something happened during the operation under way: its observation may be too old. */
  readonly stale: boolean;
  /** What is missing was fetched in this life of the worker. */
  readonly prepared: boolean;
  /** Set when the worker itself ends the task: the words for its FAILED status. */
  readonly verdict: string | null;
  /** Failures in a row of the current operation, outages not counted. */
  readonly attempts: number;
  /** Outages in a row: they only set the back-off. */
  readonly outages: number;
  /** Nothing is tried before this time (wall-clock milliseconds). */
  readonly retryAt: number | null;
  /** Value of the state's sequence when the record's knowledge of the runtime last changed. */
  readonly touched: number;
}

/** Everything the reconcile machine knows. */
export interface WorkerState {
  readonly tasks: ReadonlyMap<TaskId, LocalTask>;
  /** A complete set of assignments was received in this life of the worker. */
  readonly complete: boolean;
  /** The node leaves the cluster: everything is stopped and removed. */
  readonly leaving: boolean;
  /** Counts operations begun and ended, to tell stale lists from fresh ones. */
  readonly sequence: number;
}

/** Why an operation failed. */
export interface OperationFailure {
  readonly code: ErrorCode;
  readonly message: string;
  /** An outage of the runtime, or something still to come (a secret): waited out without limit. */
  readonly waits: boolean;
}

export type WorkerEvent =
  /** Records read from disk at the start, before anything else. */
  | {
      readonly kind: 'restored';
      readonly tasks: readonly { readonly task: Task; readonly status: TaskStatus }[];
    }
  | {
      readonly kind: 'assignments';
      readonly complete: boolean;
      readonly put: readonly Task[];
      readonly remove: readonly TaskId[];
    }
  /** Everything a runtime holds, asked for when the state's sequence was `since`. */
  | {
      readonly kind: 'listed';
      readonly runtime: RuntimeKind;
      readonly since: number;
      readonly tasks: readonly Observation[];
    }
  /** The runtime noticed something about a task. */
  | { readonly kind: 'changed'; readonly taskId: TaskId }
  | {
      readonly kind: 'done';
      readonly taskId: TaskId;
      readonly operation: Operation;
      readonly observed: Observation | null;
    }
  | {
      readonly kind: 'failed';
      readonly taskId: TaskId;
      readonly operation: Operation;
      readonly failure: OperationFailure;
    }
  | { readonly kind: 'wake' }
  | { readonly kind: 'leave' };

export type WorkerEffect =
  | {
      readonly kind: 'run';
      readonly taskId: TaskId;
      readonly runtime: RuntimeKind;
      readonly operation: Operation;
      readonly task: Task | null;
    }
  | { readonly kind: 'abort'; readonly taskId: TaskId }
  | { readonly kind: 'persist'; readonly task: Task; readonly status: TaskStatus }
  | { readonly kind: 'forget'; readonly taskId: TaskId }
  | { readonly kind: 'report'; readonly taskId: TaskId; readonly status: TaskStatus };

/** Tries of prepare and create, outages not counted, before the task is rejected. */
export const PREPARE_ATTEMPTS_MAX = 6;
/** First wait after a failure; it doubles up to the cap. */
export const RETRY_BASE_MS = 500;
export const RETRY_CAP_MS = 30_000;
/** Wait between the end of the routes to a running task and its stop, so that no new connection meets its end. */
export const DRAIN_MS = 250;
/** Cap of the wait while a runtime cannot be reached. */
export const OUTAGE_CAP_MS = 5_000;

const retriableCodes: readonly ErrorCode[] = ['UNAVAILABLE', 'TIMEOUT', 'RESOURCE_EXHAUSTED', 'CONFLICT'];

/** Whether an operation that failed with `code` may succeed when tried again. */
export function isRetriable(code: ErrorCode): boolean {
  return retriableCodes.includes(code);
}

/** Wait before try number `attempt` + 1 (1 is the first failure), milliseconds. */
export function backoffMs(attempt: number, capMs: number): number {
  return Math.min(capMs, RETRY_BASE_MS * 2 ** Math.min(20, Math.max(0, attempt - 1)));
}
