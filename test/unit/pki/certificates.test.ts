import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { before, describe, it } from 'node:test';
import fc from 'fast-check';
import { seededRandom } from '../../../src/base/random.ts';
import {
  backdateMs,
  type CertificateAuthority,
  createCertificateAuthority,
  issueNodeCertificate,
  nodeCertificateLifeMs,
} from '../../../src/pki/certificate-authority.ts';
import { generatePrivateKey, importKeyPair } from '../../../src/pki/key-pair.ts';
import {
  describeCertificateRefusal,
  parseNodeCertificate,
  renewalTimeMs,
  verifyNodeCertificate,
} from '../../../src/pki/node-certificate.ts';
import { createSigningRequest } from '../../../src/pki/signing-request.ts';

const nowMs = Date.UTC(2026, 5, 1);
const dayMs = 86_400_000;

async function issue(
  authority: CertificateAuthority,
  options: { nodeId?: string; role?: 'manager' | 'worker'; clusterId?: string; atMs?: number } = {},
): Promise<string> {
  const issued = await issueNodeCertificate(authority, {
    csrPem: await createSigningRequest(await generatePrivateKey()),
    nodeId: options.nodeId ?? 'node1',
    role: options.role ?? 'manager',
    clusterId: options.clusterId ?? 'cluster1',
    nowMs: options.atMs ?? nowMs,
  });
  assert.ok(issued.ok);
  return issued.value;
}

function refusalKind(certificate: string, root: string, atMs: number): string {
  const verified = verifyNodeCertificate(certificate, root, atMs);
  assert.ok(!verified.ok);
  assert.ok(describeCertificateRefusal(verified.reason).length > 20);
  return verified.reason.kind;
}

describe('certificates', () => {
  let authority: CertificateAuthority;
  let foreign: CertificateAuthority;
  before(async () => {
    authority = await createCertificateAuthority({ clusterId: 'cluster1', nowMs });
    foreign = await createCertificateAuthority({ clusterId: 'cluster1', nowMs });
  });

  it('makes a root of P-256 for 20 years that is a certificate authority', () => {
    const root = new X509Certificate(authority.certificatePem);
    assert.equal(root.ca, true);
    assert.equal(root.publicKey.asymmetricKeyDetails?.namedCurve, 'prime256v1');
    assert.ok(root.verify(root.publicKey));
    const years = (root.validToDate.getTime() - nowMs) / (365 * dayMs);
    assert.equal(Math.round(years), 20);
    assert.equal(root.validFromDate.getTime(), nowMs - backdateMs);
  });

  it('issues a certificate whose verified identity is what was asked for', async () => {
    for (const role of ['manager', 'worker'] as const) {
      const pem = await issue(authority, { role, nodeId: 'a1b2c3' });
      const verified = verifyNodeCertificate(pem, authority.certificatePem, nowMs);
      assert.ok(verified.ok);
      assert.deepEqual(verified.value, {
        nodeId: 'a1b2c3',
        role,
        clusterId: 'cluster1',
        certificateExpiresAtMs: nowMs + nodeCertificateLifeMs,
      });
      const certificate = new X509Certificate(pem);
      assert.match(certificate.subject, new RegExp(`OU=swarm-${role}`));
      assert.equal(certificate.subjectAltName, 'DNS:a1b2c3');
      assert.equal(certificate.ca, false);
    }
  });

  it('is valid from an hour before it was issued until 90 days after', async () => {
    const pem = await issue(authority);
    const life = parseNodeCertificate(pem);
    assert.ok(life.ok);
    assert.equal(life.value.notBeforeMs, nowMs - 3_600_000);
    assert.equal(life.value.notAfterMs, nowMs + 90 * dayMs);
    assert.ok(verifyNodeCertificate(pem, authority.certificatePem, nowMs - 3_600_000).ok);
    assert.ok(verifyNodeCertificate(pem, authority.certificatePem, nowMs + 90 * dayMs).ok);
    assert.equal(refusalKind(pem, authority.certificatePem, nowMs - 3_600_001), 'not-yet-valid');
    assert.equal(refusalKind(pem, authority.certificatePem, nowMs + 90 * dayMs + 1), 'expired');
  });

  it('never outlives its root', async () => {
    const rootEndMs = new X509Certificate(authority.certificatePem).validToDate.getTime();
    const life = parseNodeCertificate(await issue(authority, { atMs: rootEndMs - dayMs }));
    assert.ok(life.ok);
    assert.equal(life.value.notAfterMs, rootEndMs);
  });

  it('refuses a certificate of another root, even one with the same names', async () => {
    assert.equal(refusalKind(await issue(foreign), authority.certificatePem, nowMs), 'foreign-root');
  });

  it('refuses a certificate of this root that names another cluster', async () => {
    const pem = await issue(authority, { clusterId: 'cluster2' });
    assert.equal(refusalKind(pem, authority.certificatePem, nowMs), 'other-cluster');
  });

  it('refuses a root as a node certificate, and what is no certificate', () => {
    assert.equal(refusalKind(authority.certificatePem, authority.certificatePem, nowMs), 'foreign-root');
    assert.equal(refusalKind('nonsense', authority.certificatePem, nowMs), 'unreadable');
    const parsed = parseNodeCertificate(authority.certificatePem);
    assert.ok(!parsed.ok && parsed.reason.kind === 'not-a-node-certificate');
  });

  it('refuses a tampered request, one for another kind of key, a long one and garbage', async () => {
    const csrPem = await createSigningRequest(await generatePrivateKey());
    const der = Buffer.from(csrPem.replaceAll(/-----[^-]+-----|\s/g, ''), 'base64');
    der[der.length - 1] = (der.at(-1) ?? 0) ^ 1;
    const tampered = `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`;
    for (const bad of [tampered, '', 'nonsense', authority.certificatePem, 'A'.repeat(9000)]) {
      const request = { csrPem: bad, nodeId: 'n', role: 'worker', clusterId: 'cluster1', nowMs } as const;
      const issued = await issueNodeCertificate(authority, request);
      assert.ok(!issued.ok);
      assert.match(issued.reason, /certificate request/);
    }
  });

  it('asserts that ids fit a certificate', async () => {
    await assert.rejects(issue(authority, { nodeId: 'a,CN=admin' }), /node id in a certificate/);
    await assert.rejects(createCertificateAuthority({ clusterId: '', nowMs }), /cluster id in a certificate/);
  });

  it('refuses a private key that is none', async () => {
    await assert.rejects(importKeyPair('nonsense'), { code: 'INVALID_ARGUMENT' });
  });

  it('renews at a moment between 50 and 80 % of the life', () => {
    const life = { notBeforeMs: 1000, notAfterMs: 11_000 };
    fc.assert(
      fc.property(fc.integer(), (seed) => {
        const atMs = renewalTimeMs(life, seededRandom(seed));
        assert.ok(atMs >= 6000 && atMs <= 9000);
      }),
    );
    const random = seededRandom(1);
    const moments = Array.from({ length: 200 }, () => renewalTimeMs(life, random));
    assert.ok(
      Math.min(...moments) < 6300 && Math.max(...moments) > 8700,
      'the moments spread over the range',
    );
  });
});
