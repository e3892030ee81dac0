/**
 * The worker's link to the leader: finds it among the known managers, holds a session, beats, and reports.
 *
 * Data owned: the current connection and session, the list of managers in the order they are tried.
 * Invariants: at most one session at a time; whatever ends a session leads to another attempt after a jittered,
 * growing wait, until `stop`; reports are sent only within a session and leave the outbox only when acknowledged.
 */
import { type Clock, sleep, type Timer } from '../base/clock.ts';
import { errorMessage, SwarmdError, toSwarmdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { type Random, randomBelow } from '../base/random.ts';
import type { NodeDescription } from '../model/objects.ts';
import type { SessionMessage, SessionRequest, StatusReport } from '../model/wire.ts';
import type { RpcConnection, RpcHandlers, RpcStream } from '../rpc/types.ts';
import { parseSessionMessage } from './session-message.ts';

export interface ManagerLinkDependencies {
  connect(address: string, handlers: RpcHandlers, signal: AbortSignal): Promise<RpcConnection>;
  readonly handlers: RpcHandlers;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Address the node is reached at; empty: as the manager sees it. */
  readonly nodeAddress: string;
  /** host:port of the node's own RPC server. */
  readonly rpcAddress: string;
  description(): NodeDescription;
  /** Takes a message of the session; throws when the session must end because of it. */
  onMessage(message: SessionMessage): void;
  /** The next statuses to report; empty: nothing to say. */
  nextReport(): StatusReport['updates'];
  onAcknowledged(updates: StatusReport['updates']): void;
}

/** Wait before the next attempt after a failed one: doubles from the base to the cap, half of it random. */
export const RECONNECT_BASE_MS = 100;
export const RECONNECT_CAP_MS = 3_000;
export const CONNECT_TIMEOUT_MS = 3_000;
/** Time for the first message of a session. */
export const WELCOME_TIMEOUT_MS = 5_000;
/** Statuses gather this long before they are reported. */
export const REPORT_DELAY_MS = 100;
/** Wait after a report that was not taken. */
export const REPORT_RETRY_MS = 500;
export const REPORT_TIMEOUT_MS = 10_000;
/** A manager that sends on to another is followed at most this often in a row. */
const REDIRECTS_MAX = 3;
/** Failures in a row that are part of a normal change of leader, and not worth a warning. */
const FAILURES_UNTOLD = 4;

/** Keeps a session with the leader for as long as it runs. */
export class ManagerLink {
  readonly #dependencies: ManagerLinkDependencies;
  readonly #abort = new AbortController();
  #addresses: readonly string[];
  #running: Promise<void> | null = null;
  #session: Session | null = null;
  #leader: string | null = null;
  #previousSession = '';
  #reopen = false;

  constructor(dependencies: ManagerLinkDependencies, addresses: readonly string[]) {
    this.#dependencies = dependencies;
    this.#addresses = addresses;
  }

  start(): void {
    this.#running ??= this.#run(this.#abort.signal);
  }

  async stop(): Promise<void> {
    this.#abort.abort(new SwarmdError('CANCELLED', 'the worker is stopping'));
    await this.#running;
  }

  /** Whether a session is open now. */
  get connected(): boolean {
    return this.#session?.id !== undefined;
  }

  /** Where to look for a manager from now on, in this order. */
  setAddresses(addresses: readonly string[]): void {
    if (addresses.length > 0) this.#addresses = addresses;
  }

  /** Tells the manager at once that the node's description changed: a new session on the same connection. */
  descriptionChanged(): void {
    if (this.#session === null) return;
    this.#reopen = true;
    this.#session.stream.destroy();
  }

  /** There is something to report. */
  reportSoon(): void {
    this.#session?.reportIn(REPORT_DELAY_MS);
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock, random, log } = this.#dependencies;
    let turn = 0;
    let failures = 0;
    let redirects = 0;
    let redirect: string | null = null;
    /** Managers whose failure was told in this outage. */
    const told = new Set<string>();
    while (!signal.aborted) {
      const address: string | undefined =
        redirect ?? this.#leader ?? this.#addresses[turn % Math.max(1, this.#addresses.length)];
      redirect = null;
      try {
        if (address === undefined) throw new SwarmdError('NO_LEADER', 'no manager is known');
        const served = await this.#connectAndServe(address, signal);
        if (served) {
          failures = redirects = 0;
          told.clear();
        } else failures += 1;
      } catch (error) {
        if (signal.aborted) break;
        const leader = leaderOf(error);
        if (leader !== null && leader !== address && redirects < REDIRECTS_MAX) {
          redirects += 1;
          redirect = leader;
          continue;
        }
        redirects = 0;
        failures += 1;
        this.#leader = null;
        turn += 1;
        const fields = { address: address ?? '', error: errorMessage(error) };
        if (failures <= FAILURES_UNTOLD || told.has(fields.address)) {
          log.debug('no session with this manager', fields);
        } else {
          told.add(fields.address);
          log.warn('no session with this manager; the node keeps trying, its tasks go on', fields);
        }
      }
      const ceiling = Math.min(RECONNECT_CAP_MS, RECONNECT_BASE_MS * 2 ** Math.min(10, failures));
      const wait = ceiling / 2 + randomBelow(random, Math.ceil(ceiling / 2) + 1);
      await sleep(clock, wait, signal).catch(() => {});
    }
  }

  /** One connection; true when at least one session was held on it. */
  async #connectAndServe(address: string, signal: AbortSignal): Promise<boolean> {
    const { clock, connect, handlers, log } = this.#dependencies;
    const abort = new AbortController();
    const onAbort = (): void => abort.abort(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    const timer = clock.setTimer(CONNECT_TIMEOUT_MS, () =>
      abort.abort(
        new SwarmdError('TIMEOUT', `manager ${address} did not answer in ${CONNECT_TIMEOUT_MS} ms`),
      ),
    );
    let connection: RpcConnection | null = null;
    let served = false;
    try {
      connection = await connect(address, handlers, abort.signal);
      timer.cancel();
      do {
        this.#reopen = false;
        served = (await this.#serve(connection, address, abort.signal)) || served;
      } while (this.#reopen && !signal.aborted);
      return served;
    } catch (error) {
      if (!served) throw error;
      if (!signal.aborted) log.warn('session with the leader ended', { address, error: errorMessage(error) });
      return true;
    } finally {
      timer.cancel();
      signal.removeEventListener('abort', onAbort);
      connection?.close('the session is over');
    }
  }

  async #serve(connection: RpcConnection, address: string, signal: AbortSignal): Promise<boolean> {
    const { nodeAddress, rpcAddress, description, log } = this.#dependencies;
    const request: SessionRequest = {
      description: description(),
      address: nodeAddress,
      rpcAddress,
      previousSession: this.#previousSession,
    };
    const stream = connection.openStream('dispatcher.session', request, { signal });
    const session = new Session(connection, stream, this.#dependencies, signal);
    this.#session = session;
    try {
      for await (const value of stream) {
        const message = parseSessionMessage(value);
        if (!message.ok)
          throw new SwarmdError('CORRUPT', `manager ${address} sent nonsense: ${message.reason}`);
        if (message.value.kind === 'welcome') {
          session.welcome(message.value.sessionId, message.value.heartbeatMs);
          this.#previousSession = message.value.sessionId;
          this.#leader = address;
          log.info('session with the leader opened', { address });
        }
        this.#dependencies.onMessage(message.value);
      }
      if (session.failure !== null) throw session.failure;
      return session.id !== undefined;
    } catch (error) {
      if (this.#reopen) return session.id !== undefined;
      // Ending the stream from this side makes it say so; why it was ended is what counts.
      const reason = session.failure ?? error;
      if (session.id === undefined) throw reason;
      if (!signal.aborted) {
        log.warn('session with the leader ended', { address, error: errorMessage(reason) });
      }
      return true;
    } finally {
      session.close();
      stream.destroy();
      this.#session = null;
    }
  }
}

/** The leader's address as told by a manager that is not the leader. */
function leaderOf(error: unknown): string | null {
  if (!(error instanceof SwarmdError) || error.code !== 'FAILED_PRECONDITION') return null;
  const leader = error.details['leaderAddress'];
  return typeof leader === 'string' && leader !== '' ? leader : null;
}

/** Heartbeats and reports of one open session. */
class Session {
  readonly stream: RpcStream;
  id: string | undefined;
  readonly #connection: RpcConnection;
  readonly #dependencies: ManagerLinkDependencies;
  readonly #signal: AbortSignal;
  #beat: Timer | null = null;
  #report: Timer | null = null;
  #watchdog: Timer | null;
  #reporting = false;
  #closed = false;
  /** Why the session was ended from this side, if it was. */
  failure: Error | null = null;

  constructor(
    connection: RpcConnection,
    stream: RpcStream,
    dependencies: ManagerLinkDependencies,
    signal: AbortSignal,
  ) {
    this.#connection = connection;
    this.stream = stream;
    this.#dependencies = dependencies;
    this.#signal = signal;
    this.#watchdog = dependencies.clock.setTimer(WELCOME_TIMEOUT_MS, () =>
      this.#fail(new SwarmdError('TIMEOUT', 'the manager did not begin the session in time')),
    );
  }

  welcome(id: string, heartbeatMs: number): void {
    this.#watchdog?.cancel();
    this.#watchdog = null;
    this.id = id;
    this.#scheduleBeat(heartbeatMs);
    this.reportIn(0);
  }

  reportIn(delayMs: number): void {
    if (this.#closed || this.id === undefined || this.#report !== null || this.#reporting) return;
    this.#report = this.#dependencies.clock.setTimer(delayMs, () => {
      this.#report = null;
      void this.#sendReports();
    });
  }

  close(): void {
    this.#closed = true;
    this.#beat?.cancel();
    this.#report?.cancel();
    this.#watchdog?.cancel();
  }

  #fail(error: unknown): void {
    if (this.#closed) return;
    this.failure ??= toSwarmdError(error);
    this.stream.destroy();
  }

  #scheduleBeat(heartbeatMs: number): void {
    this.#beat = this.#dependencies.clock.setTimer(heartbeatMs, () => void this.#sendBeat(heartbeatMs));
  }

  async #sendBeat(heartbeatMs: number): Promise<void> {
    try {
      const options = { signal: this.#signal, timeoutMs: Math.max(1_000, 2 * heartbeatMs) };
      await this.#connection.call('dispatcher.heartbeat', { sessionId: this.id }, options);
      if (!this.#closed) this.#scheduleBeat(heartbeatMs);
    } catch (error) {
      this.#fail(error);
    }
  }

  async #sendReports(): Promise<void> {
    const { nextReport, onAcknowledged, log } = this.#dependencies;
    this.#reporting = true;
    let retry = false;
    try {
      for (let updates = nextReport(); updates.length > 0 && !this.#closed; updates = nextReport()) {
        const report = { sessionId: this.id, updates };
        const options = { signal: this.#signal, timeoutMs: REPORT_TIMEOUT_MS };
        await this.#connection.call('dispatcher.status', report, options);
        onAcknowledged(updates);
      }
    } catch (error) {
      retry = true;
      if (error instanceof SwarmdError && error.code === 'FAILED_PRECONDITION') this.#fail(error);
      else if (!this.#closed) log.debug('status report not taken yet', { error: errorMessage(error) });
    } finally {
      this.#reporting = false;
    }
    if (retry) this.reportIn(REPORT_RETRY_MS);
  }
}
