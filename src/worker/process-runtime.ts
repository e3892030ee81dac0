/**
 * Runs tasks as processes of this host, each in a session of its own.
 *
 * Data owned: `<dataDir>/tasks/`, one folder a task (process-folder.ts); a watch on each running task.
 * Invariants: a task's command is started at most once; a task outlives the daemon, and its exit code and output
 * are found by the next one; a pid is signalled only when its start time proves that it is still the task's.
 */
import { constants } from 'node:fs';
import { availableParallelism, machine, platform, totalmem } from 'node:os';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { type Clock, sleep, type Timer } from '../base/clock.ts';
import { errorMessage, SwarmdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { TaskId } from '../model/ids.ts';
import type { NodeDescription, Task } from '../model/objects.ts';
import type { LogRecord, LogRequest } from '../model/wire.ts';
import { healthPlan } from './core/health.ts';
import { applyLimits, removeGroups, wasOutOfMemory } from './process-cgroup.ts';
import { makeTaskFolder, portsOf, withPorts } from './process-create.ts';
import {
  listFolders,
  type ProcessRecord,
  type ProcessRun,
  readExit,
  readRecord,
  readRun,
  removeFolder,
  removePartialFolders,
  taskFolder,
  writeRecord,
  writeRun,
} from './process-folder.ts';
import { HealthMonitor } from './process-health.ts';
import { logPath, LogRecorder, PROCESS_LOG_BYTES_MAX, readLogs } from './process-logs.ts';
import { isPortFree, type PortRange, PROCESS_PORT_FIRST, PROCESS_PORT_LAST } from './process-ports.ts';
import { killMembers, killSession, STOP_POLL_MS } from './process-session.ts';
import { isAlive, sendSignal, startShim } from './process-shim.ts';
import type { Runtime, RuntimeTaskState, TaskSetup } from './types.ts';

export interface ProcessRuntimeOptions {
  readonly dataDir: string;
  readonly nodeId: string;
  /** PATH of tasks that set none. */
  readonly path?: string;
  readonly portRange?: PortRange;
  /** Where control groups are mounted; null: no limits are enforced. */
  readonly cgroupRoot?: string | null;
  readonly logBytesMax?: number;
}

export interface ProcessRuntimeDependencies {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export const DEFAULT_TASK_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
/** A running task is looked at this often, besides the events of its own. */
export const PROCESS_POLL_MS = 500;

/** A running task under watch. */
interface Watch {
  readonly recorder: LogRecorder;
  readonly health: HealthMonitor | null;
  readonly run: ProcessRun;
  timer: Timer | null;
}

/** The process runtime of one node. */
export class ProcessRuntime implements Runtime {
  readonly kind = 'process';
  readonly #options: ProcessRuntimeOptions;
  readonly #dependencies: ProcessRuntimeDependencies;
  readonly #root: string;
  readonly #cgroupRoot: string | null;
  readonly #watches = new Map<TaskId, Watch>();
  /** Host ports by task, picked or fixed. */
  readonly #ports = new Map<TaskId, readonly number[]>();
  readonly #listeners: ((taskId: TaskId) => void)[] = [];
  #creating: Promise<unknown> = Promise.resolve();
  #scanned = false;
  #closed = false;

  constructor(options: ProcessRuntimeOptions, dependencies: ProcessRuntimeDependencies) {
    this.#options = options;
    this.#dependencies = dependencies;
    this.#root = join(options.dataDir, 'tasks');
    this.#cgroupRoot = options.cgroupRoot === undefined ? '/sys/fs/cgroup' : options.cgroupRoot;
  }

  /** Nothing to fetch: the command is looked for when the task is made. */
  prepare(_task: Task, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    return Promise.resolve();
  }

  async create(task: Task, setup: TaskSetup, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    // One at a time, so that no port is picked twice.
    const made = this.#creating.then(() => this.#create(task, setup));
    this.#creating = made.catch(() => {});
    await made;
  }

  async start(taskId: TaskId, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const folder = taskFolder(this.#root, taskId);
    const record = await readRecord(folder);
    if (record === null) {
      throw new SwarmdError('NOT_FOUND', `task ${taskId} has no folder on this node; it cannot be started`);
    }
    if ((await readRun(folder)) !== null) return;
    await this.#launch(folder, await this.#withFreePorts(folder, record));
  }

  async stop(taskId: TaskId, signal: AbortSignal): Promise<void> {
    const folder = taskFolder(this.#root, taskId);
    const [record, run] = [await readRecord(folder), await readRun(folder)];
    if (record === null || run === null) return;
    if (await isAlive(run)) {
      sendSignal(-run.pid, record.stopSignal as NodeJS.Signals);
      const { clock } = this.#dependencies;
      const deadline = clock.monotonicMs() + record.stopGraceMs;
      while ((await isAlive(run)) && clock.monotonicMs() < deadline) await sleep(clock, STOP_POLL_MS, signal);
    }
    await killSession(run, this.#dependencies.clock, signal);
    await this.#noticeEnd(taskId);
  }

  async remove(taskId: TaskId, signal: AbortSignal): Promise<void> {
    const run = await readRun(taskFolder(this.#root, taskId));
    if (run !== null) await killSession(run, this.#dependencies.clock, signal);
    const watch = this.#watches.get(taskId);
    if (watch !== undefined) await this.#unwatch(taskId, watch);
    this.#ports.delete(taskId);
    if (this.#cgroupRoot !== null) await removeGroups(this.#cgroupRoot, taskId);
    await removeFolder(this.#root, taskId);
  }

  async inspect(taskId: TaskId, signal: AbortSignal): Promise<RuntimeTaskState | null> {
    signal.throwIfAborted();
    const folder = taskFolder(this.#root, taskId);
    const record = await readRecord(folder);
    if (record === null) return null;
    const base = { taskId, ports: record.ports };
    const run = await readRun(folder);
    if (run === null) {
      return { ...base, phase: 'created', container: { containerId: taskId, pid: 0 }, error: '' };
    }
    const note = run.note === '' ? {} : { note: run.note };
    if ((await readExit(folder)) === null && (await isAlive(run))) {
      const health = this.#closed ? undefined : this.#watch(taskId, folder, record, run).health?.state.health;
      const container = { containerId: taskId, pid: run.pid };
      return { ...base, ...note, phase: 'running', container, error: '', ...(health ? { health } : {}) };
    }
    // Read again: it may have ended between the two looks.
    const exit = await readExit(folder);
    const exitCode = exit?.code ?? 137;
    return {
      ...base,
      phase: 'exited',
      container: { containerId: taskId, pid: 0, exitCode },
      error: await this.#exitReason(taskId, record, exit === null, exitCode),
      ...(exit === null ? {} : { finishedAtMs: exit.atMs }),
    };
  }

  async list(signal: AbortSignal): Promise<RuntimeTaskState[]> {
    const states: RuntimeTaskState[] = [];
    for (const id of await listFolders(this.#root)) {
      const state = await this.inspect(id, signal);
      if (state !== null) states.push(state);
    }
    return states;
  }

  onEvent(listener: (taskId: TaskId) => void): void {
    this.#listeners.push(listener);
  }

  async *logs(request: LogRequest, signal: AbortSignal): AsyncIterable<LogRecord> {
    const { clock } = this.#dependencies;
    let state = await this.inspect(request.taskId, signal);
    while (request.follow && state?.phase === 'created') {
      await sleep(clock, PROCESS_POLL_MS, signal);
      state = await this.inspect(request.taskId, signal);
    }
    if (state === null) {
      throw new SwarmdError('NOT_FOUND', `task ${request.taskId} has no output on this node`);
    }
    const recorder = this.#watches.get(request.taskId)?.recorder ?? null;
    yield* readLogs(taskFolder(this.#root, request.taskId), recorder, request, { clock, signal });
  }

  describe(signal: AbortSignal): Promise<Partial<NodeDescription> | null> {
    signal.throwIfAborted();
    return Promise.resolve({
      platform: { os: platform(), architecture: machine() },
      resources: { nanoCpus: availableParallelism() * 1e9, memoryBytes: totalmem(), generic: {} },
      runtimes: ['process'],
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#creating;
    for (const watch of this.#watches.values()) {
      watch.timer?.cancel();
      watch.health?.stop();
      watch.recorder.close();
    }
    this.#watches.clear();
  }

  async #create(task: Task, setup: TaskSetup): Promise<void> {
    if ((await readRecord(taskFolder(this.#root, task.id))) !== null) return;
    await this.#scanPorts();
    const range = this.#range();
    const { random } = this.#dependencies;
    const ports = await portsOf(task, range, this.#takenPorts(), random);
    await makeTaskFolder(this.#root, task, setup, {
      nodeId: this.#options.nodeId,
      path: this.#options.path ?? DEFAULT_TASK_PATH,
      ports: ports.ports,
      fixedPorts: ports.fixed,
    });
    this.#ports.set(
      task.id,
      ports.ports.map((port) => port.hostPort),
    );
  }

  #range(): PortRange {
    return this.#options.portRange ?? { first: PROCESS_PORT_FIRST, last: PROCESS_PORT_LAST };
  }

  #takenPorts(): Set<number> {
    return new Set([...this.#ports.values()].flat());
  }

  /** The ports of the tasks an earlier life of the daemon made. */
  async #scanPorts(): Promise<void> {
    if (this.#scanned) return;
    await removePartialFolders(this.#root);
    for (const id of await listFolders(this.#root)) {
      const record = await readRecord(taskFolder(this.#root, id));
      if (record !== null)
        this.#ports.set(
          id,
          record.ports.map((port) => port.hostPort),
        );
    }
    this.#scanned = true;
  }

  /** A picked port that somebody else took since is picked anew. */
  async #withFreePorts(folder: string, record: ProcessRecord): Promise<ProcessRecord> {
    const picked = record.ports.filter((port) => !record.fixedPorts.includes(port.hostPort));
    const free = await Promise.all(picked.map((port) => isPortFree(port.hostPort, port.protocol)));
    if (free.every(Boolean)) return record;
    const next = await withPorts(record, this.#range(), this.#takenPorts(), this.#dependencies.random);
    this.#ports.set(
      record.taskId,
      next.ports.map((port) => port.hostPort),
    );
    await writeRecord(folder, next);
    return next;
  }

  async #launch(folder: string, record: ProcessRecord): Promise<void> {
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND;
    const files = await Promise.all(
      [logPath(folder, 'stdout'), logPath(folder, 'stderr'), join(folder, 'exit')].map((path) =>
        open(path, flags, 0o600),
      ),
    );
    const [stdout, stderr, exit] = files;
    if (stdout === undefined || stderr === undefined || exit === undefined) return;
    try {
      const shim = await startShim({
        argv: record.argv,
        cwd: record.cwd,
        env: record.env,
        uid: record.uid,
        gid: record.gid,
        stdoutFd: stdout.fd,
        stderrFd: stderr.fd,
        exitFd: exit.fd,
      });
      const { taskId, limits } = record;
      const { clock, log } = this.#dependencies;
      const note =
        this.#cgroupRoot === null
          ? ''
          : await applyLimits(this.#cgroupRoot, taskId, shim.identity.pid, limits);
      if (note !== '') log.warn('limits of a process task are not enforced', { task: taskId, reason: note });
      const run: ProcessRun = { ...shim.identity, startedAtMs: clock.nowMs(), note };
      await writeRun(folder, run);
      this.#watch(taskId, folder, record, run);
      shim.child.once('exit', () => this.#noticeSoon(taskId));
      await shim.release();
    } catch (error) {
      if (error instanceof SwarmdError) throw error;
      throw new SwarmdError('RUNTIME', `cannot start ${record.argv[0] ?? ''}: ${errorMessage(error)}`, {
        cause: error,
      });
    } finally {
      for (const file of files) await file.close();
    }
  }

  #watch(taskId: TaskId, folder: string, record: ProcessRecord, run: ProcessRun): Watch {
    const known = this.#watches.get(taskId);
    if (known !== undefined) return known;
    const { clock } = this.#dependencies;
    const plan = healthPlan(record.healthCheck);
    const changed = (): void => this.#emit(taskId);
    const health =
      plan.ok && plan.value !== null
        ? new HealthMonitor(plan.value, record, { clock, startedAtMs: run.startedAtMs, changed })
        : null;
    const recorder = new LogRecorder(folder, clock, this.#options.logBytesMax ?? PROCESS_LOG_BYTES_MAX);
    const watch: Watch = { recorder, health, run, timer: null };
    this.#watches.set(taskId, watch);
    this.#poll(taskId, watch);
    return watch;
  }

  #poll(taskId: TaskId, watch: Watch): void {
    watch.timer = this.#dependencies.clock.setTimer(PROCESS_POLL_MS, () => {
      if (this.#watches.get(taskId) !== watch) return;
      this.#look(taskId, watch).catch((error: unknown) => {
        this.#warn(taskId, error);
        if (this.#watches.get(taskId) === watch) this.#poll(taskId, watch);
      });
    });
  }

  async #look(taskId: TaskId, watch: Watch): Promise<void> {
    await watch.recorder.look();
    if (!(await isAlive(watch.run))) await this.#noticeEnd(taskId);
    else if (!this.#closed && this.#watches.get(taskId) === watch) this.#poll(taskId, watch);
  }

  #noticeSoon(taskId: TaskId): void {
    this.#noticeEnd(taskId).catch((error: unknown) => this.#warn(taskId, error));
  }

  #warn(taskId: TaskId, error: unknown): void {
    const { log } = this.#dependencies;
    log.warn('process task could not be looked at', { task: taskId, error: errorMessage(error) });
  }

  /** The supervisor is gone: what the command left behind in its session goes too, as in a container. */
  async #noticeEnd(taskId: TaskId): Promise<void> {
    const watch = this.#watches.get(taskId);
    if (watch === undefined || this.#closed) return;
    await killMembers(watch.run);
    await this.#unwatch(taskId, watch);
    this.#emit(taskId);
  }

  async #unwatch(taskId: TaskId, watch: Watch): Promise<void> {
    if (this.#watches.get(taskId) !== watch) return;
    this.#watches.delete(taskId);
    watch.timer?.cancel();
    watch.health?.stop();
    await watch.recorder.end();
  }

  #emit(taskId: TaskId): void {
    if (!this.#closed) for (const listener of this.#listeners) listener(taskId);
  }

  async #exitReason(
    taskId: TaskId,
    record: ProcessRecord,
    unseen: boolean,
    exitCode: number,
  ): Promise<string> {
    const limited = (record.limits?.memoryBytes ?? 0) > 0;
    if (limited && this.#cgroupRoot !== null && (await wasOutOfMemory(this.#cgroupRoot, taskId))) {
      return `out of memory (limit ${record.limits?.memoryBytes} bytes)`;
    }
    if (unseen) return 'its supervisor was killed, or the machine restarted';
    if (exitCode === 126) return 'the command could not be executed';
    if (exitCode === 127) return 'the command, or one it runs, was not found';
    return '';
  }
}
