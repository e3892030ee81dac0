/**
 * A cluster of planners under a script: steps in, text out. Time stands still but where a step moves it; ids and
 * order follow from the script alone.
 */
import { seededRandom } from '../../../src/base/random.ts';
import { explainService } from '../../../src/manager/forecast/explain.ts';
import { planners } from '../../../src/manager/forecast/planner-chain.ts';
import type { Action } from '../../../src/manager/state/actions.ts';
import { startUpdate } from '../../../src/manager/update/start.ts';
import type { ClusterNode, Service, Task } from '../../../src/model/objects.ts';
import type { ServiceMode, ServiceSpec } from '../../../src/model/spec.ts';
import { isTerminalState, taskStateRank, type TaskState } from '../../../src/model/task-state.ts';
import {
  applyAll,
  makeNode,
  makeService,
  makeStore,
  makeTaskSpec,
  NOW_MS,
} from '../../support/planner-fixtures.ts';
import type { ScriptArgument, ScriptCase } from '../../raft/datadriven.ts';

type Arguments = ReadonlyMap<string, readonly string[]>;

/** Runs scripts; one a cluster. */
export class TranscriptWorld {
  readonly #store = makeStore({});
  readonly #random = seededRandom(1);
  /** `image` of tasks that fail as soon as they start. */
  readonly #broken = new Set<string>();
  #nowMs = NOW_MS;

  /** The output of one step, without the last line break. */
  run({ command, args, place }: Pick<ScriptCase, 'command' | 'args' | 'place'>): string {
    const given = new Map(args.map(({ key, values }: ScriptArgument) => [key, values]));
    switch (command) {
      case 'add-node':
        return this.#apply({ kind: 'create', table: 'node', object: nodeOf(given) });
      case 'set-node':
        return this.#setNode(given);
      case 'create-service':
        return this.#apply({ kind: 'create', table: 'service', object: newService(given) });
      case 'update-service':
        return this.#updateService(given);
      case 'break-image':
        this.#broken.add(one(given, 'image'));
        return 'ok';
      case 'advance':
        this.#nowMs += Number(one(given, 'seconds')) * 1000;
        return 'ok';
      case 'plan':
        return this.#plan(Number(given.get('turns')?.[0] ?? 1));
      case 'show-tasks':
        return this.#showTasks(given.has('all'));
      case 'explain':
        return this.#explain(one(given, 'service'));
      default:
        throw new Error(`${place}: no step is named ${command}`);
    }
  }

  #apply(action: Action): string {
    applyAll(this.#store, [action], this.#nowMs);
    return 'ok';
  }

  #setNode(given: Arguments): string {
    const node = this.#store.get('node', one(given, 'id')) as ClusterNode;
    const state = (given.get('state')?.[0] ?? node.status.state) as ClusterNode['status']['state'];
    const availability = (given.get('availability')?.[0] ??
      node.spec.availability) as ClusterNode['spec']['availability'];
    const object = { ...node, spec: { ...node.spec, availability }, status: { ...node.status, state } };
    return this.#apply({ kind: 'update', table: 'node', object, expect: node.meta.version });
  }

  #updateService(given: Arguments): string {
    const service = this.#store.get('service', one(given, 'name')) as Service;
    const object = startUpdate(service, specOf(given, service.spec), this.#nowMs);
    return this.#apply({ kind: 'update', table: 'service', object, expect: service.meta.version });
  }

  /** Turns of planning, each followed by what the workers report; what happened, line by line. */
  #plan(turns: number): string {
    const lines: string[] = [];
    for (let turn = 0; turn < turns; turn++) {
      const before = this.#describe();
      const actions = this.#store.tentatively(this.#nowMs, (apply) => {
        for (const { name, plan } of planners) {
          const planned = plan(this.#store, { nowMs: this.#nowMs, random: this.#random });
          if (planned.actions.length > 0 && apply(planned.actions) !== null)
            throw new Error(`${name} is refused`);
        }
      });
      if (actions.length > 0) applyAll(this.#store, actions, this.#nowMs);
      const reports = [...this.#store.all('task')].flatMap((task) => this.#report(task));
      if (reports.length > 0) applyAll(this.#store, reports, this.#nowMs);
      if (actions.length + reports.length === 0) break;
      const after = this.#describe();
      for (const line of after) if (!before.includes(line)) lines.push(`${turn + 1}: ${line}`);
    }
    return lines.length === 0 ? 'nothing to do' : lines.join('\n');
  }

  /** One step of the task's worker. */
  #report(task: Task): Action[] {
    const { state } = task.status;
    if (task.nodeId === '' || isTerminalState(state) || taskStateRank[state] < taskStateRank.assigned)
      return [];
    if (this.#store.get('node', task.nodeId)?.status.state !== 'ready') return [];
    const next = this.#nextState(task);
    if (next === state) return [];
    const error = next === 'failed' ? 'exit code 1' : '';
    const status = { ...task.status, state: next, at: this.#nowMs, message: '', error };
    return [{ kind: 'report-task', id: task.id, nodeId: task.nodeId, status }];
  }

  #nextState(task: Task): TaskState {
    switch (task.desiredState) {
      case 'ready':
        return 'ready';
      case 'running':
        return this.#broken.has(task.spec.container.image) ? 'failed' : 'running';
      case 'complete':
        return task.status.state === 'running' ? 'complete' : 'running';
      case 'shutdown':
      case 'remove':
        return 'shutdown';
    }
  }

  #showTasks(all: boolean): string {
    const lines = this.#describe().filter((line) => all || !/ (shutdown|failed)->/.test(line));
    return lines.length === 0 ? 'no tasks' : lines.join('\n');
  }

  #describe(): string[] {
    return [...this.#store.all('task')]
      .toSorted(
        (a, b) =>
          compare(a.serviceId, b.serviceId) ||
          a.slot - b.slot ||
          compare(a.nodeId, b.nodeId) ||
          a.meta.createdAt - b.meta.createdAt ||
          a.meta.version - b.meta.version,
      )
      .map((task) => {
        const name = `${task.serviceId}.${this.#isGlobal(task) ? task.nodeId : task.slot}`;
        const error = task.status.error === '' ? '' : `: ${task.status.error}`;
        const where = task.nodeId === '' ? '-' : task.nodeId;
        return `${name} ${task.spec.container.image} on ${where} ${task.status.state}->${task.desiredState}${error}`;
      });
  }

  #isGlobal(task: Task): boolean {
    return this.#store.get('service', task.serviceId)?.spec.mode.kind.startsWith('global') === true;
  }

  #explain(name: string): string {
    const { tasks, nodes } = explainService(
      this.#store,
      this.#store.get('service', name) as Service,
      this.#nowMs,
    );
    return [
      ...tasks.map((task) => `${task.name} ${task.state}: ${task.reason}`),
      ...tasks.flatMap((task) => task.help.map((help) => `help: ${help}`)),
      ...nodes.map((node) => {
        const branches = node.branches.map(({ value, serviceTasks }) => ` ${value}=${serviceTasks}`).join('');
        const refused = node.refusals.map(({ filter, reason }) => `${filter} (${reason})`).join(', ');
        const verdict = refused === '' ? `number ${node.rank}` : refused;
        return `${node.nodeId} tasks=${node.serviceTasks}/${node.allTasks} failures=${node.failures}${branches}: ${verdict}`;
      }),
    ].join('\n');
  }
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function one(given: Arguments, key: string): string {
  const value = given.get(key)?.[0];
  if (value === undefined) throw new Error(`the argument ${key} is missing`);
  return value;
}

function nodeOf(given: Arguments): ClusterNode {
  const zone = given.get('zone')?.[0];
  return makeNode(one(given, 'id'), { spec: { labels: zone === undefined ? {} : { zone } } });
}

function newService(given: Arguments): Service {
  const name = one(given, 'name');
  return makeService(name, { spec: specOf(given, { ...makeService(name).spec, task: makeTaskSpec() }) });
}

/** The spec after the arguments. */
function specOf(given: Arguments, spec: ServiceSpec): ServiceSpec {
  const { task } = spec;
  const spread = given.get('spread');
  const constraints = given.get('constraints');
  const order = given.get('order')?.[0] as ServiceSpec['update']['order'] | undefined;
  const parallelism = given.get('parallelism')?.[0];
  return {
    ...spec,
    mode: modeOf(given, spec.mode),
    update: {
      ...spec.update,
      order: order ?? spec.update.order,
      parallelism: parallelism === undefined ? spec.update.parallelism : Number(parallelism),
    },
    ...(given.has('rebalance') ? { rebalance: { maxMoves: 1, margin: 2, cooldownMs: 60_000 } } : {}),
    task: {
      ...task,
      container: { ...task.container, image: given.get('image')?.[0] ?? task.container.image },
      placement: {
        ...task.placement,
        constraints: constraints ?? task.placement.constraints,
        preferences: spread?.map((key) => ({ spread: key })) ?? task.placement.preferences,
      },
    },
  };
}

function modeOf(given: Arguments, before: ServiceMode): ServiceMode {
  const replicas = Number(given.get('replicas')?.[0] ?? (before.kind === 'replicated' ? before.replicas : 1));
  switch (given.get('mode')?.[0] ?? before.kind) {
    case 'global':
      return { kind: 'global' };
    case 'replicated-job':
      return { kind: 'replicated-job', maxConcurrent: 2, totalCompletions: replicas };
    default:
      return { kind: 'replicated', replicas };
  }
}
