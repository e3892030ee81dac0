/**
 * The assignments of this node, as built from the messages of one session after another.
 *
 * Data owned: every assigned object by kind and id, and the place in the current session's sequence.
 * Invariants: a set that comes in several messages takes effect as a whole; after a new session begins nothing
 * changes until its complete set is in; an incremental that does not follow the last one is refused.
 */
import { ok, type Result, refuse } from '../../base/result.ts';
import type { TaskId } from '../../model/ids.ts';
import type { Task } from '../../model/objects.ts';
import type {
  AssignedNetwork,
  AssignmentKind,
  EndpointRecord,
  ServiceRecord,
  SessionMessage,
} from '../../model/wire.ts';

export type AssignmentMessage = Extract<SessionMessage, { readonly kind: 'assignments' }>;

/** A secret or config with its payload in base64. */
export interface AssignedFile {
  readonly name: string;
  readonly data: string;
}

/** Assigned objects by id. */
export interface AssignmentTables {
  readonly task: ReadonlyMap<string, Task>;
  readonly network: ReadonlyMap<string, AssignedNetwork>;
  readonly service: ReadonlyMap<string, ServiceRecord>;
  readonly endpoint: ReadonlyMap<string, EndpointRecord>;
  readonly secret: ReadonlyMap<string, AssignedFile>;
  readonly config: ReadonlyMap<string, AssignedFile>;
}

export interface Assignments {
  readonly tables: AssignmentTables;
  /** Last sequence taken in this session; null before the complete set. */
  readonly sequence: number | null;
  /** The first messages of a set of which more is to come. */
  readonly partial: AssignmentMessage | null;
}

/** What one set changed. */
export interface AssignmentChange {
  readonly complete: boolean;
  readonly putTasks: readonly Task[];
  readonly removedTasks: readonly TaskId[];
  readonly kinds: ReadonlySet<AssignmentKind>;
}

/** Objects in one set at most; a larger one is refused. */
export const ASSIGNMENT_ITEMS_MAX = 500_000;

/** Assignments of a node that never had any. */
export function noAssignments(): Assignments {
  return { tables: emptyTables(), sequence: null, partial: null };
}

function emptyTables(): AssignmentTables {
  return {
    task: new Map(),
    network: new Map(),
    service: new Map(),
    endpoint: new Map(),
    secret: new Map(),
    config: new Map(),
  };
}

/** What stays when a new session begins: the objects, while their order starts over. */
export function beginSession(assignments: Assignments): Assignments {
  return { tables: assignments.tables, sequence: null, partial: null };
}

/** Takes one message; `change` is null while more messages of its set are to come. */
export function receive(
  assignments: Assignments,
  message: AssignmentMessage,
): Result<{ readonly assignments: Assignments; readonly change: AssignmentChange | null }> {
  const { partial, sequence } = assignments;
  const whole = partial === null ? message : joined(partial, message);
  if (whole === null) return refuse('a message of another set came before the end of the last one');
  if (whole.type === 'incremental' && (sequence === null || whole.sequence !== sequence + 1)) {
    return refuse(`assignments ${whole.sequence} do not follow ${sequence ?? 'a complete set'}`);
  }
  if (whole.put.length + whole.remove.length > ASSIGNMENT_ITEMS_MAX) {
    return refuse(`a set of more than ${ASSIGNMENT_ITEMS_MAX} assignments`);
  }
  if (message.more) return ok({ assignments: { ...assignments, partial: whole }, change: null });
  return ok(applied(assignments, whole));
}

function joined(first: AssignmentMessage, next: AssignmentMessage): AssignmentMessage | null {
  if (first.sequence !== next.sequence || first.type !== next.type) return null;
  return { ...next, put: [...first.put, ...next.put], remove: [...first.remove, ...next.remove] };
}

function applied(
  assignments: Assignments,
  set: AssignmentMessage,
): { assignments: Assignments; change: AssignmentChange } {
  const complete = set.type === 'complete';
  const base = complete ? emptyTables() : assignments.tables;
  const kinds = new Set<AssignmentKind>(
    complete ? ['task', 'network', 'service', 'endpoint', 'secret', 'config'] : [],
  );
  for (const { kind } of set.put) kinds.add(kind);
  for (const { kind } of set.remove) kinds.add(kind);
  const tables: AssignmentTables = {
    task: changed(base.task, 'task', set, kinds),
    network: changed(base.network, 'network', set, kinds),
    service: changed(base.service, 'service', set, kinds),
    endpoint: changed(base.endpoint, 'endpoint', set, kinds),
    secret: changed(base.secret, 'secret', set, kinds),
    config: changed(base.config, 'config', set, kinds),
  };
  const putTasks = set.put.flatMap((item) => (item.kind === 'task' ? [item.value] : []));
  const removedTasks = set.remove.flatMap((item) => (item.kind === 'task' ? [item.id as TaskId] : []));
  return {
    assignments: { tables, sequence: set.sequence, partial: null },
    change: { complete, putTasks, removedTasks, kinds },
  };
}

function changed<Value>(
  table: ReadonlyMap<string, Value>,
  kind: AssignmentKind,
  set: AssignmentMessage,
  kinds: ReadonlySet<AssignmentKind>,
): ReadonlyMap<string, Value> {
  if (!kinds.has(kind)) return table;
  const next = new Map(table);
  for (const item of set.remove) if (item.kind === kind) next.delete(item.id);
  // The kind of an item says the type of its value, which is the type of its table's values.
  for (const item of set.put) if (item.kind === kind) next.set(item.id, item.value as Value);
  return next;
}
