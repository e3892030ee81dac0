/**
 * Who is at the other end of a TLS connection. Replaces host name checks by identity checks.
 *
 * TLS proves that the peer holds the key of the certificate it shows; these functions decide whether to
 * believe that certificate. Time is an argument.
 */
import type { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import { ok, type Result, refuse } from '../base/result.ts';
import { rootDigest } from '../pki/join-token.ts';
import { describeCertificateRefusal, verifyNodeCertificate } from '../pki/node-certificate.ts';
import type { ClientCredentials, PeerIdentity } from './types.ts';

/** Certificates in a chain that are looked at; more is not a chain of ours. */
const chainLengthMax = 4;

/** The server's identity, believed by the client's credentials, or why it is refused. */
export function verifyServer(
  socket: TLSSocket,
  credentials: ClientCredentials,
  nowMs: number,
): Result<PeerIdentity> {
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) return refuse('it shows no certificate');
  return credentials.kind === 'node'
    ? verifyMember(certificate, credentials, nowMs)
    : verifyPinned(certificate, credentials.digest, nowMs);
}

function verifyMember(
  certificate: X509Certificate,
  credentials: Extract<ClientCredentials, { kind: 'node' }>,
  nowMs: number,
): Result<PeerIdentity> {
  const verified = verifyNodeCertificate(certificate.raw, credentials.rootPem, nowMs);
  if (!verified.ok) return refuse(describeCertificateRefusal(verified.reason));
  const { role, nodeId } = verified.value;
  const { expectRole, expectNodeId } = credentials;
  if (expectRole !== undefined && role !== expectRole) {
    return refuse(`it is a ${role}, not a ${expectRole}; give the address of a ${expectRole}`);
  }
  if (expectNodeId !== undefined && nodeId !== expectNodeId) {
    return refuse(`it is node ${nodeId}, not ${expectNodeId}; the address belongs to another node now`);
  }
  return verified;
}

function verifyPinned(certificate: X509Certificate, digest: string, nowMs: number): Result<PeerIdentity> {
  const root = findRoot(certificate, digest);
  if (root === null) {
    return refuse(
      'its root certificate does not have the digest in the join token; the token is of another cluster, or the address is',
    );
  }
  const verified = verifyNodeCertificate(certificate.raw, root.raw, nowMs);
  if (!verified.ok) return refuse(describeCertificateRefusal(verified.reason));
  if (verified.value.role !== 'manager') return refuse('it is a worker; join at the address of a manager');
  return verified;
}

/** The certificate in the shown chain that has the digest. */
function findRoot(certificate: X509Certificate, digest: string): X509Certificate | null {
  let at: X509Certificate | undefined = certificate.issuerCertificate;
  for (let length = 1; at !== undefined && length < chainLengthMax; length++) {
    if (rootDigest(at.raw) === digest) return at;
    at = at.issuerCertificate;
  }
  return null;
}

/** The client's identity, null when it shows no certificate, or why it is refused. */
export function verifyClient(socket: TLSSocket, rootPem: string, nowMs: number): Result<PeerIdentity | null> {
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) return ok(null);
  const verified = verifyNodeCertificate(certificate.raw, rootPem, nowMs);
  return verified.ok ? verified : refuse(describeCertificateRefusal(verified.reason));
}
