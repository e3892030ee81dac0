/** How the leader admits a new node: token in, certificate out. */
import { SwarmdError } from '../base/errors.ts';
import { newId, type NodeId } from '../model/ids.ts';
import type { ClusterNode, NodeDescription } from '../model/objects.ts';
import type { JoinAnswer, JoinRequest } from '../model/wire.ts';
import { issueNodeCertificate } from '../pki/certificate-authority.ts';
import { describeJoinTokenRefusal, parseJoinToken, roleOfSecret, rootDigest } from '../pki/join-token.ts';
import { type ApiContext, commit } from './api/commit.ts';
import { theCluster } from './api/nodes.ts';
import { managerPeers } from './dispatcher/items.ts';
import { newRaftId } from './raft-id.ts';

/** A description of a node that has not connected yet. */
export function unknownDescription(hostname: string): NodeDescription {
  return {
    hostname,
    platform: { os: '', architecture: '' },
    resources: { nanoCpus: 0, memoryBytes: 0, generic: {} },
    runtimes: [],
    engineVersion: '',
    engineLabels: {},
    plugins: [],
    swarmdVersion: '',
    networkRung: 'host-ports',
  };
}

/** What an address of a node may look like: an IP address or a host name. */
const ADDRESS = /^[0-9A-Za-z_.:%-]{0,255}$/;

/** Reads what a stranger sent; INVALID_ARGUMENT names the field that is wrong. */
export function parseJoinRequest(params: unknown): JoinRequest {
  const { token, csrPem, address, port, hostname } = (params ?? {}) as Readonly<Record<string, unknown>>;
  const wrong = (field: string): SwarmdError =>
    new SwarmdError('INVALID_ARGUMENT', `the join request has no valid ${field}`);
  if (typeof token !== 'string') throw wrong('token');
  if (typeof csrPem !== 'string') throw wrong('csrPem');
  if (typeof address !== 'string' || !ADDRESS.test(address)) throw wrong('address');
  if (typeof port !== 'number' || !Number.isInteger(port) || port < 1 || port > 65_535) throw wrong('port');
  if (typeof hostname !== 'string') throw wrong('hostname');
  return { token, csrPem, address, port, hostname: hostname.slice(0, 255) };
}

/**
 * Admits a node; runs on the leader. Throws UNAUTHENTICATED for a token of the wrong secret or root,
 * INVALID_ARGUMENT for a malformed request.
 * @param observedAddress the joiner's address as the manager it called saw it.
 */
export async function admitNode(
  context: ApiContext,
  request: JoinRequest,
  observedAddress: string,
  signal: AbortSignal,
): Promise<JoinAnswer> {
  const cluster = theCluster(context.view);
  const token = parseJoinToken(request.token);
  if (!token.ok) throw new SwarmdError('UNAUTHENTICATED', describeJoinTokenRefusal(token.reason));
  if (token.value.digest !== rootDigest(cluster.rootCertificatePem)) {
    throw new SwarmdError('UNAUTHENTICATED', 'the join token belongs to another cluster; check the address');
  }
  const role = roleOfSecret(token.value.secret, cluster.joinSecrets);
  if (role === null) {
    throw new SwarmdError(
      'UNAUTHENTICATED',
      'the join token is not valid for this cluster (it may have been rotated); print the current one with "swarmd join-token worker" (or manager) on a manager',
    );
  }
  const nodeId = newId<NodeId>(context.random);
  const raftId = role === 'manager' ? newRaftId(context.random) : 0;
  const address = request.address === '' ? observedAddress : request.address;
  const certificate = await issueNodeCertificate(
    { certificatePem: cluster.rootCertificatePem, privateKeyPem: cluster.rootKeyPem },
    { csrPem: request.csrPem, nodeId, role, clusterId: cluster.id, nowMs: context.nowMs() },
  );
  if (!certificate.ok)
    throw new SwarmdError('INVALID_ARGUMENT', `the join request is refused: ${certificate.reason}`);
  const host = address.includes(':') ? `[${address}]` : address;
  const node: ClusterNode = {
    id: nodeId,
    meta: { version: 0, createdAt: 0, updatedAt: 0 },
    spec: { labels: {}, role, availability: 'active' },
    description: unknownDescription(request.hostname),
    status: { state: 'unknown', message: 'joined, not connected yet', address },
    rpcAddress: `${host}:${request.port}`,
    ...(role === 'manager' ? { manager: { raftId, address: `${host}:${request.port}` } } : {}),
    attachments: [],
  };
  await commit(context, [{ kind: 'create', table: 'node', object: node }], signal);
  return {
    nodeId,
    role,
    clusterId: cluster.id,
    certificatePem: certificate.value,
    rootPem: cluster.rootCertificatePem,
    observedAddress,
    managers: managerPeers(context.view),
    raftId,
    labels: {},
  };
}

/**
 * Signs a new certificate for a member; any manager can. Throws PERMISSION_DENIED for a node that is none any more.
 */
export async function renewCertificate(
  context: Pick<ApiContext, 'view' | 'nowMs'>,
  nodeId: string,
  csrPem: unknown,
): Promise<string> {
  const cluster = theCluster(context.view);
  const node = context.view.get('node', nodeId);
  if (node === undefined) {
    throw new SwarmdError(
      'PERMISSION_DENIED',
      `node ${nodeId} is not part of the cluster any more; join again`,
    );
  }
  const certificate = await issueNodeCertificate(
    { certificatePem: cluster.rootCertificatePem, privateKeyPem: cluster.rootKeyPem },
    { csrPem: String(csrPem), nodeId, role: node.spec.role, clusterId: cluster.id, nowMs: context.nowMs() },
  );
  if (!certificate.ok)
    throw new SwarmdError('INVALID_ARGUMENT', `the renewal is refused: ${certificate.reason}`);
  return certificate.value;
}
