/**
 * The constraint enforcer: tasks on nodes that no longer suit them are rejected, so that they are replaced.
 *
 * Invariants: only the observed state is set, never what is desired, because replacing is the orchestrators' work;
 * paused and drained nodes are left alone; where resources shrank, the oldest tasks stay, the same ones each time.
 */
import { constraintsHold, parseConstraints, type Constraint } from '../../model/constraint.ts';
import type { ClusterNode, Task } from '../../model/objects.ts';
import {
  claimFits,
  isEmptyClaim,
  offeredResources,
  resourceClaim,
  takeClaim,
  type AvailableResources,
} from '../../model/resource-claims.ts';
import { isTerminalState, taskStateRank } from '../../model/task-state.ts';
import type { Action } from '../state/actions.ts';
import type { Plan, PlanContext } from '../state/planner.ts';
import type { StateView } from '../state/view.ts';

/** Status text of a task the enforcer took off its node. */
export const REJECTED_MESSAGE = 'task rejected by constraint enforcer';

/** Parsed constraints by their text; null where they cannot be read. */
type ConstraintCache = Map<string, readonly Constraint[] | null>;

/** Plans the rejection of every task whose node no longer meets its constraints, runtime or reservations. */
export function planEnforcement(view: StateView, context: PlanContext): Plan {
  const actions: Action[] = [];
  const cache: ConstraintCache = new Map();
  for (const node of view.all('node')) {
    if (node.spec.availability !== 'active') continue;
    for (const { task, error } of unsuited(node, view.tasksOfNode(node.id), cache)) {
      const status = {
        ...task.status,
        state: 'rejected',
        at: context.nowMs,
        message: REJECTED_MESSAGE,
        error,
      } as const;
      actions.push({ kind: 'patch-task', id: task.id, expect: task.meta.version, patch: { status } });
    }
  }
  return { actions, wakeAt: null, notes: [] };
}

/** The node's tasks that must go, with why. */
function unsuited(
  node: ClusterNode,
  tasks: Iterable<Task>,
  cache: ConstraintCache,
): readonly { readonly task: Task; readonly error: string }[] {
  const kept: Task[] = [];
  const rejected: { readonly task: Task; readonly error: string }[] = [];
  const available = offeredResources(node);
  for (const task of tasks) {
    const { state } = task.status;
    if (taskStateRank[state] < taskStateRank.assigned || isTerminalState(state)) continue;
    // A job that runs is not interrupted by a change of its node, but what it holds is not there for others.
    if (task.desiredState === 'complete') takeClaim(available, resourceClaim(task));
    if (task.desiredState !== 'ready' && task.desiredState !== 'running') continue;
    const error = nodeMismatch(node, task, cache);
    if (error === null) kept.push(task);
    else rejected.push({ task, error });
  }
  kept.sort(byAge);
  for (const task of kept) {
    if (takeIfFits(available, task)) continue;
    rejected.push({ task, error: 'assigned node no longer has the resources the task reserves' });
  }
  return rejected;
}

function byAge(a: Task, b: Task): number {
  return a.meta.createdAt - b.meta.createdAt || (a.id < b.id ? -1 : 1);
}

function takeIfFits(available: AvailableResources, task: Task): boolean {
  const claim = resourceClaim(task);
  if (isEmptyClaim(claim)) return true;
  if (!claimFits(available, claim)) return false;
  takeClaim(available, claim);
  return true;
}

function nodeMismatch(node: ClusterNode, task: Task, cache: ConstraintCache): string | null {
  if (!node.description.runtimes.includes(task.spec.runtime)) {
    return `assigned node no longer offers runtime ${task.spec.runtime}`;
  }
  const texts = task.spec.placement.constraints;
  if (texts.length === 0) return null;
  const constraints = parsedConstraints(texts, cache);
  // Unreadable constraints are refused when a spec is written; a running task is not killed for one.
  if (constraints === null || constraintsHold(constraints, node)) return null;
  return 'assigned node no longer meets constraints';
}

function parsedConstraints(texts: readonly string[], cache: ConstraintCache): readonly Constraint[] | null {
  const key = texts.join('\n');
  const known = cache.get(key);
  if (known !== undefined) return known;
  const parsed = parseConstraints(texts);
  const constraints = parsed.ok ? parsed.value : null;
  cache.set(key, constraints);
  return constraints;
}
