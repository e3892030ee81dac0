/**
 * The composition root: makes a daemon out of its parts and ends it in order.
 *
 * Start order: folder lock, identity, node-to-node server, manager, worker, HTTP. Stop order is the reverse.
 * Invariants: a failed start leaves nothing running and no half-made membership; the daemon ends by itself when its
 * log cannot be written any more.
 */
import { rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../base/clock.ts';
import { errorMessage, SwarmdError } from '../base/errors.ts';
import { createLogger, type Logger } from '../base/log.ts';
import { systemRandom } from '../base/random.ts';
import { ok } from '../base/result.ts';
import { HttpServer } from '../http/server.ts';
import { Manager } from '../manager/manager.ts';
import type { InfoView } from '../model/api.ts';
import type { ManagerPeer } from '../model/wire.ts';
import type { RaftNodeEvents } from '../raft/types.ts';
import { defaultPort, formatAddress, parseAddress } from '../rpc/address.ts';
import { connect } from '../rpc/client.ts';
import { ConnectionPool } from '../rpc/connection-pool.ts';
import { createRpcCounters } from '../rpc/counters.ts';
import { RpcServer } from '../rpc/server.ts';
import type { PeerIdentity, RpcConnection, RpcContext, RpcHandlers } from '../rpc/types.ts';
import type { ConsensusSettings } from './consensus-messages.ts';
import { ConsensusThread } from './consensus-thread.ts';
import { folderError } from './folder-error.ts';
import { type Credentials, forgetIdentity, type Identity, writeIdentity } from './identity.ts';
import { type FolderLock, lockFolder } from './lock.ts';
import { becomeMember, type Membership } from './membership.ts';
import { ENDPOINT_METHOD } from './peer-links.ts';
import { CertificateRenewal } from './renewal.ts';
import type { NodeOptions, RunningNode, StartMode } from './types.ts';
import { version } from './version.ts';
import { WorkerSide } from './worker-side.ts';

/** Handlers that are filled in while the node is put together. */
interface OpenHandlers extends RpcHandlers {
  readonly calls: Record<string, RpcHandlers['calls'][string]>;
  readonly streams: Record<string, RpcHandlers['streams'][string]>;
  readonly notifications: Record<string, RpcHandlers['notifications'][string]>;
}

/**
 * Where consensus threads reach one another when the cluster's port is the usual one: a port that swarms are used to
 * have open between nodes. Any free one where it is taken.
 */
const CONSENSUS_PORT = 7946;

const clock = systemClock();
const random = systemRandom();

/** Starts a daemon. Rejects with a SwarmdError that says what to do; then nothing of it is left running. */
export async function startNode(options: NodeOptions, mode: StartMode): Promise<RunningNode> {
  const log = createLogger({
    level: options.logLevel,
    format: options.logFormat,
    write: (line) => process.stderr.write(`${line}\n`),
    nowMs: () => clock.nowMs(),
  });
  const lock = await lockFolder(options.dataDir);
  try {
    const membership = await becomeMember(options, mode, { random, log });
    const daemon = new Daemon(options, membership, log, lock);
    try {
      await daemon.start();
    } catch (error) {
      await daemon.stop();
      if (membership.isNew) await forgetIdentity(options.dataDir);
      throw error;
    }
    return daemon;
  } catch (error) {
    await lock.release();
    throw error instanceof SwarmdError ? error : folderError(options.dataDir, error);
  }
}

class Daemon implements RunningNode {
  readonly nodeId: string;
  readonly clusterId: string;
  readonly socketPath: string;
  readonly advertised: string;
  readonly ended: Promise<number>;
  readonly #options: NodeOptions;
  readonly #membership: Membership;
  readonly #log: Logger;
  readonly #lock: FolderLock;
  readonly #pool: ConnectionPool;
  readonly #end: (exitCode: number) => void;
  readonly #renewal: CertificateRenewal;
  readonly #counters = createRpcCounters();
  readonly #handlers: OpenHandlers = { calls: {}, streams: {}, notifications: {} };
  #identity: Identity;
  #credentials: Credentials;
  #roleChange: Promise<void> = Promise.resolve();
  #managers: readonly ManagerPeer[] = [];
  #server: RpcServer | null = null;
  #manager: Manager | null = null;
  #consensus: ConsensusThread | null = null;
  #worker: WorkerSide | null = null;
  #http: HttpServer | null = null;
  #stopping: Promise<void> | null = null;
  #exitCode = 0;

  constructor(options: NodeOptions, membership: Membership, log: Logger, lock: FolderLock) {
    const { identity } = membership;
    this.#options = options;
    this.#membership = membership;
    this.#log = log;
    this.#lock = lock;
    this.nodeId = identity.nodeId;
    this.clusterId = identity.clusterId;
    this.#identity = identity;
    this.socketPath = options.socketPath;
    this.advertised = formatAddress(identity.advertise.host, identity.advertise.port);
    const { promise, resolve } = Promise.withResolvers<number>();
    this.ended = promise;
    this.#end = resolve;
    this.#credentials = membership.credentials;
    this.#pool = new ConnectionPool({
      credentials: () => ({ kind: 'node', ...this.#credentials, expectRole: 'manager' }),
      handlers: { calls: {}, streams: {}, notifications: {} },
      clock,
      random,
      log,
    });
    this.#renewal = new CertificateRenewal({
      clock,
      random,
      log,
      current: () => this.#credentials,
      replace: async (credentials) => {
        await writeIdentity(options.dataDir, this.#identity, credentials);
        this.#credentials = credentials;
        this.#server?.setCredentials(credentials);
        this.#consensus?.setCredentials(credentials);
        // What was opened with the old certificate may show a role that is none any more.
        this.#pool.releaseAll();
      },
      managers: () => [
        ...new Set([...this.#managers.map((peer) => peer.address), ...this.#ownManagerFirst().managers]),
      ],
      connect: (address, signal) =>
        this.#connect(address, { calls: {}, streams: {}, notifications: {} }, signal),
    });
  }

  async start(): Promise<void> {
    const { identity, credentials, isNew, isMoved } = this.#membership;
    this.#server = await RpcServer.listen({
      ...identity.listen,
      credentials,
      handlers: this.#handlers,
      admit: (peer) => this.#manager?.admit(peer) ?? ok(peer),
      clock,
      log: this.#log,
      counters: this.#counters,
    });
    if (identity.role === 'manager') await this.#startManager(this.#membership.start);
    if (isNew || isMoved === true) await writeIdentity(this.#options.dataDir, identity, credentials);
    const environment = { path: process.env['PATH'] ?? '', hostname: hostname() };
    this.#worker = await WorkerSide.create(
      this.#options,
      this.#ownManagerFirst(),
      {
        clock,
        random,
        log: this.#log,
        connect: (address, extra, signal) => this.#connect(address, extra, signal),
        onManagers: (peers) => {
          this.#managers = peers;
        },
        onRole: (role, raftId) => this.#onRole(role, raftId),
      },
      environment,
    );
    await this.#worker.start();
    this.#http = await HttpServer.listen({
      socketPath: this.#options.socketPath,
      endpoint: {
        call: (method, params, signal) => this.#call(method, params, signal),
        serviceLogs: (params, signal) => this.#requireManager().serviceLogs(params, signal),
      },
      log: this.#log,
    });
    this.#renewal.start();
    this.#log.info('node is up', { node: this.nodeId, role: this.role, address: this.advertised });
  }

  stop(options: { readonly stopTasks?: boolean } = {}): Promise<void> {
    this.#stopping ??= this.#stop(options.stopTasks === true).finally(() => this.#end(this.#exitCode));
    return this.#stopping;
  }

  get role(): 'manager' | 'worker' {
    return this.#identity.role;
  }

  async #startManager(start: Membership['start']): Promise<void> {
    const { raftId, nodeId } = this.#identity;
    const self = { id: raftId, nodeId, address: this.advertised, voter: true };
    this.#manager = await Manager.open(
      { dataDir: this.#options.dataDir, self, start },
      {
        pool: this.#pool,
        clock,
        random,
        log: this.#log,
        onFatal: (error) => this.#fail(error),
        openRaft: (raftOptions, events) => this.#openConsensus(raftOptions, events),
        onBlocked: (nodeIds) => this.#consensus?.block(nodeIds),
      },
    );
    const own = this.#manager.handlers();
    Object.assign(this.#handlers.calls, own.calls, {
      [ENDPOINT_METHOD]: (_params: unknown, { connection }: RpcContext) =>
        this.#consensusEndpoint(connection.peer),
    });
    Object.assign(this.#handlers.streams, own.streams);
    Object.assign(this.#handlers.notifications, own.notifications);
    if (this.#identity.raftStart === undefined) return;
    const { raftStart: _done, ...identity } = this.#identity;
    await this.#become(identity);
  }

  async #openConsensus(
    options: ConsensusSettings['options'],
    events: RaftNodeEvents,
  ): Promise<ConsensusThread['node']> {
    const { host, port } = this.#identity.listen;
    const settings = {
      folder: join(this.#options.dataDir, 'raft'),
      options,
      host,
      ports: port === defaultPort ? [CONSENSUS_PORT, 0] : [0],
      credentials: this.#credentials,
    };
    this.#consensus = await ConsensusThread.open(settings, events, this.#log);
    return this.#consensus.node;
  }

  /** Where the consensus threads of other managers reach this one's. */
  async #consensusEndpoint(peer: PeerIdentity | null): Promise<{ readonly port: number }> {
    if (peer?.role !== 'manager')
      throw new SwarmdError('PERMISSION_DENIED', 'only managers take part in consensus');
    if (this.#consensus !== null) return { port: this.#consensus.port };
    throw new SwarmdError('UNAVAILABLE', 'consensus does not run here yet; try again');
  }

  async #become(identity: Identity): Promise<void> {
    await writeIdentity(this.#options.dataDir, identity, this.#credentials);
    this.#identity = identity;
  }

  /** The cluster made this node a manager, or a worker. One change at a time; a failed one is told again by each session. */
  #onRole(role: 'manager' | 'worker', raftId: number): void {
    this.#roleChange = this.#roleChange
      .then(async () => {
        if (this.#stopping !== null || role === this.role) return;
        this.#log.info('the role of this node changes', { to: role });
        await this.#renewal.renewAs(role);
        await (role === 'manager' ? this.#promote(raftId) : this.#demote());
        this.#log.info('the role of this node changed', { to: role });
      })
      .catch((error: unknown) => {
        if (this.#stopping !== null) return;
        this.#log.error('the role of this node could not be changed; restart the daemon to try again', {
          to: role,
          error: errorMessage(error),
        });
      });
  }

  async #promote(raftId: number): Promise<void> {
    // What an earlier life as a manager left belongs to another member.
    await rm(join(this.#options.dataDir, 'raft'), { recursive: true, force: true });
    await this.#become({ ...this.#identity, role: 'manager', raftId, raftStart: 'join' });
    await this.#startManager({ kind: 'join' });
  }

  async #demote(): Promise<void> {
    const manager = this.#manager;
    this.#manager = null;
    for (const part of [this.#handlers.calls, this.#handlers.streams, this.#handlers.notifications]) {
      for (const method of Object.keys(part)) delete part[method];
    }
    await manager?.stop();
    this.#consensus = null;
    const managers = this.#managers.map((peer) => peer.address);
    await this.#become({ ...this.#identity, role: 'worker', raftId: 0, managers });
    await rm(join(this.#options.dataDir, 'raft'), { recursive: true, force: true });
  }

  /** The worker of a manager asks its own manager first: it knows the leader. */
  #ownManagerFirst(): Membership['identity'] {
    const identity = this.#identity;
    if (identity.role !== 'manager') return identity;
    return { ...identity, managers: [...new Set([this.advertised, ...identity.managers])] };
  }

  async #connect(address: string, handlers: RpcHandlers, signal: AbortSignal): Promise<RpcConnection> {
    const target = parseAddress(address);
    if (!target.ok) throw new SwarmdError('INVALID_ARGUMENT', target.reason);
    const credentials = { kind: 'node', ...this.#credentials, expectRole: 'manager' } as const;
    return await connect({ ...target.value, credentials, handlers, clock, log: this.#log, signal });
  }

  async #call(method: string, params: unknown, signal: AbortSignal): Promise<unknown> {
    if (method === 'info') return this.#info();
    if (method === 'cluster.snapshot') return await this.#requireManager().checkpoint(signal);
    if (method === 'node.leave') return await this.#leave((params as { force?: unknown }).force === true);
    return await this.#requireManager().call(method, params, signal);
  }

  #requireManager(): Manager {
    if (this.#manager !== null) return this.#manager;
    throw new SwarmdError(
      'NOT_A_MANAGER',
      "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Run this command on a manager node",
      { details: { managers: this.#managers.map((peer) => peer.address) } },
    );
  }

  #info(): InfoView {
    const raft = this.#manager?.status();
    const leader = raft?.members.find((member) => member.id === raft.leaderId)?.nodeId ?? null;
    return {
      nodeId: this.nodeId,
      role: this.role,
      clusterId: this.clusterId,
      version,
      dataDir: this.#options.dataDir,
      advertiseAddress: this.advertised,
      managers: this.#managers.map(({ nodeId, address }) => ({ nodeId, address })),
      dnsAddress: this.#worker?.dnsAddress ?? '',
      refused: {
        connections: this.#counters.clientsRefused,
        violations: this.#counters.protocolViolations,
        frames: this.#manager?.refusedFrames() ?? 0,
      },
      ...(raft === undefined
        ? {}
        : {
            raft: {
              role: raft.role,
              term: raft.term,
              leaderNodeId: leader,
              commitIndex: raft.commitIndex,
              appliedIndex: raft.appliedIndex,
              members: raft.members.length,
            },
          }),
    };
  }

  /** Leaves the cluster: tasks are stopped, the folder is emptied, the daemon ends. */
  async #leave(force: boolean): Promise<null> {
    const voters = this.#manager?.status().members.filter((member) => member.voter).length ?? 0;
    if (this.#manager !== null && !force) {
      throw new SwarmdError(
        'FAILED_PRECONDITION',
        voters <= 1
          ? 'You are attempting to leave the swarm on a node that is participating as a manager. It is the last manager: leaving erases all current state of the swarm. Use --force to ignore this message'
          : `You are attempting to leave the swarm on a node that is participating as a manager. The quorum changes: ${voters} voters now. Use --force to ignore this message`,
      );
    }
    if (this.#manager !== null && voters > 1) await this.#leaveGroup(this.#manager);
    // The caller gets its answer before the daemon goes.
    setImmediate(() => {
      this.#stopping ??= this.#leaveAndStop().finally(() => this.#end(0));
    });
    return null;
  }

  /** A manager that is cut off from the others can still be made to leave: they remove it when they are back. */
  async #leaveGroup(manager: Manager): Promise<void> {
    try {
      await manager.leaveGroup(AbortSignal.timeout(30_000));
    } catch (error) {
      this.#log.warn(
        'the node leaves without the other managers; remove it there with "swarmd node rm --force"',
        {
          node: this.nodeId,
          error: errorMessage(error),
        },
      );
    }
  }

  async #leaveAndStop(): Promise<void> {
    await this.#worker?.leave();
    this.#worker = null;
    await this.#stop(false);
    await forgetIdentity(this.#options.dataDir);
  }

  /** The log is lost to this process: end at once rather than answer from a state that may not last. */
  #fail(error: Error): void {
    this.#log.error('the daemon ends: its log cannot be written', { error: errorMessage(error) });
    this.#exitCode = 1;
    void this.stop();
  }

  async #stop(stopTasks: boolean): Promise<void> {
    const steps: [string, () => Promise<void> | undefined][] = [
      ['renewal', () => this.#renewal.stop()],
      ['role change', () => this.#roleChange],
      ['http', () => this.#http?.close()],
      ['worker', () => this.#worker?.stop(stopTasks)],
      ['manager', () => this.#manager?.stop()],
      ['connections', () => this.#pool.closeAll()],
      ['server', () => this.#server?.close()],
      ['lock', () => this.#lock.release()],
    ];
    for (const [part, close] of steps) {
      try {
        await close();
      } catch (error) {
        this.#log.warn('a part did not end cleanly', { part, error: errorMessage(error) });
      }
    }
  }
}
