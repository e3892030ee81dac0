/**
 * The replicated store: every table of the cluster in memory, changed by batches of the log.
 *
 * Data owned: all tables, their indexes, the index of the last applied entry.
 * Invariants:
 * 1. `apply` is total and deterministic: a batch is applied whole or refused, the same way on every replica.
 * 2. Indexes agree with the tables after every call, also after a refusal or a rolled-back `tentatively`.
 * 3. Names of services (those not being removed), networks, secrets and configs are unique in their table.
 * 4. A task's observed state and desired state only rise.
 * 5. Of the batches with one key at most one changes anything, as long as the key is remembered.
 */
import { assert, AssertionError } from '../../base/assert.ts';
import { errorMessage } from '../../base/errors.ts';
import { compareTaskStates, taskStateRank } from '../../model/task-state.ts';
import type { NodeId, ServiceId } from '../../model/ids.ts';
import { type TableName, type Tables, tableNames, type Task } from '../../model/objects.ts';
import type { Action, ApplyResult, Batch, Change, Refusal } from './actions.ts';
import { ContentDigests } from './digest.ts';
import { netActions } from './net-actions.ts';
import { type Outcome, Outcomes } from './outcomes.ts';
import type { NamedTable, StateView } from './view.ts';

type AnyObject = Tables[TableName];
type TableMaps = { readonly [T in TableName]: Map<string, Tables[T]> };

/** Everything a checkpoint holds, in insertion order. */
export interface StoreContents {
  readonly index: number;
  readonly tables: { readonly [T in TableName]: readonly Tables[T][] };
  /** Oldest first; absent in checkpoints of versions that kept none. */
  readonly outcomes?: readonly Outcome[];
}

const namedTables: ReadonlySet<TableName> = new Set<TableName>(['service', 'network', 'secret', 'config']);
const NO_TASKS: ReadonlyMap<string, Task> = new Map();

function nameOf(table: TableName, object: AnyObject): string | null {
  if (!namedTables.has(table)) return null;
  // A service on its way out gives up its name, so that it can be created again at once.
  if (table === 'service' && (object as Tables['service']).pendingDelete) return null;
  return (object as Tables[NamedTable]).spec.name;
}

/** One undo or change record. */
interface UndoRecord {
  readonly table: TableName;
  readonly id: string;
  readonly before: AnyObject | null;
  readonly after: AnyObject | null;
}

/** The store. One writer: the apply loop (or `tentatively`, which rolls back). */
export class Store implements StateView {
  #index = 0;
  readonly #tables: TableMaps = {
    cluster: new Map(),
    node: new Map(),
    service: new Map(),
    task: new Map(),
    network: new Map(),
    secret: new Map(),
    config: new Map(),
  };
  readonly #names = new Map<string, string>();
  readonly #tasksByService = new Map<string, Map<string, Task>>();
  readonly #tasksByNode = new Map<string, Map<string, Task>>();
  readonly #outcomes = new Outcomes();
  readonly #digests = new ContentDigests();
  #journal: UndoRecord[] = [];
  #tentative = false;

  get index(): number {
    return this.#index;
  }

  get<T extends TableName>(table: T, id: string): Tables[T] | undefined {
    return (this.#tables[table] as Map<string, Tables[T]>).get(id);
  }

  all<T extends TableName>(table: T): Iterable<Tables[T]> {
    return (this.#tables[table] as Map<string, Tables[T]>).values();
  }

  count(table: TableName): number {
    return this.#tables[table].size;
  }

  byName<T extends NamedTable>(table: T, name: string): Tables[T] | undefined {
    const id = this.#names.get(`${table}/${name}`);
    return id === undefined ? undefined : this.get(table, id);
  }

  tasksOfService(id: ServiceId): Iterable<Task> {
    return (this.#tasksByService.get(id) ?? NO_TASKS).values();
  }

  tasksOfNode(id: NodeId): Iterable<Task> {
    return (this.#tasksByNode.get(id) ?? NO_TASKS).values();
  }

  outcome(key: string): Outcome | undefined {
    return this.#outcomes.get(key);
  }

  /**
   * Applies the entry at `index`.
   * @returns the refusal, or what changed in order.
   */
  apply(index: number, batch: Batch): { readonly result: ApplyResult; readonly changes: readonly Change[] } {
    assert(!this.#tentative, 'apply inside a tentative plan');
    assert(index > this.#index, `entry ${index} applied after ${this.#index}`);
    this.#index = index;
    const { once } = batch;
    if (once !== undefined) {
      this.#outcomes.expire(batch.at);
      const before = this.#outcomes.get(once);
      if (before !== undefined) return { result: { ok: true, index: before.index, before }, changes: [] };
    }
    const refusal = this.#runForeign(batch, index);
    const journal = this.#takeJournal();
    if (refusal !== null) {
      this.#undo(journal);
      return { result: { ok: false, refusal }, changes: [] };
    }
    if (once !== undefined) this.#outcomes.record(once, index, batch.at, batch.actions);
    return { result: { ok: true, index }, changes: journal as unknown as readonly Change[] };
  }

  /** Takes note of an entry that changes nothing here (undecodable, or of no concern). */
  skip(index: number): void {
    assert(index > this.#index, `entry ${index} skipped after ${this.#index}`);
    this.#index = index;
  }

  /**
   * Lets planners build on one another: `run` may apply actions and sees their effect in this view; all of it is
   * rolled back before this returns the net difference, at most one action an object. Versions of objects changed
   * here are `index + 1`.
   */
  tentatively(nowMs: number, run: (apply: (actions: readonly Action[]) => Refusal | null) => void): Action[] {
    assert(!this.#tentative, 'tentative plans do not nest');
    this.#tentative = true;
    try {
      run((actions) => {
        const mark = this.#journal.length;
        const refusal = this.#runForeign({ at: nowMs, actions }, this.#index + 1);
        if (refusal !== null) this.#undo(this.#journal.splice(mark));
        return refusal;
      });
      return netActions(this.#journal as unknown as readonly Change[]);
    } finally {
      this.#undo(this.#takeJournal());
      this.#tentative = false;
    }
  }

  /** Names the content: equal on replicas that applied the same entries, whatever their iteration order. */
  digest(): string {
    const tables = tableNames.map((table) => [table, this.#tables[table]] as const);
    return this.#digests.of([...tables, ['outcome', this.#outcomes.rows]]);
  }

  /** Everything, for a checkpoint. */
  contents(): StoreContents {
    const tables = Object.fromEntries(tableNames.map((table) => [table, [...this.#tables[table].values()]]));
    return {
      index: this.#index,
      tables: tables as unknown as StoreContents['tables'],
      outcomes: [...this.#outcomes.rows.values()],
    };
  }

  /** Replaces everything by a checkpoint. */
  load(contents: StoreContents): void {
    for (const table of tableNames) this.#tables[table].clear();
    this.#names.clear();
    this.#tasksByService.clear();
    this.#tasksByNode.clear();
    for (const table of tableNames) {
      for (const object of contents.tables[table]) this.#set(table, object.id, object);
    }
    this.#outcomes.load(contents.outcomes ?? []);
    this.#takeJournal();
    this.#index = contents.index;
  }

  /** An entry comes from a log that another version may have written: what it cannot make sense of is refused. */
  #runForeign(batch: Batch, index: number): Refusal | null {
    try {
      return this.#run(batch, index);
    } catch (error) {
      if (error instanceof AssertionError) throw error;
      return { kind: 'undecodable', message: `an action cannot be applied: ${errorMessage(error)}` };
    }
  }

  #run(batch: Batch, index: number): Refusal | null {
    for (const action of batch.actions) {
      const refusal = this.#runAction(action, index, batch.at);
      if (refusal !== null) return refusal;
    }
    return null;
  }

  #runAction(action: Action, index: number, at: number): Refusal | null {
    switch (action.kind) {
      case 'create': {
        const { table, object } = action;
        if (this.#tables[table].has(object.id)) return { kind: 'exists', table, id: object.id };
        const taken = this.#nameTaken(table, object);
        if (taken !== null) return taken;
        this.#set(table, object.id, { ...object, meta: { version: index, createdAt: at, updatedAt: at } });
        return null;
      }
      case 'update': {
        const { table, object } = action;
        const current = this.#tables[table].get(object.id);
        if (current === undefined) return { kind: 'missing', table, id: object.id };
        const stale = versionRefusal(table, current, action.expect);
        if (stale !== null) return stale;
        const taken = this.#nameTaken(table, object);
        if (taken !== null) return taken;
        this.#set(table, object.id, { ...object, meta: { ...current.meta, version: index, updatedAt: at } });
        return null;
      }
      case 'delete': {
        const current = this.#tables[action.table].get(action.id);
        if (current === undefined) return null;
        const stale = action.expect === null ? null : versionRefusal(action.table, current, action.expect);
        if (stale !== null) return stale;
        this.#set(action.table, action.id, null);
        return null;
      }
      case 'patch-task': {
        const current = this.#tables.task.get(action.id);
        if (current === undefined) return null;
        const stale = action.expect === null ? null : versionRefusal('task', current, action.expect);
        if (stale !== null) return stale;
        const next = patchedTask(current, action.patch);
        if (next !== current) this.#setTask(current, next, index, at);
        return null;
      }
      case 'report-task': {
        const current = this.#tables.task.get(action.id);
        if (current === undefined || current.nodeId !== action.nodeId) return null;
        if (compareTaskStates(action.status.state, current.status.state) < 0) return null;
        if (action.status.state === 'remove') return null;
        this.#setTask(current, { ...current, status: action.status }, index, at);
        return null;
      }
    }
  }

  #setTask(current: Task, next: Task, index: number, at: number): void {
    this.#set('task', next.id, { ...next, meta: { ...current.meta, version: index, updatedAt: at } });
  }

  #nameTaken(table: TableName, object: AnyObject): Refusal | null {
    const name = nameOf(table, object);
    if (name === null) return null;
    const owner = this.#names.get(`${table}/${name}`);
    return owner === undefined || owner === object.id ? null : { kind: 'name-taken', table, name };
  }

  #set(table: TableName, id: string, object: AnyObject | null): void {
    const map = this.#tables[table] as Map<string, AnyObject>;
    const before = map.get(id) ?? null;
    if (object === null) map.delete(id);
    else map.set(id, object);
    this.#reindex(table, before, object);
    this.#journal.push({ table, id, before, after: object });
  }

  #reindex(table: TableName, before: AnyObject | null, after: AnyObject | null): void {
    const oldName = before === null ? null : nameOf(table, before);
    const newName = after === null ? null : nameOf(table, after);
    if (oldName !== null && oldName !== newName) this.#names.delete(`${table}/${oldName}`);
    if (after !== null && newName !== null) this.#names.set(`${table}/${newName}`, after.id);
    if (table !== 'task') return;
    const old = before as Task | null;
    const next = after as Task | null;
    moveTask(this.#tasksByService, old?.serviceId ?? '', next?.serviceId ?? '', old, next);
    moveTask(this.#tasksByNode, old?.nodeId ?? '', next?.nodeId ?? '', old, next);
  }

  #takeJournal(): UndoRecord[] {
    const journal = this.#journal;
    this.#journal = [];
    return journal;
  }

  /** Restores what the records replaced, newest first. Iteration order may differ afterwards. */
  #undo(records: readonly UndoRecord[]): void {
    const kept = this.#journal;
    this.#journal = [];
    for (let i = records.length - 1; i >= 0; i--) {
      const record = records[i] as UndoRecord;
      this.#set(record.table, record.id, record.before);
    }
    this.#journal = kept;
  }
}

function versionRefusal(table: TableName, current: AnyObject, expected: number): Refusal | null {
  const actual = current.meta.version;
  return actual === expected ? null : { kind: 'version', table, id: current.id, expected, actual };
}

function patchedTask(task: Task, patch: Partial<Task>): Task {
  const next = { ...task, ...patch };
  if (
    patch.desiredState !== undefined &&
    taskStateRank[patch.desiredState] < taskStateRank[task.desiredState]
  ) {
    next.desiredState = task.desiredState;
  }
  if (patch.status !== undefined && compareTaskStates(patch.status.state, task.status.state) < 0) {
    next.status = task.status;
  }
  return next;
}

function moveTask(
  index: Map<string, Map<string, Task>>,
  from: string,
  to: string,
  before: Task | null,
  after: Task | null,
): void {
  if (before !== null && from !== '' && (from !== to || after === null)) {
    const group = index.get(from);
    group?.delete(before.id);
    if (group?.size === 0) index.delete(from);
  }
  if (after !== null && to !== '') {
    let group = index.get(to);
    if (group === undefined) {
      group = new Map();
      index.set(to, group);
    }
    group.set(after.id, after);
  }
}
