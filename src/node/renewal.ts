/**
 * Renews the node's certificate before it ends, from any manager that answers.
 *
 * Data owned: the timer. Invariants: the key stays, only the certificate changes; a certificate is used only once it
 * is on disk; a renewal that fails is tried again until the certificate has ended, and every failure is logged.
 */
import { type Clock, sleep, type Timer } from '../base/clock.ts';
import { errorMessage, SwarmdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import { parseNodeCertificate, renewalTimeMs, verifyNodeCertificate } from '../pki/node-certificate.ts';
import { createSigningRequest } from '../pki/signing-request.ts';
import type { RpcConnection } from '../rpc/types.ts';
import type { Credentials } from './identity.ts';

export interface RenewalDependencies {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  current(): Credentials;
  /** Writes the new certificate and puts it to use. */
  replace(credentials: Credentials): Promise<void>;
  /** host:port of managers to ask, in turn. */
  managers(): readonly string[];
  connect(address: string, signal: AbortSignal): Promise<RpcConnection>;
}

/** Longest wait between looks at the clock, so that a jump of it is noticed, milliseconds. */
const LOOK_MS = 6 * 3_600_000;
/** Wait after a renewal that failed, milliseconds. */
const RETRY_MS = 60_000;
/** Time to get a certificate for a new role, and the wait between tries, milliseconds. */
const RENEW_AS_MS = 10_000;
const RENEW_AS_RETRY_MS = 200;
/** Time for one manager to answer, milliseconds. */
const ANSWER_MS = 10_000;

/** Keeps one node's certificate fresh until stopped. */
export class CertificateRenewal {
  readonly #dependencies: RenewalDependencies;
  readonly #abort = new AbortController();
  #timer: Timer | null = null;
  #running: Promise<void> = Promise.resolve();
  /** When to renew, wall-clock milliseconds; drawn once for each certificate. */
  #dueMs = Number.POSITIVE_INFINITY;

  constructor(dependencies: RenewalDependencies) {
    this.#dependencies = dependencies;
  }

  start(): void {
    const certificate = parseNodeCertificate(this.#dependencies.current().certificatePem);
    if (!certificate.ok)
      throw new SwarmdError('CORRUPT', 'the node certificate on disk cannot be read; join again');
    this.#dueMs = renewalTimeMs(certificate.value, this.#dependencies.random);
    this.#arm(0);
  }

  async stop(): Promise<void> {
    this.#abort.abort(new SwarmdError('CANCELLED', 'the node is stopping'));
    this.#timer?.cancel();
    await this.#running;
  }

  #arm(atLeastMs: number): void {
    if (this.#abort.signal.aborted) return;
    const { clock } = this.#dependencies;
    const waitMs = Math.max(atLeastMs, Math.min(LOOK_MS, this.#dueMs - clock.nowMs()));
    this.#timer = clock.setTimer(waitMs, () => {
      this.#running = this.#look();
    });
  }

  async #look(): Promise<void> {
    const { clock, log } = this.#dependencies;
    if (clock.nowMs() < this.#dueMs) {
      this.#arm(0);
      return;
    }
    try {
      await this.#renew();
      log.info('node certificate renewed');
      this.start();
    } catch (error) {
      if (this.#abort.signal.aborted) return;
      log.warn('node certificate not renewed', { error: errorMessage(error) });
      this.#arm(RETRY_MS);
    }
  }

  /**
   * Renews at once, until the certificate says `role`: managers may hear of a change of role a moment later than the
   * node. Rejects with the last failure after ten seconds.
   */
  async renewAs(role: 'manager' | 'worker'): Promise<void> {
    const { clock } = this.#dependencies;
    const until = clock.monotonicMs() + RENEW_AS_MS;
    for (;;) {
      let failure: unknown;
      try {
        await this.#renew(role);
        this.#timer?.cancel();
        this.start();
        return;
      } catch (error) {
        failure = error;
      }
      if (this.#abort.signal.aborted || clock.monotonicMs() > until) throw failure;
      await sleep(clock, RENEW_AS_RETRY_MS, this.#abort.signal);
    }
  }

  async #renew(role?: 'manager' | 'worker'): Promise<void> {
    const { managers, connect, current, replace, clock } = this.#dependencies;
    const credentials = current();
    const csrPem = await createSigningRequest(credentials.keyPem);
    let failure: unknown = new SwarmdError('UNAVAILABLE', 'no manager is known');
    for (const address of managers()) {
      const signal = AbortSignal.any([this.#abort.signal, AbortSignal.timeout(ANSWER_MS)]);
      try {
        const connection = await connect(address, signal);
        try {
          const certificatePem = String(await connection.call('node.renew', { csrPem }, { signal }));
          const renewed = verifyNodeCertificate(certificatePem, credentials.rootPem, clock.nowMs());
          if (!renewed.ok)
            throw new SwarmdError('CORRUPT', `${address} answered with an unusable certificate`);
          if (role !== undefined && renewed.value.role !== role) {
            throw new SwarmdError('UNAVAILABLE', `${address} does not know yet that this node is a ${role}`);
          }
          await replace({ ...credentials, certificatePem });
          return;
        } finally {
          connection.close('renewed');
        }
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }
}
