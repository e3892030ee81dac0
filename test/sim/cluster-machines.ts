/**
 * The machines of a simulated cluster: made at the beginning, and as nodes come, go and change their role.
 *
 * Data owned: the managers and workers there are now. What joining does before the node is in the state (token,
 * certificate) is not simulated.
 */
import { newId, type NodeId, type TaskId } from '../../src/model/ids.ts';
import { encodeBatch } from '../../src/manager/state/codec.ts';
import type { Action } from '../../src/manager/state/actions.ts';
import { forcedStart } from '../../src/raft/forced-start.ts';
import { lastIndexOf } from './disk.ts';
import { ballast, clusterActions, createNode } from './first-objects.ts';
import type { Machines } from './group-trouble.ts';
import { ManagerHost, type World } from './manager-host.ts';
import { EPOCH_MS } from './virtual-time.ts';
import { WorkerHost } from './worker-host.ts';

/** Who hears of what happens to machines. */
export interface MachineEvents {
  joined(host: ManagerHost): void;
  retired(host: ManagerHost): void;
  started(nodeId: NodeId, taskId: TaskId): void;
  /** The cluster goes on with what the survivor holds; up to `committed` that is decided now. */
  rewound(survivor: ManagerHost, committed: number): void;
}

/** A new node is not in the state. */
class Refused extends Error {}

/** Every machine. */
export class ClusterMachines implements Machines {
  readonly managers: ManagerHost[] = [];
  readonly workers: WorkerHost[] = [];
  /** Managers that were left behind, and do not know it. */
  readonly #leftBehind: ManagerHost[] = [];
  /** Ids of members that are none any more: a machine does not begin with one of them again. */
  readonly #past = new Set<number>();
  readonly #world: World;
  readonly #events: MachineEvents;
  #names = 0;

  constructor(world: World, events: MachineEvents) {
    this.#world = world;
    this.#events = events;
  }

  /** Makes the machines; returns the first entry of the cluster's log. */
  build(firstServices: readonly Action[]): Action[] {
    const { dice, draws } = this.#world;
    for (let i = 1; i <= draws.managers; i++) this.#addManager(`m${++this.#names}`);
    for (let i = 1; i <= draws.workers; i++) this.#addWorker(`w${i}`, newId<NodeId>(dice.random));
    if (draws.managersWork)
      for (const { name, member } of [...this.managers]) this.#addWorker(name, member.nodeId as NodeId);
    const [first, ...others] = this.managers as [ManagerHost, ...ManagerHost[]];
    const workers = this.workers.filter(({ name }) => name.startsWith('w'));
    return [
      ...clusterActions(first, draws, dice.random),
      ...others.map((host) => createNode(host.member.nodeId, host.name, host.member)),
      ...workers.map((host) => createNode(host.nodeId, host.name, null)),
      ...firstServices,
      ...ballast(draws.ballastBytes, dice.random),
    ];
  }

  leader(): ManagerHost | null {
    let best: ManagerHost | null = null;
    let term = -1;
    for (const host of this.managers) {
      const status = host.raft?.status();
      if (status?.role !== 'leader' || status.term <= term) continue;
      best = host;
      term = status.term;
    }
    return best;
  }

  #addManager(name: string): ManagerHost {
    const { dice } = this.#world;
    return this.#newManager(name, 1 + dice.below(2 ** 31), newId<NodeId>(dice.random), `${name}:2377`);
  }

  #newManager(name: string, id: number, nodeId: string, address: string): ManagerHost {
    const host = new ManagerHost(this.#world, name, { id, nodeId, address, voter: true });
    host.disk.state.delayMaxMs = this.#world.draws.diskDelayMaxMs;
    this.managers.push(host);
    this.#events.joined(host);
    return host;
  }

  #addWorker(name: string, nodeId: NodeId): WorkerHost {
    const addresses = this.managers.map((host) => host.member.address);
    const host = new WorkerHost(this.#world, name, nodeId, addresses, (taskId) =>
      this.#events.started(nodeId, taskId),
    );
    host.onRole = (role, raftId) => this.#becomes(host, role, raftId);
    this.workers.push(host);
    return host;
  }

  /** A session tells a node its role: its daemon starts or ends its manager. */
  #becomes(worker: WorkerHost, role: 'manager' | 'worker', raftId: number): void {
    const present = this.managers.find(({ member }) => member.nodeId === worker.nodeId);
    if (role === 'manager' && (present?.member.id === raftId || this.#past.has(raftId))) return;
    if (role === 'worker' && present === undefined) return;
    this.#world.note(`${worker.name} becomes a ${role}`);
    if (present !== undefined) this.retireManager(present);
    if (role === 'manager') this.#newManager(worker.name, raftId, worker.nodeId, worker.rpcAddress).start();
  }

  retireManager(old: ManagerHost): void {
    old.isRetired = true;
    old.crash();
    this.#past.add(old.member.id);
    this.#events.retired(old);
    const at = this.managers.indexOf(old);
    if (at >= 0) this.managers.splice(at, 1);
  }

  async replaceManager(old: ManagerHost): Promise<void> {
    this.retireManager(old);
    const own = this.workers.findIndex((host) => host.nodeId === old.member.nodeId);
    if (own >= 0)
      for (const host of this.workers.splice(own, 1)) {
        host.crash();
        host.isRetired = true;
      }
    await this.#join(old.name);
  }

  async addManager(): Promise<void> {
    await this.#join(`m${++this.#names}`);
  }

  /** Starts a new manager, also when nobody knows whether the state has it. */
  async #join(name: string): Promise<void> {
    const host = this.#addManager(name);
    try {
      await this.#propose([createNode(host.member.nodeId, host.name, host.member)]);
    } catch (error) {
      if (error instanceof Refused) {
        this.retireManager(host);
        throw error;
      }
    }
    this.#startJoined(host);
  }

  #startJoined(host: ManagerHost): void {
    host.start();
    if (this.#world.draws.managersWork) this.#addWorker(host.name, host.member.nodeId as NodeId).start();
  }

  async replaceWorker(old: WorkerHost): Promise<void> {
    old.crash();
    old.isRetired = true;
    this.workers.splice(this.workers.indexOf(old), 1);
    const host = this.#addWorker(old.name, newId<NodeId>(this.#world.dice.random));
    await this.#propose([createNode(host.nodeId, host.name, null)]);
    host.start();
  }

  goOnAlone(survivor: ManagerHost): void {
    const { dice, note } = this.#world;
    const members = new Set(survivor.seen?.members.map(({ id }) => id));
    survivor.crash();
    const { memory } = survivor.disk;
    const forced = forcedStart(memory, survivor.member.id);
    note(`${survivor.name} goes on alone after entry ${lastIndexOf(memory)}`);
    for (const host of this.managers.filter((each) => each !== survivor)) {
      // One may still run, cut off, and think that the group is what it was; it must not be heard.
      const stays =
        members.has(host.member.id) &&
        this.#leftBehind.length === 0 &&
        this.managers.length > 2 &&
        dice.chance(400);
      if (stays) this.#leaveBehind(host);
      else this.retireManager(host);
    }
    if (forced !== null) this.#events.rewound(survivor, forced.hardState.commit);
    survivor.goesAlone = true;
    survivor.start();
  }

  #leaveBehind(host: ManagerHost): void {
    host.isRetired = true;
    this.#past.add(host.member.id);
    this.#events.retired(host);
    this.#leftBehind.push(host);
    this.managers.splice(this.managers.indexOf(host), 1);
  }

  /** Who was left behind is found, and turned off. */
  tidy(): void {
    for (const host of this.#leftBehind.splice(0)) host.crash();
  }

  async #propose(actions: readonly Action[]): Promise<void> {
    const { time, bounded } = this.#world;
    const raft = this.leader()?.raft;
    if (raft === undefined || raft === null) throw new Refused('nobody leads');
    const data = encodeBatch({ at: EPOCH_MS + Math.floor(time.nowMs), actions });
    const outcome = await bounded(20_000, (signal) => raft.propose(data, signal));
    if (outcome.kind === 'refused') throw new Refused(outcome.reason);
  }
}
