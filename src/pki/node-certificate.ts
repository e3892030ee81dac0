/**
 * What a node certificate says, and whether to believe it.
 *
 * Subject: CN = node id, OU = role (`swarm-manager`, `swarm-worker`), O = cluster id.
 * Invariant: an identity is returned only for a certificate signed by the given root, in its validity, for
 * a node of the root's own cluster. Time is an argument.
 */
import { X509Certificate } from 'node:crypto';
import { assertNever } from '../base/assert.ts';
import { type Random, randomBelow } from '../base/random.ts';
import { ok, type Result, refuse } from '../base/result.ts';

/** Who a verified node certificate says its holder is. */
export interface PeerIdentity {
  readonly nodeId: string;
  readonly role: NodeRole;
  readonly clusterId: string;
  /** Wall-clock end of the certificate, milliseconds since the epoch, where known. */
  readonly certificateExpiresAtMs?: number;
}

/** What a node may do in the cluster, as its certificate says. */
export type NodeRole = 'manager' | 'worker';

/** The content of a node certificate, not yet verified. */
export interface NodeCertificate {
  readonly identity: PeerIdentity;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** Why a certificate is not believed. */
export type CertificateRefusal =
  | { readonly kind: 'unreadable'; readonly detail: string }
  | { readonly kind: 'not-a-node-certificate'; readonly detail: string }
  | { readonly kind: 'foreign-root' }
  | { readonly kind: 'other-cluster'; readonly clusterId: string }
  | { readonly kind: 'not-yet-valid'; readonly notBeforeMs: number; readonly nowMs: number }
  | { readonly kind: 'expired'; readonly notAfterMs: number; readonly nowMs: number };

/** Node ids and cluster ids that fit a certificate: 1 to 63 of `0-9 a-z A-Z - _`, as in a DNS label. */
export const certificateNamePattern = /^[0-9a-zA-Z_-]{1,63}$/;

const organizationalUnits: Readonly<Record<NodeRole, string>> = {
  manager: 'swarm-manager',
  worker: 'swarm-worker',
};
const serverAuthentication = '1.3.6.1.5.5.7.3.1';
const clientAuthentication = '1.3.6.1.5.5.7.3.2';

/** The OU of a role's certificates. */
export function organizationalUnitOf(role: NodeRole): string {
  return organizationalUnits[role];
}

/** Reads what a certificate (PEM, of which the first counts, or DER) says, without believing it. */
export function parseNodeCertificate(
  certificate: string | Uint8Array,
): Result<NodeCertificate, CertificateRefusal> {
  const parsed = parseCertificate(certificate);
  return parsed.ok ? readNodeCertificate(parsed.value) : parsed;
}

/** The identity in a certificate signed by the root and valid at `nowMs`, or why there is none. */
export function verifyNodeCertificate(
  certificate: string | Uint8Array,
  root: string | Uint8Array,
  nowMs: number,
): Result<PeerIdentity, CertificateRefusal> {
  const leaf = parseCertificate(certificate);
  if (!leaf.ok) return leaf;
  const authority = parseCertificate(root);
  if (!authority.ok) return authority;
  if (!isSignedBy(leaf.value, authority.value)) return refuse({ kind: 'foreign-root' });
  const expired = checkValidity(authority.value, nowMs) ?? checkValidity(leaf.value, nowMs);
  if (expired !== null) return refuse(expired);
  const content = readNodeCertificate(leaf.value);
  if (!content.ok) return content;
  const { identity } = content.value;
  const clusterId = subjectOf(authority.value).O;
  if (identity.clusterId !== clusterId)
    return refuse({ kind: 'other-cluster', clusterId: identity.clusterId });
  return ok(identity);
}

function parseCertificate(certificate: string | Uint8Array): Result<X509Certificate, CertificateRefusal> {
  try {
    return ok(new X509Certificate(certificate));
  } catch (error) {
    return refuse({ kind: 'unreadable', detail: error instanceof Error ? error.message : String(error) });
  }
}

function isSignedBy(leaf: X509Certificate, root: X509Certificate): boolean {
  return root.ca && !leaf.ca && leaf.checkIssued(root) && leaf.verify(root.publicKey);
}

function checkValidity(certificate: X509Certificate, nowMs: number): CertificateRefusal | null {
  const notBeforeMs = certificate.validFromDate.getTime();
  const notAfterMs = certificate.validToDate.getTime();
  if (nowMs < notBeforeMs) return { kind: 'not-yet-valid', notBeforeMs, nowMs };
  if (nowMs > notAfterMs) return { kind: 'expired', notAfterMs, nowMs };
  return null;
}

function readNodeCertificate(certificate: X509Certificate): Result<NodeCertificate, CertificateRefusal> {
  const wrong = (detail: string): Result<never, CertificateRefusal> =>
    refuse({ kind: 'not-a-node-certificate', detail });
  const { CN: nodeId, OU: unit, O: clusterId } = subjectOf(certificate);
  if (nodeId === undefined || !certificateNamePattern.test(nodeId)) return wrong('no node id in its CN');
  if (clusterId === undefined || !certificateNamePattern.test(clusterId))
    return wrong('no cluster id in its O');
  const role = roleOfUnit(unit);
  if (role === null) return wrong('no role in its OU');
  const usages = certificate.keyUsage ?? [];
  if (!usages.includes(serverAuthentication) || !usages.includes(clientAuthentication)) {
    return wrong('it is not meant for both ends of TLS');
  }
  const notBeforeMs = certificate.validFromDate.getTime();
  const notAfterMs = certificate.validToDate.getTime();
  return ok({
    identity: { nodeId, role, clusterId, certificateExpiresAtMs: notAfterMs },
    notBeforeMs,
    notAfterMs,
  });
}

function roleOfUnit(unit: string | undefined): NodeRole | null {
  if (unit === organizationalUnits.manager) return 'manager';
  return unit === organizationalUnits.worker ? 'worker' : null;
}

/** The subject's fields that occur exactly once; a repeated field counts as absent. */
function subjectOf(certificate: X509Certificate): { CN?: string; OU?: string; O?: string } {
  const subject = certificate.toLegacyObject().subject as Readonly<Record<string, unknown>> | undefined;
  const once = (key: 'CN' | 'OU' | 'O'): Record<string, string> => {
    const value = subject?.[key];
    return typeof value === 'string' ? { [key]: value } : {};
  };
  return { ...once('CN'), ...once('OU'), ...once('O') };
}

/** A sentence part that says why the certificate is not believed and what to do. */
export function describeCertificateRefusal(refusal: CertificateRefusal): string {
  const time = (ms: number): string => new Date(ms).toISOString();
  switch (refusal.kind) {
    case 'unreadable':
      return `the certificate cannot be read (${refusal.detail})`;
    case 'not-a-node-certificate':
      return `the certificate is not one of a swarmd node: ${refusal.detail}`;
    case 'foreign-root':
      return "the certificate was not issued by this cluster's root; the node belongs to another cluster";
    case 'other-cluster':
      return `the certificate names the other cluster "${refusal.clusterId}"`;
    case 'not-yet-valid':
      return `the certificate is valid only from ${time(refusal.notBeforeMs)}, and the clock here says ${time(refusal.nowMs)}; check both clocks`;
    case 'expired':
      return `the certificate expired at ${time(refusal.notAfterMs)}, and the clock here says ${time(refusal.nowMs)}; check both clocks, or join the node again`;
    default:
      return assertNever(refusal);
  }
}

/** When to renew: a uniformly random moment in 50-80 % of the certificate's life, so that nodes spread. */
export function renewalTimeMs(
  life: { readonly notBeforeMs: number; readonly notAfterMs: number },
  random: Random,
): number {
  const steps = 1_000_000;
  const share = 0.5 + 0.3 * (randomBelow(random, steps + 1) / steps);
  return Math.round(life.notBeforeMs + (life.notAfterMs - life.notBeforeMs) * share);
}
