/**
 * The leader's end of worker sessions: drives the pure dispatcher by RPC, the clock and the change feed.
 *
 * Data owned: the dispatcher core of this term, one stream a session, status reports waiting to be proposed.
 * Invariants: only the leader serves sessions; a status report is answered only once it is committed; when
 * leadership ends every session ends, and workers find the new leader.
 */
import type { Clock, Timer } from '../../base/clock.ts';
import { errorMessage, SwarmdError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { randomBase36, type Random } from '../../base/random.ts';
import { isTaskState, taskStateOwner } from '../../model/task-state.ts';
import type { NodeId, TaskId } from '../../model/ids.ts';
import type { ClusterNode, NodeStatus } from '../../model/objects.ts';
import type { HeartbeatRequest, SessionMessage, SessionRequest, StatusReport } from '../../model/wire.ts';
import type { RpcConnection, RpcContext, RpcStream } from '../../rpc/types.ts';
import { type Action, BATCH_ACTIONS_MAX, type Change, type Proposer } from '../state/actions.ts';
import type { Store } from '../state/store.ts';
import { DispatcherCore } from './core.ts';
import { managerPeers } from './items.ts';

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
  wake: (() => void) | null;
  ended: boolean;
}

/** Messages waiting for a slow worker; over it the session ends and the worker starts afresh. */
const SESSION_QUEUE_MAX = 10_000;
/** Status updates taken but not yet proposed; over it reports are refused and the worker sends them again. */
const REPORTS_PENDING_MAX = 10_000;

/** Worker sessions of one term of leadership. */
export class DispatcherServer {
  readonly #dependencies: DispatcherDependencies;
  readonly #core: DispatcherCore;
  readonly #heartbeatMs: number;
  readonly #sessions = new Map<NodeId, OpenSession>();
  readonly #abort = new AbortController();
  #timer: Timer | null = null;
  #flushPlanned = false;
  #reports: { action: Action; done: (error: SwarmdError | null) => void }[] = [];
  #reporting: Promise<void> | null = null;

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
    if (changes.some((change) => change.table === 'node')) {
      const before = JSON.stringify(this.#peers);
      this.#peers = managerPeers(store);
      if (JSON.stringify(this.#peers) !== before) {
        for (const session of this.#sessions.values())
          this.#send(session, { kind: 'managers', managers: this.#peers });
      }
    }
    if (this.#flushPlanned) return;
    this.#flushPlanned = true;
    setImmediate(() => {
      this.#flushPlanned = false;
      if (!this.#abort.signal.aborted) this.#flush();
    });
  }

  #peers: ReturnType<typeof managerPeers> = [];

  /** Serves one session until the worker, a newer session or this leader ends it. */
  async session(params: unknown, stream: RpcStream, context: RpcContext): Promise<void> {
    const nodeId = requirePeer(context);
    const request = parseSessionRequest(params);
    const { store, random, clock, log } = this.#dependencies;
    await this.#register(nodeId, request, context);
    const node = store.get('node', nodeId);
    if (node === undefined) throw unknownNode(nodeId);
    this.#end(nodeId);
    const session: OpenSession = {
      id: randomBase36(random, 25),
      nodeId,
      connection: context.connection,
      queue: [],
      wake: null,
      ended: false,
    };
    this.#sessions.set(nodeId, session);
    this.#peers = managerPeers(store);
    this.#send(session, {
      kind: 'welcome',
      sessionId: session.id,
      heartbeatMs: this.#heartbeatMs,
      managers: this.#peers,
    });
    for (const message of this.#core.open(store, node, session.id, clock.monotonicMs()))
      this.#send(session, message);
    this.#arm();
    log.info('session opened', { node: nodeId, hostname: node.description.hostname });
    const end = (): void => {
      session.ended = true;
      session.wake?.();
    };
    context.signal.addEventListener('abort', end, { once: true });
    // A worker that leaves the stream (or the connection) gives up the session at once; the node's state
    // still waits for the heartbeats to run out, so that a quick return costs nothing.
    void stream.closed.then(end);
    try {
      while (!session.ended) {
        const message = session.queue.shift();
        if (message === undefined) await new Promise<void>((resolve) => (session.wake = resolve));
        else await stream.write(message, context.signal);
      }
    } finally {
      if (this.#sessions.get(nodeId) === session) this.#sessions.delete(nodeId);
      log.info('session ended', { node: nodeId });
    }
  }

  heartbeat(params: unknown, context: RpcContext): { heartbeatMs: number } {
    const nodeId = requirePeer(context);
    const { sessionId } = params as HeartbeatRequest;
    if (this.#core.heartbeat(nodeId, String(sessionId), this.#dependencies.clock.monotonicMs()) === 'ok') {
      return { heartbeatMs: this.#heartbeatMs };
    }
    throw new SwarmdError('FAILED_PRECONDITION', 'the session is over; open a new one', {
      details: { reason: 'unknown-session' },
    });
  }

  /** Takes a worker's reports; resolves once they are committed. */
  async status(params: unknown, context: RpcContext): Promise<null> {
    const nodeId = requirePeer(context);
    const report = params as StatusReport;
    if (!this.#core.isCurrent(nodeId, String(report.sessionId))) {
      throw new SwarmdError('FAILED_PRECONDITION', 'the session is over; open a new one', {
        details: { reason: 'unknown-session' },
      });
    }
    const actions = parseReports(nodeId, report);
    if (this.#reports.length + actions.length > REPORTS_PENDING_MAX) {
      throw new SwarmdError(
        'RESOURCE_EXHAUSTED',
        'too many status reports are waiting; send them again later',
      );
    }
    await Promise.all(
      actions
        .map(
          (action) =>
            new Promise<void>((resolve, reject) => {
              this.#reports.push({ action, done: (error) => (error === null ? resolve() : reject(error)) });
            }),
        )
        .concat([this.#propose()]),
    );
    return null;
  }

  /** Ends every session. */
  async stop(): Promise<void> {
    this.#abort.abort(new Error('no longer the leader'));
    this.#timer?.cancel();
    for (const nodeId of [...this.#sessions.keys()]) this.#end(nodeId);
    await this.#reporting;
  }

  #propose(): Promise<void> {
    this.#reporting ??= this.#proposeAll().finally(() => {
      this.#reporting = null;
    });
    return this.#reporting;
  }

  /** While one batch is on its way the next one gathers: load makes batches larger, not slower. */
  async #proposeAll(): Promise<void> {
    while (this.#reports.length > 0) {
      const taken = this.#reports.splice(0, BATCH_ACTIONS_MAX);
      const result = await this.#dependencies.proposer.propose(
        taken.map((report) => report.action),
        this.#abort.signal,
      );
      const error =
        result.kind === 'applied'
          ? null
          : new SwarmdError('UNAVAILABLE', `the status report was not taken (${result.kind}); send it again`);
      for (const report of taken) report.done(error);
    }
  }

  /** Writes what the node says of itself, and that it is ready. */
  async #register(nodeId: NodeId, request: SessionRequest, context: RpcContext): Promise<void> {
    const address = request.address === '' ? hostOf(context.connection.remoteAddress) : request.address;
    await this.#updateNode(
      nodeId,
      (node) => {
        const status: NodeStatus = { state: 'ready', message: '', address };
        const same =
          JSON.stringify([node.status, node.description]) === JSON.stringify([status, request.description]);
        return same ? null : { ...node, status, description: request.description };
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
      if (node === undefined) throw unknownNode(nodeId);
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
    for (const { nodeId, sessionId, messages } of this.#core.flush(this.#dependencies.store)) {
      const session = this.#sessions.get(nodeId);
      if (session === undefined || session.id !== sessionId) continue;
      for (const message of messages) this.#send(session, message);
    }
  }

  #send(session: OpenSession, message: SessionMessage): void {
    if (session.queue.length >= SESSION_QUEUE_MAX) {
      this.#dependencies.log.warn('session ended: the worker does not keep up', { node: session.nodeId });
      this.#end(session.nodeId);
      return;
    }
    session.queue.push(message);
    session.wake?.();
  }

  #end(nodeId: NodeId): void {
    const session = this.#sessions.get(nodeId);
    if (session === undefined) return;
    this.#sessions.delete(nodeId);
    session.ended = true;
    session.wake?.();
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
      this.#end(nodeId);
      log.warn('node is down: heartbeats missed', { node: nodeId });
      const down = (node: ClusterNode): ClusterNode | null =>
        node.status.state === 'down'
          ? null
          : { ...node, status: { ...node.status, state: 'down', message: 'heartbeat failure' } };
      this.#updateNode(nodeId, down, this.#abort.signal).catch((error: unknown) => {
        log.warn('node could not be marked down', { node: nodeId, error: errorMessage(error) });
      });
    }
    this.#arm();
  }
}

function hostOf(remoteAddress: string): string {
  const colon = remoteAddress.lastIndexOf(':');
  return remoteAddress
    .slice(0, colon)
    .replace(/^\[|\]$/g, '')
    .replace(/^::ffff:/, '');
}

function unknownNode(nodeId: NodeId): SwarmdError {
  return new SwarmdError(
    'NOT_FOUND',
    `node ${nodeId} is not part of the cluster any more: it was removed. Run "swarmd leave --force" on it, then join again`,
    { details: { reason: 'removed' } },
  );
}

function requirePeer(context: RpcContext): NodeId {
  const { peer } = context.connection;
  if (peer === null)
    throw new SwarmdError('UNAUTHENTICATED', 'a node certificate is needed; join the cluster first');
  return peer.nodeId as NodeId;
}

function parseSessionRequest(params: unknown): SessionRequest {
  const request = params as Partial<SessionRequest> | null;
  const description = request?.description;
  if (
    typeof description !== 'object' ||
    description === null ||
    typeof description.hostname !== 'string' ||
    typeof description.resources?.nanoCpus !== 'number' ||
    typeof description.resources.memoryBytes !== 'number' ||
    !Array.isArray(description.runtimes) ||
    typeof description.platform?.os !== 'string'
  ) {
    throw new SwarmdError('INVALID_ARGUMENT', 'the session request has no valid node description');
  }
  return {
    description,
    address: String(request?.address ?? ''),
    previousSession: String(request?.previousSession ?? ''),
  };
}

/** A bad report of a worker is refused as a whole: it never reaches the log. */
function parseReports(nodeId: NodeId, report: StatusReport): Action[] {
  if (!Array.isArray(report.updates))
    throw new SwarmdError('INVALID_ARGUMENT', 'a status report has no updates');
  return report.updates.map((update): Action => {
    const { taskId, status } = update as {
      taskId: unknown;
      status: StatusReport['updates'][number]['status'] | null;
    };
    const valid =
      typeof taskId === 'string' &&
      typeof status === 'object' &&
      status !== null &&
      isTaskState(status.state) &&
      taskStateOwner[status.state] === 'worker' &&
      Number.isFinite(status.at) &&
      typeof status.message === 'string' &&
      typeof status.error === 'string';
    if (!valid) throw new SwarmdError('INVALID_ARGUMENT', 'a status report is malformed');
    return { kind: 'report-task', id: taskId as TaskId, nodeId, status };
  });
}
