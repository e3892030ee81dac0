/**
 * The cluster's certificate authority: its root, and the node certificates the root signs.
 *
 * Everything is PEM text, so that it fits the replicated state. Time is an argument. Certificates start an
 * hour in the past, so that a node whose clock is a little behind can use them at once.
 */
import { randomBytes } from 'node:crypto';
import { assert } from '../base/assert.ts';
import { SwarmdError } from '../base/errors.ts';
import { ok, type Result } from '../base/result.ts';
import { generatePrivateKey, importKeyPair, signatureAlgorithm } from './key-pair.ts';
import { certificateNamePattern, type NodeRole, organizationalUnitOf } from './node-certificate.ts';
import { readSigningRequest } from './signing-request.ts';
import { loadX509, type X509 } from './x509-library.ts';

type Certificate = InstanceType<X509['X509Certificate']>;

const dayMs = 86_400_000;
/** Life of a root certificate, milliseconds: 20 years. */
export const rootLifeMs = 20 * 365 * dayMs;
/** Life of a node certificate, milliseconds: 90 days. */
export const nodeCertificateLifeMs = 90 * dayMs;
/** How far in the past a certificate begins, milliseconds: 1 hour. */
export const backdateMs = 3_600_000;

/** A root and the key that signs with it. `privateKeyPem` is a secret. */
export interface CertificateAuthority {
  readonly certificatePem: string;
  readonly privateKeyPem: string;
}

/** What to issue a node certificate for. */
export interface NodeCertificateRequest {
  readonly csrPem: string;
  readonly nodeId: string;
  readonly role: NodeRole;
  readonly clusterId: string;
  readonly nowMs: number;
}

/** Makes the root of a new cluster: a self-signed ECDSA P-256 certificate for 20 years. */
export async function createCertificateAuthority(options: {
  readonly clusterId: string;
  readonly nowMs: number;
}): Promise<CertificateAuthority> {
  assertName('cluster', options.clusterId);
  const x509 = await loadX509();
  const privateKeyPem = await generatePrivateKey();
  const keys = await importKeyPair(privateKeyPem);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: createSerialNumber(),
    name: [{ CN: ['swarm-ca'] }, { O: [options.clusterId] }],
    notBefore: new Date(options.nowMs - backdateMs),
    notAfter: new Date(options.nowMs + rootLifeMs),
    signingAlgorithm: signatureAlgorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey as CryptoKey),
    ],
  });
  return { certificatePem: pemOf(certificate), privateKeyPem };
}

/**
 * Issues a certificate (PEM) for the key of a request: 90 days, at most until the root ends. Refuses a bad
 * request with a sentence; throws INTERNAL when the authority itself cannot be used.
 */
export async function issueNodeCertificate(
  authority: CertificateAuthority,
  request: NodeCertificateRequest,
): Promise<Result<string>> {
  assertName('node', request.nodeId);
  assertName('cluster', request.clusterId);
  const publicKey = await readSigningRequest(request.csrPem);
  if (!publicKey.ok) return publicKey;
  const x509 = await loadX509();
  const root = readRoot(x509, authority.certificatePem);
  const signingKeys = await importKeyPair(authority.privateKeyPem);
  const notAfterMs = Math.min(request.nowMs + nodeCertificateLifeMs, root.notAfter.getTime());
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: createSerialNumber(),
    subject: [
      { CN: [request.nodeId] },
      { OU: [organizationalUnitOf(request.role)] },
      { O: [request.clusterId] },
    ],
    issuer: root.subjectName,
    notBefore: new Date(request.nowMs - backdateMs),
    notAfter: new Date(notAfterMs),
    signingAlgorithm: signatureAlgorithm,
    publicKey: publicKey.value,
    signingKey: signingKeys.privateKey as CryptoKey,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([
        x509.ExtendedKeyUsage.serverAuth,
        x509.ExtendedKeyUsage.clientAuth,
      ]),
      new x509.SubjectAlternativeNameExtension([{ type: 'dns', value: request.nodeId }]),
      await x509.SubjectKeyIdentifierExtension.create(publicKey.value),
      await x509.AuthorityKeyIdentifierExtension.create(root.publicKey),
    ],
  });
  return ok(pemOf(certificate));
}

function readRoot(x509: X509, certificatePem: string): Certificate {
  try {
    return new x509.X509Certificate(certificatePem);
  } catch (cause) {
    throw new SwarmdError(
      'INTERNAL',
      "the cluster's root certificate cannot be read; restore the state from a backup",
      {
        cause,
      },
    );
  }
}

/** 127 random bits in hexadecimal, never zero, so that the DER integer stays positive. */
function createSerialNumber(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return bytes.toString('hex');
}

function pemOf(certificate: Certificate): string {
  return `${certificate.toString('pem').trimEnd()}\n`;
}

function assertName(what: string, name: string): void {
  assert(certificateNamePattern.test(name), `a ${what} id in a certificate is 1 to 63 of 0-9 a-z A-Z - _`);
}
