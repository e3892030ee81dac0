/**
 * Changes of the replicated state. A batch is one log entry: all of it applies, or none.
 *
 * Invariants: apply decides from the store and the batch alone; the same batch on the same state gives the same
 * result on every replica.
 */
import type { NodeId, TaskId } from '../../model/ids.ts';
import type { TableName, Tables, Task, TaskStatus } from '../../model/objects.ts';
import type { Outcome } from './outcomes.ts';

/** Fields of a task that managers change one by one, without touching what the worker reports. */
export type TaskPatch = Partial<
  Pick<
    Task,
    | 'desiredState'
    | 'nodeId'
    | 'networks'
    | 'endpointPorts'
    | 'genericResources'
    | 'status'
    | 'spec'
    | 'specVersion'
    | 'finished'
    | 'update'
  >
>;

export type Action =
  | {
      [T in TableName]: { readonly kind: 'create'; readonly table: T; readonly object: Tables[T] };
    }[TableName]
  | {
      [T in TableName]: {
        readonly kind: 'update';
        readonly table: T;
        readonly object: Tables[T];
        /** The version the change was based on; another one refuses the batch. */
        readonly expect: number;
      };
    }[TableName]
  | {
      readonly kind: 'delete';
      readonly table: TableName;
      readonly id: string;
      /** null: whatever the version. Deleting what is not there is no error. */
      readonly expect: number | null;
    }
  /** A manager's change of a task. desiredState never goes back; a missing task is skipped. */
  | {
      readonly kind: 'patch-task';
      readonly id: TaskId;
      readonly patch: TaskPatch;
      readonly expect: number | null;
    }
  /** A worker's report: taken when the task is on that node and the state does not go back; else skipped. */
  | {
      readonly kind: 'report-task';
      readonly id: TaskId;
      readonly nodeId: NodeId;
      readonly status: TaskStatus;
    };

/** One log entry. */
export interface Batch {
  /** Wall-clock milliseconds, stamped by the leader. */
  readonly at: number;
  readonly actions: readonly Action[];
  /** Key under which the batch applies at most once; see outcomes.ts. */
  readonly once?: string;
}

export type Refusal =
  | {
      readonly kind: 'version';
      readonly table: TableName;
      readonly id: string;
      readonly expected: number;
      readonly actual: number;
    }
  | { readonly kind: 'missing'; readonly table: TableName; readonly id: string }
  | { readonly kind: 'exists'; readonly table: TableName; readonly id: string }
  | { readonly kind: 'name-taken'; readonly table: TableName; readonly name: string }
  | { readonly kind: 'undecodable'; readonly message: string };

export type ApplyResult =
  /** `before`: a batch with the same key was applied already, and this one did nothing. */
  | { readonly ok: true; readonly index: number; readonly before?: Outcome }
  | { readonly ok: false; readonly refusal: Refusal };

/** What one applied batch changed, in order. `before` or `after` is null for creation and deletion. */
export type Change = {
  [T in TableName]: {
    readonly table: T;
    readonly id: string;
    readonly before: Tables[T] | null;
    readonly after: Tables[T] | null;
  };
}[TableName];

/** Largest batch the managers propose. Larger plans are split. */
export const BATCH_ACTIONS_MAX = 200;
/** Bytes of one encoded batch. */
export const BATCH_BYTES_MAX = 1_500_000;

/** How a proposal ended. `unknown`: leadership was lost in flight, it may or may not be applied. */
export type ProposeResult =
  | { readonly kind: 'applied'; readonly index: number; readonly before?: Outcome }
  | { readonly kind: 'refused'; readonly refusal: Refusal }
  | { readonly kind: 'not-leader' }
  /** Over {@link BATCH_BYTES_MAX}: never taken, however often it is tried. */
  | { readonly kind: 'too-large'; readonly bytes: number }
  | { readonly kind: 'unavailable'; readonly reason: string }
  | { readonly kind: 'unknown'; readonly reason: string };

/** Where actions go to be replicated. */
export interface Proposer {
  /** `once`: the key under which this applies at most once. */
  propose(actions: readonly Action[], signal: AbortSignal, once?: string): Promise<ProposeResult>;
}
