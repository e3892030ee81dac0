/**
 * PURE: the smallest set of actions with the effect of a list of changes.
 *
 * Invariants: at most one action an object; a task that existed before is patched field by field, so that a
 * worker's report that lands in between is neither overwritten nor a reason to refuse a wish.
 */
import type { TableName, Tables, Task } from '../../model/objects.ts';
import type { Action, Change, TaskPatch } from './actions.ts';

type AnyObject = Tables[TableName];

interface NetChange {
  readonly table: TableName;
  readonly before: AnyObject | null;
  after: AnyObject | null;
  anew: boolean;
}

const patchable = [
  'desiredState',
  'nodeId',
  'networks',
  'endpointPorts',
  'genericResources',
  'status',
  'spec',
  'specVersion',
  'finished',
  'update',
] as const satisfies (keyof TaskPatch)[];

/** Reduces changes (in order) to actions, in the order objects were first touched. */
export function netActions(changes: readonly Change[]): Action[] {
  const net = new Map<string, NetChange>();
  for (const { table, id, before, after } of changes) {
    const known = net.get(`${table}/${id}`);
    if (known === undefined) {
      net.set(`${table}/${id}`, { table, before, after, anew: false });
      continue;
    }
    // Deleted and made again is another object, of which no field is inherited.
    if (known.after === null && known.before !== null) known.anew = true;
    known.after = after;
  }
  const actions: Action[] = [];
  for (const { table, before, after, anew } of net.values()) {
    if (before === after) continue;
    if (anew && before !== null && after !== null) {
      actions.push({ kind: 'delete', table, id: before.id, expect: null });
      actions.push({ kind: 'create', table, object: after } as Action);
      continue;
    }
    if (after === null) {
      if (before !== null) actions.push({ kind: 'delete', table, id: before.id, expect: null });
    } else if (before === null) {
      actions.push({ kind: 'create', table, object: after } as Action);
    } else if (table === 'task') {
      const patch = patchTask(before as Task, after as Task);
      if (patch !== null) actions.push(patch);
    } else {
      actions.push({ kind: 'update', table, object: after, expect: before.meta.version } as Action);
    }
  }
  return actions;
}

function patchTask(before: Task, after: Task): Action | null {
  const patch: Record<string, unknown> = {};
  for (const field of patchable) if (before[field] !== after[field]) patch[field] = after[field];
  if (Object.keys(patch).length === 0) return null;
  // A wish alone holds whatever the worker says meanwhile; a placement or a status was decided on what was seen.
  const onSeen = 'status' in patch || 'nodeId' in patch;
  return { kind: 'patch-task', id: after.id, patch, expect: onSeen ? before.meta.version : null };
}
