/**
 * PURE: runs the planner chain on a tentative copy until nothing is left to do.
 *
 * Invariants: workers are played as if every task started, ran and stopped at once and without failure; nodes that
 * are down report nothing; time moves only when nothing else does, to the next wake-up the planners asked for; the
 * work is bounded, whatever the planners do.
 */
import type { ClusterNode, Task } from '../../model/objects.ts';
import type { Random } from '../../base/random.ts';
import { isTerminalState, taskStateRank, type TaskState } from '../../model/task-state.ts';
import type { Action, Refusal } from '../state/actions.ts';
import { earlier } from '../state/planner.ts';
import type { StateView } from '../state/view.ts';
import { planners } from './planner-chain.ts';

/** Turns of all planners, at most. */
const TURNS_MAX = 2_000;
/** Tasks and nodes looked at over all turns, at most: a forecast must not hold up the leader. */
const VISITS_MAX = 300_000;
/** Turns that are made however large the cluster is. */
const TURNS_MIN = 6;
/** How far ahead of now a forecast looks, milliseconds. */
const HORIZON_MS = 60 * 60_000;

export interface SettleContext {
  readonly nowMs: number;
  readonly random: Random;
  /** Whether reports of the task should be played. */
  isPlayed(task: Task): boolean;
}

/** Plans and plays until nothing changes. @returns whether the end was reached within the bounds. */
export function settle(
  view: StateView,
  apply: (actions: readonly Action[]) => Refusal | null,
  context: SettleContext,
): boolean {
  let { nowMs } = context;
  let visits = 0;
  for (let turn = 0; turn < TURNS_MAX; turn++) {
    if (turn >= TURNS_MIN && visits > VISITS_MAX) return false;
    visits += view.count('task') + view.count('node');
    let wakeAt: number | null = null;
    let changed = false;
    for (const planner of planners) {
      const plan = planner.plan(view, { nowMs, random: context.random });
      wakeAt = earlier(wakeAt, plan.wakeAt);
      if (plan.actions.length === 0) continue;
      if (apply(plan.actions) !== null) return false;
      changed = true;
    }
    const reports = [...view.all('task')].flatMap((task) =>
      context.isPlayed(task) ? play(task, view, nowMs) : [],
    );
    if (reports.length > 0) {
      if (apply(reports) !== null) return false;
      changed = true;
    }
    if (changed) continue;
    if (wakeAt === null || wakeAt > context.nowMs + HORIZON_MS) return true;
    nowMs = Math.max(nowMs + 1, wakeAt);
  }
  return false;
}

/** What the task's node reports next, if anything. */
function play(task: Task, view: StateView, nowMs: number): Action[] {
  const { state } = task.status;
  if (task.nodeId === '' || isTerminalState(state)) return [];
  if (taskStateRank[state] < taskStateRank.assigned) return [];
  const node: ClusterNode | undefined = view.get('node', task.nodeId);
  if (node === undefined || node.status.state === 'down') return [];
  const next = nextState(task);
  if (next === state) return [];
  const status = { ...task.status, state: next, at: nowMs, message: '', error: '' };
  return [{ kind: 'report-task', id: task.id, nodeId: task.nodeId, status }];
}

function nextState(task: Task): TaskState {
  switch (task.desiredState) {
    case 'ready':
      return taskStateRank[task.status.state] < taskStateRank.ready ? 'ready' : task.status.state;
    case 'running':
      return 'running';
    case 'complete':
      return 'complete';
    case 'shutdown':
    case 'remove':
      return 'shutdown';
  }
}
