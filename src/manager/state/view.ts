/** The read side of the store: what planners and the API see. */
import type { NodeId, ServiceId } from '../../model/ids.ts';
import type { TableName, Tables, Task } from '../../model/objects.ts';
import type { Outcome } from './outcomes.ts';

export type NamedTable = 'service' | 'network' | 'secret' | 'config';

/** A consistent, read-only state. Iteration order is not part of it: planners order by slot, name or id. */
export interface StateView {
  /** Log index of the last applied entry. */
  readonly index: number;
  get<T extends TableName>(table: T, id: string): Tables[T] | undefined;
  all<T extends TableName>(table: T): Iterable<Tables[T]>;
  count(table: TableName): number;
  byName<T extends NamedTable>(table: T, name: string): Tables[T] | undefined;
  tasksOfService(id: ServiceId): Iterable<Task>;
  /** Tasks assigned to a node. */
  tasksOfNode(id: NodeId): Iterable<Task>;
  /** What the change with that key did, when it was applied not long ago. */
  outcome(key: string): Outcome | undefined;
}
