/**
 * One simulated manager machine: its disk and clock, and one life of the real manager after another on them.
 *
 * Invariant: what the manager does reaches the world only through its ports, which are dead once its process is.
 */
import { AssertionError } from '../../src/base/assert.ts';
import { errorMessage, SwarmdError } from '../../src/base/errors.ts';
import type { Logger } from '../../src/base/log.ts';
import { Manager, type ManagerOptions, type OpenRaft } from '../../src/manager/manager.ts';
import type { Action } from '../../src/manager/state/actions.ts';
import type { StoreStateMachine } from '../../src/manager/state-machine.ts';
import { RaftNode } from '../../src/raft/node.ts';
import type { RaftMember, RaftStatus } from '../../src/raft/types.ts';
import type { PeerIdentity } from '../../src/rpc/types.ts';
import { SimDisk } from './disk.ts';
import type { BrokenVariant } from './broken.ts';
import type { Dice, Draws } from './draws.ts';
import type { Network } from './network.ts';
import { connect, dropConnections, type Served } from './rpc.ts';
import { driftingClock, type Drift, Process, type VirtualTime } from './virtual-time.ts';

/** What a host lives in. */
export interface World {
  readonly time: VirtualTime;
  readonly network: Network<Served>;
  readonly dice: Dice;
  readonly draws: Draws;
  readonly broken: BrokenVariant | null;
  /** A check failed. */
  violation(what: string): void;
  note(what: string): void;
  logger(host: string): Logger;
  /** Waits for work of one process, which may die before it answers, for so long. */
  bounded<T>(limitMs: number, work: (signal: AbortSignal) => Promise<T>): Promise<T>;
  /** A raft frame is about to leave a manager. */
  onFrame(host: ManagerHost, bytes: Uint8Array): void;
  /** A manager is about to open its state: whoever checks what it applies subscribes now. */
  onState(host: ManagerHost, state: StoreStateMachine): void;
  /** Its log is open. */
  onRaft(host: ManagerHost, raft: RaftNode): void;
  /** Its process died: what only seemed to be on its disk is gone. */
  onPowerLoss(host: ManagerHost): void;
  /** It says that its log cannot be trusted, and does not run with it. */
  onLogLost(host: ManagerHost, why: string): void;
}

/** How a manager starts: as before or as a joiner, or as the first one. */
export type StartOf = { readonly first: readonly Action[] } | null;

export const CLUSTER_ID = 'simulatedcluster000000000';

/** One manager machine. */
export class ManagerHost {
  readonly name: string;
  /** It may move to another address. */
  member: RaftMember;
  readonly disk = new SimDisk();
  readonly drift: Drift = { rate: 1, offsetMs: 0, lateMaxMs: 0 };
  process: Process | null = null;
  /** Its node is none any more: nothing starts it again. */
  isRetired = false;
  /** Its disk is gone or cannot be trusted: it stays down until another takes its place. */
  isLost = false;
  /** It starts as the only one left, until that is on its disk. */
  goesAlone = false;
  manager: Manager | null = null;
  raft: RaftNode | null = null;
  state: StoreStateMachine | null = null;
  /** What the last event left; to see what went back. */
  seen: RaftStatus | null = null;
  readonly #world: World;
  readonly #dice: Dice;

  constructor(world: World, name: string, member: RaftMember) {
    this.#world = world;
    this.#dice = world.dice.fork();
    this.name = name;
    this.member = member;
  }

  get isUp(): boolean {
    return this.process !== null;
  }

  /** The present life, once its state is open. */
  get live(): { readonly manager: Manager; readonly raft: RaftNode } | null {
    const { process, manager, raft } = this;
    return process === null || manager === null || raft === null ? null : { manager, raft };
  }

  /** Starts the daemon; on an empty disk it begins the cluster, or joins. */
  start(as: StartOf = null): void {
    if (this.process !== null || this.isRetired || this.isLost) return;
    const process = new Process(this.name);
    this.process = process;
    void this.#open(process, as).catch((error: unknown) => {
      if (!process.alive) return;
      const noticed = this.disk.damage !== null && error instanceof SwarmdError && error.code === 'CORRUPT';
      if (!noticed && !isInjected(error))
        this.#world.violation(`${this.name} cannot start: ${errorMessage(error)}`);
      this.crash();
      if (noticed) this.#world.onLogLost(this, error.message);
    });
  }

  async #open(process: Process, as: StartOf): Promise<void> {
    const world = this.#world;
    const { time, network } = world;
    const dice = this.#dice.fork();
    const identity: PeerIdentity = { nodeId: this.member.nodeId, role: 'manager', clusterId: CLUSTER_ID };
    const late = (max: number): number => dice.below(max);
    const pooled = new Map<string, ReturnType<typeof connect>>();
    const manager = await Manager.open(
      {
        dataDir: '',
        self: this.member,
        start: this.#start(as),
      },
      {
        pool: {
          get: (address, _nodeId, signal) => {
            const from = {
              host: this.name,
              address: this.member.address,
              process,
              identity,
              handlers: noHandlers,
            };
            let known = pooled.get(address);
            if (known === undefined) {
              known = connect(network, from, address, signal);
              pooled.set(address, known);
              const forget = (): void => void pooled.delete(address);
              known.then((connection) => void connection.closed.then(forget), forget);
            }
            return known;
          },
          notify: (address, method, data) => {
            if (!process.alive) return false;
            world.onFrame(this, data);
            network.send(this.name, address, data, ({ served, process: receiver }, bytes) => {
              const connection = { peer: identity } as never;
              const signal = neverAborted;
              if (receiver.alive) served.handlers.notifications[method]?.(bytes, { connection, signal });
            });
            return true;
          },
        },
        clock: driftingClock(time, process, this.drift, late),
        random: dice.random,
        log: world.logger(this.name),
        openRaft: this.#openRaft(process),
        onFatal: (error) => this.#onFatal(process, error),
      },
    );
    if (!process.alive) return;
    this.manager = manager;
    const served: Served = {
      identity,
      handlers: manager.handlers(),
      admits: (peer) => manager.admit(peer).ok,
    };
    network.listen(this.member.address, { host: this.name, process, served });
  }

  #start(as: StartOf): ManagerOptions['start'] {
    if (this.goesAlone) return { kind: 'force-new-cluster' };
    if (as !== null) return { kind: 'init', actions: as.first };
    return { kind: this.disk.memory.memberId === null ? 'join' : 'resume' };
  }

  #openRaft(process: Process): OpenRaft {
    const world = this.#world;
    const { raft } = world.draws;
    return async (options, ports) => {
      const storage = this.disk.open(world.time, this.#dice, process, world.broken);
      const state = ports.stateMachine as StoreStateMachine;
      this.state = state;
      world.onState(this, state);
      const node = await RaftNode.open({ ...options, snapshotIntervalMs: 0, ...raft, storage }, ports);
      if (!process.alive) return node;
      this.goesAlone = false;
      this.raft = node;
      world.onRaft(this, node);
      return node;
    };
  }

  #onFatal(process: Process, error: Error): void {
    if (!process.alive) return;
    // A member whose disk was set back may find out from its leader that it forgot entries.
    const noticed = this.disk.wasSetBack && error.message.includes('the log was lost');
    if (!noticed && (error instanceof AssertionError || !isInjected(error)))
      this.#world.violation(`${this.name} ended itself: ${error.stack ?? error.message}`);
    this.#world.note(`${this.name} ended itself: ${error.message}`);
    this.crash();
    if (noticed) this.#world.onLogLost(this, error.message);
  }

  /** The process dies where it stands. */
  crash(): void {
    const { process } = this;
    if (process === null) return;
    process.alive = false;
    this.process = null;
    this.manager = null;
    this.raft = null;
    this.state = null;
    this.seen = null;
    dropConnections(this.#world.network, process);
    this.#world.onPowerLoss(this);
  }
}

/** Whether a failure is one of those that faults cause. */
function isInjected(error: unknown): boolean {
  return error instanceof SwarmdError && ['UNAVAILABLE', 'RESOURCE_EXHAUSTED'].includes(error.code);
}

const neverAborted = new AbortController().signal;
const noHandlers = { calls: {}, streams: {}, notifications: {} };
