/**
 * One run: a whole cluster of real managers and workers in one thread, under the faults of one seed, then healed.
 *
 * Invariants: a run is repeated exactly by its seed, events and variant; every check runs after every event; after
 * healing the cluster must agree and do what it was asked to, within a bound of virtual time.
 */
import { randomBase36 } from '../../src/base/random.ts';
import type { LogFields, Logger } from '../../src/base/log.ts';
import { newId, type NodeId } from '../../src/model/ids.ts';
import { SwarmdError } from '../../src/base/errors.ts';
import { encodeBatch } from '../../src/manager/state/codec.ts';
import type { Action } from '../../src/manager/state/actions.ts';
import { RaftLog } from '../../src/raft/core/log.ts';
import { ClusterChecks } from './cluster-checks.ts';
import { convergenceProblems } from './convergence.ts';
import { type BrokenVariant, Dice, type Draws, draw } from './draws.ts';
import { Faults, type Machines } from './faults.ts';
import { ballast, clusterActions, createNode } from './first-objects.ts';
import { ManagerHost, type World } from './manager-host.ts';
import { Network } from './network.ts';
import { RaftChecks } from './raft-checks.ts';
import type { Served } from './rpc.ts';
import { EPOCH_MS, type Process, VirtualTime } from './virtual-time.ts';
import { WorkerHost } from './worker-host.ts';
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

class Simulation implements Machines {
  readonly time = new VirtualTime();
  readonly draws: Draws;
  readonly problems: string[] = [];
  readonly managers: ManagerHost[] = [];
  readonly workers: WorkerHost[] = [];
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
    this.draws = { ...draw(options.seed), ...options.draws };
    const dice = new Dice(options.seed ^ 0x5bd1e995);
    const violation = (what: string): void => this.#fail(what);
    this.#raftChecks = new RaftChecks(
      () => this.managers,
      violation,
      (what) => this.#remember(what),
    );
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
      onState: (_host, state) => {
        state.subscribe((changes) => this.#clusterChecks.applied(state.store, changes));
      },
      onRaft: (host) => this.#raftChecks.check(host),
    };
    this.#workload = new Workload(this.#world, () => this.managers);
    this.#faults = new Faults(this.#world, this);
    this.#raftChecks.onLeaderCommit = (host) => this.#faults.committed(host);
    this.time.onEvent = (label, owner) => this.#remember(label, owner);
  }

  async run(): Promise<void> {
    const { draws, time } = this;
    const first = this.#build();
    for (const host of this.managers) host.start(host === this.managers[0] ? first : null);
    for (const host of this.workers) host.start();
    await time.settle();
    const began = await this.#until(() => this.#faults.leader() !== null, 10_000);
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
        changesChecked: this.#clusterChecks.changesChecked,
        ...this.#workload.counts,
        ...this.#clusterChecks.seen,
        convergedMs: this.#convergedMs,
        unjudged: this.#unjudged,
        faults: Object.fromEntries(this.#faults.counts),
      },
    };
  }

  /** Makes the machines; returns the first entry of the cluster's log. */
  #build(): Action[] {
    const { draws } = this;
    const { dice } = this.#world;
    for (let i = 1; i <= draws.managers; i++) this.#addManager(`m${i}`);
    for (let i = 1; i <= draws.workers; i++) this.#addWorker(`w${i}`, newId<NodeId>(dice.random));
    if (draws.managersWork)
      for (const { name, member } of [...this.managers]) this.#addWorker(name, member.nodeId as NodeId);
    const [first, ...others] = this.managers as [ManagerHost, ...ManagerHost[]];
    const workers = this.workers.filter(({ name }) => name.startsWith('w'));
    return [
      ...clusterActions(first, draws, dice.random),
      ...others.map((host) => createNode(host.member.nodeId, host.name, host.member)),
      ...workers.map((host) => createNode(host.nodeId, host.name, null)),
      ...this.#workload.firstActions(),
      ...ballast(draws.ballastBytes, dice.random),
    ];
  }

  #addManager(name: string): ManagerHost {
    const { dice } = this.#world;
    const nodeId = newId<NodeId>(dice.random);
    const host = new ManagerHost(this.#world, name, {
      id: 1 + dice.below(2 ** 31),
      nodeId,
      address: `${name}:2377`,
      voter: true,
    });
    this.managers.push(host);
    this.#raftChecks.watch(host);
    return host;
  }

  #addWorker(name: string, nodeId: NodeId): WorkerHost {
    const addresses = this.managers.map((host) => host.member.address);
    const host = new WorkerHost(this.#world, name, nodeId, addresses, (taskId) =>
      this.#clusterChecks.started(nodeId, taskId),
    );
    this.workers.push(host);
    return host;
  }

  /** A manager that is one no more. */
  retireManager(old: ManagerHost): void {
    old.crash();
    old.isRetired = true;
    this.managers.splice(this.managers.indexOf(old), 1);
  }

  /** A new manager at the address of one that was removed. */
  async replaceManager(old: ManagerHost): Promise<void> {
    this.retireManager(old);
    const own = this.workers.findIndex((host) => host.nodeId === old.member.nodeId);
    if (own >= 0)
      for (const host of this.workers.splice(own, 1)) {
        host.crash();
        host.isRetired = true;
      }
    const host = this.#addManager(old.name);
    await this.#propose([createNode(host.member.nodeId, host.name, host.member)]);
    host.start();
  }

  /** A new worker, with an empty engine, in the place of one that was removed. */
  async replaceWorker(old: WorkerHost): Promise<void> {
    old.crash();
    old.isRetired = true;
    this.workers.splice(this.workers.indexOf(old), 1);
    const host = this.#addWorker(old.name, newId<NodeId>(this.#world.dice.random));
    await this.#propose([createNode(host.nodeId, host.name, null)]);
    host.start();
  }

  /** What joining does in the end; the certificates before it are not simulated. */
  async #propose(actions: readonly Action[]): Promise<void> {
    const raft = this.#faults.leader()?.raft;
    if (raft === undefined || raft === null) throw new Error('nobody leads');
    const data = encodeBatch({ at: EPOCH_MS + Math.floor(this.time.nowMs), actions });
    await this.#bounded(20_000, (signal) => raft.propose(data, signal));
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
    for (const host of this.managers) this.#raftChecks.check(host);
    for (const host of this.workers) {
      if (!host.hasNews) continue;
      host.hasNews = false;
      this.#clusterChecks.endpoints(host.name, host.endpoints);
    }
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
    const { time } = this;
    const from = time.nowMs;
    let nextMs = from;
    let problems: readonly string[] = ['nothing was looked at yet'];
    const firstEvent = time.events;
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
      problems = convergenceProblems(this.managers, this.workers, this.#workload.kept);
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
  const restore = breakCore(options.broken ?? null);
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

/** A leader that counts replicas for entries of earlier terms too: figure 8 of the Raft paper. */
function breakCore(broken: BrokenVariant | null): () => void {
  if (broken !== 'commit-old-term') return () => {};
  const { maybeCommit } = RaftLog.prototype;
  RaftLog.prototype.maybeCommit = function (index, _term) {
    if (index <= this.committed || index > this.lastIndex()) return false;
    this.commitTo(index);
    return true;
  };
  return () => {
    RaftLog.prototype.maybeCommit = maybeCommit;
  };
}

/** A seed for a fresh run, from the kernel. */
export function freshSeed(random: { uint32(): number }): number {
  return Number.parseInt(randomBase36(random, 5), 36);
}
