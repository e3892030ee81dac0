/**
 * Runs tasks as containers of an engine.
 *
 * Data owned: none that matters; containers are found by their labels. A cache of container ids.
 * Invariants: a container that is still being made is called `<name>.partial` and counts as nothing; no call waits
 * for an engine without bound; an engine that does not answer is an outage (`details.waits`), never a verdict.
 */
import type Dockerode from 'dockerode';
import { type Clock, sleep } from '../base/clock.ts';
import { SwarmdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { parseId, type TaskId } from '../model/ids.ts';
import type { NodeDescription, PortMapping, Task } from '../model/objects.ts';
import type { LogRecord, LogRequest } from '../model/wire.ts';
import {
  containerCreateOptions,
  type ContainerPlan,
  NODE_LABEL,
  TASK_LABEL,
} from './docker-container-options.ts';
import { DockerEngine, ENGINE_SLOW_CALL_MS } from './docker-engine.ts';
import { statusOf } from './docker-errors.ts';
import { filesByFolder, tarArchive } from './docker-files.ts';
import { DockerImages } from './docker-image.ts';
import { logRecords } from './docker-logs.ts';
import type { Runtime, RuntimeTaskState, TaskSetup } from './types.ts';

export interface DockerRuntimeOptions {
  /** `unix:///var/run/docker.sock` or `tcp://host:port`. */
  readonly engineHost: string;
  readonly nodeId: string;
  readonly clusterId: string;
}

export interface DockerRuntimeDependencies {
  readonly clock: Clock;
  readonly log: Logger;
}

/** Containers looked at together when everything is listed. */
const INSPECT_AT_ONCE = 8;
const PARTIAL = '.partial';
/** How often a container that is being removed is looked at. */
const REMOVAL_POLL_MS = 100;
/**
 * Events that change nothing the worker knows. It looks at what it creates and starts itself; were it told of that
 * once more, every start would cost two looks in vain.
 */
const ignoredActions =
  /^(create|start$|exec_|attach|detach|resize|top|rename|archive-path|extract-to-dir|export|commit|copy)/;

/** The container runtime of one node. */
export class DockerRuntime implements Runtime {
  readonly kind = 'docker';
  readonly #options: DockerRuntimeOptions;
  readonly #clock: Clock;
  readonly #engine: DockerEngine;
  readonly #images: DockerImages;
  readonly #ids = new Map<TaskId, string>();
  readonly #listeners: ((taskId: TaskId) => void)[] = [];

  constructor(options: DockerRuntimeOptions, dependencies: DockerRuntimeDependencies) {
    this.#options = options;
    this.#clock = dependencies.clock;
    this.#engine = new DockerEngine(options.engineHost, {
      ...dependencies,
      labels: [TASK_LABEL, `${NODE_LABEL}=${options.nodeId}`],
      onEvent: ({ action, labels }) => {
        const taskId = parseId<TaskId>(labels[TASK_LABEL] ?? '');
        if (taskId !== null && !ignoredActions.test(action)) this.#emit(taskId);
      },
      // What happened while nobody listened: everything known is looked at again.
      onConnected: () => {
        for (const taskId of this.#ids.keys()) this.#emit(taskId);
      },
    });
    this.#images = new DockerImages(this.#engine, dependencies.clock);
  }

  async prepare(task: Task, signal: AbortSignal): Promise<void> {
    await this.#images.ensure(task.spec.container.image, signal);
  }

  async create(task: Task, setup: TaskSetup, signal: AbortSignal): Promise<void> {
    const { nodeId, clusterId } = this.#options;
    const plan = containerCreateOptions(task, setup, { nodeId, clusterId });
    const found = await this.#find(task.id, signal);
    if (found !== null && !found.partial) return;
    if (found !== null) await this.#delete(found.id, signal);
    const simple = plan.furtherNetworks.length === 0 && plan.files.length === 0;
    const id = await this.#make(plan, simple ? plan.name : plan.name + PARTIAL, signal);
    try {
      if (!simple) await this.#complete(id, plan, task, signal);
    } catch (error) {
      // What is left of it is found and removed by the next try, if it cannot be removed now.
      await this.#delete(id, AbortSignal.timeout(5_000)).catch(() => {});
      throw error;
    }
    this.#ids.set(task.id, id);
  }

  async start(taskId: TaskId, signal: AbortSignal): Promise<void> {
    const found = await this.#known(taskId, signal);
    if (found === null || found.partial) {
      throw new SwarmdError(
        'NOT_FOUND',
        `task ${taskId} has no container on this node; it cannot be started`,
      );
    }
    const work = (abortSignal: AbortSignal): Promise<unknown> =>
      this.#container(found.id)
        .start({ abortSignal } as object)
        // 304: it runs already.
        .catch((error: unknown) => (statusOf(error) === 304 ? null : Promise.reject(error as Error)));
    await this.#engine.call(`start the container of task ${taskId}`, signal, work, ENGINE_SLOW_CALL_MS);
  }

  async stop(taskId: TaskId, signal: AbortSignal): Promise<void> {
    const found = await this.#known(taskId, signal);
    if (found === null) return;
    const info = await this.#inspect(found.id, signal);
    if (info === null || !isUp(info)) return;
    const graceMs = ((info.Config as { StopTimeout?: number }).StopTimeout ?? 10) * 1_000;
    const work = (abortSignal: AbortSignal): Promise<unknown> =>
      this.#container(found.id)
        .stop({ abortSignal } as object)
        // 304: it has stopped; 404: it is gone.
        .catch((error: unknown) =>
          [304, 404].includes(statusOf(error) ?? 0) ? null : Promise.reject(error as Error),
        );
    const limitMs = graceMs + ENGINE_SLOW_CALL_MS;
    await this.#engine.call(`stop the container of task ${taskId}`, signal, work, limitMs);
  }

  async remove(taskId: TaskId, signal: AbortSignal): Promise<void> {
    // The engine removes in its own time, and a crash may have left more than one.
    for (;;) {
      const found = await this.#find(taskId, signal);
      if (found === null) break;
      await this.#delete(found.id, signal);
      if ((await this.#inspect(found.id, signal)) !== null) await sleep(this.#clock, REMOVAL_POLL_MS, signal);
    }
    this.#ids.delete(taskId);
  }

  async inspect(taskId: TaskId, signal: AbortSignal): Promise<RuntimeTaskState | null> {
    const known = this.#ids.get(taskId);
    if (known !== undefined) {
      const info = await this.#inspect(known, signal);
      if (info !== null) return this.#stateOf(taskId, info);
      this.#ids.delete(taskId);
    }
    const found = await this.#find(taskId, signal);
    if (found === null || found.partial) return null;
    const info = await this.#inspect(found.id, signal);
    if (info === null) return null;
    this.#ids.set(taskId, found.id);
    return this.#stateOf(taskId, info);
  }

  /** A container that ended with its engine did not finish, whatever its exit code says. */
  #stateOf(taskId: TaskId, info: Dockerode.ContainerInspectInfo): RuntimeTaskState {
    const state = taskState(taskId, info);
    if (state.phase !== 'exited' || state.error !== '' || state.finishedAtMs === undefined) return state;
    return this.#engine.wasAwayAt(state.finishedAtMs)
      ? { ...state, error: 'it ended while the engine was away' }
      : state;
  }

  async list(signal: AbortSignal): Promise<RuntimeTaskState[]> {
    const found = await this.#search([`${NODE_LABEL}=${this.#options.nodeId}`], signal);
    const ids = found.flatMap(({ Labels }) => parseId<TaskId>(Labels[TASK_LABEL] ?? '') ?? []);
    const states: RuntimeTaskState[] = [];
    for (let i = 0; i < ids.length; i += INSPECT_AT_ONCE) {
      const some = await Promise.all(ids.slice(i, i + INSPECT_AT_ONCE).map((id) => this.inspect(id, signal)));
      for (const state of some) if (state !== null) states.push(state);
    }
    return states;
  }

  onEvent(listener: (taskId: TaskId) => void): void {
    this.#listeners.push(listener);
    this.#engine.start();
  }

  async *logs(request: LogRequest, signal: AbortSignal): AsyncIterable<LogRecord> {
    const found = await this.#known(request.taskId, signal);
    const info = found === null ? null : await this.#inspect(found.id, signal);
    if (found === null || info === null) {
      throw new SwarmdError('NOT_FOUND', `task ${request.taskId} has no container on this node`);
    }
    const inner = new AbortController();
    const onAbort = (): void => inner.abort(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      const stream = await this.#engine.stream(`read the logs of task ${request.taskId}`, inner.signal, {
        method: 'GET',
        path: `/containers/${found.id}/logs`,
        query: {
          stdout: true,
          stderr: true,
          timestamps: true,
          follow: request.follow,
          tail: request.tail === null ? 'all' : String(request.tail),
          ...(request.sinceMs === null ? {} : { since: (request.sinceMs / 1_000).toFixed(3) }),
        },
      });
      yield* logRecords(stream as AsyncIterable<Buffer>, info.Config.Tty);
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      signal.removeEventListener('abort', onAbort);
      inner.abort();
    }
  }

  describe(signal: AbortSignal): Promise<Partial<NodeDescription> | null> {
    return this.#engine.facts(signal);
  }

  close(): Promise<void> {
    return this.#engine.close();
  }

  #emit(taskId: TaskId): void {
    for (const listener of this.#listeners) listener(taskId);
  }

  #container(id: string): Dockerode.Container {
    return this.#engine.docker.getContainer(id);
  }

  async #make(plan: ContainerPlan, name: string, signal: AbortSignal): Promise<string> {
    const { docker } = this.#engine;
    const work = (abortSignal: AbortSignal): Promise<Dockerode.Container> =>
      docker.createContainer({ _query: { name }, _body: plan.body, abortSignal } as object);
    const container = await this.#engine.call(
      `create container ${plan.name}`,
      signal,
      work,
      ENGINE_SLOW_CALL_MS,
    );
    return container.id;
  }

  /** Networks, files, and then the name by which it counts. */
  async #complete(id: string, plan: ContainerPlan, task: Task, signal: AbortSignal): Promise<void> {
    const { docker } = this.#engine;
    for (const { network, endpoint } of plan.furtherNetworks) {
      const work = (abortSignal: AbortSignal): Promise<unknown> =>
        docker.getNetwork(network).connect({
          Container: id,
          EndpointConfig: endpoint,
          abortSignal,
        } as Dockerode.NetworkConnectOptions);
      await this.#engine.call(
        `connect ${plan.name} to network ${network}`,
        signal,
        work,
        ENGINE_SLOW_CALL_MS,
      );
    }
    const readOnly = task.spec.container.readOnly === true;
    const groups = readOnly ? [...filesByFolder(plan.files)] : [['/', plan.files] as const];
    for (const [folder, files] of groups) {
      if (files.length === 0) continue;
      const archive = tarArchive(files, folder);
      const work = (abortSignal: AbortSignal): Promise<unknown> =>
        this.#container(id).putArchive(archive, { path: folder, abortSignal });
      await this.#engine.call(`write files into ${plan.name}`, signal, work, ENGINE_SLOW_CALL_MS);
    }
    const work = (abortSignal: AbortSignal): Promise<unknown> =>
      this.#container(id).rename({ name: plan.name, abortSignal });
    await this.#engine.call(`name container ${plan.name}`, signal, work);
  }

  async #delete(id: string, signal: AbortSignal): Promise<void> {
    const work = (abortSignal: AbortSignal): Promise<unknown> =>
      this.#container(id)
        .remove({ force: true, v: true, abortSignal } as object)
        // 404: gone; 409: somebody else removes it already.
        .catch((error: unknown) =>
          [404, 409].includes(statusOf(error) ?? 0) ? null : Promise.reject(error as Error),
        );
    await this.#engine.call(`remove container ${id.slice(0, 12)}`, signal, work, ENGINE_SLOW_CALL_MS);
  }

  /** The container of a task, without asking for what is known. */
  async #known(taskId: TaskId, signal: AbortSignal): Promise<{ id: string; partial: boolean } | null> {
    const id = this.#ids.get(taskId);
    return id === undefined ? this.#find(taskId, signal) : { id, partial: false };
  }

  /** The container of a task, by its labels. */
  async #find(taskId: TaskId, signal: AbortSignal): Promise<{ id: string; partial: boolean } | null> {
    const [found] = await this.#search([`${TASK_LABEL}=${taskId}`], signal);
    if (found === undefined) return null;
    return { id: found.Id, partial: found.Names.some((name) => name.endsWith(PARTIAL)) };
  }

  #search(labels: readonly string[], signal: AbortSignal): Promise<Dockerode.ContainerInfo[]> {
    const work = (abortSignal: AbortSignal): Promise<Dockerode.ContainerInfo[]> =>
      this.#engine.docker.listContainers({
        all: true,
        filters: JSON.stringify({ label: [TASK_LABEL, ...labels] }),
        abortSignal,
      } as Dockerode.ContainerListOptions);
    return this.#engine.call('list containers', signal, work);
  }

  async #inspect(id: string, signal: AbortSignal): Promise<Dockerode.ContainerInspectInfo | null> {
    const work = (abortSignal: AbortSignal): Promise<Dockerode.ContainerInspectInfo | null> =>
      this.#container(id)
        .inspect({ abortSignal } as object)
        .catch((error: unknown) => (statusOf(error) === 404 ? null : Promise.reject(error as Error)));
    return this.#engine.call(`inspect container ${id.slice(0, 12)}`, signal, work);
  }
}

function isUp({ State }: Dockerode.ContainerInspectInfo): boolean {
  return State.Running || State.Paused || State.Restarting;
}

/** What an inspected container says of its task. */
export function taskState(taskId: TaskId, info: Dockerode.ContainerInspectInfo): RuntimeTaskState {
  const { State } = info;
  const container = { containerId: info.Id, pid: State.Pid };
  const base = { taskId, ports: portMappings(info) };
  if (isUp(info)) {
    const status = State.Health?.Status;
    const health =
      status === 'starting' || status === 'healthy' || status === 'unhealthy' ? status : undefined;
    return { ...base, phase: 'running', container, error: '', ...(health === undefined ? {} : { health }) };
  }
  if (State.Status === 'created') return { ...base, phase: 'created', container, error: State.Error };
  const finishedAtMs = Date.parse(State.FinishedAt);
  return {
    ...base,
    phase: 'exited',
    container: { ...container, exitCode: State.ExitCode },
    error: State.OOMKilled ? 'out of memory' : State.Error,
    ...(Number.isNaN(finishedAtMs) ? {} : { finishedAtMs }),
  };
}

function portMappings(info: Dockerode.ContainerInspectInfo): PortMapping[] {
  const mappings = new Map<string, PortMapping>();
  for (const [key, bindings] of Object.entries(info.NetworkSettings.Ports ?? {})) {
    const [target = '', protocol = 'tcp'] = key.split('/');
    for (const { HostPort } of bindings ?? []) {
      const mapping: PortMapping = {
        protocol: protocol as PortMapping['protocol'],
        targetPort: Number(target),
        hostPort: Number(HostPort),
      };
      // IPv4 and IPv6 are listed each; a task has one port a target.
      mappings.set(`${key} ${HostPort}`, mapping);
    }
  }
  return [...mappings.values()];
}
