/**
 * PURE: jobs. Tasks that are to COMPLETE, a number of times (replicated job) or once a node (global job).
 *
 * Invariants: only tasks of the service's present iteration count, older ones are asked to go; a slot or node that
 * completed is never run again in the same iteration; at most `maxConcurrent` slots of a replicated job are wanted at
 * a time; restarts keep the policy (`any` acts as `on-failure`), attempts included, and lost nodes are replaced.
 */
import type { ClusterNode, Service, Task } from '../../model/objects.ts';
import { isTerminalState, taskStateRank } from '../../model/task-state.ts';
import type { Plan, PlanContext } from '../state/planner.ts';
import type { StateView } from '../state/view.ts';
import { createTask, finishPlan, newDraft, raiseDesired, type Draft } from './draft.ts';
import { nodeVerdict } from './global.ts';
import { removeAllTasks } from './replicated.ts';
import { superviseSlot } from './restart.ts';
import { byCreation, slotKey } from './slots.ts';
import { newTask } from './task-factory.ts';

/** Plans every job. */
export function planJobs(view: StateView, context: PlanContext): Plan {
  const draft = newDraft(context);
  for (const service of view.all('service')) {
    const { mode } = service.spec;
    if (mode.kind !== 'replicated-job' && mode.kind !== 'global-job') continue;
    if (service.pendingDelete) {
      removeAllTasks(draft, view, service);
      continue;
    }
    const runs = runsOf(draft, view, service);
    if (mode.kind === 'global-job') planGlobalJob(draft, view, service, runs);
    else planReplicatedJob(draft, view, service, runs, mode);
  }
  return finishPlan(draft);
}

/** The tasks of one slot or node in this iteration. */
interface Run {
  /** Completed, or ended with no further attempt: never run again. */
  readonly over: boolean;
  /** Tasks asked to complete that have not, oldest first. */
  readonly wanted: readonly Task[];
}

function isWanted(task: Task): boolean {
  return taskStateRank[task.desiredState] <= taskStateRank.complete && task.status.state !== 'complete';
}

/** The runs of the present iteration by slot or node; tasks of older ones are asked to go. */
function runsOf(draft: Draft, view: StateView, service: Service): Map<string, Run> {
  const iteration = service.jobIteration ?? 0;
  const groups = new Map<string, Task[]>();
  for (const task of view.tasksOfService(service.id)) {
    if ((task.jobIteration ?? 0) !== iteration) raiseDesired(draft, task, 'remove');
    else if (task.desiredState !== 'remove') {
      const key = slotKey(service, task);
      groups.set(key, [...(groups.get(key) ?? []), task]);
    }
  }
  const runs = new Map<string, Run>();
  for (const [key, tasks] of groups) {
    const wanted = tasks.filter(isWanted).sort(byCreation);
    const completed = tasks.some((task) => task.status.state === 'complete');
    const givenUp = wanted.length === 0 && tasks.some((task) => task.finished === true);
    runs.set(key, { over: completed || givenUp, wanted });
  }
  return runs;
}

function planReplicatedJob(
  draft: Draft,
  view: StateView,
  service: Service,
  runs: ReadonlyMap<string, Run>,
  mode: { readonly maxConcurrent: number; readonly totalCompletions: number },
): void {
  const concurrent = mode.maxConcurrent === 0 ? mode.totalCompletions : mode.maxConcurrent;
  let wanted = 0;
  for (const run of runs.values()) {
    if (!run.over && superviseSlot(draft, view, service, run.wanted)) wanted++;
  }
  for (let slot = 0; slot < mode.totalCompletions && wanted < concurrent; slot++) {
    const run = runs.get(String(slot));
    if (run !== undefined && (run.over || run.wanted.length > 0)) continue;
    createTask(draft, newTask(service, { slot, nodeId: '', desiredState: 'complete' }, draft.context));
    wanted++;
  }
}

function planGlobalJob(
  draft: Draft,
  view: StateView,
  service: Service,
  runs: ReadonlyMap<string, Run>,
): void {
  const verdictOf = nodeVerdict(service);
  const nodes = new Map<string, ClusterNode>([...view.all('node')].map((node) => [node.id, node]));
  for (const node of nodes.values()) {
    const run = runs.get(node.id);
    const verdict = verdictOf(node);
    if (verdict === 'stop') stopRun(draft, run);
    else if (verdict === 'run' && run !== undefined && (run.over || run.wanted.length > 0)) {
      if (!run.over) superviseSlot(draft, view, service, run.wanted);
    } else if (verdict === 'run' && node.status.state === 'ready') {
      const wish = { slot: 0, nodeId: node.id, desiredState: 'complete' } as const;
      createTask(draft, newTask(service, wish, draft.context));
    } else if (verdict === 'keep') {
      stopRun(draft, run, true);
    }
  }
  for (const [key, run] of runs) if (!nodes.has(key)) stopRun(draft, run);
}

/** Shuts down the wanted tasks of a run; with `endedOnly` those that ended. */
function stopRun(draft: Draft, run: Run | undefined, endedOnly = false): void {
  for (const task of run?.wanted ?? []) {
    if (!endedOnly || isTerminalState(task.status.state)) raiseDesired(draft, task, 'shutdown');
  }
}
