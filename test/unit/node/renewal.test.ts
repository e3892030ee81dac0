import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { ManualClock } from '../../../src/base/clock.ts';
import { SwarmdError } from '../../../src/base/errors.ts';
import { seededRandom } from '../../../src/base/random.ts';
import { renewCertificate } from '../../../src/manager/joining.ts';
import type { Credentials } from '../../../src/node/identity.ts';
import { CertificateRenewal } from '../../../src/node/renewal.ts';
import {
  type CertificateAuthority,
  createCertificateAuthority,
  issueNodeCertificate,
  nodeCertificateLifeMs,
} from '../../../src/pki/certificate-authority.ts';
import { generatePrivateKey } from '../../../src/pki/key-pair.ts';
import { createSigningRequest } from '../../../src/pki/signing-request.ts';
import type { RpcConnection } from '../../../src/rpc/types.ts';
import { aCluster, aNode } from '../../support/builders.ts';
import {
  aConnection,
  type LogLine,
  MemoryLog,
  peerOf,
  recordingLogger,
} from '../../support/manager-fixtures.ts';
import { waitFor } from '../../support/wait.ts';

const START_MS = Date.UTC(2030, 0, 1);
const quick = { timeoutMs: 5_000, everyMs: 2 };

let authority: CertificateAuthority;
let credentials: Credentials;
beforeEach(async () => {
  authority = await createCertificateAuthority({ clusterId: 'cluster', nowMs: START_MS });
  const keyPem = await generatePrivateKey();
  const csrPem = await createSigningRequest(keyPem);
  const subject = { csrPem, nodeId: 'n1', role: 'worker', clusterId: 'cluster', nowMs: START_MS } as const;
  const issued = await issueNodeCertificate(authority, subject);
  assert.ok(issued.ok);
  credentials = { rootPem: authority.certificatePem, certificatePem: issued.value, keyPem };
});

function setUp(call: RpcConnection['call'] | null = null) {
  const clock = new ManualClock(START_MS);
  const log = new MemoryLog();
  const cluster = aCluster();
  log.apply([
    {
      kind: 'create',
      table: 'cluster',
      object: {
        ...cluster,
        rootCertificatePem: authority.certificatePem,
        rootKeyPem: authority.privateKeyPem,
      },
    },
    { kind: 'create', table: 'node', object: aNode('n1') },
  ]);
  const lines: LogLine[] = [];
  const events: string[] = [];
  let current = credentials;
  let reads = 0;
  const context = { view: log.store, nowMs: () => clock.nowMs() };
  const renewal = new CertificateRenewal({
    clock,
    random: seededRandom(1),
    log: recordingLogger(lines),
    current: () => {
      reads += 1;
      return current;
    },
    replace: async (next) => {
      events.push('written');
      await Promise.resolve();
      current = next;
    },
    managers: () => ['m1:1', 'm2:2'],
    connect: (address) => {
      events.push(address);
      if (address === 'm1:1') return Promise.reject(new SwarmdError('UNAVAILABLE', 'm1 is down'));
      const answer: RpcConnection['call'] = (_method, params) =>
        renewCertificate(context, 'n1', (params as { csrPem: unknown }).csrPem);
      return Promise.resolve({ ...aConnection(peerOf('m2', 'manager')), call: call ?? answer });
    },
  });
  /** Times the credentials were looked at: when it starts, when an attempt begins, and after one that succeeded. */
  const looks = () => reads;
  return { clock, renewal, lines, events, current: () => current, log, looks };
}

/** Moves time in steps of hours until the next attempt begins, or the certificate's life is over. */
async function untilDue({ clock, looks }: { clock: ManualClock; looks: () => number }): Promise<number> {
  const startMs = clock.nowMs();
  const before = looks();
  while (looks() === before && clock.nowMs() - startMs < nodeCertificateLifeMs) {
    clock.advance(3 * 3_600_000);
    await new Promise((resolve) => setImmediate(resolve));
  }
  return clock.nowMs() - startMs;
}

describe('certificate renewal', () => {
  it('renews between half and four fifths of the life, from the next manager when one is down', async () => {
    const it = setUp();
    it.renewal.start();
    const dueMs = await untilDue(it);
    assert.ok(dueMs >= nodeCertificateLifeMs * 0.49 && dueMs <= nodeCertificateLifeMs * 0.81, `${dueMs}`);
    await waitFor(
      'the renewal',
      () => it.lines.some((line) => line.message === 'node certificate renewed'),
      quick,
    );
    assert.deepEqual(it.events, ['m1:1', 'm2:2', 'written']);
    assert.notEqual(it.current().certificatePem, credentials.certificatePem);
    assert.equal(it.current().keyPem, credentials.keyPem, 'the key stays');
    it.events.length = 0;
    const againMs = await untilDue(it);
    assert.ok(againMs >= nodeCertificateLifeMs * 0.45, 'the next one is due in its own time');
    await it.renewal.stop();
  });

  it('tries again a minute after a failure, and is never used unless it can be', async () => {
    let answers = 0;
    const it = setUp(() => {
      answers += 1;
      return Promise.resolve('no certificate');
    });
    it.renewal.start();
    await untilDue(it);
    const warned = () => it.lines.filter((line) => line.level === 'warn').length;
    await waitFor('the warning', () => warned() === 1, quick);
    assert.match(String(it.lines[0]?.fields['error']), /m2:2 answered with an unusable certificate/);
    assert.equal(it.current(), credentials);
    assert.ok(!it.events.includes('written'));
    it.clock.advance(59_000);
    assert.equal(answers, 1);
    it.clock.advance(1_000);
    await waitFor('the second warning', () => warned() === 2, quick);
    assert.equal(answers, 2);
    await it.renewal.stop();
  });

  it('is refused by a manager for a node that was removed', async () => {
    const it = setUp();
    it.log.apply([{ kind: 'delete', table: 'node', id: 'n1', expect: null }]);
    it.renewal.start();
    await untilDue(it);
    await waitFor('the warning', () => it.lines.some((line) => line.level === 'warn'), quick);
    assert.match(String(it.lines[0]?.fields['error']), /is not part of the cluster any more/);
    await it.renewal.stop();
  });

  it('stops in the middle of an attempt, and leaves no timer', async () => {
    const it = setUp((_method, _params, { signal }) => {
      return new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
      });
    });
    it.renewal.start();
    await untilDue(it);
    await waitFor('the attempt', () => it.events.includes('m2:2'), quick);
    await it.renewal.stop();
    const events = it.events.length;
    it.clock.advance(nodeCertificateLifeMs);
    assert.equal(it.events.length, events);
    assert.ok(!it.events.includes('written'));
  });
});
