/**
 * Invariants of orchestration, checked once on each committed change.
 *
 * Data owned: the last known state of every task, which node each was started on. A task never changes its node, its
 * states only rise, it starts once, where it was placed, and only while it was wanted; no node is over-committed; an
 * update keeps no more than `parallelism` slots on their way; an endpoint is only ever told of a task that ran.
 */
import { slotsInChange } from '../support/fake-cluster.ts';
import type { TaskId } from '../../src/model/ids.ts';
import type { Task, UpdateState } from '../../src/model/objects.ts';
import { claimFits, offeredResources, resourceClaim, takeClaim } from '../../src/model/resource-claims.ts';
import { taskStateRank } from '../../src/model/task-state.ts';
import { isMadeByUpdate, isUp } from '../../src/manager/orchestrator/slots.ts';
import type { Change } from '../../src/manager/state/actions.ts';
import type { Store } from '../../src/manager/state/store.ts';

/** What is remembered of a task. */
interface TaskPast {
  nodeId: string;
  rank: number;
  desired: number;
  /** It was seen running and healthy: an endpoint of it may have been told. */
  wasUp: boolean;
  /** It was wanted running while on its node. */
  wasWanted: boolean;
}

/** Everything known of the state's past. */
export class ClusterChecks {
  readonly #violation: (what: string) => void;
  readonly #tasks = new Map<TaskId, TaskPast>();
  readonly #started = new Map<TaskId, string>();
  /** Services that may have two tasks in a slot. */
  readonly #startFirst = new Set<string>();
  /** Register values, and keys of changes, by the index that wrote them. */
  readonly #written = new Map<string, number>();
  /** Tasks are taken as they are found next: the state went back to an earlier one. */
  #isRewound = false;
  /** Tasks that lost their place when the state went back: the node that may still start them. */
  readonly #orphans = new Map<TaskId, string>();
  /** Tasks that ran in what was lost. */
  readonly #wereUp = new Set<string>();
  /** The index up to which changes were checked. */
  #index = 0;
  changesChecked = 0;
  /** How often each thing was seen to happen, to know that a run exercised it. */
  readonly seen = {
    started: 0,
    up: 0,
    endpoints: 0,
    updates: 0,
    updatesCompleted: 0,
    updatesStopped: 0,
    rollbacks: 0,
  };

  constructor(violation: (what: string) => void) {
    this.#violation = violation;
  }

  /**
   * The cluster goes on from the state after entry `index`: what came later may never have been. Tasks may have to
   * take the steps again that were lost, on other nodes too; nothing else is forgotten.
   */
  rewind(index: number): void {
    this.#index = Math.min(this.#index, index);
    this.#isRewound = true;
    for (const [key, at] of this.#written) if (at > index) this.#written.delete(key);
  }

  /** A manager that was left behind applied what it still knew to be committed: workers may hear of it. */
  leftBehind(changes: readonly Change[] | null): void {
    for (const change of changes ?? []) {
      if (change.table !== 'task' || change.after === null) continue;
      if (change.after.nodeId !== '') this.#orphans.set(change.after.id, change.after.nodeId);
      if (isUp(change.after)) this.#wereUp.add(change.id);
    }
  }

  #takeAsFound(store: Store): void {
    for (const task of store.all('task')) {
      const past = this.#tasks.get(task.id);
      const rank = taskStateRank[task.status.state];
      if (past !== undefined && past.nodeId !== task.nodeId) {
        this.#started.delete(task.id);
        this.#orphans.set(task.id, past.nodeId);
      }
      this.#tasks.set(task.id, {
        nodeId: task.nodeId,
        rank,
        desired: taskStateRank[task.desiredState],
        wasUp: past?.wasUp === true || isUp(task),
        wasWanted: past?.wasWanted === true || (task.nodeId !== '' && rank >= taskStateRank.assigned),
      });
    }
  }

  /** A replica applied an entry (`changes`), or took over a snapshot (null). Each index is looked at once. */
  applied(store: Store, changes: readonly Change[] | null): void {
    if (store.index <= this.#index) return;
    const isNext = changes !== null;
    this.#index = store.index;
    if (this.#isRewound) {
      this.#isRewound = false;
      this.#takeAsFound(store);
      return;
    }
    if (!isNext) {
      for (const task of store.all('task')) this.#task(task);
      return;
    }
    this.changesChecked += 1;
    const nodes = new Set<string>();
    const services = new Set<string>();
    for (const change of changes) {
      if (change.table === 'service' && change.after !== null) {
        services.add(change.id);
        this.#countUpdate(change.before?.updateStatus?.state, change.after.updateStatus?.state);
        const { value, once } = change.after.spec.labels;
        if (value !== undefined && value !== change.before?.spec.labels['value'])
          this.#once(`value ${value} of ${change.id}`);
        // The service that a change with a key made: it is made once, whatever became of it.
        if (once !== undefined && change.before === null) this.#once(`what key ${once} makes`);
      }
      if (change.table !== 'task' || change.after === null) continue;
      this.#task(change.after);
      const placed =
        change.before?.nodeId !== change.after.nodeId || change.before.status.state === 'pending';
      if (placed && change.after.nodeId !== '') nodes.add(change.after.nodeId);
      services.add(change.after.serviceId);
    }
    for (const id of nodes) this.#node(store, id);
    for (const id of services) {
      this.#update(store, id);
      this.#slots(store, id);
    }
  }

  #countUpdate(before: UpdateState | undefined, after: UpdateState | undefined): void {
    if (after === before) return;
    if (after === 'updating') this.seen.updates += 1;
    if (after === 'completed' || after === 'rollback_completed') this.seen.updatesCompleted += 1;
    if (after === 'paused' || after === 'rollback_paused') this.seen.updatesStopped += 1;
    if (after === 'rollback_started') this.seen.rollbacks += 1;
  }

  #task(task: Task): void {
    const rank = taskStateRank[task.status.state];
    const desired = taskStateRank[task.desiredState];
    const past = this.#tasks.get(task.id);
    const wanted = task.nodeId !== '' && task.desiredState === 'running' && rank >= taskStateRank.assigned;
    if (past === undefined) {
      this.#tasks.set(task.id, { nodeId: task.nodeId, rank, desired, wasUp: isUp(task), wasWanted: wanted });
      return;
    }
    if (past.nodeId !== '' && past.nodeId !== task.nodeId)
      this.#violation(`task ${task.id} moved from node ${past.nodeId} to ${task.nodeId}`);
    if (rank < past.rank) this.#violation(`task ${task.id}: its state went back to ${task.status.state}`);
    if (desired < past.desired)
      this.#violation(`task ${task.id}: its desired state went back to ${task.desiredState}`);
    Object.assign(past, { nodeId: task.nodeId, rank, desired });
    if (isUp(task) && !past.wasUp) this.seen.up += 1;
    past.wasUp ||= isUp(task);
    past.wasWanted ||= wanted;
  }

  /** No node holds more than it has. */
  #node(store: Store, id: string): void {
    const node = store.get('node', id);
    if (node === undefined) return;
    const left = offeredResources(node);
    for (const task of store.tasksOfNode(node.id)) {
      const rank = taskStateRank[task.status.state];
      if (rank < taskStateRank.assigned || rank > taskStateRank.running) continue;
      const claim = resourceClaim(task);
      if (!claimFits(left, claim)) this.#violation(`node ${id} is over-committed by task ${task.id}`);
      takeClaim(left, claim);
    }
  }

  /** A slot is one task's, unless its service ever started new tasks beside the old. */
  #slots(store: Store, id: string): void {
    const service = store.get('service', id);
    if (service === undefined) return;
    const { update, rollback, mode } = service.spec;
    if (update.order === 'start-first' || rollback.order === 'start-first') this.#startFirst.add(id);
    if (mode.kind !== 'replicated' || this.#startFirst.has(id)) return;
    const taken = new Set<number>();
    for (const task of store.tasksOfService(service.id)) {
      if (task.desiredState !== 'running') continue;
      if (taken.has(task.slot))
        this.#violation(`service ${service.spec.name}: two tasks are wanted running in slot ${task.slot}`);
      taken.add(task.slot);
    }
  }

  #update(store: Store, id: string): void {
    const service = store.get('service', id);
    const state = service?.updateStatus?.state;
    if (service === undefined || service.spec.mode.kind !== 'replicated') return;
    if (state !== 'updating' && state !== 'rollback_started') return;
    const { parallelism } =
      state === 'updating' ? service.spec.update : (service.previousSpec ?? service.spec).rollback;
    const { updateStatus } = service;
    // One that was paused and goes on is another update: what the first left on its way is not counted.
    const made = [...store.tasksOfService(service.id)].filter(
      (task) => updateStatus !== undefined && isMadeByUpdate(service, updateStatus, task),
    );
    const down = slotsInChange(made);
    if (parallelism > 0 && state === 'updating' && down > parallelism)
      this.#violation(`service ${service.spec.name}: ${down} slots in change, parallelism is ${parallelism}`);
  }

  /** A proposal takes effect at most once. */
  #once(what: string): void {
    const index = this.#written.get(what);
    if (index !== undefined)
      this.#violation(`${what} was written at entry ${index} and again at ${this.#index}`);
    this.#written.set(what, this.#index);
  }

  /** An engine started a task. */
  started(nodeId: string, id: TaskId): void {
    this.seen.started += 1;
    if (this.#orphans.get(id) === nodeId) return;
    const on = this.#started.get(id);
    if (on !== undefined) this.#violation(`task ${id} was started on ${on} and again on ${nodeId}`);
    this.#started.set(id, nodeId);
    const past = this.#tasks.get(id);
    if (past === undefined || past.nodeId !== nodeId)
      this.#violation(`task ${id} was started on ${nodeId}, its place is ${past?.nodeId ?? 'nowhere'}`);
    else if (!past.wasWanted) this.#violation(`task ${id} was started and never wanted running`);
  }

  /** A worker was told of endpoints. */
  endpoints(host: string, ids: Iterable<string>): void {
    for (const id of ids) {
      this.seen.endpoints += 1;
      if (this.#tasks.get(id as TaskId)?.wasUp !== true && !this.#wereUp.has(id))
        this.#violation(`${host} was told of an endpoint of task ${id}, which never ran healthy`);
    }
  }
}
