/**
 * One simulated worker machine: its engine, its records on disk, and one life of the real agent after another.
 *
 * Invariant: the engine and what reached the disk outlive the agent; everything else of it is gone after a crash.
 */
import { silentLogger } from '../../src/base/log.ts';
import type { NodeId, TaskId } from '../../src/model/ids.ts';
import type { NodeDescription } from '../../src/model/objects.ts';
import type { ManagerPeer } from '../../src/model/wire.ts';
import type { PeerIdentity } from '../../src/rpc/types.ts';
import { Agent } from '../../src/worker/agent.ts';
import {
  type StoredRouting,
  type StoredTask,
  type StoredWorker,
  WorkerStore,
} from '../../src/worker/worker-store.ts';
import { noTaskNetworks } from '../support/fake-runtime.ts';
import type { Dice } from './draws.ts';
import { CLUSTER_ID, type World } from './manager-host.ts';
import { connect, dropConnections } from './rpc.ts';
import { Engine } from './runtime.ts';
import { driftingClock, type Drift, Process } from './virtual-time.ts';

/** What a worker's disk holds, as text: nothing is shared with the life that wrote it. */
class Records {
  readonly tasks = new Map<TaskId, string>();
  managers = '[]';
  routing = '{"networks":[],"services":[],"endpoints":[]}';
}

/** The worker's folder in memory: a write is on disk after a while, unless the process dies first. */
class SimWorkerStore extends WorkerStore {
  readonly #records: Records;
  readonly #later: (write: () => void) => void;

  constructor(records: Records, later: (write: () => void) => void) {
    super('', silentLogger);
    this.#records = records;
    this.#later = later;
  }

  override load(): Promise<StoredWorker> {
    const { tasks, managers, routing } = this.#records;
    return Promise.resolve({
      tasks: [...tasks.values()].map((text) => JSON.parse(text) as StoredTask),
      managers: JSON.parse(managers) as ManagerPeer[],
      routing: JSON.parse(routing) as StoredRouting,
    });
  }

  override putTask(record: StoredTask): void {
    const text = JSON.stringify(record);
    this.#later(() => this.#records.tasks.set(record.task.id, text));
  }

  override removeTask(id: TaskId): void {
    this.#later(() => this.#records.tasks.delete(id));
  }

  override putManagers(managers: readonly ManagerPeer[]): void {
    const text = JSON.stringify(managers);
    this.#later(() => (this.#records.managers = text));
  }

  override putRouting(routing: StoredRouting): void {
    const text = JSON.stringify(routing);
    this.#later(() => (this.#records.routing = text));
  }

  override flush(): Promise<void> {
    return Promise.resolve();
  }
}

export const NODE_CPUS = 4;

/** One worker machine. */
export class WorkerHost {
  readonly name: string;
  readonly nodeId: NodeId;
  readonly engine: Engine;
  readonly drift: Drift = { rate: 1, offsetMs: 0, lateMaxMs: 0 };
  process: Process | null = null;
  /** Its node is none any more: nothing starts it again. */
  isRetired = false;
  agent: Agent | null = null;
  /** Tasks whose endpoints it was last told of; empty before any was. */
  endpoints: readonly string[] = [];
  /** It was told something that was not looked at yet. */
  hasNews = false;
  readonly #world: World;
  readonly #dice: Dice;
  readonly #managers: readonly string[];
  /** Where its daemon is reached, should it become a manager. */
  rpcAddress: string;
  /** Hears of the role its sessions tell it. */
  onRole: (role: 'manager' | 'worker', raftId: number) => void = () => {};
  #records = new Records();
  #told: readonly string[] | null = null;

  constructor(
    world: World,
    name: string,
    nodeId: NodeId,
    managers: readonly string[],
    onStart: (taskId: TaskId) => void,
  ) {
    this.#world = world;
    this.#dice = world.dice.fork();
    this.name = name;
    this.nodeId = nodeId;
    this.#managers = managers;
    this.rpcAddress = `${name}:2377`;
    this.engine = new Engine(world.time, this.#dice.fork(), onStart);
  }

  get description(): NodeDescription {
    return {
      hostname: this.name,
      platform: { os: 'linux', architecture: 'x86_64' },
      resources: { nanoCpus: NODE_CPUS * 1e9, memoryBytes: 8 * 1024 ** 3, generic: {} },
      runtimes: ['process'],
      engineVersion: '',
      engineLabels: {},
      plugins: [],
      swarmdVersion: 'sim',
      networkRung: 'host-ports',
    };
  }

  /** Where it looks for a manager: where it was told last, or else what it started with. */
  get knownManagers(): readonly string[] {
    if (this.#told !== null) return this.#told;
    const stored = (JSON.parse(this.#records.managers) as ManagerPeer[]).map(({ address }) => address);
    return [this.rpcAddress, ...this.#managers, ...stored];
  }

  start(): void {
    if (this.process !== null || this.isRetired) return;
    const world = this.#world;
    const process = new Process(this.name);
    const dice = this.#dice.fork();
    const identity: PeerIdentity = { nodeId: this.nodeId, role: 'worker', clusterId: CLUSTER_ID };
    let lastWriteMs = 0;
    const inOrder = (write: () => void): void => {
      lastWriteMs = Math.max(lastWriteMs, world.time.nowMs + dice.below(5));
      world.time.after(lastWriteMs - world.time.nowMs, process, 'worker disk', write);
    };
    this.process = process;
    const agent = new Agent(
      {
        nodeId: this.nodeId,
        dataDir: '',
        nodeAddress: this.name,
        rpcAddress: this.rpcAddress,
        hostname: this.name,
        // A manager's worker asks its own manager first.
        initialManagers: [this.rpcAddress, ...this.#managers],
      },
      {
        runtimes: [this.engine.runtime(process)],
        networks: noTaskNetworks,
        connect: (address, handlers, signal) =>
          connect(
            world.network,
            { host: this.name, address: `${this.name}:1`, process, identity, handlers },
            address,
            signal,
          ),
        clock: driftingClock(world.time, process, this.drift, (max) => dice.below(max)),
        random: dice.random,
        log: world.logger(this.name),
        describe: () => Promise.resolve(this.description),
        onRouting: (state) => {
          if (!process.alive) return;
          this.endpoints = [...state.endpoints.keys()];
          this.hasNews = true;
        },
        onRole: (role, raftId) => {
          if (process.alive && !this.isRetired) this.onRole(role, raftId);
        },
        onManagers: (managers) => {
          if (process.alive) this.#told = managers.map(({ address }) => address);
        },
        store: new SimWorkerStore(this.#records, inOrder),
      },
    );
    this.agent = agent;
    void agent.start();
  }

  /** The agent dies; the engine goes on. */
  crash(): void {
    const { process } = this;
    if (process === null) return;
    process.alive = false;
    this.process = null;
    this.agent = null;
    this.#told = null;
    this.endpoints = [];
    this.hasNews = false;
    void this.engine.fake.close();
    dropConnections(this.#world.network, process);
  }

  /** The machine restarts: agent and tasks end. */
  reboot(): void {
    this.crash();
    this.engine.reboot();
  }
}
