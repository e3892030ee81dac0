/**
 * How a node becomes a member: by making a cluster, by joining one, or by what its data folder says.
 *
 * Invariant: nothing is written that says "member" before the cluster says so; what a failed attempt left is
 * removed by the next one.
 */
import { hostname } from 'node:os';
import { systemClock } from '../base/clock.ts';
import { SwarmdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import { firstActions } from '../manager/first-state.ts';
import { newRaftId } from '../manager/raft-id.ts';
import type { ManagerOptions } from '../manager/manager.ts';
import { type ClusterId, newId, type NodeId } from '../model/ids.ts';
import type { JoinAnswer, JoinRequest } from '../model/wire.ts';
import { createCertificateAuthority, issueNodeCertificate } from '../pki/certificate-authority.ts';
import { describeJoinTokenRefusal, parseJoinToken } from '../pki/join-token.ts';
import { generatePrivateKey } from '../pki/key-pair.ts';
import { createSigningRequest } from '../pki/signing-request.ts';
import { formatAddress } from '../rpc/address.ts';
import { connect } from '../rpc/client.ts';
import { reservePort, resolveAdvertiseHost } from './addresses.ts';
import { movedIdentity } from './move.ts';
import { type Credentials, forgetIdentity, type Identity, readIdentity } from './identity.ts';
import type { NodeOptions, StartMode } from './types.ts';

/** A node that knows who it is. `isNew`: its identity is not written yet; `isMoved`: its addresses are not. */
export interface Membership {
  readonly identity: Identity;
  readonly credentials: Credentials;
  readonly start: ManagerOptions['start'];
  readonly isNew: boolean;
  readonly isMoved?: boolean;
}

const JOIN_TIMEOUT_MS = 20_000;

/** Finds or makes the node's membership. Every refusal says which command to use instead. */
export async function becomeMember(
  options: NodeOptions,
  mode: StartMode,
  dependencies: { readonly random: Random; readonly log: Logger },
): Promise<Membership> {
  const known = await readIdentity(options.dataDir);
  if (mode.kind === 'force-new-cluster') return survivor(options, known);
  if (mode.kind === 'resume') {
    if (known !== null) return resumed(options, known, { kind: known.identity.raftStart ?? 'resume' });
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      `the data folder ${options.dataDir} belongs to no cluster: make one with "swarmd init", or join one with "swarmd join"`,
    );
  }
  if (known !== null) {
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      `this node is already part of a swarm: ${options.dataDir} belongs to node ${known.identity.nodeId} of cluster ${known.identity.clusterId}. Run it with "swarmd daemon", leave with "swarmd leave", or choose another --data-dir`,
    );
  }
  await forgetIdentity(options.dataDir);
  return mode.kind === 'init'
    ? await makeCluster(options, dependencies.random)
    : await joinCluster(options, mode, dependencies.log);
}

type Known = Pick<Membership, 'identity' | 'credentials'>;

function resumed(options: NodeOptions, known: Known, start: Membership['start']): Membership {
  const identity = movedIdentity(known.identity, options.move ?? {});
  return { ...known, identity, start, isNew: false, isMoved: identity !== known.identity };
}

/** The manager that goes on alone. Its folder must say that it is one. */
function survivor(options: NodeOptions, known: Known | null): Membership {
  if (known === null) {
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      `the data folder ${options.dataDir} belongs to no cluster, so there is none to force: run "swarmd init" without --force-new-cluster to make one, or name the folder of a manager with --data-dir`,
    );
  }
  if (known.identity.role === 'manager') return resumed(options, known, { kind: 'force-new-cluster' });
  throw new SwarmdError(
    'FAILED_PRECONDITION',
    `node ${known.identity.nodeId} in ${options.dataDir} is a worker and has no copy of the cluster's state; run "swarmd init --force-new-cluster" on a manager`,
  );
}

async function makeCluster(options: NodeOptions, random: Random): Promise<Membership> {
  const nowMs = systemClock().nowMs();
  const advertiseHost = resolveAdvertiseHost(options.advertise.host, options.listen.host);
  const listenPort = await reservePort(options.listen.host, options.listen.port);
  const clusterId = newId<ClusterId>(random);
  const nodeId = newId<NodeId>(random);
  const raftId = newRaftId(random);
  const authority = await createCertificateAuthority({ clusterId, nowMs });
  const keyPem = await generatePrivateKey();
  const csrPem = await createSigningRequest(keyPem);
  const certificate = await issueNodeCertificate(authority, {
    csrPem,
    nodeId,
    role: 'manager',
    clusterId,
    nowMs,
  });
  if (!certificate.ok)
    throw new SwarmdError('INTERNAL', `the first certificate is refused: ${certificate.reason}`);
  const advertise = { host: advertiseHost, port: options.advertise.port || listenPort };
  const dataPathAddress = options.dataPathAddress || advertiseHost;
  const actions = firstActions(
    {
      clusterId,
      nodeId,
      raftId,
      hostname: hostname(),
      address: dataPathAddress,
      managerAddress: formatAddress(advertise.host, advertise.port),
      rootCertificatePem: authority.certificatePem,
      rootKeyPem: authority.privateKeyPem,
      labels: options.labels,
      availability: options.availability,
      spec: options.clusterSpec ?? {},
    },
    random,
  );
  const listen = { host: options.listen.host, port: listenPort };
  return {
    identity: {
      format: 1,
      nodeId,
      clusterId,
      role: 'manager',
      raftId,
      listen,
      advertise,
      dataPathAddress,
      managers: [],
    },
    credentials: { rootPem: authority.certificatePem, certificatePem: certificate.value, keyPem },
    start: { kind: 'init', actions },
    isNew: true,
  };
}

async function joinCluster(
  options: NodeOptions,
  mode: Extract<StartMode, { kind: 'join' }>,
  log: Logger,
): Promise<Membership> {
  const token = parseJoinToken(mode.token);
  if (!token.ok) throw new SwarmdError('INVALID_ARGUMENT', describeJoinTokenRefusal(token.reason));
  const listenPort = await reservePort(options.listen.host, options.listen.port);
  const keyPem = await generatePrivateKey();
  const request: JoinRequest = {
    token: mode.token.trim(),
    csrPem: await createSigningRequest(keyPem),
    address:
      options.advertise.host === '' ? '' : resolveAdvertiseHost(options.advertise.host, options.listen.host),
    port: options.advertise.port || listenPort,
    hostname: hostname(),
  };
  const signal = AbortSignal.timeout(JOIN_TIMEOUT_MS);
  const connection = await connect({
    ...mode.remote,
    credentials: { kind: 'pinned-root', digest: token.value.digest },
    handlers: { calls: {}, streams: {}, notifications: {} },
    clock: systemClock(),
    log,
    signal,
  });
  try {
    const answer = (await connection.call('node.join', request, {
      signal,
      timeoutMs: JOIN_TIMEOUT_MS,
    })) as JoinAnswer;
    const host = request.address === '' ? answer.observedAddress : request.address;
    const managers = [
      formatAddress(mode.remote.host, mode.remote.port),
      ...answer.managers.map((peer) => peer.address),
    ];
    return {
      identity: {
        format: 1,
        nodeId: answer.nodeId,
        clusterId: answer.clusterId,
        role: answer.role,
        raftId: answer.raftId,
        listen: { host: options.listen.host, port: listenPort },
        advertise: { host, port: request.port },
        dataPathAddress: options.dataPathAddress || host,
        managers: [...new Set(managers)],
      },
      credentials: { rootPem: answer.rootPem, certificatePem: answer.certificatePem, keyPem },
      start: { kind: 'join' },
      isNew: true,
    };
  } finally {
    connection.close('joined');
  }
}
