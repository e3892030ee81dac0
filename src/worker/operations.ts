/**
 * Carries out the operations the reconcile machine asks for, on runtimes and networks.
 *
 * Data owned: one abort controller an operation under way; the networking of tasks between prepare and create.
 * Invariants: every operation ends in exactly one `done` or `failed` event, in bounded time, even when a runtime
 * hangs; a hung runtime holds up only its own tasks.
 */
import type { Clock } from '../base/clock.ts';
import { SwarmdError, toSwarmdError } from '../base/errors.ts';
import type { TaskId } from '../model/ids.ts';
import type { Task } from '../model/objects.ts';
import type { RuntimeKind } from '../model/spec.ts';
import type { AssignmentTables } from './core/assignments.ts';
import type { Observation, Operation, WorkerEffect, WorkerEvent } from './core/local-task.ts';
import type { Runtime, TaskNetworking, TaskNetworkProvider } from './types.ts';

export interface OperationDependencies {
  readonly runtimes: readonly Runtime[];
  readonly networks: TaskNetworkProvider;
  readonly clock: Clock;
  readonly nodeAddress: string;
  readonly hostname: string;
  /** The assignments as they are now. */
  assignments(): AssignmentTables;
  /** Takes the outcome. */
  dispatch(event: WorkerEvent): void;
}

type RunEffect = Extract<WorkerEffect, { kind: 'run' }>;

/** Time an operation may take before it is given up and tried again, milliseconds; stop adds the task's grace. */
export const operationTimeoutMs: Readonly<Record<Operation, number>> = {
  prepare: 30 * 60_000,
  create: 120_000,
  start: 120_000,
  stop: 60_000,
  remove: 60_000,
  inspect: 30_000,
};

/** Operations of one kind under way at a time, in one runtime. Engines gain nothing from more. */
export const operationsAtOnceMax: Readonly<Record<Operation, number>> = {
  prepare: 4,
  create: 4,
  start: 4,
  stop: 64,
  remove: 8,
  inspect: 8,
};

/** Runs operations with limits and time bounds. */
export class OperationRunner {
  readonly #dependencies: OperationDependencies;
  readonly #running = new Map<TaskId, { abort: AbortController; operation: Operation }>();
  readonly #networking = new Map<TaskId, TaskNetworking>();
  readonly #gates = new Map<string, Gate>();
  readonly #settled = new Set<Promise<void>>();

  constructor(dependencies: OperationDependencies) {
    this.#dependencies = dependencies;
  }

  /** Begins an operation; its outcome is dispatched later, never from inside this call. */
  run(effect: RunEffect): void {
    const abort = new AbortController();
    this.#running.set(effect.taskId, { abort, operation: effect.operation });
    const work = this.#perform(effect, abort).then((event) => {
      this.#running.delete(effect.taskId);
      this.#settled.delete(work);
      this.#dependencies.dispatch(event);
    });
    this.#settled.add(work);
  }

  /** Asks the operation of a task to give up. */
  abort(taskId: TaskId): void {
    this.#running.get(taskId)?.abort.abort(new SwarmdError('CANCELLED', 'the task is no longer wanted'));
  }

  /** Gives up what can be begun again, and waits for the rest until `signal` aborts it too. */
  async stop(signal: AbortSignal): Promise<void> {
    const reason = new SwarmdError('CANCELLED', 'the worker is stopping');
    const abortAll = (operations: readonly Operation[]): void => {
      for (const { abort, operation } of this.#running.values()) {
        if (operations.includes(operation)) abort.abort(reason);
      }
    };
    // A stop given up leaves the task to the next life of the worker, which asks for it again.
    abortAll(['prepare', 'stop', 'inspect']);
    const force = (): void => abortAll(['create', 'start', 'remove']);
    if (signal.aborted) force();
    signal.addEventListener('abort', force, { once: true });
    await Promise.all(this.#settled);
    signal.removeEventListener('abort', force);
  }

  async #perform(effect: RunEffect, abort: AbortController): Promise<WorkerEvent> {
    const { taskId, operation, runtime: kind } = effect;
    try {
      const observed = await this.#gate(kind, operation).enter(abort.signal, () =>
        this.#bounded(effect, abort),
      );
      return { kind: 'done', taskId, operation, observed };
    } catch (error) {
      const { code, message, details } = toSwarmdError(error, 'RUNTIME');
      const failure = { code, message, waits: details['waits'] === true };
      return { kind: 'failed', taskId, operation, failure };
    }
  }

  #bounded(effect: RunEffect, abort: AbortController): Promise<Observation | null> {
    const { clock } = this.#dependencies;
    const { operation, task, taskId } = effect;
    const grace = operation === 'stop' ? (task?.spec.container.stopGraceMs ?? 0) : 0;
    return new Promise((resolve, reject) => {
      const timer = clock.setTimer(operationTimeoutMs[operation] + grace, () => {
        const message = `${operation} of task ${taskId} did not end in time; the ${effect.runtime} runtime may hang`;
        abort.abort(new SwarmdError('TIMEOUT', message, { details: { waits: true } }));
      });
      const onAbort = (): void => reject(abort.signal.reason as Error);
      abort.signal.addEventListener('abort', onAbort, { once: true });
      void this.#operate(effect, abort.signal)
        .then(resolve, reject)
        .finally(() => {
          timer.cancel();
          abort.signal.removeEventListener('abort', onAbort);
        });
    });
  }

  async #operate(effect: RunEffect, signal: AbortSignal): Promise<Observation | null> {
    const { operation, taskId, task } = effect;
    const runtime = this.#runtime(effect.runtime);
    switch (operation) {
      case 'prepare':
        await runtime.prepare(required(task), signal);
        this.#networking.set(taskId, await this.#prepareNetworks(required(task), signal));
        return null;
      case 'create':
        await this.#create(runtime, required(task), signal);
        break;
      case 'start':
        await runtime.start(taskId, signal);
        break;
      case 'stop':
        await runtime.stop(taskId, signal);
        break;
      case 'remove':
        await runtime.remove(taskId, signal);
        this.#networking.delete(taskId);
        return null;
      case 'inspect':
        return runtime.inspect(taskId, signal);
    }
    try {
      return await runtime.inspect(taskId, signal);
    } catch (error) {
      // The operation itself went well: only looking at its result has to be tried again.
      const { message } = toSwarmdError(error, 'RUNTIME');
      throw new SwarmdError('UNAVAILABLE', message, { cause: error, details: { waits: true } });
    }
  }

  async #create(runtime: Runtime, task: Task, signal: AbortSignal): Promise<void> {
    const { secret, config } = this.#dependencies.assignments();
    const { secrets, configs } = task.spec.container;
    const files = {
      secrets: payloads(secrets, secret, 'secret'),
      configs: payloads(configs, config, 'config'),
    };
    const networking = this.#networking.get(task.id) ?? (await this.#prepareNetworks(task, signal));
    const { nodeAddress, hostname } = this.#dependencies;
    await runtime.create(task, { networking, ...files, nodeAddress, hostname }, signal);
    this.#networking.delete(task.id);
  }

  #prepareNetworks(task: Task, signal: AbortSignal): Promise<TaskNetworking> {
    const { networks, assignments } = this.#dependencies;
    return networks.prepare(task, assignments().network, signal);
  }

  #runtime(kind: RuntimeKind): Runtime {
    const runtime = this.#dependencies.runtimes.find((candidate) => candidate.kind === kind);
    if (runtime !== undefined) return runtime;
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      `this node has no ${kind} runtime; start swarmd with it, or constrain the service to nodes that have it`,
    );
  }

  #gate(kind: RuntimeKind, operation: Operation): Gate {
    const key = `${kind}/${operation}`;
    const gate = this.#gates.get(key) ?? new Gate(operationsAtOnceMax[operation]);
    this.#gates.set(key, gate);
    return gate;
  }
}

function required(task: Task | null): Task {
  if (task === null) throw new SwarmdError('INTERNAL', 'an operation needs the task it is for');
  return task;
}

function payloads(
  references: readonly { readonly id: string; readonly name: string }[],
  table: ReadonlyMap<string, { readonly data: string }>,
  kind: 'secret' | 'config',
): ReadonlyMap<string, Uint8Array> {
  const found = new Map<string, Uint8Array>();
  for (const { id, name } of references) {
    const file = table.get(id);
    if (file === undefined) {
      throw new SwarmdError('UNAVAILABLE', `${kind} ${name} has not come from the managers yet`, {
        details: { waits: true },
      });
    }
    found.set(id, Buffer.from(file.data, 'base64'));
  }
  return found;
}

/** Lets a bounded number in at a time, first come first served. */
class Gate {
  readonly #capacity: number;
  readonly #waiting: (() => void)[] = [];
  #inside = 0;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  async enter<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    while (this.#inside >= this.#capacity) {
      signal.throwIfAborted();
      await new Promise<void>((resolve) => {
        const go = (): void => {
          signal.removeEventListener('abort', go);
          const index = this.#waiting.indexOf(go);
          if (index >= 0) this.#waiting.splice(index, 1);
          resolve();
        };
        this.#waiting.push(go);
        signal.addEventListener('abort', go, { once: true });
      });
    }
    if (signal.aborted) {
      // A place that was offered to this one goes to the next.
      this.#waiting[0]?.();
      signal.throwIfAborted();
    }
    this.#inside += 1;
    try {
      return await work();
    } finally {
      this.#inside -= 1;
      this.#waiting[0]?.();
    }
  }
}
