/**
 * A runtime in memory, with faults on demand, for tests of the worker and of whole clusters.
 *
 * A task's command says how it behaves: `['exit', CODE]` ends at once, `['print', LINE...]` prints and goes on,
 * `['ignore-term', ...]` ends only by SIGKILL; everything else runs until it is stopped.
 */
import type { Clock } from '../../src/base/clock.ts';
import { SwarmdError } from '../../src/base/errors.ts';
import type { TaskId } from '../../src/model/ids.ts';
import type { NodeDescription, Task } from '../../src/model/objects.ts';
import type { RuntimeKind } from '../../src/model/spec.ts';
import type { LogRecord, LogRequest } from '../../src/model/wire.ts';
import type { Runtime, RuntimeTaskState, TaskSetup } from '../../src/worker/types.ts';

export type FakeCall =
  | 'prepare'
  | 'create'
  | 'start'
  | 'stop'
  | 'remove'
  | 'inspect'
  | 'list'
  | 'logs'
  | 'describe';

interface FakeTask {
  readonly task: Task;
  readonly setup: TaskSetup;
  readonly log: LogRecord[];
  phase: 'created' | 'running' | 'exited';
  exitCode: number;
  error: string;
  health: 'starting' | 'healthy' | 'unhealthy' | undefined;
  starts: number;
}

export interface FakeRuntimeOptions {
  readonly kind?: RuntimeKind;
  readonly clock: Clock;
}

/** A runtime that keeps its tasks in memory; it outlives the agents that use it, like an engine. */
export class FakeRuntime implements Runtime {
  readonly kind: RuntimeKind;
  /** Every call with its task, in order. */
  readonly calls: { readonly call: FakeCall; readonly taskId: TaskId | null }[] = [];
  readonly #clock: Clock;
  readonly #tasks = new Map<TaskId, FakeTask>();
  readonly #faults: { call: FakeCall; error: SwarmdError; times: number }[] = [];
  readonly #hanging = new Set<FakeCall>();
  #listeners: ((taskId: TaskId) => void)[] = [];
  #waiters: (() => void)[] = [];
  #outage = false;

  constructor(options: FakeRuntimeOptions) {
    this.kind = options.kind ?? 'process';
    this.#clock = options.clock;
  }

  /** The next `times` calls of this kind fail with `error`. */
  fail(call: FakeCall, error: SwarmdError, times = 1): void {
    this.#faults.push({ call, error, times });
  }

  /** Calls of this kind never answer, not even when aborted, until `unhang`. */
  hang(call: FakeCall): void {
    this.#hanging.add(call);
  }

  unhang(): void {
    this.#hanging.clear();
    this.#wake();
  }

  /** While true every call is refused as by an engine that is gone. */
  set outage(value: boolean) {
    this.#outage = value;
  }

  /** The task ends by itself. */
  exit(taskId: TaskId, exitCode: number, error = ''): void {
    const held = this.#held(taskId);
    held.phase = 'exited';
    held.exitCode = exitCode;
    held.error = error;
    this.#emit(taskId);
  }

  setHealth(taskId: TaskId, health: 'starting' | 'healthy' | 'unhealthy'): void {
    this.#held(taskId).health = health;
    this.#emit(taskId);
  }

  /** Somebody else removes it. */
  vanish(taskId: TaskId): void {
    this.#tasks.delete(taskId);
    this.#emit(taskId);
  }

  /** Appends a line to a task's output. */
  print(taskId: TaskId, line: string, stream: LogRecord['stream'] = 'stdout'): void {
    this.#held(taskId).log.push({ stream, atMs: this.#clock.nowMs(), line });
    this.#wake();
  }

  /** Ids of what is held, by phase. */
  held(phase?: RuntimeTaskState['phase']): TaskId[] {
    return [...this.#tasks].flatMap(([id, held]) =>
      phase === undefined || held.phase === phase ? [id] : [],
    );
  }

  /** How often a task was started. */
  starts(taskId: TaskId): number {
    return this.#tasks.get(taskId)?.starts ?? 0;
  }

  /** What the task was made with. */
  setup(taskId: TaskId): TaskSetup {
    return this.#held(taskId).setup;
  }

  async prepare(task: Task, signal: AbortSignal): Promise<void> {
    await this.#enter('prepare', task.id, signal);
  }

  async create(task: Task, setup: TaskSetup, signal: AbortSignal): Promise<void> {
    await this.#enter('create', task.id, signal);
    if (this.#tasks.has(task.id)) return;
    this.#tasks.set(task.id, {
      task,
      setup,
      log: [],
      phase: 'created',
      exitCode: 0,
      error: '',
      health: task.spec.container.healthCheck === undefined ? undefined : 'starting',
      starts: 0,
    });
  }

  async start(taskId: TaskId, signal: AbortSignal): Promise<void> {
    await this.#enter('start', taskId, signal);
    const held = this.#tasks.get(taskId);
    if (held === undefined) throw new SwarmdError('NOT_FOUND', `nothing was made for task ${taskId}`);
    if (held.phase !== 'created') return;
    held.phase = 'running';
    held.starts += 1;
    const [verb, ...words] = held.task.spec.container.command ?? [];
    if (verb === 'exit') this.exit(taskId, Number(words[0] ?? 0));
    if (verb === 'print') for (const word of words) this.print(taskId, word);
    this.#emit(taskId);
  }

  async stop(taskId: TaskId, signal: AbortSignal): Promise<void> {
    await this.#enter('stop', taskId, signal);
    const held = this.#tasks.get(taskId);
    if (held === undefined || held.phase !== 'running') return;
    this.exit(taskId, held.task.spec.container.command?.[0] === 'ignore-term' ? 137 : 143);
  }

  async remove(taskId: TaskId, signal: AbortSignal): Promise<void> {
    await this.#enter('remove', taskId, signal);
    this.#tasks.delete(taskId);
    this.#wake();
  }

  async inspect(taskId: TaskId, signal: AbortSignal): Promise<RuntimeTaskState | null> {
    await this.#enter('inspect', taskId, signal);
    const held = this.#tasks.get(taskId);
    return held === undefined ? null : stateOf(taskId, held);
  }

  async list(signal: AbortSignal): Promise<RuntimeTaskState[]> {
    await this.#enter('list', null, signal);
    return [...this.#tasks].map(([id, held]) => stateOf(id, held));
  }

  onEvent(listener: (taskId: TaskId) => void): void {
    this.#listeners.push(listener);
  }

  async *logs(request: LogRequest, signal: AbortSignal): AsyncIterable<LogRecord> {
    await this.#enter('logs', request.taskId, signal);
    const { log } = this.#held(request.taskId);
    const wanted = (record: LogRecord): boolean => request.sinceMs === null || record.atMs >= request.sinceMs;
    const first = log.filter(wanted);
    yield* request.tail === null ? first : first.slice(Math.max(0, first.length - request.tail));
    let next = log.length;
    while (request.follow && !signal.aborted) {
      while (next < log.length) {
        const record = log[next++] as LogRecord;
        if (wanted(record)) yield record;
      }
      if (this.#tasks.get(request.taskId)?.phase !== 'running') return;
      await this.#change(signal);
    }
  }

  async describe(signal: AbortSignal): Promise<Partial<NodeDescription> | null> {
    if (this.#outage) return null;
    await this.#enter('describe', null, signal);
    return { runtimes: [this.kind] };
  }

  /** Forgets the listeners, as a closed connection does; the tasks stay. */
  close(): Promise<void> {
    this.#listeners = [];
    return Promise.resolve();
  }

  async #enter(call: FakeCall, taskId: TaskId | null, signal: AbortSignal): Promise<void> {
    this.calls.push({ call, taskId });
    while (this.#hanging.has(call)) await new Promise<void>((resolve) => this.#waiters.push(resolve));
    signal.throwIfAborted();
    if (this.#outage) {
      throw new SwarmdError('UNAVAILABLE', 'the engine does not answer', { details: { waits: true } });
    }
    const fault = this.#faults.find((candidate) => candidate.call === call && candidate.times > 0);
    if (fault === undefined) return;
    fault.times -= 1;
    throw fault.error;
  }

  #held(taskId: TaskId): FakeTask {
    const held = this.#tasks.get(taskId);
    if (held === undefined) throw new SwarmdError('NOT_FOUND', `nothing is held for task ${taskId}`);
    return held;
  }

  #emit(taskId: TaskId): void {
    this.#wake();
    for (const listener of this.#listeners) listener(taskId);
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter();
  }

  #change(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      this.#waiters.push(resolve);
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
  }
}

function stateOf(taskId: TaskId, held: FakeTask): RuntimeTaskState {
  const { phase, exitCode, error, health } = held;
  const container = { containerId: `fake-${taskId}`, pid: phase === 'running' ? 4_242 : 0 };
  return {
    taskId,
    phase,
    container: phase === 'exited' ? { ...container, exitCode } : container,
    ports: [],
    error,
    ...(health === undefined || phase !== 'running' ? {} : { health }),
  };
}

/** Networks that need nothing. */
export const noTaskNetworks = {
  prepare: () => Promise.resolve({ attachments: [], dnsServers: [], publishOnNode: false }),
};
