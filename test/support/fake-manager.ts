/** A dispatcher at the other end of an agent's connection, in memory: tests script what it sends and see what came. */
import { SwarmdError } from '../../src/base/errors.ts';
import type { TaskId } from '../../src/model/ids.ts';
import type { TaskStatus } from '../../src/model/objects.ts';
import type { ManagerPeer, SessionMessage, SessionRequest, StatusReport } from '../../src/model/wire.ts';
import type { RpcConnection, RpcHandlers, RpcStream } from '../../src/rpc/types.ts';

/** One session as the manager sees it. */
interface FakeSession {
  readonly id: string;
  readonly request: SessionRequest;
  readonly queue: SessionMessage[];
  error: SwarmdError | null;
  ended: boolean;
  wake: () => void;
}

/** A manager that serves one agent. */
export class FakeManager {
  readonly address: string;
  /** Every session request, in order. */
  readonly requests: SessionRequest[] = [];
  /** All reported states of a task, in order, without repeats. */
  readonly reported = new Map<TaskId, TaskStatus[]>();
  heartbeats = 0;
  heartbeatMs = 50;
  /** Not null: refuses sessions, naming this leader (or none). */
  notLeader: { readonly leaderAddress: string | null } | null = null;
  /** No connection can be made. */
  down = false;
  /** Status reports fail while set. */
  refusesReports = false;
  managers: ManagerPeer[] = [];
  /** Sent right after the welcome. */
  onSession: (manager: FakeManager) => void = (manager) => manager.assign('complete', []);
  handlers: RpcHandlers | null = null;
  #session: FakeSession | null = null;
  #sequence = 0;
  #count = 0;

  constructor(address: string) {
    this.address = address;
  }

  get hasSession(): boolean {
    return this.#session !== null && !this.#session.ended;
  }

  /** The last status a task was reported with. */
  status(taskId: TaskId): TaskStatus | undefined {
    return this.reported.get(taskId)?.at(-1);
  }

  /** Sends one set of assignments. */
  assign(
    type: 'complete' | 'incremental',
    put: Extract<SessionMessage, { kind: 'assignments' }>['put'],
    remove: Extract<SessionMessage, { kind: 'assignments' }>['remove'] = [],
  ): void {
    this.send({ kind: 'assignments', type, sequence: this.#sequence++, more: false, put, remove });
  }

  send(message: SessionMessage): void {
    this.#session?.queue.push(message);
    this.#session?.wake();
  }

  /** Ends the session, with an error or in order. */
  endSession(error: SwarmdError | null = null): void {
    const session = this.#session;
    if (session === null) return;
    session.error = error;
    session.ended = true;
    session.wake();
  }

  connect(handlers: RpcHandlers, signal: AbortSignal): Promise<RpcConnection> {
    if (this.down) return Promise.reject(new SwarmdError('UNAVAILABLE', `${this.address} does not answer`));
    this.handlers = handlers;
    let close = (_reason: string): void => {};
    const closed = new Promise<string>((resolve) => (close = resolve));
    signal.addEventListener('abort', () => this.endSession(), { once: true });
    return Promise.resolve({
      id: ++this.#count,
      peer: { nodeId: 'manager', role: 'manager', clusterId: 'cluster' },
      remoteAddress: this.address,
      call: (method, params) => this.#call(method, params),
      openStream: (_method, params) => this.#open(params as SessionRequest),
      notify: () => true,
      notifyNow: () => {},
      close: (reason) => {
        this.endSession();
        close(reason);
      },
      closed,
    });
  }

  async #call(method: string, params: unknown): Promise<unknown> {
    await Promise.resolve();
    if (this.down) throw new SwarmdError('UNAVAILABLE', 'connection lost');
    const { sessionId } = params as { sessionId: string };
    if (sessionId !== this.#session?.id || this.#session.ended) {
      throw new SwarmdError('FAILED_PRECONDITION', 'unknown session');
    }
    if (method === 'dispatcher.heartbeat') {
      this.heartbeats += 1;
      return { heartbeatMs: this.heartbeatMs };
    }
    if (this.refusesReports) throw new SwarmdError('RESOURCE_EXHAUSTED', 'later');
    for (const { taskId, status } of (params as StatusReport).updates) {
      this.reported.set(taskId, [...(this.reported.get(taskId) ?? []), status]);
    }
    return null;
  }

  #open(request: SessionRequest): RpcStream {
    this.requests.push(request);
    const session: FakeSession = {
      id: `session-${++this.#count}`,
      request,
      queue: [],
      error: null,
      ended: false,
      wake: () => {},
    };
    if (this.notLeader !== null) {
      session.error = new SwarmdError('FAILED_PRECONDITION', 'not the leader', { details: this.notLeader });
      session.ended = true;
    } else {
      this.#session = session;
      this.#sequence = 0;
      const { managers, heartbeatMs } = this;
      this.send({ kind: 'welcome', sessionId: session.id, heartbeatMs, managers });
      this.onSession(this);
    }
    const destroy = (error?: SwarmdError): void => {
      session.error ??= error ?? new SwarmdError('CANCELLED', 'the session was ended early');
      session.ended = true;
      session.wake();
    };
    return {
      write: () => Promise.resolve(),
      end: () => {},
      destroy,
      closed: Promise.resolve(),
      async *[Symbol.asyncIterator]() {
        for (;;) {
          const message = session.queue.shift();
          if (session.ended && session.error !== null) throw session.error;
          if (message !== undefined && !session.ended) yield message;
          else if (session.ended) return;
          else await new Promise<void>((resolve) => (session.wake = resolve));
        }
      },
    };
  }
}
