/**
 * A cluster in one object for tests of the orchestrators: the real store, planners and scheduler, an allocator
 * that only moves tasks on, and workers that do as they are told, on a clock that moves when told.
 *
 * Invariants: `settle` ends only when every planner has nothing to do; time moves through every wake-up on its way;
 * an orchestrator that plans again on its own result finds nothing to do (asserted at every turn).
 */
import assert from 'node:assert/strict';
import { seededRandom, type Random } from '../../src/base/random.ts';
import type { NodeId, ServiceId } from '../../src/model/ids.ts';
import type { ClusterNode, Service, Task } from '../../src/model/objects.ts';
import type { ClusterSpec, ServiceSpec } from '../../src/model/spec.ts';
import { isTerminalState, taskStateRank, type TaskState } from '../../src/model/task-state.ts';
import { planGlobal } from '../../src/manager/orchestrator/global.ts';
import { planJobs } from '../../src/manager/orchestrator/jobs.ts';
import { planReaping } from '../../src/manager/orchestrator/reaper.ts';
import { planReplicated } from '../../src/manager/orchestrator/replicated.ts';
import { planDelayedStarts } from '../../src/manager/orchestrator/restart.ts';
import { isActive, isUp } from '../../src/manager/orchestrator/slots.ts';
import { planScheduling } from '../../src/manager/scheduler/scheduler.ts';
import type { Action } from '../../src/manager/state/actions.ts';
import { earlier, type Plan, type Planner, type PlanContext } from '../../src/manager/state/planner.ts';
import { Store } from '../../src/manager/state/store.ts';
import type { StateView } from '../../src/manager/state/view.ts';
import { startRollback, startUpdate } from '../../src/manager/update/start.ts';
import { planUpdates } from '../../src/manager/update/updates.ts';
import { makeCluster, makeNode, makeService, NOW_MS, type NodeOptions } from './planner-fixtures.ts';

/** What a worker makes of a task: where it ends up when nothing stops it. */
export type TaskFate = 'run' | 'hang' | 'unhealthy' | Extract<TaskState, 'rejected' | 'failed' | 'complete'>;

/** Moves new tasks to PENDING with the service's ports, as the allocator does. */
function planNaiveAllocation(view: StateView, context: PlanContext): Plan {
  const actions: Action[] = [];
  for (const task of view.all('task')) {
    if (task.status.state !== 'new' || taskStateRank[task.desiredState] >= taskStateRank.shutdown) continue;
    const status = {
      state: 'pending',
      at: context.nowMs,
      message: 'pending task scheduling',
      error: '',
    } as const;
    const endpointPorts = task.endpointSpec?.ports ?? [];
    actions.push({ kind: 'patch-task', id: task.id, patch: { status, endpointPorts }, expect: null });
  }
  return { actions, wakeAt: null, notes: [] };
}

/** The planners under test, in the order of the control loop. */
export const orchestratorPlanners: readonly Planner[] = [
  planReaping,
  planReplicated,
  planGlobal,
  planJobs,
  planUpdates,
  planDelayedStarts,
];

const planners: readonly Planner[] = [...orchestratorPlanners, planNaiveAllocation, planScheduling];
const TURNS_MAX = 2_000;

export class FakeCluster {
  store = new Store();
  nowMs = NOW_MS;
  readonly notes: string[] = [];
  /** Decides what becomes of each task; the default runs everything. */
  fate: (task: Task) => TaskFate = () => 'run';
  /** Whether a task that is asked to stop does so at once; else `finishStopping` lets it. */
  stopsAtOnce = true;
  /** How far each worker's clock is off. */
  readonly skewMs = new Map<string, number>();
  /** Called after every entry. */
  afterApply: () => void = () => {};
  readonly #random: Random;

  constructor(options: { nodes?: number; seed?: number; cluster?: Partial<ClusterSpec> } = {}) {
    this.#random = seededRandom(options.seed ?? 1);
    this.apply([{ kind: 'create', table: 'cluster', object: makeCluster(options.cluster) }]);
    for (let i = 1; i <= (options.nodes ?? 3); i++) this.addNode(`n${i}`);
  }

  apply(actions: readonly Action[]): void {
    const { result } = this.store.apply(this.store.index + 1, { at: this.nowMs, actions });
    assert.ok(result.ok, `batch refused: ${JSON.stringify(result)}`);
    this.afterApply();
  }

  addNode(id: string, options: NodeOptions = {}): void {
    this.apply([{ kind: 'create', table: 'node', object: makeNode(id, options) }]);
  }

  node(id: string): ClusterNode {
    const node = this.store.get('node', id);
    assert.ok(node !== undefined, `no node ${id}`);
    return node;
  }

  setNode(
    id: string,
    state: ClusterNode['status']['state'],
    availability?: ClusterNode['spec']['availability'],
  ): void {
    const node = this.node(id);
    const spec = { ...node.spec, availability: availability ?? node.spec.availability };
    const object = { ...node, spec, status: { ...node.status, state } };
    this.apply([{ kind: 'update', table: 'node', object, expect: node.meta.version }]);
  }

  removeNode(id: string): void {
    this.apply([{ kind: 'delete', table: 'node', id, expect: null }]);
  }

  create(spec: Partial<ServiceSpec> = {}, id = 'svc'): void {
    this.apply([{ kind: 'create', table: 'service', object: makeService(id, { spec }) }]);
  }

  service(id = 'svc'): Service {
    const service = this.store.get('service', id);
    assert.ok(service !== undefined, `no service ${id}`);
    return service;
  }

  setService(object: Service): void {
    this.apply([{ kind: 'update', table: 'service', object, expect: this.service(object.id).meta.version }]);
  }

  update(change: (spec: ServiceSpec) => ServiceSpec, id = 'svc'): void {
    const service = this.service(id);
    this.setService(startUpdate(service, change(service.spec), this.nowMs));
  }

  /** Changes the image, so that every task must change. */
  updateImage(image: string, id = 'svc'): void {
    this.update((spec) => withImage(spec, image), id);
  }

  scale(replicas: number, id = 'svc'): void {
    this.update((spec) => ({ ...spec, mode: { kind: 'replicated', replicas } }), id);
  }

  rollback(id = 'svc'): void {
    const next = startRollback(this.service(id), this.nowMs);
    assert.ok(next.ok, 'rollback refused');
    this.setService(next.value);
  }

  remove(id = 'svc'): void {
    this.setService({ ...this.service(id), pendingDelete: true });
  }

  tasks(id = 'svc'): Task[] {
    return [...this.store.tasksOfService(id as ServiceId)];
  }

  active(id = 'svc'): Task[] {
    return this.tasks(id).filter(isActive);
  }

  up(id = 'svc'): Task[] {
    return this.active(id).filter(isUp);
  }

  /** Reports a state of a task, as its worker does. */
  report(task: Task, state: TaskState, healthy?: boolean): void {
    const now = this.store.get('task', task.id) ?? task;
    assert.notEqual(now.nodeId, '', 'only an assigned task is reported');
    const nodeId = now.nodeId as NodeId;
    const at = this.nowMs + (this.skewMs.get(nodeId) ?? 0);
    const error = state === 'failed' || state === 'rejected' ? `task: ${state}` : '';
    const status = { state, at, message: state, error, ...(healthy === undefined ? {} : { healthy }) };
    this.apply([{ kind: 'report-task', id: task.id, nodeId, status }]);
  }

  /** One turn of the control loop; returns whether it changed anything, and when it wants to be called again. */
  turn(): { readonly changed: boolean; readonly wakeAt: number | null } {
    let wakeAt: number | null = null;
    const actions = this.store.tentatively(this.nowMs, (apply) => {
      for (const planner of planners) {
        const plan = planner(this.store, { nowMs: this.nowMs, random: this.#random });
        wakeAt = earlier(wakeAt, plan.wakeAt);
        for (const note of plan.notes) this.notes.push(note.message);
        assert.equal(apply(plan.actions), null);
        if (!orchestratorPlanners.includes(planner)) continue;
        const again = planner(this.store, { nowMs: this.nowMs, random: seededRandom(this.store.index) });
        assert.deepEqual(again.actions, [], `${planner.name} finds more to do on its own result`);
      }
    });
    if (actions.length > 0) this.apply(actions);
    return { changed: actions.length > 0, wakeAt };
  }

  /** Every worker takes one step with every task it has; returns whether anything happened. */
  work(): boolean {
    let changed = false;
    for (const task of [...this.store.all('task')]) {
      const next = this.#nextState(task);
      if (next === null) continue;
      this.report(task, next, this.fate(task) === 'unhealthy' && next === 'running' ? false : undefined);
      changed = true;
    }
    return changed;
  }

  #nextState(task: Task): TaskState | null {
    const { state } = task.status;
    if (task.nodeId === '' || isTerminalState(state)) return null;
    if (taskStateRank[state] < taskStateRank.assigned) return null;
    const node = this.store.get('node', task.nodeId);
    if (node === undefined || node.status.state === 'down') return null;
    if (taskStateRank[task.desiredState] >= taskStateRank.shutdown) {
      return this.stopsAtOnce || state !== 'running' ? 'shutdown' : null;
    }
    const fate = this.fate(task);
    if (fate === 'hang') return null;
    if (fate === 'rejected') return 'rejected';
    if (state !== 'ready' && state !== 'running') return 'ready';
    if (task.desiredState === 'ready') return null;
    if (state === 'ready') return 'running';
    return fate === 'failed' || fate === 'complete' ? fate : null;
  }

  finishStopping(): void {
    this.stopsAtOnce = true;
    this.work();
    this.stopsAtOnce = false;
  }

  /** Plans and works until nothing changes at this time; returns when the planners want to go on. */
  settle(): number | null {
    for (let turn = 0; turn < TURNS_MAX; turn++) {
      const planned = this.turn();
      const worked = this.work();
      if (!planned.changed && !worked) return planned.wakeAt;
    }
    assert.fail('the cluster does not settle');
  }

  /** Moves time on by `ms`, settling at every wake-up on the way. */
  advance(ms: number): void {
    const end = this.nowMs + ms;
    for (let wakes = 0; wakes < TURNS_MAX; wakes++) {
      const wakeAt = this.settle();
      if (wakeAt === null || wakeAt > end) {
        this.nowMs = end;
        this.settle();
        return;
      }
      assert.ok(wakeAt > this.nowMs, `a wake-up at ${wakeAt} is not after ${this.nowMs}`);
      this.nowMs = wakeAt;
    }
    assert.fail('too many wake-ups');
  }

  /** What a new leader begins with: the state, from its stored form, and another clock. */
  failOver(clockOffsetMs = 0): void {
    const contents = structuredClone(this.store.contents());
    this.store = new Store();
    this.store.load(contents);
    this.nowMs += clockOffsetMs;
  }
}

export function withImage(spec: ServiceSpec, image: string): ServiceSpec {
  return { ...spec, task: { ...spec.task, container: { ...spec.task.container, image } } };
}

/** Slots with a task of an update on its way to running. */
export function slotsInChange(tasks: readonly Task[]): number {
  return tasks.filter(
    (task) =>
      task.update !== undefined &&
      task.update.runningAt === undefined &&
      isActive(task) &&
      !isUp(task) &&
      !isTerminalState(task.status.state),
  ).length;
}
