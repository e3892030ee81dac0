/**
 * The worker of a node: turns assignments into running tasks and reports what became of them.
 *
 * Data owned: the reconcile machine's state, this node's assignments, the outbox of statuses.
 * Invariants: events are taken one at a time; tasks keep running while no manager answers and while the worker
 * itself is down; nothing is reported failed because a runtime could not be asked.
 */
import { type Clock, sleep, type Timer } from '../base/clock.ts';
import { errorMessage, SwarmdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { NodeDescription } from '../model/objects.ts';
import type { LogRecord, LogRequest, ManagerPeer, SessionMessage } from '../model/wire.ts';
import type { RpcConnection, RpcHandlers } from '../rpc/types.ts';
import { type Assignments, beginSession, noAssignments, receive } from './core/assignments.ts';
import type { LocalTask, WorkerEffect, WorkerEvent } from './core/local-task.ts';
import { acknowledge, forget, nextReport, type Outbox, post } from './core/outbox.ts';
import { initialWorkerState, reconcile } from './core/reconcile.ts';
import { ManagerLink } from './manager-link.ts';
import { OperationRunner } from './operations.ts';
import { parseLogRequest } from './session-message.ts';
import type { RoutingState, Runtime, TaskNetworkProvider } from './types.ts';
import { WorkerStore } from './worker-store.ts';

export interface AgentOptions {
  readonly nodeId: string;
  readonly dataDir: string;
  /** Address other nodes reach this one at, without port; empty: as the manager sees it. */
  readonly nodeAddress: string;
  /** host:port of the node's own RPC server; left out, the managers cannot make it one of theirs. */
  readonly rpcAddress?: string;
  readonly hostname: string;
  /** host:port of managers to try when none is remembered. */
  readonly initialManagers: readonly string[];
}

export interface AgentDependencies {
  readonly runtimes: readonly Runtime[];
  readonly networks: TaskNetworkProvider;
  connect(address: string, handlers: RpcHandlers, signal: AbortSignal): Promise<RpcConnection>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** What the node says of itself now. Asked every second; it must not hang. */
  describe(): Promise<NodeDescription>;
  /** Called after each change of networks, services or endpoints; kept as it was while disconnected. */
  onRouting(state: RoutingState): void;
  onManagers(peers: readonly ManagerPeer[]): void;
  /** What the cluster wants this node to be; after each new session and whenever it changes. */
  onRole?(role: 'manager' | 'worker', raftId: number): void;
  /** Where records are kept: in the data folder, unless a simulator gives its own. */
  readonly store?: WorkerStore;
}

/** The description is compared with the one the manager has this often. */
export const DESCRIBE_INTERVAL_MS = 1_000;
/** Everything a runtime holds is looked at this often, in case an event was lost. */
export const RESYNC_INTERVAL_MS = 15_000;
/** A runtime that does not answer is asked again this often. */
export const RUNTIME_RETRY_MS = 1_000;
export const LIST_TIMEOUT_MS = 30_000;
/** Statuses in one report at most. */
export const REPORT_UPDATES_MAX = 500;
/** Routing is written to disk at most this often. */
export const ROUTING_WRITE_INTERVAL_MS = 1_000;
/** Time `stop` gives operations that should not be cut short. */
export const STOP_OPERATIONS_MS = 10_000;
/** Time a leaving worker gives its manager to take the last reports. */
export const LAST_REPORT_MS = 3_000;

/** One node's worker. */
export class Agent {
  readonly #options: AgentOptions;
  readonly #dependencies: AgentDependencies;
  readonly #store: WorkerStore;
  readonly #operations: OperationRunner;
  readonly #abort = new AbortController();
  readonly #loops: Promise<void>[] = [];
  #link: ManagerLink | null = null;
  #state = initialWorkerState();
  #assignments: Assignments = noAssignments();
  #outbox: Outbox = new Map();
  #description: NodeDescription | null = null;
  #wakeTimer: Timer | null = null;
  #routingTimer: Timer | null = null;
  #emptied: (() => void) | null = null;
  #reported: (() => void) | null = null;

  constructor(options: AgentOptions, dependencies: AgentDependencies) {
    this.#options = options;
    this.#dependencies = dependencies;
    this.#store = dependencies.store ?? new WorkerStore(options.dataDir, dependencies.log);
    this.#operations = new OperationRunner({
      runtimes: dependencies.runtimes,
      networks: dependencies.networks,
      clock: dependencies.clock,
      nodeAddress: options.nodeAddress,
      hostname: options.hostname,
      assignments: () => this.#assignments.tables,
      dispatch: (event) => this.#dispatch(event),
    });
  }

  /** Streams this worker serves to managers, for connections the node accepts itself. */
  get handlers(): RpcHandlers {
    return {
      calls: {},
      notifications: {},
      streams: {
        'worker.logs': async (params, stream, context) => {
          if (context.connection.peer?.role !== 'manager') {
            throw new SwarmdError('PERMISSION_DENIED', 'only managers read the logs of tasks');
          }
          const request = parseLogRequest(params);
          if (!request.ok) throw new SwarmdError('INVALID_ARGUMENT', request.reason);
          for await (const record of this.logs(request.value, context.signal)) {
            await stream.write(record, context.signal);
          }
        },
      },
    };
  }

  /** The records of all tasks on this node, for diagnostics. */
  tasks(): readonly LocalTask[] {
    return [...this.#state.tasks.values()];
  }

  /** Whether a session with the leader is open. */
  get connected(): boolean {
    return this.#link?.connected ?? false;
  }

  /** Adopts what the last life of the worker left, then looks for the leader. Resolves before one is found. */
  async start(): Promise<void> {
    const { runtimes, onManagers, describe, log } = this.#dependencies;
    const stored = await this.#store.load();
    this.#assignments = restoredAssignments(stored);
    this.#description = await describe();
    for (const runtime of runtimes) {
      runtime.onEvent((taskId) => this.#dispatch({ kind: 'changed', taskId }));
    }
    this.#link = this.#makeLink(this.#addressesWith(stored.managers));
    if (stored.managers.length > 0) onManagers(stored.managers);
    if (stored.routing.networks.length + stored.routing.services.length > 0) this.#publishRouting();
    this.#dispatch({ kind: 'restored', tasks: stored.tasks });
    log.info('worker started', { node: this.#options.nodeId, tasks: stored.tasks.length });
    for (const runtime of runtimes) this.#loops.push(this.#watchRuntime(runtime));
    this.#loops.push(this.#watchDescription());
    this.#link.start();
  }

  /** Ends the worker; tasks stay up. */
  async stop(): Promise<void> {
    if (this.#abort.signal.aborted) return;
    const { clock } = this.#dependencies;
    await this.#link?.stop();
    const deadline = new AbortController();
    const timer = clock.setTimer(STOP_OPERATIONS_MS, () => deadline.abort());
    this.#abort.abort(new SwarmdError('CANCELLED', 'the worker is stopping'));
    this.#wakeTimer?.cancel();
    await this.#operations.stop(deadline.signal);
    timer.cancel();
    this.#routingTimer?.cancel();
    await Promise.all(this.#loops);
    await this.#store.flush();
  }

  /**
   * Stops and removes every task and forgets everything kept on disk, then ends the worker. When `signal` aborts,
   * what could not be removed by then stays, and the returned ids name it.
   */
  async leave(signal: AbortSignal): Promise<readonly string[]> {
    this.#dispatch({ kind: 'leave' });
    if (this.#state.tasks.size > 0 && !signal.aborted) {
      await new Promise<void>((resolve) => {
        this.#emptied = resolve;
        signal.addEventListener('abort', () => resolve(), { once: true });
      });
    }
    const left = [...this.#state.tasks.keys()];
    await this.#reportLast();
    await this.stop();
    await this.#store.clear();
    return left;
  }

  /** Waits until the manager has taken the last reports, when there is one. */
  async #reportLast(): Promise<void> {
    if (this.#outbox.size === 0 || !this.connected) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#reported = resolve;
    const timer = this.#dependencies.clock.setTimer(LAST_REPORT_MS, resolve);
    await promise;
    timer.cancel();
  }

  /** Log lines of a task of this node. NOT_FOUND when nothing is held for it. */
  async *logs(request: LogRequest, signal: AbortSignal): AsyncIterable<LogRecord> {
    const { runtimes } = this.#dependencies;
    const kind = this.#state.tasks.get(request.taskId)?.runtime;
    const candidates = kind === undefined ? runtimes : runtimes.filter((runtime) => runtime.kind === kind);
    for (const runtime of candidates) {
      if (kind === undefined && (await runtime.inspect(request.taskId, signal)) === null) continue;
      yield* runtime.logs(request, signal);
      return;
    }
    throw new SwarmdError(
      'NOT_FOUND',
      `node ${this.#options.hostname} holds nothing of task ${request.taskId}`,
    );
  }

  #makeLink(addresses: readonly string[]): ManagerLink {
    const { connect, clock, random, log } = this.#dependencies;
    return new ManagerLink(
      {
        connect,
        clock,
        random,
        log,
        handlers: this.handlers,
        rpcAddress: this.#options.rpcAddress ?? '',
        nodeAddress: this.#options.nodeAddress,
        description: () => this.#description as NodeDescription,
        onMessage: (message) => this.#receive(message),
        nextReport: () => nextReport(this.#outbox, REPORT_UPDATES_MAX),
        onAcknowledged: (updates) => {
          this.#outbox = acknowledge(this.#outbox, updates);
          if (this.#outbox.size === 0) this.#reported?.();
        },
      },
      addresses,
    );
  }

  #receive(message: SessionMessage): void {
    switch (message.kind) {
      case 'welcome':
        this.#assignments = beginSession(this.#assignments);
        this.#learnManagers(message.managers);
        return;
      case 'managers':
        this.#learnManagers(message.managers);
        return;
      case 'role':
        this.#dependencies.onRole?.(message.role, message.raftId);
        return;
      case 'assignments': {
        const received = receive(this.#assignments, message);
        if (!received.ok) throw new SwarmdError('CONFLICT', `assignments refused: ${received.reason}`);
        this.#assignments = received.value.assignments;
        const { change } = received.value;
        if (change === null) return;
        const { complete, putTasks, removedTasks, kinds } = change;
        if (kinds.has('network') || kinds.has('service') || kinds.has('endpoint')) this.#publishRouting();
        if (complete || putTasks.length + removedTasks.length > 0) {
          this.#dispatch({ kind: 'assignments', complete, put: putTasks, remove: removedTasks });
        }
      }
    }
  }

  /**
   * The managers it was told of, then what it knows by itself: a manager that moved finds itself where the others do
   * not know it yet, and an address that was joined at may outlive every manager of then.
   */
  #addressesWith(managers: readonly ManagerPeer[]): string[] {
    const { rpcAddress, initialManagers } = this.#options;
    const own = rpcAddress === undefined ? [] : [rpcAddress];
    return [...new Set([...managers.map((peer) => peer.address), ...own, ...initialManagers])];
  }

  #learnManagers(managers: readonly ManagerPeer[]): void {
    if (managers.length === 0) return;
    this.#link?.setAddresses(this.#addressesWith(managers));
    this.#store.putManagers(managers);
    this.#dependencies.onManagers(managers);
  }

  #publishRouting(): void {
    const { network, service, endpoint } = this.#assignments.tables;
    this.#dependencies.onRouting({ networks: network, services: service, endpoints: endpoint });
    this.#routingTimer ??= this.#dependencies.clock.setTimer(ROUTING_WRITE_INTERVAL_MS, () => {
      this.#routingTimer = null;
      const tables = this.#assignments.tables;
      this.#store.putRouting({
        networks: [...tables.network.values()],
        services: [...tables.service.values()],
        endpoints: [...tables.endpoint.values()],
      });
    });
  }

  #dispatch(event: WorkerEvent): void {
    if (this.#abort.signal.aborted) return;
    const { clock } = this.#dependencies;
    const step = reconcile(this.#state, event, clock.nowMs());
    this.#state = step.state;
    for (const effect of step.effects) this.#carryOut(effect);
    this.#wakeTimer?.cancel();
    this.#wakeTimer = null;
    if (step.wakeAt !== null) {
      const delay = Math.max(1, step.wakeAt - clock.nowMs());
      this.#wakeTimer = clock.setTimer(delay, () => this.#dispatch({ kind: 'wake' }));
    }
    if (this.#state.leaving && this.#state.tasks.size === 0) this.#emptied?.();
  }

  #carryOut(effect: WorkerEffect): void {
    switch (effect.kind) {
      case 'run':
        this.#operations.run(effect);
        return;
      case 'abort':
        this.#operations.abort(effect.taskId);
        return;
      case 'persist':
        this.#store.putTask({ task: effect.task, status: effect.status });
        return;
      case 'forget':
        this.#store.removeTask(effect.taskId);
        // A node that leaves still tells its manager what became of its tasks.
        if (!this.#state.leaving) this.#outbox = forget(this.#outbox, effect.taskId);
        return;
      case 'report':
        this.#outbox = post(this.#outbox, effect.taskId, effect.status);
        this.#link?.reportSoon();
    }
  }

  /** Looks at everything a runtime holds: at the start, at intervals, and as soon as it answers again. */
  async #watchRuntime(runtime: Runtime): Promise<void> {
    const { clock, log } = this.#dependencies;
    const { signal } = this.#abort;
    let reachable: boolean | null = null;
    while (!signal.aborted) {
      const since = this.#state.sequence;
      let wait = RESYNC_INTERVAL_MS;
      try {
        const tasks = await bounded(clock, LIST_TIMEOUT_MS, signal, (inner) => runtime.list(inner));
        this.#dispatch({ kind: 'listed', runtime: runtime.kind, since, tasks });
        if (reachable === false) log.info('runtime answers again', { runtime: runtime.kind });
        reachable = true;
      } catch (error) {
        wait = RUNTIME_RETRY_MS;
        if (!signal.aborted && reachable !== false) {
          log.warn('runtime cannot be asked; its tasks are left as they are', {
            runtime: runtime.kind,
            error: errorMessage(error),
          });
        }
        reachable = false;
      }
      await sleep(clock, wait, signal).catch(() => {});
    }
  }

  async #watchDescription(): Promise<void> {
    const { clock, describe, log } = this.#dependencies;
    const { signal } = this.#abort;
    while (!signal.aborted) {
      await sleep(clock, DESCRIBE_INTERVAL_MS, signal).catch(() => {});
      if (signal.aborted) return;
      try {
        const next = await bounded(clock, LIST_TIMEOUT_MS, signal, describe);
        if (JSON.stringify(next) === JSON.stringify(this.#description)) continue;
        this.#description = next;
        log.info('description of this node changed', { runtimes: next.runtimes });
        this.#link?.descriptionChanged();
      } catch (error) {
        log.debug('this node could not be described', { error: errorMessage(error) });
      }
    }
  }
}

/** Runs `work` for at most `limitMs`, even when it ignores its signal. */
async function bounded<T>(
  clock: Clock,
  limitMs: number,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const inner = new AbortController();
  const onAbort = (): void => inner.abort(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  const timer = clock.setTimer(limitMs, () =>
    inner.abort(new SwarmdError('TIMEOUT', `no answer in ${limitMs} ms`)),
  );
  try {
    return await new Promise<T>((resolve, reject) => {
      if (signal.aborted) inner.abort(signal.reason);
      inner.signal.addEventListener('abort', () => reject(inner.signal.reason as Error), { once: true });
      work(inner.signal).then(resolve, reject);
    });
  } finally {
    timer.cancel();
    signal.removeEventListener('abort', onAbort);
  }
}

function restoredAssignments(stored: Awaited<ReturnType<WorkerStore['load']>>): Assignments {
  const { tables } = noAssignments();
  return {
    sequence: null,
    partial: null,
    tables: {
      ...tables,
      network: new Map(stored.routing.networks.map((network) => [network.id, network])),
      service: new Map(stored.routing.services.map((service) => [service.id, service])),
      endpoint: new Map(stored.routing.endpoints.map((endpoint) => [endpoint.taskId, endpoint])),
    },
  };
}
