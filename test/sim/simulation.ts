/**
 * One run: a whole cluster of real managers and workers in one thread, under the faults of one seed, then healed.
 *
 * Invariants: a run is repeated exactly by its seed, events and variant; every check runs after every event; after
 * healing the cluster must agree and do what it was asked to, within a bound of virtual time.
 */
import { randomBase36 } from '../../src/base/random.ts';
import type { LogFields, Logger } from '../../src/base/log.ts';
import { SwarmdError } from '../../src/base/errors.ts';
import { type BrokenVariant, breakCode } from './broken.ts';
import { ClusterChecks } from './cluster-checks.ts';
import { ClusterMachines } from './cluster-machines.ts';
import { convergenceProblems } from './convergence.ts';
import { Dice, type Draws, drawWith } from './draws.ts';
import { Faults } from './faults.ts';
import type { World } from './manager-host.ts';
import { Network } from './network.ts';
import { RaftChecks } from './raft-checks.ts';
import type { Served } from './rpc.ts';
import { type Process, VirtualTime } from './virtual-time.ts';
import { Workload } from './workload.ts';

/** What to run. */
export interface SimulationOptions {
  readonly seed: number;
  /** Events under faults; healing comes on top. */
  readonly events: number;
  readonly broken?: BrokenVariant | null;
  /** Instead of what the seed draws: to narrow a search. */
  readonly draws?: Partial<Pick<Draws, 'managers' | 'workers' | 'faults'>>;
  /** Prints every event and log line. */
  readonly trace?: (line: string) => void;
}

/** What a run came to. */
export interface SimulationResult {
  readonly seed: number;
  readonly events: number;
  readonly virtualMs: number;
  readonly problems: readonly string[];
  /** The event at which the first problem was found. */
  readonly failedAt: number | null;
  /** Names everything that happened: equal for equal runs. */
  readonly trail: number;
  /** The last events before it. */
  readonly history: readonly string[];
  readonly facts: Readonly<Record<string, unknown>>;
}

const HISTORY_EVENTS = 50;
/** Virtual time for the healed cluster to converge. */
const CONVERGENCE_MS = 240_000;
const CONVERGENCE_EVERY_MS = 1_000;
const CONVERGENCE_EVENTS_MAX = 2_000_000;
/** Events under way at once; far more than what the bounded queues of a cluster lead to. */
const PENDING_EVENTS_MAX = 100_000;

class Simulation {
  readonly time = new VirtualTime();
  readonly draws: Draws;
  readonly problems: string[] = [];
  readonly machines: ClusterMachines;
  failedAt: number | null = null;
  readonly #options: SimulationOptions;
  readonly #history: string[] = [];
  readonly #raftChecks: RaftChecks;
  readonly #clusterChecks: ClusterChecks;
  readonly #workload: Workload;
  readonly #faults: Faults;
  readonly #world: World;
  #trail = 0;
  #convergedMs: number | null = null;
  #unjudged = 0;

  constructor(options: SimulationOptions) {
    this.#options = options;
    this.draws = drawWith(options.seed, options.draws);
    const dice = new Dice(options.seed ^ 0x5bd1e995);
    const violation = (what: string): void => this.#fail(what);
    this.#raftChecks = new RaftChecks({
      hosts: () => this.machines.managers,
      maxUncommittedBytes: this.draws.raft.maxUncommittedBytes,
      violation,
      note: (what) => this.#remember(what),
    });
    this.#clusterChecks = new ClusterChecks(violation);
    this.#world = {
      time: this.time,
      network: new Network<Served>(this.time, dice.fork()),
      dice,
      draws: this.draws,
      broken: options.broken ?? null,
      violation,
      note: (what) => this.#remember(what),
      bounded: (limitMs, work) => this.#bounded(limitMs, work),
      logger: (host) => this.#logger(host),
      onFrame: (host, bytes) => {
        options.trace?.(`    ${host.name} sends ${RaftChecks.describe(bytes)}`);
        this.#raftChecks.frame(host, bytes);
      },
      onState: (host, state) => {
        state.subscribe((changes) => {
          if (host.isRetired) this.#clusterChecks.leftBehind(changes);
          else this.#clusterChecks.applied(state.store, changes);
        });
      },
      onRaft: (host) => this.#raftChecks.check(host),
      onPowerLoss: (host) => this.#faults.powerLost(host),
      onLogLost: (host, why) => this.#faults.logLost(host, why),
    };
    this.machines = new ClusterMachines(this.#world, {
      joined: (host) => this.#raftChecks.watch(host),
      retired: (host) => this.#raftChecks.unwatch(host),
      started: (nodeId, taskId) => this.#clusterChecks.started(nodeId, taskId),
      rewound: (survivor, committed) => {
        const index = this.#raftChecks.agreedTo(survivor);
        this.#raftChecks.rewind(index, committed);
        this.#clusterChecks.rewind(index);
        this.#workload.rewind(index, committed);
      },
    });
    this.#workload = new Workload(this.#world, () => this.machines.managers);
    this.#faults = new Faults(this.#world, this.machines);
    this.#raftChecks.onLeaderCommit = (host) => this.#faults.committed(host);
    this.time.onEvent = (label, owner) => this.#remember(label, owner);
  }

  async run(): Promise<void> {
    const { draws, time, machines } = this;
    const first = machines.build(this.#workload.firstActions());
    for (const host of machines.managers) host.start(host === machines.managers[0] ? { first } : null);
    for (const host of machines.workers) host.start();
    await time.settle();
    const began = await this.#until(() => machines.leader() !== null, 10_000);
    if (!began) this.#fail('the first manager does not lead');
    this.#faults.begin();
    this.#every(draws.workloadEveryMs, 'user', () => this.#workload.act());
    this.#every(draws.registerEveryMs, 'client', () => this.#workload.register());
    this.#every(draws.faultEveryMs, 'fault', () => this.#faults.strike());
    while (time.events < this.#options.events && this.failedAt === null) await this.#step();
    if (this.failedAt === null) await this.#heal();
    if (this.failedAt === null) this.#unjudged = this.#workload.judge();
    if (time.leaks.length > 0) this.#fail(`not repeatable: ${time.leaks.join('; ')}`);
  }

  result(): SimulationResult {
    const { seed } = this.#options;
    const { managers, workers } = this.draws;
    return {
      seed,
      events: this.time.events,
      virtualMs: Math.round(this.time.nowMs),
      problems: this.problems,
      failedAt: this.failedAt,
      trail: this.#trail,
      history: this.#history,
      facts: {
        managers,
        workers,
        committed: this.#raftChecks.highestCommit,
        digestsCompared: this.#raftChecks.digestsCompared,
        snapshotsCompared: this.#raftChecks.snapshotsCompared,
        changesChecked: this.#clusterChecks.changesChecked,
        ...this.#workload.counts,
        ...this.#clusterChecks.seen,
        convergedMs: this.#convergedMs,
        unjudged: this.#unjudged,
        faults: Object.fromEntries(this.#faults.counts),
      },
    };
  }

  #bounded<T>(limitMs: number, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const abort = new AbortController();
      const timer = this.time.after(limitMs, null, 'client timeout', () => {
        const late = new SwarmdError('TIMEOUT', 'the client waits no longer');
        abort.abort(late);
        reject(late);
      });
      work(abort.signal)
        .finally(() => timer.cancel())
        .then(resolve, reject);
    });
  }

  async #step(): Promise<void> {
    await this.time.step();
    const { managers, workers } = this.machines;
    for (const host of managers) this.#raftChecks.check(host);
    if (this.#workload.isSuspended) this.#resume();
    if (this.time.pending > PENDING_EVENTS_MAX)
      this.#fail(`bounded queues: ${this.time.pending} events are under way`);
    for (const host of workers) {
      if (!host.hasNews) continue;
      host.hasNews = false;
      this.#clusterChecks.endpoints(host.name, host.endpoints);
    }
  }

  /** Clients go on once the survivor of a lost cluster leads, and has applied what it kept. */
  #resume(): void {
    const leader = this.machines.leader();
    const status = leader?.raft?.status();
    const store = leader?.state?.store;
    if (status !== undefined && store !== undefined && status.appliedIndex >= this.#workload.decided)
      this.#workload.resume(store);
  }

  async #until(check: () => boolean, maxMs: number): Promise<boolean> {
    const end = this.time.nowMs + maxMs;
    while (this.time.nowMs < end && this.failedAt === null) {
      if (check()) return true;
      await this.#step();
    }
    return false;
  }

  #every(periodMs: number, label: string, act: () => void): void {
    const again = (): void => {
      if (this.#healing) return;
      act();
      this.time.after(1 + this.#world.dice.below(periodMs * 2), null, label, again);
    };
    this.time.after(periodMs, null, label, again);
  }

  #healing = false;

  async #heal(): Promise<void> {
    this.#healing = true;
    this.#remember('everything is healed');
    this.#faults.heal();
    this.machines.tidy();
    const { time } = this;
    const from = time.nowMs;
    let nextMs = from;
    let problems: readonly string[] = ['nothing was looked at yet'];
    const firstEvent = time.events;
    let index = 0;
    while (problems.length > 0 && this.failedAt === null) {
      if (time.nowMs > from + CONVERGENCE_MS || time.events > firstEvent + CONVERGENCE_EVENTS_MAX) {
        this.#fail(
          `liveness: ${Math.round(time.nowMs - from)} ms after healing:\n  ${problems.slice(0, 10).join('\n  ')}`,
        );
        return;
      }
      await this.#step();
      if (time.nowMs < nextMs) continue;
      nextMs = time.nowMs + CONVERGENCE_EVERY_MS;
      this.#faults.revive();
      const { managers, workers } = this.machines;
      const { kept } = this.#workload;
      problems =
        index === 0 ? ['it was looked at once'] : convergenceProblems(managers, workers, { kept, index });
      index = this.machines.leader()?.state?.store.index ?? index;
    }
    this.#convergedMs = Math.round(time.nowMs - from);
  }

  #fail(what: string): void {
    if (this.problems.length < 20) this.problems.push(what);
    this.failedAt ??= this.time.events;
    this.#remember(`VIOLATION ${what}`);
  }

  #remember(what: string, owner: Process | null = null): void {
    const line = `${this.time.events} ${this.time.nowMs.toFixed(3)} ${owner === null ? '' : `${owner.name} `}${what}`;
    for (let i = 0; i < line.length; i++)
      this.#trail = Math.imul(this.#trail ^ line.charCodeAt(i), 0x01000193);
    this.#options.trace?.(line);
    if (this.failedAt !== null && this.#history.length >= HISTORY_EVENTS) return;
    this.#history.push(line);
    if (this.#history.length > HISTORY_EVENTS) this.#history.shift();
  }

  /** Errors in the log are defects: what faults cause is at most a warning. */
  #logger(host: string): Logger {
    const { trace } = this.#options;
    const write = (level: string, message: string, fields: LogFields = {}): void => {
      trace?.(`    ${this.time.nowMs.toFixed(3)} ${host} ${level}: ${message} ${JSON.stringify(fields)}`);
    };
    const silent = (): void => {};
    return {
      debug: trace === undefined ? silent : (message, fields) => write('debug', message, fields),
      info: trace === undefined ? silent : (message, fields) => write('info', message, fields),
      warn: trace === undefined ? silent : (message, fields) => write('warn', message, fields),
      error: (message, fields) => {
        write('error', message, fields);
        this.#fail(`${host} logged an error: ${message} ${JSON.stringify(fields)}`);
      },
      child: () => this.#logger(host),
    };
  }

  /** A broken invariant that nobody awaited. */
  readonly onRejection = (error: unknown): void => {
    this.#fail(
      `a promise was rejected and nobody heard: ${error instanceof Error ? error.stack : String(error)}`,
    );
  };
}

/** Runs one seed. */
export async function simulate(options: SimulationOptions): Promise<SimulationResult> {
  const simulation = new Simulation(options);
  const restore = breakCode(options.broken ?? null);
  process.on('unhandledRejection', simulation.onRejection);
  try {
    await simulation.time.rule(() => simulation.run());
  } catch (error) {
    simulation.problems.push(
      `the simulation failed: ${error instanceof Error ? error.stack : String(error)}`,
    );
    simulation.failedAt ??= simulation.time.events;
  } finally {
    restore();
    process.off('unhandledRejection', simulation.onRejection);
  }
  return simulation.result();
}

/** A seed for a fresh run, from the kernel. */
export function freshSeed(random: { uint32(): number }): number {
  return Number.parseInt(randomBase36(random, 5), 36);
}
