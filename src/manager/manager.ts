/**
 * A manager: one replica of the state, the API, and, while it leads, the control loop and the dispatcher.
 *
 * Data owned: the consensus node and the store of this replica.
 * Invariants: every change goes through the log; a manager that does not lead forwards to the one that does, once
 * (a forwarded call is never forwarded again).
 */
import { join } from 'node:path';
import { type Clock, sleep } from '../base/clock.ts';
import { errorMessage, SwarmdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import { ok, refuse, type Result } from '../base/result.ts';
import type { ClusterSnapshot, ServiceLogRecord, ServiceLogsParams } from '../model/api.ts';
import type { NodeId } from '../model/ids.ts';
import type { JoinRequest } from '../model/wire.ts';
import { RaftNode } from '../raft/node.ts';
import { LevelStorage } from '../raft/level-storage.ts';
import type { RaftMember, RaftNodeDependencies, RaftNodeOptions, RaftStatus } from '../raft/types.ts';
import type { ConnectionPool } from '../rpc/connection-pool.ts';
import type { PeerIdentity, RpcConnection, RpcContext, RpcHandlers, RpcStream } from '../rpc/types.ts';
import {
  ANNOUNCE_FORWARDED_METHOD,
  ANNOUNCE_METHOD,
  type AnnouncementContext,
  Announcer,
  parseAnnouncement,
  takeAnnouncement,
} from './announcer.ts';
import { isLeaderMethod, runMethod } from './api/methods.ts';
import type { NodeApiContext } from './api/nodes.ts';
import { serviceLogs } from './api/logs.ts';
import type { DispatcherServer } from './dispatcher/server.ts';
import { hostOf } from './dispatcher/answers.ts';
import { BlockedNodes, noLeaderError, REMOVED_NODE } from './group-refusals.ts';
import { admitNode, parseJoinRequest, renewCertificate } from './joining.ts';
import { LeaderCalls, Turns } from './leader-calls.ts';
import { Leadership } from './leadership.ts';
import { logProposer } from './proposer.ts';
import type { Action, Proposer } from './state/actions.ts';
import { StoreStateMachine, takeCheckpoint } from './state-machine.ts';

export interface ManagerOptions {
  readonly dataDir: string;
  readonly self: RaftMember;
  /** Init: the first objects of a new cluster. Join: an empty member that waits to be added. */
  readonly start:
    | { readonly kind: 'init'; readonly actions: readonly Action[] }
    | { readonly kind: 'join' }
    | { readonly kind: 'resume' }
    /** As the only manager from now on: the others are lost. */
    | { readonly kind: 'force-new-cluster' };
}

/** Opens this manager's member of the consensus group; owns what it is stored on. */
export type OpenRaft = (
  options: Omit<RaftNodeOptions, 'storage'>,
  dependencies: RaftNodeDependencies,
) => Promise<RaftNode>;

export interface ManagerDependencies {
  readonly pool: Pick<ConnectionPool, 'get' | 'notify'>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** The log cannot be written any more: the daemon must end. */
  onFatal(error: Error): void;
  /** In this thread, on LevelDB in the data folder, unless another way is given. */
  readonly openRaft?: OpenRaft;
  /** Told which nodes were removed from the cluster, now and whenever that changes. */
  readonly onBlocked?: (nodeIds: readonly string[]) => void;
}

/** Notification method of consensus messages. */
const RAFT_METHOD = 'raft';
/** Time for the only voter of a new cluster to elect itself and take the first entry, milliseconds. */
const BOOTSTRAP_MS = 30_000;
/** Wait before leadership that could not be taken up is tried again, milliseconds. */
const LEAD_RETRY_MS = 100;

export class Manager {
  readonly stateMachine: StoreStateMachine;
  readonly #options: ManagerOptions;
  readonly #dependencies: ManagerDependencies;
  #raft!: RaftNode;
  #proposer!: Proposer;
  #leadership: Leadership | null = null;
  #announcer: Announcer | null = null;
  #changing: Promise<void> = Promise.resolve();
  #opened = false;
  #stopping: Promise<void> | null = null;
  readonly #stop = new AbortController();
  readonly #calls: LeaderCalls;
  readonly #blocked: BlockedNodes;
  /** Members being removed, which the upkeep of the group must not bring back. */
  readonly #leaving = new Set<number>();
  readonly #writes = new Turns();

  private constructor(options: ManagerOptions, dependencies: ManagerDependencies) {
    this.#options = options;
    this.#dependencies = dependencies;
    this.stateMachine = new StoreStateMachine(dependencies.log);
    this.#blocked = new BlockedNodes(this.stateMachine.store);
    this.#calls = new LeaderCalls({
      clock: dependencies.clock,
      leader: () => this.#leader(),
      noLeader: () => noLeaderError(this.#raft.status()),
      connect: (member, signal) => dependencies.pool.get(member.address, member.nodeId, signal),
    });
  }

  /** Opens the log and takes part in consensus. Throws LOCKED, CORRUPT or RESOURCE_EXHAUSTED about the folder. */
  static async open(options: ManagerOptions, dependencies: ManagerDependencies): Promise<Manager> {
    const manager = new Manager(options, dependencies);
    await manager.#open();
    return manager;
  }

  async #open(): Promise<void> {
    const { clock } = this.#dependencies;
    const { start } = this.#options;
    this.#raft = await this.#openRaft();
    this.#proposer = logProposer(this.#raft, clock);
    try {
      if (start.kind === 'init') await this.#bootstrap(start.actions);
    } catch (error) {
      await this.#raft.stop();
      throw error;
    }
    this.#opened = true;
    this.#tellBlocked();
    this.#announcer = this.#startAnnouncer();
    this.#onStatus();
  }

  #tellBlocked(): void {
    const { onBlocked } = this.#dependencies;
    if (onBlocked === undefined) return;
    let told: ReadonlySet<string> | null = null;
    const tell = (): void => {
      const ids = this.#blocked.ids();
      if (ids === told) return;
      told = ids;
      onBlocked([...ids]);
    };
    this.stateMachine.subscribe(tell);
    tell();
  }

  #startAnnouncer(): Announcer {
    const { clock, log, pool } = this.#dependencies;
    const { self } = this.#options;
    return new Announcer({
      clock,
      log,
      self,
      view: this.stateMachine.store,
      members: () => this.#raft.reach(),
      listed: () => this.#raft.status().members,
      hasLeader: () => this.#raft.status().leaderId !== null,
      note: (id, address) => this.#raft.noteAddress(id, address),
      here: (signal) => takeAnnouncement(this.#announcement(), self, signal),
      connect: (member, signal) => pool.get(member.address, member.nodeId, signal),
    });
  }

  #announcement(): AnnouncementContext {
    return {
      ...this.#apiContext(),
      reach: () => this.#raft.reach(),
      noteAddress: (id, address) => this.#raft.noteAddress(id, address),
      tellLeader: async (announcement, signal) => {
        const leaderId = this.#raft.status().leaderId;
        const leader = this.#raft.reach().find((member) => member.id === leaderId);
        if (leader === undefined || announcement.nodeId === leader.nodeId) return;
        const connection = await this.#dependencies.pool.get(leader.address, leader.nodeId, signal);
        await connection.call(ANNOUNCE_FORWARDED_METHOD, announcement, { signal });
      },
    };
  }

  async #openRaft(): Promise<RaftNode> {
    const { clock, random, log, pool, onFatal } = this.#dependencies;
    const { self, start, dataDir } = this.#options;
    const open = this.#dependencies.openRaft ?? ((options, ports) => openOnDisk(dataDir, options, ports));
    return await open(
      {
        memberId: self.id,
        ...(start.kind === 'init' ? { bootstrap: self } : {}),
        join: start.kind === 'join',
        forceNewCluster: start.kind === 'force-new-cluster',
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
        onStatus: () => this.#onStatus(),
        onFatal,
      },
    );
  }

  async #bootstrap(actions: readonly Action[]): Promise<void> {
    const signal = AbortSignal.timeout(BOOTSTRAP_MS);
    // The only voter elects itself at once.
    while (this.#raft.status().role !== 'leader') {
      if (signal.aborted)
        throw new SwarmdError('TIMEOUT', 'the new cluster elected no leader; look at the log, and try again');
      await this.#calls.changed(signal);
    }
    const result = await this.#proposer.propose(actions, signal);
    if (result.kind !== 'applied') {
      throw new SwarmdError('INTERNAL', `the new cluster's first entry was not taken (${result.kind})`);
    }
  }

  status(): RaftStatus {
    return this.#raft.status();
  }

  /** Frames of other managers that were dropped. */
  refusedFrames(): number {
    const { malformed, expelled } = this.#raft.refusedFrames();
    return malformed + expelled;
  }

  /** Serves one API call: here when leading, else by the leader. */
  async call(method: string, params: unknown, signal: AbortSignal): Promise<unknown> {
    if (!isLeaderMethod(method)) throw new SwarmdError('NOT_FOUND', `there is no API method ${method}`);
    return await this.#calls.atLeader(signal, {
      here: () => this.#callHere(method, params, signal),
      there: (connection) => connection.call('api.call', { method, params }, { signal }),
    });
  }

  /** Streams a service's logs: gathered by the leader, to which every worker is connected. */
  async *serviceLogs(params: ServiceLogsParams, signal: AbortSignal): AsyncGenerator<ServiceLogRecord> {
    const batches = await this.#calls.atLeader(signal, {
      here: () => Promise.resolve(this.#logsHere(params, signal)),
      there: (connection) => {
        const stream = connection.openStream('api.logs', params, { signal });
        stream.end();
        return Promise.resolve(stream as AsyncIterable<ServiceLogRecord[]>);
      },
    });
    for await (const records of batches) yield* records;
  }

  /** What this manager serves to other nodes. */
  handlers(): RpcHandlers {
    return {
      calls: {
        'api.call': (params, context) => {
          requireManager(context);
          this.#blocked.refuse(context.connection.peer);
          const { method, params: inner } = params as { method: string; params: unknown };
          if (!isLeaderMethod(method)) throw new SwarmdError('NOT_FOUND', `there is no API method ${method}`);
          return this.#callHere(method, inner, context.signal);
        },
        'node.join': (params, context) => this.#join(params, context),
        'node.join.forwarded': (params, context) => {
          requireManager(context);
          this.#blocked.refuse(context.connection.peer);
          const { request, observed } = params as { request: JoinRequest; observed: string };
          return admitNode(this.#apiContext(), request, observed, context.signal);
        },
        [ANNOUNCE_METHOD]: (params, context) => {
          const nodeId = requireManager(context);
          this.#blocked.refuse(context.connection.peer);
          return takeAnnouncement(this.#announcement(), parseAnnouncement(nodeId, params), context.signal);
        },
        [ANNOUNCE_FORWARDED_METHOD]: (params, context) => {
          requireManager(context);
          this.#blocked.refuse(context.connection.peer);
          const { nodeId } = (params ?? {}) as { readonly nodeId?: unknown };
          // Passed on once: a leader that is none any more just notes it.
          const here = { ...this.#announcement(), tellLeader: async () => {} };
          return takeAnnouncement(here, parseAnnouncement(nodeId, params), context.signal);
        },
        'node.renew': async (params, context) => {
          const { peer } = context.connection;
          if (peer === null)
            throw new SwarmdError('UNAUTHENTICATED', 'a node certificate is needed to renew it');
          this.#blocked.refuse(context.connection.peer);
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
          const { peer } = context.connection;
          if (peer?.role === 'manager' && !this.#blocked.has(peer.nodeId)) this.#raft.receive(data);
        },
      },
    };
  }

  /** The state, at least as new as every change acknowledged before this call. */
  async checkpoint(signal: AbortSignal): Promise<ClusterSnapshot> {
    await this.#raft.readIndex(signal);
    return takeCheckpoint(this.stateMachine, this.#raft.status());
  }

  /** Takes this manager out of the consensus group, handing over leadership first. */
  async leaveGroup(signal: AbortSignal): Promise<void> {
    const { self } = this.#options;
    if (this.#raft.status().leaderId === self.id) await this.#raft.transferLeadership(null, signal);
    await this.call('node.remove', { ref: self.nodeId, force: true }, signal);
  }

  /** Whether a peer may connect: not when its node was removed. */
  admit(peer: PeerIdentity): Result<PeerIdentity> {
    return this.#blocked.has(peer.nodeId) ? refuse(REMOVED_NODE) : ok(peer);
  }

  /** Hands over leadership if it can, ends everything and closes the log. Safe to call twice. */
  stop(): Promise<void> {
    this.#stopping ??= this.#end();
    return this.#stopping;
  }

  async #end(): Promise<void> {
    this.#stop.abort(new SwarmdError('CANCELLED', 'the manager is stopping'));
    this.#calls.stop();
    const status = this.#raft.status();
    if (status.role === 'leader' && status.members.filter((member) => member.voter).length > 1) {
      await this.#raft.transferLeadership(null, AbortSignal.timeout(2_000)).catch((error: unknown) => {
        this.#dependencies.log.warn('leadership was not handed over', { error: errorMessage(error) });
      });
    }
    await this.#announcer?.stop();
    await this.#changing;
    await this.#leadership?.stop();
    this.#leadership = null;
    await this.#raft.stop();
  }

  #onStatus(): void {
    this.#calls.notify();
    // Until the first entry of a new cluster is there, there is nothing to lead.
    if (!this.#opened || this.#stop.signal.aborted) return;
    this.#changing = this.#changing
      .then(() => this.#takeUp())
      .catch((error: unknown) => {
        this.#dependencies.log.error('leadership could not be taken up', { error: errorMessage(error) });
      });
  }

  /** Makes what only the leader runs agree with who leads now. Runs once more after every change of that. */
  async #takeUp(): Promise<void> {
    const { term } = this.#raft.status();
    if (this.#leadership !== null && !this.#leads(this.#leadership.term)) {
      const ended = this.#leadership;
      this.#leadership = null;
      await ended.stop();
    }
    if (this.#leadership !== null || !this.#leads(term) || !(await this.#catchUp(term))) return;
    const { clock, random, log } = this.#dependencies;
    this.#leadership = new Leadership(term, {
      stateMachine: this.stateMachine,
      proposer: this.#proposer,
      group: this.#raft,
      isLeaving: (raftId) => this.#leaving.has(raftId),
      clock,
      random,
      log,
    });
    this.#calls.notify();
  }

  #leads(term: number): boolean {
    const status = this.#raft.status();
    return status.role === 'leader' && status.term === term && !this.#stop.signal.aborted;
  }

  /** Everything committed before this term is applied once a read of this term is answered. False: the term is over. */
  async #catchUp(term: number): Promise<boolean> {
    const { clock, log } = this.#dependencies;
    while (this.#leads(term)) {
      try {
        await this.#raft.readIndex(this.#stop.signal);
        return this.#leads(term);
      } catch (error) {
        log.info('leadership is not confirmed yet', { term, error: errorMessage(error) });
        await sleep(clock, LEAD_RETRY_MS, this.#stop.signal).catch(() => {});
      }
    }
    return false;
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
      handOver: (signal) => this.#raft.transferLeadership(null, signal),
      leaving: this.#leaving,
      exclusively: (run) => this.#writes.run(run),
    };
  }

  async #callHere(method: string, params: unknown, signal: AbortSignal): Promise<unknown> {
    if (!isLeaderMethod(method)) throw new SwarmdError('NOT_FOUND', `there is no API method ${method}`);
    // What is read below is at least as new as anything acknowledged before this call.
    await this.#raft.readIndex(signal);
    return await runMethod(this.#apiContext(), method, params, signal);
  }

  /** The logs in batches, until they end or this term of leadership does. */
  async *#logsHere(params: ServiceLogsParams, signal: AbortSignal): AsyncGenerator<ServiceLogRecord[]> {
    const leadership = this.#leadership;
    if (leadership === null) throw noLeaderError(this.#raft.status());
    const connectionOf = (nodeId: NodeId): RpcConnection | null => leadership.dispatcher.connectionOf(nodeId);
    const subscribe = this.stateMachine.subscribe.bind(this.stateMachine);
    const sources = { view: this.stateMachine.store, connectionOf, subscribe };
    yield* serviceLogs(sources, params, AbortSignal.any([signal, leadership.ended]));
    if (leadership.ended.aborted && !signal.aborted)
      throw new SwarmdError('UNAVAILABLE', 'the leader changed while logs were read; ask for them again');
  }

  async #serveLogs(params: ServiceLogsParams, stream: RpcStream, context: RpcContext): Promise<void> {
    requireManager(context);
    this.#blocked.refuse(context.connection.peer);
    for await (const records of this.#logsHere(params, context.signal))
      await stream.write(records, context.signal);
  }

  async #join(params: unknown, context: RpcContext): Promise<unknown> {
    const request = parseJoinRequest(params);
    const observed = hostOf(context.connection.remoteAddress);
    const { signal } = context;
    return await this.#calls.atLeader<unknown>(signal, {
      here: () => admitNode(this.#apiContext(), request, observed, signal),
      there: (connection) => connection.call('node.join.forwarded', { request, observed }, { signal }),
    });
  }

  /** The dispatcher of this term; a worker that asks another manager is told where the leader is. */
  #dispatcher(context: RpcContext): DispatcherServer {
    this.#blocked.refuse(context.connection.peer);
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
}

async function openOnDisk(dataDir: string, ...[options, ports]: Parameters<OpenRaft>): Promise<RaftNode> {
  const storage = await LevelStorage.open(join(dataDir, 'raft'));
  try {
    return await RaftNode.open({ ...options, storage }, ports);
  } catch (error) {
    await storage.close();
    throw error;
  }
}

/** The node id of the manager that calls. */
function requireManager(context: RpcContext): string {
  const { peer } = context.connection;
  if (peer?.role === 'manager') return peer.nodeId;
  throw new SwarmdError('PERMISSION_DENIED', 'only managers may do this');
}
