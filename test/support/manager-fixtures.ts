/** Doubles for tests of managers: a log of one replica in memory, peers, streams, and a logger that keeps lines. */
import { seededRandom } from '../../src/base/random.ts';
import type { LogFields, Logger, LogLevel } from '../../src/base/log.ts';
import type { SwarmdError } from '../../src/base/errors.ts';
import type { NodeApiContext } from '../../src/manager/api/nodes.ts';
import { Turns } from '../../src/manager/leader-calls.ts';
import type { Action, Change, ProposeResult, Proposer } from '../../src/manager/state/actions.ts';
import { decodeBatch, encodeBatch } from '../../src/manager/state/codec.ts';
import { Store } from '../../src/manager/state/store.ts';
import type { RaftMember, RaftStatus } from '../../src/raft/types.ts';
import type { PeerIdentity, RpcConnection, RpcContext, RpcStream } from '../../src/rpc/types.ts';

/** A log with one replica: applies at once, unless told to answer otherwise or to wait. */
export class MemoryLog implements Proposer {
  readonly store = new Store();
  readonly batches: Action[][] = [];
  nowMs = 1_000;
  onApplied: (changes: readonly Change[]) => void = () => {};
  /** Answers of the next proposals; null applies. */
  readonly answers: (ProposeResult | null)[] = [];
  /** Called before each proposal is applied. */
  before: (actions: readonly Action[]) => Promise<void> = () => Promise.resolve();

  async propose(actions: readonly Action[], _signal: AbortSignal, once?: string): Promise<ProposeResult> {
    await this.before(actions);
    const answer = this.answers.shift() ?? null;
    if (answer !== null) return answer;
    return this.apply(actions, once);
  }

  apply(actions: readonly Action[], once?: string): ProposeResult {
    const keyed = once === undefined ? {} : { once };
    const batch = decodeBatch(encodeBatch({ at: this.nowMs, actions, ...keyed }));
    if (!batch.ok) throw new Error(batch.reason);
    this.batches.push([...actions]);
    const { result, changes } = this.store.apply(this.store.index + 1, batch.value);
    if (!result.ok) return { kind: 'refused', refusal: result.refusal };
    this.onApplied(changes);
    const { index, before } = result;
    return { kind: 'applied', index, ...(before === undefined ? {} : { before }) };
  }
}

export function aRaftStatus(members: readonly RaftMember[] = [], over: Partial<RaftStatus> = {}): RaftStatus {
  return {
    role: 'leader',
    term: 1,
    leaderId: 1,
    memberId: 1,
    commitIndex: 0,
    appliedIndex: 0,
    members,
    expelled: [],
    ...over,
  };
}

/** Contexts made so far: each draws other ids. */
let contexts = 0;

/** What API methods run on, over a log in memory. `members` is the consensus group. */
export function apiContext(log: MemoryLog, members: RaftMember[] = []): NodeApiContext {
  contexts += 1;
  const turns = new Turns();
  return {
    view: log.store,
    proposer: log,
    random: seededRandom(contexts),
    nowMs: () => log.nowMs,
    raftStatus: () => aRaftStatus(members),
    removeMember: (raftId) => {
      const at = members.findIndex((member) => member.id === raftId);
      if (at >= 0) members.splice(at, 1);
      return Promise.resolve();
    },
    handOver: () => Promise.resolve(),
    leaving: new Set(),
    exclusively: (run) => turns.run(run),
  };
}

export function peerOf(nodeId: string, role: PeerIdentity['role'] = 'worker'): PeerIdentity {
  return { nodeId, role, clusterId: 'cluster', certificateExpiresAtMs: Number.MAX_SAFE_INTEGER };
}

/** A connection whose streams are made by `openStream`; calls are refused. */
export function aConnection(
  peer: PeerIdentity | null,
  openStream: RpcConnection['openStream'] = () => new FakeStream(),
): RpcConnection {
  return {
    id: 1,
    peer,
    remoteAddress: '10.1.2.3:4567',
    call: () => Promise.reject(new Error('no calls here')),
    openStream,
    notify: () => true,
    notifyNow: () => {},
    close: () => {},
    closed: new Promise(() => {}),
  };
}

export function aContext(connection: RpcConnection, signal = new AbortController().signal): RpcContext {
  return { connection, signal };
}

/** One end of a stream: keeps what was written, delivers what the test pushes, and can refuse to take more. */
export class FakeStream implements RpcStream {
  readonly written: unknown[] = [];
  /** False: writes wait. */
  accepts = true;
  readonly closed: Promise<void>;
  #close: () => void = () => {};
  #incoming: unknown[] = [];
  #ended = false;
  #failure: SwarmdError | null = null;
  #wake: () => void = () => {};
  readonly #waiting = new Set<() => void>();
  reads = 0;

  constructor() {
    this.closed = new Promise((resolve) => {
      this.#close = resolve;
    });
  }

  async write(message: unknown, signal?: AbortSignal): Promise<void> {
    while (!this.accepts) {
      if (signal?.aborted === true) throw signal.reason;
      await new Promise<void>((resolve) => {
        this.#waiting.add(resolve);
        signal?.addEventListener('abort', () => resolve(), { once: true });
      });
    }
    this.written.push(message);
  }

  /** Takes what waits, and the rest from now on. */
  drain(): void {
    this.accepts = true;
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }

  /** A message of the peer. */
  push(...messages: unknown[]): void {
    this.#incoming.push(...messages);
    this.#wake();
  }

  finish(failure: SwarmdError | null = null): void {
    this.#ended = true;
    this.#failure = failure;
    this.#wake();
    this.#close();
  }

  end(): void {}

  destroy(): void {
    this.finish();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<unknown, undefined> {
    for (;;) {
      while (this.#incoming.length > 0) {
        this.reads += 1;
        yield this.#incoming.shift();
      }
      if (this.#failure !== null) throw this.#failure;
      if (this.#ended) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

export interface LogLine {
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: LogFields;
}

/** A logger that keeps its lines. */
export function recordingLogger(lines: LogLine[]): Logger {
  const at =
    (level: LogLevel) =>
    (message: string, fields: LogFields = {}): void => {
      lines.push({ level, message, fields });
    };
  const logger: Logger = {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    child: () => logger,
  };
  return logger;
}
