/**
 * Keeps the node's task networks as the cluster wants them: observes, plans, applies, one pass at a time.
 *
 * Owns the engine networks labelled with this node's id, the VXLAN devices with its alias and the chain
 * SWARMD-FORWARD. Invariants: passes never overlap; a pass that fails for one network goes on with the others; what
 * an engine restart or a hand undid is put back by the next pass; nothing that swarmd did not make is removed.
 */
import { errorMessage, SwarmdError, toSwarmdError } from '../base/errors.ts';
import type { Clock, Timer } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { Task } from '../model/objects.ts';
import type { AssignedNetwork, EndpointRecord } from '../model/wire.ts';
import type { RoutingState, TaskNetworking, TaskNetworkProvider } from '../worker/types.ts';
import type { CommandRunner } from './commands.ts';
import type { EngineNetworks } from './engine-networks.ts';
import { observeNetworks } from './observe.ts';
import { bareAddress, desiredNetworks, planForwarding, planNetworks } from './plan.ts';
import type { DesiredNetworks, NetworkStep, OverlaySettings } from './plan-state.ts';
import type { NetworkRung } from './rung.ts';
import { taskNetworking } from './task-networking.ts';

/** Options of {@link OverlayNetworks}. Times are milliseconds. */
export interface OverlayOptions {
  readonly nodeId: string;
  /** This node's data-path address: IPv4 text. */
  readonly address: string;
  readonly rung: NetworkRung;
  /** Largest packet the path between nodes carries, bytes. Default 1500. */
  readonly pathMtu?: number;
  /** Default 4790. */
  readonly vxlanPort?: number;
  /** Time between passes that only check. Default 10,000. */
  readonly checkMs?: number;
  /** A network a task asked for is kept at least this long, whatever the routing state says. Default 60,000. */
  readonly preparedKeepMs?: number;
  /** Whether tasks are told to ask the DNS server on their gateway. Default: on the overlay rung. */
  readonly gatewayDns?: boolean;
}

/** What {@link OverlayNetworks} works with. */
export interface OverlayDependencies {
  /** Null: no engine; then there is nothing to make. */
  readonly engine: EngineNetworks | null;
  readonly commands: CommandRunner;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Called after a pass that changed something: addresses of the node may have come or gone. */
  readonly onChange?: () => void;
}

/** State of one network on the node. */
export interface NetworkStatus {
  readonly networkId: string;
  /** `leaving`: no longer wanted, but a container still uses it. */
  readonly state: 'ready' | 'pending' | 'failed' | 'leaving';
  /** Why it failed or has not left, with what to do; empty otherwise. */
  readonly error: string;
}

/** Task addresses remembered for scoping DNS questions; the oldest go first. */
const ASKERS_MAX = 4_096;

/** The node's task networks. Start it with the first `update`; end it with `close` (or `removeAll` and `close`). */
export class OverlayNetworks implements TaskNetworkProvider {
  readonly #settings: OverlaySettings;
  readonly #options: OverlayOptions;
  readonly #deps: OverlayDependencies;
  readonly #closing = new AbortController();
  #networks: ReadonlyMap<string, AssignedNetwork> = new Map();
  #endpoints: ReadonlyMap<string, EndpointRecord> = new Map();
  /** Networks that tasks asked for, by network id. */
  readonly #prepared = new Map<string, { readonly network: AssignedNetwork; keepUntilMs: number }>();
  /** Network ids by task address, for DNS. */
  readonly #askers = new Map<string, readonly string[]>();
  /** Outcome of the last pass by network id; null: it is as wanted. */
  #outcomes: ReadonlyMap<string, SwarmdError | null> = new Map();
  /** Networks that should go and could not, by id. */
  #leaving: ReadonlyMap<string, SwarmdError> = new Map();
  #failure: SwarmdError | null = null;
  /** What the last pass made, when all of it worked; null: look before the next one. */
  #applied: DesiredNetworks | null = null;
  #running: Promise<void> | null = null;
  #next: Promise<void> | null = null;
  #timer: Timer | null = null;

  constructor(options: OverlayOptions, deps: OverlayDependencies) {
    this.#options = options;
    this.#deps = deps;
    this.#settings = {
      nodeId: options.nodeId,
      address: options.address,
      pathMtu: options.pathMtu ?? 1500,
      vxlanPort: options.vxlanPort ?? 4790,
      overlay: options.rung.rung === 'overlay',
    };
  }

  /** Takes the new routing state and brings the networks up to it in the background. */
  update(routing: RoutingState): void {
    // Known and now gone: no task of this node needs it any more, and its subnet may be given to another network.
    for (const id of this.#prepared.keys()) {
      if (this.#networks.has(id) && !routing.networks.has(id)) this.#prepared.delete(id);
    }
    this.#networks = routing.networks;
    this.#endpoints = routing.endpoints;
    void this.#request();
  }

  /** Makes the networks of `task` and says how to attach it. Rejects with the reason when one cannot be made. */
  async prepare(
    task: Task,
    networks: ReadonlyMap<string, AssignedNetwork>,
    signal: AbortSignal,
  ): Promise<TaskNetworking> {
    const assigned = task.networks.flatMap((attachment) => {
      const network = networks.get(attachment.networkId);
      return network === undefined ? [] : [network];
    });
    if (assigned.length < task.networks.length) {
      const missing = task.networks.find((attachment) => !networks.has(attachment.networkId));
      throw new SwarmdError(
        'UNAVAILABLE',
        `the network ${missing?.networkId} of task ${task.id} is not known to this node yet`,
        { details: { taskId: task.id, networkId: missing?.networkId } },
      );
    }
    const answer = taskNetworking(task, assigned, {
      overlay: this.#settings.overlay,
      gatewayDns: this.#options.gatewayDns ?? this.#settings.overlay,
    });
    if (answer.attachments.length === 0) return answer;
    this.#remember(task, assigned);
    const ready = (): boolean => assigned.every((network) => this.#outcomes.get(network.id) === null);
    if (!ready()) await abortable(this.#request(), signal);
    for (const network of assigned) {
      const failed = this.#outcomes.get(network.id) ?? this.#failure;
      if (failed !== null) throw failed;
    }
    return answer;
  }

  /** Ids of the networks of the task with `address`; null when no task here has it. */
  networksOf(address: string): readonly string[] | null {
    return this.#askers.get(address) ?? null;
  }

  /** Looks at everything there is and mends what differs, as after a restart of the engine. Never rejects. */
  reconcile(): Promise<void> {
    this.#applied = null;
    return this.#request();
  }

  /** One pass, shared by callers that come while one waits. */
  #request(): Promise<void> {
    if (this.#closing.signal.aborted) return Promise.resolve();
    if (this.#running === null) {
      this.#running = this.#pass().finally(() => {
        this.#running = null;
      });
      return this.#running;
    }
    this.#next ??= this.#running.then(() => {
      this.#next = null;
      return this.#request();
    });
    return this.#next;
  }

  /** State of every network the node should have, and of those it should not have any more. */
  status(): NetworkStatus[] {
    if (this.#deps.engine === null) return [];
    const wanted = [...this.#wanted()].map(({ id }): NetworkStatus => {
      const error = this.#outcomes.get(id) ?? this.#failure;
      const state = error !== null ? 'failed' : this.#outcomes.has(id) ? 'ready' : 'pending';
      return { networkId: id, state, error: error?.message ?? '' };
    });
    const leaving = [...this.#leaving].map(
      ([networkId, error]): NetworkStatus => ({ networkId, state: 'leaving', error: error.message }),
    );
    return [...wanted, ...leaving];
  }

  /** Removes everything of this node. Returns the names of engine networks that containers still use. */
  async removeAll(signal: AbortSignal): Promise<string[]> {
    this.#networks = new Map();
    this.#endpoints = new Map();
    this.#prepared.clear();
    await abortable(this.reconcile(), signal);
    const { engine } = this.#deps;
    if (engine === null) return [];
    const left = await engine.list(signal);
    return left.filter((network) => network.nodeId === this.#options.nodeId).map((network) => network.name);
  }

  /** Ends the passes and awaits the one under way. The networks stay: running tasks use them. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
    this.#timer?.cancel();
  }

  #remember(task: Task, networks: readonly AssignedNetwork[]): void {
    const keepMs = this.#options.preparedKeepMs ?? 60_000;
    const keepUntilMs = this.#deps.clock.monotonicMs() + keepMs;
    for (const network of networks) this.#prepared.set(network.id, { network, keepUntilMs });
    const ids = networks.map((network) => network.id);
    for (const attachment of task.networks) {
      const address = bareAddress(attachment.address);
      this.#askers.delete(address);
      this.#askers.set(address, ids);
    }
    for (const address of this.#askers.keys()) {
      if (this.#askers.size <= ASKERS_MAX) break;
      this.#askers.delete(address);
    }
  }

  /** Networks of the routing state, and those that tasks being made need. The former describe them best. */
  #wanted(): Iterable<AssignedNetwork> {
    const now = this.#deps.clock.monotonicMs();
    const wanted = new Map<string, AssignedNetwork>();
    for (const [id, { network, keepUntilMs }] of this.#prepared) {
      if (keepUntilMs > now) wanted.set(id, network);
      else this.#prepared.delete(id);
    }
    for (const [id, network] of this.#networks) wanted.set(id, network);
    return wanted.values();
  }

  async #pass(): Promise<void> {
    const desired = this.#desired();
    const applied = this.#applied;
    this.#applied = null;
    const moves = applied === null ? null : planForwarding(applied, desired);
    const complete = moves === null ? await this.#wholePass(desired) : (await this.#apply(moves)).size === 0;
    if (this.#closing.signal.aborted) return;
    if (complete) this.#applied = desired;
    else if (moves !== null) void this.#request();
    this.#scheduleCheck();
  }

  /** Observes, plans and applies; whether everything is as desired now. */
  async #wholePass(desired: DesiredNetworks): Promise<boolean> {
    const { engine, commands, logger } = this.#deps;
    const signal = this.#closing.signal;
    try {
      const observed = await observeNetworks(desired, engine, commands, signal);
      const steps = planNetworks(desired, observed);
      const failures = await this.#apply(steps);
      const outcomes = new Map(
        desired.networks.map(({ networkId }) => [networkId, failures.get(networkId) ?? null]),
      );
      this.#report(outcomes);
      this.#outcomes = outcomes;
      this.#leaving = new Map([...failures].filter(([id]) => id !== '' && !outcomes.has(id)));
      this.#failure = null;
      if (steps.length > 0) this.#deps.onChange?.();
      return failures.size === 0;
    } catch (error) {
      if (signal.aborted) return false;
      const failure = toSwarmdError(error, 'UNAVAILABLE');
      if (this.#failure?.message !== failure.message) {
        logger.warn('task networks could not be checked', { code: failure.code, error: failure });
      }
      this.#failure = failure;
      this.#outcomes = new Map();
      return false;
    }
  }

  #scheduleCheck(): void {
    this.#timer ??= this.#deps.clock.setTimer(this.#options.checkMs ?? 10_000, () => {
      this.#timer = null;
      void this.reconcile();
    });
  }

  #desired(): DesiredNetworks {
    if (this.#deps.engine === null) return desiredNetworks([], [], this.#settings);
    return desiredNetworks(this.#wanted(), this.#endpoints.values(), this.#settings);
  }

  /** Does the steps in order; returns the first failure by network id. */
  async #apply(steps: readonly NetworkStep[]): Promise<ReadonlyMap<string, SwarmdError>> {
    const failures = new Map<string, SwarmdError>();
    for (const step of steps) {
      if (this.#closing.signal.aborted) break;
      if (step.networkId !== '' && failures.has(step.networkId)) continue;
      try {
        await this.#step(step);
      } catch (error) {
        if (step.kind === 'run' && step.optional === true) {
          this.#deps.logger.debug('a network command failed', {
            command: step.argv.join(' '),
            error: errorMessage(error),
          });
          continue;
        }
        failures.set(step.networkId, toSwarmdError(error, 'RUNTIME'));
      }
    }
    return failures;
  }

  async #step(step: NetworkStep): Promise<void> {
    const { engine, logger } = this.#deps;
    const signal = this.#closing.signal;
    switch (step.kind) {
      case 'create-network':
        await engine?.create(step.spec, signal);
        logger.info('task network made', { network: step.spec.name, subnet: step.spec.subnet });
        return;
      case 'remove-network':
        if ((await engine?.remove(step.engineId, signal)) === 'in-use') {
          throw new SwarmdError(
            'FAILED_PRECONDITION',
            `the engine network ${step.name} is still used by a container; remove the container to free it`,
            { details: { network: step.name } },
          );
        }
        logger.info('task network removed', { network: step.name });
        for (const argv of step.afterwards) {
          await this.#run(argv).catch((error: unknown) =>
            logger.debug('a network command failed', { error: errorMessage(error) }),
          );
        }
        return;
      case 'run':
        await this.#run(step.argv, step.input);
        return;
      case 'blocked':
        throw new SwarmdError('FAILED_PRECONDITION', step.message);
    }
  }

  async #run(argv: readonly string[], input?: string): Promise<void> {
    const options = { signal: this.#closing.signal, ...(input === undefined ? {} : { input }) };
    const { exitCode, stderr } = await this.#deps.commands(argv, options);
    if (exitCode === 0) return;
    throw new SwarmdError('RUNTIME', `"${argv.join(' ')}" failed: ${stderr}`, { details: { exitCode } });
  }

  #report(outcomes: ReadonlyMap<string, SwarmdError | null>): void {
    for (const [networkId, error] of outcomes) {
      const before = this.#outcomes.get(networkId);
      if (error === null || before?.message === error.message) continue;
      this.#deps.logger.warn('a task network could not be made', { networkId, code: error.code, error });
    }
  }
}

/** `work`, or a rejection as soon as `signal` aborts. The work itself goes on. */
async function abortable(work: Promise<void>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = (): void =>
    reject(new SwarmdError('CANCELLED', 'waiting for a task network was cancelled'));
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
