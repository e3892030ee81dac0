/**
 * A manager: one replica of the state, the API, and, while it leads, the control loop and the dispatcher.
 *
 * Data owned: the consensus node and the store of this replica.
 * Invariants: every change goes through the log; a manager that does not lead forwards to the one that does, once
 * (a forwarded call is never forwarded again).
 */
import { join } from 'node:path';
import type { Clock } from '../base/clock.ts';
import { errorMessage, SwarmdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { ServiceLogRecord, ServiceLogsParams } from '../model/api.ts';
import type { JoinRequest } from '../model/wire.ts';
import { RaftNode } from '../raft/driver.ts';
import { LevelStorage } from '../raft/level-storage.ts';
import type { RaftMember, RaftStatus } from '../raft/types.ts';
import type { ConnectionPool } from '../rpc/connection-pool.ts';
import type { RpcConnection, RpcContext, RpcHandlers, RpcStream } from '../rpc/types.ts';
import { isLeaderMethod, runMethod } from './api/methods.ts';
import type { NodeApiContext } from './api/nodes.ts';
import { serviceLogs } from './api/logs.ts';
import type { DispatcherServer } from './dispatcher/server.ts';
import { admitNode, renewCertificate } from './joining.ts';
import { Leadership } from './leadership.ts';
import { logProposer } from './proposer.ts';
import type { Action, Proposer } from './state/actions.ts';
import { StoreStateMachine } from './state-machine.ts';

export interface ManagerOptions {
  readonly dataDir: string;
  readonly self: RaftMember;
  /** Init: the first objects of a new cluster. Join: an empty member that waits to be added. */
  readonly start:
    | { readonly kind: 'init'; readonly actions: readonly Action[] }
    | { readonly kind: 'join' }
    | { readonly kind: 'resume' };
}

export interface ManagerDependencies {
  readonly pool: ConnectionPool;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** The log cannot be written any more: the daemon must end. */
  onFatal(error: Error): void;
}

/** Notification method of consensus messages. */
const RAFT_METHOD = 'raft';
/** How long a call waits for a leader before it gives up, milliseconds. */
const LEADER_WAIT_MS = 5_000;

export class Manager {
  readonly stateMachine: StoreStateMachine;
  readonly #options: ManagerOptions;
  readonly #dependencies: ManagerDependencies;
  #raft!: RaftNode;
  #proposer!: Proposer;
  #leadership: Leadership | null = null;
  #changing: Promise<void> = Promise.resolve();
  #opened = false;
  #stopped = false;
  #leaderWaiters: (() => void)[] = [];

  private constructor(options: ManagerOptions, dependencies: ManagerDependencies) {
    this.#options = options;
    this.#dependencies = dependencies;
    this.stateMachine = new StoreStateMachine(dependencies.log);
  }

  /** Opens the log and takes part in consensus. Throws LOCKED, CORRUPT or RESOURCE_EXHAUSTED about the folder. */
  static async open(options: ManagerOptions, dependencies: ManagerDependencies): Promise<Manager> {
    const manager = new Manager(options, dependencies);
    await manager.#open();
    return manager;
  }

  async #open(): Promise<void> {
    const { clock, random, log, pool, onFatal } = this.#dependencies;
    const { self, start, dataDir } = this.#options;
    const storage = await LevelStorage.open(join(dataDir, 'raft'));
    this.#raft = await RaftNode.open(
      {
        storage,
        memberId: self.id,
        ...(start.kind === 'init' ? { bootstrap: self } : {}),
        join: start.kind === 'join',
      },
      {
        transport: {
          send: (to, messages) => {
            for (const message of messages) pool.notify(to.address, RAFT_METHOD, message, to.nodeId);
          },
        },
        stateMachine: this.stateMachine,
        clock,
        random,
        log,
        onStatus: (status) => this.#onStatus(status),
        onFatal,
      },
    );
    this.#proposer = logProposer(this.#raft, clock);
    if (start.kind === 'init') await this.#bootstrap(start.actions);
    this.#opened = true;
    this.#onStatus(this.#raft.status());
  }

  async #bootstrap(actions: readonly Action[]): Promise<void> {
    const signal = AbortSignal.timeout(30_000);
    // The only voter elects itself at once.
    while (this.#raft.status().role !== 'leader') {
      signal.throwIfAborted();
      await new Promise<void>((resolve) => this.#leaderWaiters.push(resolve));
    }
    const result = await this.#proposer.propose(actions, signal);
    if (result.kind !== 'applied') {
      throw new SwarmdError('INTERNAL', `the new cluster's first entry was not taken (${result.kind})`);
    }
  }

  status(): RaftStatus {
    return this.#raft.status();
  }

  /** Serves one API call: here when leading, else by the leader. */
  async call(method: string, params: unknown, signal: AbortSignal): Promise<unknown> {
    if (!isLeaderMethod(method)) throw new SwarmdError('NOT_FOUND', `there is no API method ${method}`);
    const leader = await this.#awaitLeader(signal);
    if (leader === 'self') return await this.#callHere(method, params, signal);
    const connection = await this.#dependencies.pool.get(leader.address, leader.nodeId, signal);
    return await connection.call('api.call', { method, params }, { signal });
  }

  /** Streams a service's logs: gathered by the leader, to which every worker is connected. */
  async *serviceLogs(params: ServiceLogsParams, signal: AbortSignal): AsyncGenerator<ServiceLogRecord> {
    const leader = await this.#awaitLeader(signal);
    if (leader === 'self') {
      yield* this.#logsHere(params, signal);
      return;
    }
    const connection = await this.#dependencies.pool.get(leader.address, leader.nodeId, signal);
    const stream = connection.openStream('api.logs', params, { signal });
    stream.end();
    for await (const records of stream) yield* records as ServiceLogRecord[];
  }

  /** What this manager serves to other nodes. */
  handlers(): RpcHandlers {
    return {
      calls: {
        'api.call': (params, context) => {
          requireManager(context);
          this.#refuseBlocked(context);
          const { method, params: inner } = params as { method: string; params: unknown };
          if (!isLeaderMethod(method)) throw new SwarmdError('NOT_FOUND', `there is no API method ${method}`);
          return this.#callHere(method, inner, context.signal);
        },
        'node.join': (params, context) => this.#join(params, context),
        'node.join.forwarded': (params, context) => {
          requireManager(context);
          const { request, observed } = params as { request: JoinRequest; observed: string };
          return admitNode(this.#apiContext(), request, observed, context.signal);
        },
        'node.renew': async (params, context) => {
          const { peer } = context.connection;
          if (peer === null)
            throw new SwarmdError('UNAUTHENTICATED', 'a node certificate is needed to renew it');
          this.#refuseBlocked(context);
          return await renewCertificate(
            this.#apiContext(),
            peer.nodeId,
            (params as { csrPem: unknown }).csrPem,
          );
        },
        'dispatcher.heartbeat': async (params, context) =>
          this.#dispatcher(context).heartbeat(params, context),
        'dispatcher.status': (params, context) => this.#dispatcher(context).status(params, context),
      },
      streams: {
        'dispatcher.session': (params, stream, context) =>
          this.#dispatcher(context).session(params, stream, context),
        'api.logs': (params, stream, context) =>
          this.#serveLogs(params as ServiceLogsParams, stream, context),
      },
      notifications: {
        [RAFT_METHOD]: (data, context) => {
          if (context.connection.peer?.role === 'manager' && !this.#isBlocked(context))
            this.#raft.receive(data);
        },
      },
    };
  }

  /** Takes this manager out of the consensus group, handing over leadership first. */
  async leaveGroup(signal: AbortSignal): Promise<void> {
    const { self } = this.#options;
    if (this.#raft.status().leaderId === self.id) await this.#raft.transferLeadership(null, signal);
    await this.call('node.remove', { ref: self.nodeId, force: true }, signal);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    for (const wake of this.#leaderWaiters.splice(0)) wake();
    const status = this.#raft.status();
    if (status.role === 'leader' && status.members.filter((member) => member.voter).length > 1) {
      await this.#raft.transferLeadership(null, AbortSignal.timeout(2_000)).catch((error: unknown) => {
        this.#dependencies.log.warn('leadership was not handed over', { error: errorMessage(error) });
      });
    }
    await this.#changing;
    await this.#leadership?.stop();
    await this.#raft.stop();
  }

  #onStatus(status: RaftStatus): void {
    for (const wake of this.#leaderWaiters.splice(0)) wake();
    // Until the first entry of a new cluster is there, there is nothing to lead.
    if (!this.#opened || this.#stopped) return;
    const leads = status.role === 'leader';
    this.#changing = this.#changing
      .then(() => this.#lead(leads))
      .catch((error: unknown) => {
        this.#dependencies.log.error('leadership could not be taken up', { error: errorMessage(error) });
      });
  }

  async #lead(leads: boolean): Promise<void> {
    if (this.#stopped) return;
    if (!leads) {
      const ended = this.#leadership;
      this.#leadership = null;
      await ended?.stop();
      return;
    }
    if (this.#leadership !== null) return;
    // Everything committed before this term is applied once a read of this term is answered.
    await this.#raft.readIndex(AbortSignal.timeout(LEADER_WAIT_MS));
    if (this.#raft.status().role !== 'leader' || this.#stopped) return;
    const { clock, random, log } = this.#dependencies;
    this.#leadership = new Leadership({
      stateMachine: this.stateMachine,
      proposer: this.#proposer,
      group: this.#raft,
      clock,
      random,
      log,
    });
    for (const wake of this.#leaderWaiters.splice(0)) wake();
  }

  #apiContext(): NodeApiContext {
    const { clock, random } = this.#dependencies;
    return {
      view: this.stateMachine.store,
      proposer: this.#proposer,
      random,
      nowMs: () => clock.nowMs(),
      raftStatus: () => this.#raft.status(),
      removeMember: (raftId, signal) => this.#raft.removeMember(raftId, signal),
    };
  }

  async #callHere(method: string, params: unknown, signal: AbortSignal): Promise<unknown> {
    if (!isLeaderMethod(method)) throw new SwarmdError('NOT_FOUND', `there is no API method ${method}`);
    // What is read below is at least as new as anything acknowledged before this call.
    await this.#raft.readIndex(signal);
    return await runMethod(this.#apiContext(), method, params, signal);
  }

  #logsHere(params: ServiceLogsParams, signal: AbortSignal): AsyncGenerator<ServiceLogRecord> {
    const connectionOf = (nodeId: string): RpcConnection | null =>
      this.#leadership?.dispatcher.connectionOf(nodeId as Parameters<DispatcherServer['connectionOf']>[0]) ??
      null;
    const subscribe = this.stateMachine.subscribe.bind(this.stateMachine);
    return serviceLogs({ view: this.stateMachine.store, connectionOf, subscribe }, params, signal);
  }

  async #serveLogs(params: ServiceLogsParams, stream: RpcStream, context: RpcContext): Promise<void> {
    requireManager(context);
    for await (const record of this.#logsHere(params, context.signal))
      await stream.write([record], context.signal);
  }

  async #join(params: unknown, context: RpcContext): Promise<unknown> {
    const request = params as JoinRequest;
    const observed = hostOf(context.connection.remoteAddress);
    const leader = await this.#awaitLeader(context.signal);
    if (leader === 'self') return await admitNode(this.#apiContext(), request, observed, context.signal);
    const connection = await this.#dependencies.pool.get(leader.address, leader.nodeId, context.signal);
    return await connection.call('node.join.forwarded', { request, observed }, { signal: context.signal });
  }

  /** The dispatcher of this term; a worker that asks another manager is told where the leader is. */
  #dispatcher(context: RpcContext): DispatcherServer {
    this.#refuseBlocked(context);
    const leadership = this.#leadership;
    if (leadership !== null) return leadership.dispatcher;
    const leader = this.#leader();
    throw new SwarmdError('FAILED_PRECONDITION', 'this manager is not the leader', {
      details: { leaderAddress: leader === null || leader === 'self' ? null : leader.address },
    });
  }

  #leader(): RaftMember | 'self' | null {
    const { leaderId, members } = this.#raft.status();
    if (leaderId === null) return null;
    if (leaderId === this.#options.self.id) return this.#leadership === null ? null : 'self';
    return members.find((member) => member.id === leaderId) ?? null;
  }

  async #awaitLeader(signal: AbortSignal): Promise<RaftMember | 'self'> {
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(LEADER_WAIT_MS)]);
    for (;;) {
      const leader = this.#leader();
      if (leader !== null) return leader;
      if (this.#stopped) throw new SwarmdError('UNAVAILABLE', 'the daemon is stopping');
      if (signal.aborted) throw new SwarmdError('CANCELLED', 'the call was cancelled');
      if (deadline.aborted) throw this.#noLeader();
      await new Promise<void>((resolve) => {
        const done = (): void => {
          deadline.removeEventListener('abort', done);
          resolve();
        };
        deadline.addEventListener('abort', done, { once: true });
        this.#leaderWaiters.push(done);
      });
    }
  }

  #noLeader(): SwarmdError {
    const { members } = this.#raft.status();
    const voters = members.filter((member) => member.voter).length;
    const needed = Math.floor(voters / 2) + 1;
    return new SwarmdError(
      'NO_LEADER',
      `the cluster has no leader: ${needed} of ${voters} managers must be up and reach one another. Start the managers that are down, or check the network between them`,
      { details: { voters, needed } },
    );
  }

  #isBlocked(context: RpcContext): boolean {
    const [cluster] = this.stateMachine.store.all('cluster');
    const nodeId = context.connection.peer?.nodeId;
    return cluster?.blockedNodes.some((blocked) => blocked.id === nodeId) === true;
  }

  #refuseBlocked(context: RpcContext): void {
    if (!this.#isBlocked(context)) return;
    throw new SwarmdError(
      'PERMISSION_DENIED',
      'this node was removed from the cluster; run "swarmd leave --force" on it, then join again',
      { details: { reason: 'removed' } },
    );
  }
}

function requireManager(context: RpcContext): void {
  if (context.connection.peer?.role === 'manager') return;
  throw new SwarmdError('PERMISSION_DENIED', 'only managers may do this');
}

function hostOf(remoteAddress: string): string {
  const host = remoteAddress.slice(0, remoteAddress.lastIndexOf(':'));
  return host.replace(/^\[|\]$/g, '').replace(/^::ffff:/, '');
}
