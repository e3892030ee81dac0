/**
 * Connections between simulated nodes, as the RPC layer gives them to its callers: calls, streams, closing.
 *
 * Invariants: each direction of a connection keeps its order; a connection whose peer is gone or unreachable ends,
 * at either end in its own time (half-open until then); what crosses it is encoded and decoded as on the wire.
 */
import { SwarmdError, toSwarmdError } from '../../src/base/errors.ts';
import { decodeValue, encodeValue } from '../../src/rpc/message-pack.ts';
import type {
  PeerIdentity,
  RpcCallOptions,
  RpcConnection,
  RpcContext,
  RpcHandlers,
  RpcStream,
} from '../../src/rpc/types.ts';
import type { Network } from './network.ts';
import type { Process } from './virtual-time.ts';

/** What a node shows to who connects. */
export interface Served {
  readonly identity: PeerIdentity;
  readonly handlers: RpcHandlers;
  /** Refuses peers that may not connect. */
  admits(peer: PeerIdentity): boolean;
}

/** A connection that cannot deliver for this long is closed, milliseconds (the layer's own liveness check). */
const STALL_MS = 5_000;
const RETRY_MS = 100;
/** Messages of a stream on their way before its writer waits. */
const STREAM_WINDOW = 8;

let connections = 0;
const openEnds = new WeakMap<Process, Set<End>>();

/** A process died: its peers are told by its machine, or find out by themselves. */
export function dropConnections(network: Network<Served>, process: Process): void {
  const { time, dice } = network;
  for (const { other } of openEnds.get(process) ?? []) {
    const delayMs = dice.chance(800) ? dice.below(50) : dice.below(STALL_MS);
    time.after(delayMs, other.process, `connection lost ${other.host}`, () => other.lose());
  }
  openEnds.delete(process);
}

function copied(value: unknown): unknown {
  const decoded = decodeValue(encodeValue(value));
  if (!decoded.ok) throw new Error(`a message does not survive its encoding: ${decoded.reason}`);
  return decoded.value;
}

/** One end of a connection. */
class End implements RpcConnection {
  readonly id = ++connections;
  readonly host: string;
  readonly process: Process;
  readonly peer: PeerIdentity;
  readonly remoteAddress: string;
  readonly closed: Promise<string>;
  other!: End;
  isOpen = true;
  readonly #network: Network<Served>;
  readonly #handlers: RpcHandlers;
  readonly #onClose = new Set<(error: SwarmdError) => void>();
  #resolveClosed: (reason: string) => void = () => {};
  readonly #queue: { label: string; atMs: number; sinceMs: number; deliver: () => void }[] = [];

  constructor(
    network: Network<Served>,
    own: { host: string; process: Process; handlers: RpcHandlers },
    peer: { identity: PeerIdentity; address: string },
  ) {
    this.#network = network;
    this.host = own.host;
    this.process = own.process;
    this.#handlers = own.handlers;
    this.peer = peer.identity;
    this.remoteAddress = peer.address;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    const ends = openEnds.get(own.process) ?? new Set();
    openEnds.set(own.process, ends.add(this));
  }

  /** Carries something to the other end, in order. */
  carry(label: string, deliver: () => void): void {
    if (!this.isOpen || !this.process.alive) return;
    const { faults, dice } = this.#network;
    if (faults.reset > 0 && dice.chance(faults.reset)) {
      this.breakDown();
      return;
    }
    this.#enqueue(`${label} ${this.host}>${this.other.host}`, deliver);
  }

  #enqueue(label: string, deliver: () => void): void {
    const { time } = this.#network;
    const atMs = time.nowMs + this.#network.delayMs(this.host, this.other.host);
    this.#queue.push({ label, atMs, sinceMs: time.nowMs, deliver });
    if (this.#queue.length === 1) this.#pumpAt(atMs);
  }

  #pumpAt(atMs: number): void {
    const { time } = this.#network;
    time.after(atMs - time.nowMs, null, this.#queue[0]?.label ?? 'connection', () => this.#pump());
  }

  /** Delivers the head of the queue, or finds out why it cannot be delivered. */
  #pump(): void {
    const { time } = this.#network;
    const { other } = this;
    const head = this.#queue[0];
    if (head === undefined) return;
    if (!other.process.alive || !other.isOpen || !this.process.alive) {
      this.#queue.length = 0;
      this.close('the peer is gone');
      return;
    }
    if (!this.#network.passes(this.host, other.host)) {
      if (time.nowMs - head.sinceMs > STALL_MS) {
        this.#queue.length = 0;
        this.breakDown();
      } else this.#pumpAt(time.nowMs + RETRY_MS);
      return;
    }
    if (other.process.pausedUntilMs > time.nowMs) {
      this.#pumpAt(other.process.pausedUntilMs + 0.001);
      return;
    }
    this.#queue.shift();
    const next = this.#queue[0];
    if (next !== undefined) this.#pumpAt(Math.max(next.atMs, time.nowMs));
    head.deliver();
  }

  /** The path is broken: each end finds out in its own time. */
  breakDown(): void {
    const { time, dice } = this.#network;
    for (const end of [this, this.other]) {
      time.after(dice.below(STALL_MS), end.process, `connection lost ${end.host}`, () => end.lose());
    }
  }

  /** This end notices that the connection is no more. */
  lose(): void {
    this.#queue.length = 0;
    this.#end('the connection was lost');
  }

  call(method: string, params: unknown, options: RpcCallOptions): Promise<unknown> {
    const sent = copied(params);
    const { time } = this.#network;
    return new Promise((resolve, reject) => {
      const remote = new AbortController();
      const finish = (settle: () => void): void => {
        timer?.cancel();
        options.signal.removeEventListener('abort', onAbort);
        this.#onClose.delete(fail);
        settle();
      };
      const fail = (error: SwarmdError): void => finish(() => reject(error));
      const giveUp = (error: SwarmdError): void => {
        this.carry('cancel', () => remote.abort(error));
        fail(error);
      };
      const onAbort = (): void => giveUp(new SwarmdError('CANCELLED', `${method} was cancelled`));
      const timer =
        options.timeoutMs === undefined
          ? null
          : time.after(options.timeoutMs, this.process, `timeout ${method}`, () =>
              giveUp(new SwarmdError('TIMEOUT', `${method} was not answered in time`)),
            );
      if (!this.isOpen || options.signal.aborted) {
        fail(new SwarmdError(this.isOpen ? 'CANCELLED' : 'UNAVAILABLE', `${method} was not sent`));
        return;
      }
      options.signal.addEventListener('abort', onAbort, { once: true });
      this.#onClose.add(fail);
      const { other } = this;
      this.carry(`call ${method}`, () => {
        other.serveCall(method, sent, remote, (answer) => {
          finish(() => ('error' in answer ? reject(answer.error) : resolve(answer.value)));
        });
      });
    });
  }

  /** Serves a call that came in; `answer` runs at the caller's end. */
  serveCall(
    method: string,
    params: unknown,
    abort: AbortController,
    answer: (outcome: { value: unknown } | { error: SwarmdError }) => void,
  ): void {
    const onClose = (error: SwarmdError): void => abort.abort(error);
    this.#onClose.add(onClose);
    const reply = (outcome: { value: unknown } | { error: SwarmdError }): void => {
      this.#onClose.delete(onClose);
      this.carry(`answer ${method}`, () => answer(outcome));
    };
    const handler = this.#handlers.calls[method];
    if (handler === undefined) {
      reply({ error: new SwarmdError('NOT_FOUND', `no method ${method}`) });
      return;
    }
    new Promise((resolve) => resolve(handler(params, this.#context(abort)))).then(
      (value) => reply({ value: copied(value) }),
      (error: unknown) => reply({ error: rebuilt(error) }),
    );
  }

  openStream(method: string, params: unknown, { signal }: { readonly signal: AbortSignal }): RpcStream {
    const { other } = this;
    const near = new StreamEnd(this);
    const far = new StreamEnd(other);
    near.other = far;
    far.other = near;
    const sent = copied(params);
    this.#onClose.add((error) => near.fail(error));
    if (!this.isOpen) near.fail(new SwarmdError('UNAVAILABLE', 'the connection is closed'));
    signal.addEventListener('abort', () => near.destroy(new SwarmdError('CANCELLED', 'the caller gave up')), {
      once: true,
    });
    this.carry(`open ${method}`, () => other.serveStream(method, sent, far));
    return near;
  }

  serveStream(method: string, params: unknown, stream: StreamEnd): void {
    const abort = new AbortController();
    this.#onClose.add((error) => {
      abort.abort(error);
      stream.fail(error);
    });
    void stream.closed.then(() => abort.abort(new SwarmdError('CANCELLED', 'the stream ended')));
    const handler = this.#handlers.streams[method];
    if (handler === undefined) {
      stream.destroy(new SwarmdError('NOT_FOUND', `no stream ${method}`));
      return;
    }
    new Promise((resolve) => resolve(handler(params, stream, this.#context(abort)))).then(
      () => stream.finish(),
      (error: unknown) => stream.destroy(rebuilt(error)),
    );
  }

  notifyNow(method: string, messages: readonly Uint8Array[]): void {
    for (const data of messages) this.notify(method, data);
  }

  notify(method: string, data: Uint8Array): boolean {
    const { other } = this;
    this.carry(`notify ${method}`, () =>
      other.#handlers.notifications[method]?.(data, other.#context(new AbortController())),
    );
    return this.isOpen;
  }

  close(reason: string): void {
    if (!this.isOpen) return;
    // What was sent before arrives before; if it cannot, the other end's own liveness check closes it.
    const { other } = this;
    if (this.process.alive) this.#enqueue('closed', () => other.lose());
    this.#end(reason);
  }

  #end(reason: string): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    openEnds.get(this.process)?.delete(this);
    const error = new SwarmdError('UNAVAILABLE', `the connection is closed: ${reason}`);
    for (const onClose of [...this.#onClose]) onClose(error);
    this.#onClose.clear();
    this.#resolveClosed(reason);
  }

  #context(abort: AbortController): RpcContext {
    return { connection: this, signal: abort.signal };
  }
}

function rebuilt(error: unknown): SwarmdError {
  const { code, message, details } = toSwarmdError(error);
  return new SwarmdError(code, message, { details: copied(details) as Record<string, unknown> });
}

/** One end of a stream. */
class StreamEnd implements RpcStream {
  other!: StreamEnd;
  readonly closed: Promise<void>;
  readonly #connection: End;
  readonly #received: unknown[] = [];
  #resolveClosed: () => void = () => {};
  #error: SwarmdError | null = null;
  #ended = false;
  #over = false;
  #underWay = 0;
  #wakeReader: () => void = () => {};
  #wakeWriters: (() => void)[] = [];

  constructor(connection: End) {
    this.#connection = connection;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  async write(message: unknown, signal?: AbortSignal): Promise<void> {
    const sent = copied(message);
    while (this.#underWay >= STREAM_WINDOW && !this.#over && signal?.aborted !== true) {
      await new Promise<void>((resolve) => {
        this.#wakeWriters.push(resolve);
        signal?.addEventListener('abort', () => resolve(), { once: true });
      });
    }
    if (signal?.aborted === true) throw new SwarmdError('CANCELLED', 'the write was cancelled');
    if (this.#over) throw this.#error ?? new SwarmdError('CANCELLED', 'the stream is over');
    this.#underWay += 1;
    const { other } = this;
    this.#connection.carry('stream', () => {
      this.#underWay -= 1;
      const waiting = this.#wakeWriters;
      this.#wakeWriters = [];
      for (const wake of waiting) wake();
      other.#received.push(sent);
      other.#wakeReader();
    });
  }

  end(): void {
    const { other } = this;
    this.#connection.carry('stream end', () => other.#end());
  }

  /** This side is done: the peer reads what was written, then the end. */
  finish(): void {
    this.end();
    this.#over = true;
    this.#resolveClosed();
  }

  destroy(error?: SwarmdError): void {
    if (this.#over) return;
    const { other } = this;
    const told = error ?? new SwarmdError('CANCELLED', 'the peer ended the stream');
    this.#connection.carry('stream destroyed', () => other.fail(told));
    this.fail(error ?? new SwarmdError('CANCELLED', 'the stream was destroyed'));
  }

  /** Ends this end with an error. */
  fail(error: SwarmdError): void {
    if (this.#over) return;
    this.#error = error;
    this.#over = true;
    this.#finishWaits();
  }

  #end(): void {
    this.#ended = true;
    this.#wakeReader();
  }

  #finishWaits(): void {
    this.#resolveClosed();
    this.#wakeReader();
    for (const wake of this.#wakeWriters) wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<unknown> {
    try {
      for (;;) {
        if (this.#error !== null) throw this.#error;
        if (this.#received.length > 0) yield this.#received.shift();
        else if (this.#ended) return;
        else await new Promise<void>((resolve) => (this.#wakeReader = resolve));
      }
    } finally {
      this.destroy();
    }
  }
}

/** Connects a process on `host` to whoever listens at `address`. Rejects with UNAVAILABLE, or when `signal` aborts. */
export function connect(
  network: Network<Served>,
  from: { host: string; address: string; process: Process; identity: PeerIdentity; handlers: RpcHandlers },
  address: string,
  signal: AbortSignal | undefined,
): Promise<RpcConnection> {
  const { time } = network;
  return new Promise((resolve, reject) => {
    const refuse = (why: string): void => reject(new SwarmdError('UNAVAILABLE', `${address}: ${why}`));
    signal?.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    const to = network.at(address)?.host ?? address;
    time.after(network.delayMs(from.host, to) * 2, from.process, `connect ${from.host}>${to}`, () => {
      if (signal?.aborted === true) return;
      const listener = network.at(address);
      const lost = !network.passes(from.host, to) || !network.passes(to, from.host);
      if (lost) time.after(3_000, from.process, 'connect timeout', () => refuse('no answer'));
      else if (listener === null) refuse('nobody listens');
      else if (!listener.served.admits(from.identity)) refuse('refused');
      else {
        const { served, host, process } = listener;
        const near = new End(network, from, { identity: served.identity, address });
        const far = new End(
          network,
          { host, process, handlers: served.handlers },
          { identity: from.identity, address: from.address },
        );
        near.other = far;
        far.other = near;
        resolve(near);
      }
    });
  });
}
