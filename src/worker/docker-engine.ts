/**
 * One engine: its address, bounded calls, its event stream, and whether it answers.
 *
 * Data owned: the connection's state and the facts the engine told about itself.
 * Invariants: every call ends within its time; while the engine does not answer `facts` is null; the event stream
 * is opened again for as long as the engine object lives.
 */
import Dockerode from 'dockerode';
import { type Clock, sleep } from '../base/clock.ts';
import { SwarmdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { NodeDescription } from '../model/objects.ts';
import { engineError, engineOutage } from './docker-errors.ts';

/** Time a plain call may take. */
export const ENGINE_CALL_MS = 15_000;
/** Making, starting and removing containers: engines are slow under load. */
export const ENGINE_SLOW_CALL_MS = 90_000;
export const ENGINE_PING_INTERVAL_MS = 3_000;
export const ENGINE_PING_TIMEOUT_MS = 5_000;
export const ENGINE_RECONNECT_MS = 500;
/** Containers that ended this long before the engine went away were ended by it, too. */
export const ENGINE_ENDING_MS = 2_000;
export const ENGINE_EVENT_BYTES_MAX = 1024 * 1024;

/** A container event, as far as the worker cares. */
export interface EngineEvent {
  readonly action: string;
  readonly labels: Readonly<Record<string, string>>;
}

export interface DockerEngineDependencies {
  readonly clock: Clock;
  readonly log: Logger;
  /** Only events of containers with these labels (`name=value` or `name`). */
  readonly labels: readonly string[];
  onEvent(event: EngineEvent): void;
  /** The event stream is open (again): what happened before may have been missed. */
  onConnected(): void;
}

/** The engine's address as dockerode takes it. `unix:///path`, `tcp://host:port` or `http://host:port`. */
export function engineAddress(host: string): Dockerode.DockerOptions {
  // What is not given here the client would take from DOCKER_HOST and its relatives in the environment.
  const closed = {
    protocol: 'http',
    host: undefined,
    port: undefined,
    ca: undefined,
    cert: undefined,
    key: undefined,
  };
  if (host.startsWith('unix://')) {
    return { ...closed, socketPath: host.slice('unix://'.length) } as Dockerode.DockerOptions;
  }
  const match = /^(?:tcp|http):\/\/(\[[^\]]+\]|[^:/]+):(\d+)\/?$/.exec(host);
  if (match === null) {
    throw new SwarmdError(
      'INVALID_ARGUMENT',
      `engine address ${host} is neither unix:///path/to.sock nor tcp://host:port`,
    );
  }
  const [, name = '', port = ''] = match;
  const address = { ...closed, host: name.replace(/^\[|\]$/g, ''), port: Number(port) };
  return address as Dockerode.DockerOptions;
}

/** A bounded connection to one engine. */
export class DockerEngine {
  readonly host: string;
  readonly docker: Dockerode;
  readonly #dependencies: DockerEngineDependencies;
  readonly #abort = new AbortController();
  #facts: Partial<NodeDescription> | null = null;
  /** Since when the engine is away, wall-clock milliseconds; null while it answers or before it ever did. */
  #awaySinceMs: number | null = null;
  #outage: { readonly fromMs: number; readonly toMs: number } | null = null;
  #running: Promise<void> | null = null;
  #firstTry: Promise<void>;
  #tried = (): void => {};

  constructor(host: string, dependencies: DockerEngineDependencies) {
    this.host = host;
    this.docker = new Dockerode(engineAddress(host));
    this.#dependencies = dependencies;
    this.#firstTry = new Promise((resolve) => (this.#tried = resolve));
  }

  /** What the engine says of itself; null while it does not answer. Waits for the first attempt, or `signal`. */
  async facts(signal: AbortSignal): Promise<Partial<NodeDescription> | null> {
    this.start();
    if (!signal.aborted) {
      await new Promise<void>((resolve) => {
        const done = (): void => {
          signal.removeEventListener('abort', done);
          resolve();
        };
        signal.addEventListener('abort', done, { once: true });
        void this.#firstTry.then(done);
      });
    }
    return this.#facts;
  }

  /** Whether the engine was away at `atMs` (wall clock), in its last outage: what ended then, it ended. */
  wasAwayAt(atMs: number): boolean {
    // It may answer a call before the stream of its events is open again.
    if (this.#awaySinceMs !== null && atMs >= this.#awaySinceMs - ENGINE_ENDING_MS) return true;
    return this.#outage !== null && atMs >= this.#outage.fromMs && atMs <= this.#outage.toMs;
  }

  /** Begins to watch the engine. */
  start(): void {
    this.#running ??= this.#run(this.#abort.signal);
  }

  async close(): Promise<void> {
    this.#abort.abort(new SwarmdError('CANCELLED', 'the runtime is closing'));
    this.#tried();
    await this.#running;
  }

  /**
   * Calls the engine: `work` gets a signal that aborts with the caller's or after `limitMs`. `what` names the try
   * and its object for the message.
   */
  async call<T>(
    what: string,
    signal: AbortSignal,
    work: (signal: AbortSignal) => Promise<T>,
    limitMs = ENGINE_CALL_MS,
  ): Promise<T> {
    signal.throwIfAborted();
    const inner = new AbortController();
    const onAbort = (): void => inner.abort(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    const timer = this.#dependencies.clock.setTimer(limitMs, () =>
      inner.abort(engineOutage(this.host, `${what}: no answer in ${limitMs} ms`)),
    );
    try {
      return await new Promise<T>((resolve, reject) => {
        inner.signal.addEventListener('abort', () => reject(inner.signal.reason as Error), { once: true });
        work(inner.signal).then(resolve, reject);
      });
    } catch (error) {
      throw engineError(error, this.host, what);
    } finally {
      timer.cancel();
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** Opens a stream answer. The stream ends when `signal` aborts. */
  async stream(
    what: string,
    signal: AbortSignal,
    request: {
      readonly method: 'GET' | 'POST';
      readonly path: string;
      readonly query: Record<string, unknown>;
    },
  ): Promise<NodeJS.ReadableStream> {
    const modem = this.docker.modem as {
      dial(options: object, callback: (error: unknown, stream: NodeJS.ReadableStream) => void): void;
    };
    return this.call(
      what,
      signal,
      () =>
        new Promise((resolve, reject) => {
          const options = {
            path: `${request.path}?`,
            method: request.method,
            isStream: true,
            abortSignal: signal,
            statusCodes: { 200: true, 404: 'not found', 500: 'server error' },
            options: { _query: request.query, _body: {} },
          };
          modem.dial(options, (error, stream) => {
            if (error !== null && error !== undefined) reject(error as Error);
            else resolve(stream);
          });
        }),
    );
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#dependencies;
    let told = false;
    while (!signal.aborted) {
      try {
        await this.#follow(signal, () => {
          if (told) log.info('engine answers again', { engine: this.host });
          told = false;
        });
      } catch (error) {
        if (!signal.aborted && !told) {
          log.warn('engine does not answer', { engine: this.host, error: (error as Error).message });
        }
        told = true;
      }
      if (this.#facts !== null) this.#awaySinceMs = clock.nowMs();
      this.#facts = null;
      this.#tried();
      await sleep(clock, ENGINE_RECONNECT_MS, signal).catch(() => {});
    }
  }

  /** Learns the facts and follows the events until the stream breaks or pings go unanswered. */
  async #follow(signal: AbortSignal, connected: () => void): Promise<void> {
    const filters = JSON.stringify({ type: ['container'], label: [...this.#dependencies.labels] });
    const inner = new AbortController();
    const onAbort = (): void => inner.abort(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      const info = await this.call('info', inner.signal, (s) => this.#plain('info', s));
      const stream = await this.stream('events', inner.signal, {
        method: 'GET',
        path: '/events',
        query: { filters },
      });
      this.#facts = engineFacts(info as Readonly<Record<string, unknown>>);
      this.#tried();
      if (this.#awaySinceMs !== null) {
        const toMs = this.#dependencies.clock.nowMs();
        this.#outage = { fromMs: this.#awaySinceMs - ENGINE_ENDING_MS, toMs };
        this.#awaySinceMs = null;
      }
      connected();
      this.#dependencies.onConnected();
      const pings = this.#ping(inner);
      try {
        await this.#read(stream);
      } finally {
        inner.abort(engineOutage(this.host, 'the event stream ended'));
        await pings;
      }
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** The typings of these two know no options, which is where the signal goes. */
  #plain(method: 'info' | 'ping', abortSignal: AbortSignal): Promise<unknown> {
    const docker = this.docker as unknown as Record<typeof method, (options: object) => Promise<unknown>>;
    return docker[method]({ abortSignal });
  }

  async #read(stream: NodeJS.ReadableStream): Promise<void> {
    let pending = '';
    for await (const chunk of stream) {
      pending += String(chunk);
      const lines = pending.split('\n');
      pending = lines.pop() ?? '';
      if (pending.length > ENGINE_EVENT_BYTES_MAX) {
        throw new SwarmdError('RUNTIME', `the engine at ${this.host} sent an event without an end`);
      }
      for (const line of lines) {
        const event = parseEvent(line);
        if (event !== null) this.#dependencies.onEvent(event);
      }
    }
  }

  /** A hung engine keeps its connections open: only asking tells. */
  async #ping(inner: AbortController): Promise<void> {
    const { clock } = this.#dependencies;
    while (!inner.signal.aborted) {
      await sleep(clock, ENGINE_PING_INTERVAL_MS, inner.signal).catch(() => {});
      if (inner.signal.aborted) return;
      try {
        await this.call('ping', inner.signal, (s) => this.#plain('ping', s), ENGINE_PING_TIMEOUT_MS);
      } catch (error) {
        inner.abort(error);
      }
    }
  }
}

/** One line of the event stream; null for what is no container event. */
export function parseEvent(line: string): EngineEvent | null {
  if (line.trim() === '') return null;
  try {
    const value = JSON.parse(line) as { Action?: unknown; Actor?: { Attributes?: Record<string, string> } };
    const labels = value.Actor?.Attributes;
    return typeof value.Action === 'string' && labels !== undefined ? { action: value.Action, labels } : null;
  } catch {
    return null;
  }
}

/** The parts of `docker info` a node's description shows. */
export function engineFacts(info: Readonly<Record<string, unknown>>): Partial<NodeDescription> {
  const labels: Record<string, string> = {};
  for (const label of (info['Labels'] as string[] | null) ?? []) {
    const equals = label.indexOf('=');
    labels[equals < 0 ? label : label.slice(0, equals)] = equals < 0 ? '' : label.slice(equals + 1);
  }
  const plugins = Object.entries(
    (info['Plugins'] as Record<string, string[] | null> | undefined) ?? {},
  ).flatMap(([type, names]) => (names ?? []).map((name) => ({ type, name })));
  return {
    platform: { os: textOf(info['OSType']), architecture: textOf(info['Architecture']) },
    resources: {
      nanoCpus: Number(info['NCPU'] ?? 0) * 1e9,
      memoryBytes: Number(info['MemTotal'] ?? 0),
      generic: genericResources(info['GenericResources']),
    },
    runtimes: ['docker'],
    engineVersion: textOf(info['ServerVersion']),
    engineLabels: labels,
    plugins,
  };
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function genericResources(value: unknown): Record<string, number> {
  const counts: Record<string, number> = {};
  if (!Array.isArray(value)) return counts;
  for (const item of value as {
    DiscreteResourceSpec?: { Kind: string; Value: number };
    NamedResourceSpec?: { Kind: string };
  }[]) {
    if (item.DiscreteResourceSpec !== undefined) {
      counts[item.DiscreteResourceSpec.Kind] = item.DiscreteResourceSpec.Value;
    } else if (item.NamedResourceSpec !== undefined) {
      const { Kind } = item.NamedResourceSpec;
      counts[Kind] = (counts[Kind] ?? 0) + 1;
    }
  }
  return counts;
}
