/**
 * The leader's end of worker sessions: drives the pure dispatcher by RPC, the clock and the change feed.
 *
 * Data owned: the dispatcher core of this term, one stream a session, status reports waiting to be proposed.
 * Invariants: only the leader serves sessions; a status report is answered only once it is committed; when
 * leadership ends every session ends, and workers find the new leader; what a node's state is set to follows its
 * sessions in order, so that a late "down" never outlasts a return; a slow worker costs bounded memory.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Clock, Timer } from '../../base/clock.ts';
import { errorMessage, SwarmdError, toSwarmdError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { randomBase36, type Random } from '../../base/random.ts';
import type { NodeId } from '../../model/ids.ts';
import type { ClusterNode } from '../../model/objects.ts';
import type { ManagerPeer, SessionMessage, SessionRequest } from '../../model/wire.ts';
import type { RpcConnection, RpcContext, RpcStream } from '../../rpc/types.ts';
import { type Action, BATCH_ACTIONS_MAX, type Change, type Proposer } from '../state/actions.ts';
import { splitActions } from '../state/split.ts';
import type { Store } from '../state/store.ts';
import { hostOf, notLeading, removed, requirePeer, roleOf, sessionOver, statusOf } from './answers.ts';
import { DispatcherCore } from './core.ts';
import { managerPeers } from './items.ts';
import { parseReports, parseSessionRequest, sessionIdOf } from './requests.ts';

export interface DispatcherDependencies {
  readonly store: Store;
  readonly proposer: Proposer;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

interface OpenSession {
  readonly id: string;
  readonly nodeId: NodeId;
  readonly connection: RpcConnection;
  readonly queue: SessionMessage[];
  /** Aborts when the session is over; its reason, if a SwarmdError, is what the worker is told. */
  readonly over: AbortController;
  wake: (() => void) | null;
}

/** Messages waiting for a slow worker; over it the session ends and the worker starts afresh. */
const SESSION_QUEUE_MAX = 10_000;
/** A worker that takes no message for this long loses its session, milliseconds. */
const SESSION_STALL_MS = 30_000;
/** Status updates taken but not yet proposed; over it reports are refused and the worker sends them again. */
const REPORTS_PENDING_MAX = 10_000;

interface PendingReport {
  readonly action: Action;
  readonly done: (error: SwarmdError | null) => void;
}

/** Worker sessions of one term of leadership. */
export class DispatcherServer {
  readonly #dependencies: DispatcherDependencies;
  readonly #core: DispatcherCore;
  readonly #heartbeatMs: number;
  readonly #sessions = new Map<NodeId, OpenSession>();
  readonly #abort = new AbortController();
  #timer: Timer | null = null;
  #flushPlanned = false;
  #reports: PendingReport[] = [];
  #reporting: Promise<void> | null = null;
  #peers: readonly ManagerPeer[] = [];
  /** The last change of each node's state under way: they happen one after the other. */
  readonly #nodeChanges = new Map<NodeId, Promise<void>>();

  constructor(dependencies: DispatcherDependencies) {
    this.#dependencies = dependencies;
    const { store, clock } = dependencies;
    const [cluster] = store.all('cluster');
    this.#heartbeatMs = cluster?.spec.heartbeatMs ?? 1_000;
    this.#core = new DispatcherCore(store, { heartbeatMs: this.#heartbeatMs, nowMs: clock.monotonicMs() });
    this.#arm();
  }

  /** The open connection of a node, for logs and the like. */
  connectionOf(nodeId: NodeId): RpcConnection | null {
    return this.#sessions.get(nodeId)?.connection ?? null;
  }

  /** The change feed: call after each applied batch. */
  changed(changes: readonly Change[]): void {
    const { store } = this.#dependencies;
    this.#core.changed(store, changes);
    for (const change of changes) {
      if (change.table !== 'node') continue;
      if (change.after === null) this.#end(change.before?.id, removed(change.id));
      else this.#tellRole(change.before, change.after);
    }
    if (changes.some((change) => change.table === 'node')) this.#tellPeers();
    this.#flushSoon();
  }

  #tellRole(before: ClusterNode | null, after: ClusterNode): void {
    const session = this.#sessions.get(after.id);
    if (session === undefined || (before !== null && isDeepStrictEqual(roleOf(before), roleOf(after))))
      return;
    this.#send(session, roleOf(after));
  }

  #tellPeers(): void {
    const before = JSON.stringify(this.#peers);
    this.#peers = managerPeers(this.#dependencies.store);
    if (JSON.stringify(this.#peers) === before) return;
    for (const session of this.#sessions.values())
      this.#send(session, { kind: 'managers', managers: this.#peers });
  }

  #flushSoon(): void {
    if (this.#flushPlanned) return;
    this.#flushPlanned = true;
    setImmediate(() => {
      this.#flushPlanned = false;
      if (!this.#abort.signal.aborted) this.#flush();
    });
  }

  /** Serves one session until the worker, a newer session or this leader ends it. */
  async session(params: unknown, stream: RpcStream, context: RpcContext): Promise<void> {
    const nodeId = requirePeer(context);
    const request = parseSessionRequest(params);
    const session = await this.#serially(nodeId, () => this.#open(nodeId, request, context));
    const { log } = this.#dependencies;
    const leave = (): void => session.over.abort();
    // A worker that leaves the stream (or the connection) gives up the session at once; the node's state
    // still waits for the heartbeats to run out, so that a quick return costs nothing.
    context.signal.addEventListener('abort', leave, { once: true });
    void stream.closed.then(leave);
    if (context.signal.aborted) leave();
    session.over.signal.addEventListener('abort', () => session.wake?.(), { once: true });
    try {
      await this.#pump(session, stream);
    } finally {
      leave();
      context.signal.removeEventListener('abort', leave);
      if (this.#sessions.get(nodeId) === session) this.#sessions.delete(nodeId);
      log.info('session ended', { node: nodeId });
    }
  }

  /** Registers the node as ready and opens its session; the older one ends. */
  async #open(nodeId: NodeId, request: SessionRequest, context: RpcContext): Promise<OpenSession> {
    const { store, random, clock, log } = this.#dependencies;
    await this.#register(nodeId, request, context);
    // While the node's state was written this term may have ended, or the worker gone: it must not replace the
    // session the worker has by now.
    if (this.#abort.signal.aborted) throw notLeading();
    if (context.signal.aborted)
      throw new SwarmdError('CANCELLED', 'the worker left before its session opened');
    const node = store.get('node', nodeId);
    if (node === undefined) throw removed(nodeId);
    this.#end(nodeId, null);
    const session: OpenSession = {
      id: randomBase36(random, 25),
      nodeId,
      connection: context.connection,
      queue: [],
      over: new AbortController(),
      wake: null,
    };
    this.#sessions.set(nodeId, session);
    this.#peers = managerPeers(store);
    this.#send(session, {
      kind: 'welcome',
      sessionId: session.id,
      heartbeatMs: this.#heartbeatMs,
      managers: this.#peers,
    });
    this.#send(session, roleOf(node));
    for (const message of this.#core.open(store, node, session.id, clock.monotonicMs()))
      this.#send(session, message);
    this.#arm();
    log.info('session opened', { node: nodeId, hostname: node.description.hostname });
    return session;
  }

  /** Writes what is queued, as fast as the worker takes it. Throws the reason the session ended for, if any. */
  async #pump(session: OpenSession, stream: RpcStream): Promise<void> {
    const { signal } = session.over;
    const { clock } = this.#dependencies;
    while (!signal.aborted) {
      const message = session.queue.shift();
      if (message === undefined) {
        // Differences that gathered while the worker was busy.
        this.#flushSoon();
        await new Promise<void>((resolve) => (session.wake = resolve));
        continue;
      }
      const stall = clock.setTimer(SESSION_STALL_MS, () => this.#endSlow(session));
      try {
        await stream.write(message, signal);
      } catch (error) {
        if (!signal.aborted) throw error;
      } finally {
        stall.cancel();
      }
    }
    if (signal.reason instanceof SwarmdError) throw signal.reason;
  }

  heartbeat(params: unknown, context: RpcContext): { heartbeatMs: number } {
    const nodeId = requirePeer(context);
    if (this.#core.heartbeat(nodeId, sessionIdOf(params), this.#dependencies.clock.monotonicMs()) === 'ok') {
      return { heartbeatMs: this.#heartbeatMs };
    }
    throw sessionOver();
  }

  /** Takes a worker's reports; resolves once they are committed. */
  async status(params: unknown, context: RpcContext): Promise<null> {
    const nodeId = requirePeer(context);
    if (!this.#core.isCurrent(nodeId, sessionIdOf(params))) throw sessionOver();
    const actions = parseReports(nodeId, params);
    if (this.#reports.length > 0 && this.#reports.length + actions.length > REPORTS_PENDING_MAX) {
      throw new SwarmdError(
        'RESOURCE_EXHAUSTED',
        'too many status reports are waiting; send them again later',
      );
    }
    const committed = actions.map(
      (action) =>
        new Promise<void>((resolve, reject) => {
          this.#reports.push({ action, done: (error) => (error === null ? resolve() : reject(error)) });
        }),
    );
    this.#reporting ??= this.#proposeReports().finally(() => {
      this.#reporting = null;
    });
    await Promise.all(committed);
    return null;
  }

  /** Ends every session. */
  async stop(): Promise<void> {
    this.#abort.abort(notLeading());
    this.#timer?.cancel();
    for (const nodeId of [...this.#sessions.keys()]) this.#end(nodeId, null);
    await this.#reporting;
    await Promise.all(this.#nodeChanges.values());
  }

  /** While one batch is on its way the next one gathers: load makes batches larger, not slower. Never rejects. */
  async #proposeReports(): Promise<void> {
    const { signal } = this.#abort;
    while (this.#reports.length > 0) {
      const taken = this.#reports.splice(0, BATCH_ACTIONS_MAX);
      let error: SwarmdError | null = null;
      try {
        for (const batch of splitActions(taken.map((report) => report.action))) {
          const { kind } = await this.#dependencies.proposer.propose(batch, signal);
          if (kind === 'applied') continue;
          error = new SwarmdError('UNAVAILABLE', `the status report was not taken (${kind}); send it again`);
          break;
        }
      } catch (cause) {
        error = toSwarmdError(cause);
      }
      for (const report of taken) report.done(error);
    }
  }

  /** Runs one change of a node's state after those before it. */
  async #serially<T>(nodeId: NodeId, run: () => Promise<T>): Promise<T> {
    const result = (this.#nodeChanges.get(nodeId) ?? Promise.resolve()).then(run);
    const settled = result.then(
      () => {},
      () => {},
    );
    this.#nodeChanges.set(nodeId, settled);
    try {
      return await result;
    } finally {
      if (this.#nodeChanges.get(nodeId) === settled) this.#nodeChanges.delete(nodeId);
    }
  }

  /** Writes what the node says of itself, and that it is ready. */
  async #register(nodeId: NodeId, request: SessionRequest, context: RpcContext): Promise<void> {
    const address = request.address === '' ? hostOf(context.connection.remoteAddress) : request.address;
    await this.#updateNode(
      nodeId,
      (node) => {
        const status = statusOf(node, 'ready', '', address, this.#dependencies.clock.nowMs());
        const rpcAddress = request.rpcAddress === '' ? node.rpcAddress : request.rpcAddress;
        const said = [status, request.description, rpcAddress];
        if (isDeepStrictEqual([node.status, node.description, node.rpcAddress], said)) return null;
        const reached = rpcAddress === undefined ? {} : { rpcAddress };
        return { ...node, ...reached, status, description: request.description };
      },
      context.signal,
    );
  }

  async #updateNode(
    nodeId: NodeId,
    change: (node: ClusterNode) => ClusterNode | null,
    signal: AbortSignal,
  ): Promise<void> {
    const { store, proposer } = this.#dependencies;
    for (let attempt = 0; attempt < 20; attempt++) {
      const node = store.get('node', nodeId);
      if (node === undefined) throw removed(nodeId);
      const next = change(node);
      if (next === null) return;
      const action: Action = { kind: 'update', table: 'node', object: next, expect: node.meta.version };
      const result = await proposer.propose([action], signal);
      if (result.kind === 'applied') return;
      if (result.kind !== 'refused') {
        throw new SwarmdError('UNAVAILABLE', `the node's state cannot be written now (${result.kind})`);
      }
    }
    throw new SwarmdError('UNAVAILABLE', `the state of node ${nodeId} changes too fast to be written`);
  }

  #flush(): void {
    // A worker with messages still to take gets the next ones later, all differences in between as one.
    const accepts = (nodeId: NodeId): boolean => this.#sessions.get(nodeId)?.queue.length === 0;
    for (const { nodeId, sessionId, messages } of this.#core.flush(this.#dependencies.store, accepts)) {
      const session = this.#sessions.get(nodeId);
      if (session === undefined || session.id !== sessionId) continue;
      for (const message of messages) this.#send(session, message);
    }
  }

  #send(session: OpenSession, message: SessionMessage): void {
    if (session.queue.length >= SESSION_QUEUE_MAX) {
      this.#endSlow(session);
      return;
    }
    session.queue.push(message);
    session.wake?.();
  }

  #endSlow(session: OpenSession): void {
    this.#dependencies.log.warn('session ended: the worker does not keep up', { node: session.nodeId });
    const error = new SwarmdError('RESOURCE_EXHAUSTED', 'the worker does not keep up; open a new session');
    if (this.#sessions.get(session.nodeId) === session) this.#sessions.delete(session.nodeId);
    session.queue.length = 0;
    session.over.abort(error);
  }

  #end(nodeId: NodeId | undefined, reason: SwarmdError | null): void {
    const session = nodeId === undefined ? undefined : this.#sessions.get(nodeId);
    if (session === undefined) return;
    this.#sessions.delete(session.nodeId);
    session.over.abort(reason ?? undefined);
  }

  #arm(): void {
    this.#timer?.cancel();
    this.#timer = null;
    if (this.#abort.signal.aborted) return;
    const next = this.#core.nextExpiryMs();
    if (next === null) return;
    const { clock } = this.#dependencies;
    this.#timer = clock.setTimer(Math.max(1, next - clock.monotonicMs()), () => this.#expire());
  }

  #expire(): void {
    const { clock, log } = this.#dependencies;
    for (const nodeId of this.#core.expire(clock.monotonicMs())) {
      this.#end(nodeId, null);
      log.warn('node is down: heartbeats missed', { node: nodeId });
      void this.#serially(nodeId, () => this.#markDown(nodeId));
    }
    this.#arm();
  }

  /** Never rejects: a node that cannot be marked now expires again. */
  async #markDown(nodeId: NodeId): Promise<void> {
    const { clock, log, store } = this.#dependencies;
    // It came back while this waited for its turn, or is none any more.
    if (this.#sessions.has(nodeId) || store.get('node', nodeId) === undefined) return;
    const down = (node: ClusterNode): ClusterNode | null => {
      if (node.status.state === 'down') return null;
      const { address } = node.status;
      return { ...node, status: statusOf(node, 'down', 'heartbeat failure', address, clock.nowMs()) };
    };
    try {
      await this.#updateNode(nodeId, down, this.#abort.signal);
    } catch (error) {
      if (this.#abort.signal.aborted) return;
      log.warn('node could not be marked down', { node: nodeId, error: errorMessage(error) });
      this.#core.expireAgain(nodeId, clock.monotonicMs());
      this.#arm();
    }
  }
}
