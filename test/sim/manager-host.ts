/**
 * One simulated manager machine: its disk and clock, and one life of the real manager after another on them.
 *
 * Invariant: what the manager does reaches the world only through its ports, which are dead once its process is.
 */
import { AssertionError } from '../../src/base/assert.ts';
import { errorMessage, SwarmdError } from '../../src/base/errors.ts';
import type { Logger } from '../../src/base/log.ts';
import { Manager, type OpenRaft } from '../../src/manager/manager.ts';
import type { Action } from '../../src/manager/state/actions.ts';
import type { StoreStateMachine } from '../../src/manager/state-machine.ts';
import { RaftNode } from '../../src/raft/node.ts';
import type { RaftMember, RaftStatus } from '../../src/raft/types.ts';
import type { PeerIdentity } from '../../src/rpc/types.ts';
import { SimDisk } from './disk.ts';
import type { BrokenVariant, Dice, Draws } from './draws.ts';
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
}

export const CLUSTER_ID = 'simulatedcluster000000000';

/** One manager machine. */
export class ManagerHost {
  readonly name: string;
  readonly member: RaftMember;
  readonly disk = new SimDisk();
  readonly drift: Drift = { rate: 1, offsetMs: 0, lateMaxMs: 0 };
  process: Process | null = null;
  /** Its node is none any more: nothing starts it again. */
  isRetired = false;
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

  /** Starts the daemon; on an empty disk it begins the cluster with `first`, or joins. */
  start(first: readonly Action[] | null = null): void {
    if (this.process !== null || this.isRetired) return;
    const process = new Process(this.name);
    this.process = process;
    void this.#open(process, first).catch((error: unknown) => {
      if (!process.alive) return;
      const injected =
        error instanceof SwarmdError && ['UNAVAILABLE', 'RESOURCE_EXHAUSTED'].includes(error.code);
      if (!injected) this.#world.violation(`${this.name} cannot start: ${errorMessage(error)}`);
      this.crash();
    });
  }

  async #open(process: Process, first: readonly Action[] | null): Promise<void> {
    const world = this.#world;
    const { time, network } = world;
    const dice = this.#dice.fork();
    const identity: PeerIdentity = { nodeId: this.member.nodeId, role: 'manager', clusterId: CLUSTER_ID };
    const late = (max: number): number => dice.below(max);
    const pooled = new Map<string, ReturnType<typeof connect>>();
    const kind = this.disk.memory.memberId !== null ? 'resume' : first === null ? 'join' : 'init';
    const manager = await Manager.open(
      {
        dataDir: '',
        self: this.member,
        start: kind === 'init' ? { kind, actions: first ?? [] } : { kind },
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
      this.raft = node;
      world.onRaft(this, node);
      return node;
    };
  }

  #onFatal(process: Process, error: Error): void {
    if (!process.alive) return;
    const injected =
      error instanceof SwarmdError && ['UNAVAILABLE', 'RESOURCE_EXHAUSTED'].includes(error.code);
    if (error instanceof AssertionError || !injected)
      this.#world.violation(`${this.name} ended itself: ${error.stack ?? error.message}`);
    this.#world.note(`${this.name} ended itself: ${error.message}`);
    this.crash();
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
  }
}

const neverAborted = new AbortController().signal;
const noHandlers = { calls: {}, streams: {}, notifications: {} };
