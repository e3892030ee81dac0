/**
 * A data folder made from a snapshot: the first and only manager of the cluster it was taken of.
 *
 * Invariants: the identity is written last, so that an attempt that was cut short leaves no member behind; the
 * member id and node id are fresh, so that nothing of the old cluster takes this node for one it knew; the root
 * certificate stays, so that the nodes of the cluster trust it.
 */
import { hostname } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../base/clock.ts';
import { SwarmdError } from '../base/errors.ts';
import type { Random } from '../base/random.ts';
import { unknownDescription } from '../manager/joining.ts';
import { newRaftId } from '../manager/raft-id.ts';
import { decodeCheckpoint, encodeCheckpoint } from '../manager/state/codec.ts';
import type { StoreContents } from '../manager/state/store.ts';
import { newId, type NodeId } from '../model/ids.ts';
import type { ClusterNode } from '../model/objects.ts';
import { issueNodeCertificate } from '../pki/certificate-authority.ts';
import { generatePrivateKey } from '../pki/key-pair.ts';
import { createSigningRequest } from '../pki/signing-request.ts';
import { EMPTY_CONFIG } from '../raft/core/types.ts';
import { FORCED_TERM_LEAP } from '../raft/forced-start.ts';
import { LevelStorage } from '../raft/level-storage.ts';
import { encodeContacts } from '../raft/members.ts';
import { formatAddress } from '../rpc/address.ts';
import { reservePort, resolveAdvertiseHost } from './addresses.ts';
import { forgetIdentity, type Identity, readIdentity, writeIdentity } from './identity.ts';
import { lockFolder } from './lock.ts';
import type { SnapshotFile } from './snapshot-file.ts';
import type { NodeOptions } from './types.ts';

type RestoreOptions = Pick<
  NodeOptions,
  'dataDir' | 'listen' | 'advertise' | 'dataPathAddress' | 'labels' | 'availability'
>;

/** What was made. */
export interface Restored {
  readonly nodeId: string;
  readonly clusterId: string;
  readonly advertised: string;
  readonly index: number;
}

const RESTORED = 'the cluster was restored from a snapshot; this node has not been heard of since';

/**
 * Makes the folder. CORRUPT for a snapshot that fails its checksum, FAILED_PRECONDITION for a folder that belongs to
 * a cluster, LOCKED for one in use.
 */
export async function restoreSnapshot(
  file: SnapshotFile,
  options: RestoreOptions,
  random: Random,
): Promise<Restored> {
  const contents = readable(file);
  const lock = await lockFolder(options.dataDir);
  try {
    const known = await readIdentity(options.dataDir);
    if (known !== null) {
      throw new SwarmdError(
        'FAILED_PRECONDITION',
        `the data folder ${options.dataDir} belongs to node ${known.identity.nodeId} already; restore into another one with --data-dir`,
      );
    }
    await forgetIdentity(options.dataDir);
    try {
      return await restore(file, contents, options, random);
    } catch (error) {
      await forgetIdentity(options.dataDir);
      throw error;
    }
  } finally {
    await lock.release();
  }
}

function readable({ state, checksumOk }: SnapshotFile): StoreContents {
  if (!checksumOk) {
    throw new SwarmdError(
      'CORRUPT',
      'the snapshot fails its checksum, so nothing of it can be trusted; use another one',
    );
  }
  const contents = decodeCheckpoint(state);
  if (contents.ok) return contents.value;
  throw new SwarmdError('CORRUPT', `the state in the snapshot cannot be read: ${contents.reason}`);
}

async function restore(
  { header }: SnapshotFile,
  contents: StoreContents,
  options: RestoreOptions,
  random: Random,
): Promise<Restored> {
  const [cluster] = contents.tables.cluster;
  if (cluster === undefined)
    throw new SwarmdError('CORRUPT', 'the snapshot holds no cluster; use another one');
  const nowMs = systemClock().nowMs();
  const nodeId = newId<NodeId>(random);
  const raftId = newRaftId(random);
  const keyPem = await generatePrivateKey();
  const certificate = await issueNodeCertificate(
    { certificatePem: cluster.rootCertificatePem, privateKeyPem: cluster.rootKeyPem },
    { csrPem: await createSigningRequest(keyPem), nodeId, role: 'manager', clusterId: cluster.id, nowMs },
  );
  if (!certificate.ok)
    throw new SwarmdError('INTERNAL', `the manager's certificate is refused: ${certificate.reason}`);
  const identity = await identityOf(options, { nodeId, clusterId: cluster.id, raftId });
  const address = formatAddress(identity.advertise.host, identity.advertise.port);
  const index = Math.max(header.index, contents.index) + 1;
  const own: ClusterNode = {
    id: nodeId,
    meta: { version: index, createdAt: nowMs, updatedAt: nowMs },
    spec: { labels: options.labels, role: 'manager', availability: options.availability },
    description: unknownDescription(hostname()),
    status: { state: 'unknown', message: 'restored, not started yet', address: identity.dataPathAddress },
    manager: { raftId, address },
    attachments: [],
  };
  const nodes = contents.tables.node.map((node) => leftBehind(node, index, nowMs));
  const tables = { ...contents.tables, node: [...nodes, own] };
  const state = encodeCheckpoint({ ...contents, index, tables });
  const term = header.term + FORCED_TERM_LEAP;
  await writeLog(join(options.dataDir, 'raft'), { raftId, nodeId, address, index, term }, state);
  await writeIdentity(options.dataDir, identity, {
    rootPem: cluster.rootCertificatePem,
    certificatePem: certificate.value,
    keyPem,
  });
  return { nodeId, clusterId: cluster.id, advertised: address, index };
}

async function identityOf(
  options: RestoreOptions,
  ids: Pick<Identity, 'nodeId' | 'clusterId' | 'raftId'>,
): Promise<Identity> {
  const host = resolveAdvertiseHost(options.advertise.host, options.listen.host);
  const port = await reservePort(options.listen.host, options.listen.port);
  return {
    format: 1,
    ...ids,
    role: 'manager',
    listen: { host: options.listen.host, port },
    advertise: { host, port: options.advertise.port || port },
    dataPathAddress: options.dataPathAddress || host,
    managers: [],
  };
}

/**
 * A node of the old cluster: it may come back as a worker, never as a manager. A worker is given the time of a few
 * heartbeats, so that its tasks are not replaced while it looks for its new manager; then it is down, too.
 */
function leftBehind(node: ClusterNode, index: number, nowMs: number): ClusterNode {
  const { manager, ...rest } = node;
  const state = manager === undefined ? 'unknown' : 'down';
  return {
    ...rest,
    meta: { ...node.meta, version: index, updatedAt: nowMs },
    spec: { ...node.spec, role: 'worker' },
    status: { state, since: nowMs, message: RESTORED, address: node.status.address },
  };
}

async function writeLog(
  folder: string,
  place: {
    readonly raftId: number;
    readonly nodeId: string;
    readonly address: string;
    readonly index: number;
    readonly term: number;
  },
  state: Uint8Array,
): Promise<void> {
  const { raftId, nodeId, address, index, term } = place;
  const storage = await LevelStorage.open(folder);
  try {
    await storage.load();
    await storage.initialise(raftId, { hardState: null, entries: [] });
    const data = encodeContacts([{ id: raftId, nodeId, address }]);
    const snapshot = { index, term, config: { ...EMPTY_CONFIG, voters: [raftId] }, data };
    await storage.installSnapshot(snapshot, state, { term, vote: 0, commit: index });
  } finally {
    await storage.close();
  }
}
