/** The objects a simulated cluster begins with, and those of nodes that join later. */
import type { Random } from '../../src/base/random.ts';
import { type ClusterId, type ConfigId, newId, type NodeId } from '../../src/model/ids.ts';
import { firstActions } from '../../src/manager/first-state.ts';
import { unknownDescription } from '../../src/manager/joining.ts';
import type { Action } from '../../src/manager/state/actions.ts';
import type { RaftMember } from '../../src/raft/types.ts';
import type { Draws } from './draws.ts';
import { CLUSTER_ID, type ManagerHost } from './manager-host.ts';

const NEW_META = { version: 0, createdAt: 0, updatedAt: 0 };
/** Configs the ballast is cut into: one object must fit into one entry. */
const BALLAST_CONFIGS = 3;

/** Cluster, first manager and ingress network. */
export function clusterActions(first: ManagerHost, draws: Draws, random: Random): Action[] {
  const { member, name } = first;
  return firstActions(
    {
      clusterId: CLUSTER_ID as ClusterId,
      nodeId: member.nodeId as NodeId,
      raftId: member.id,
      hostname: name,
      address: name,
      managerAddress: member.address,
      rootCertificatePem: '',
      rootKeyPem: '',
      labels: {},
      availability: 'active',
      spec: { heartbeatMs: draws.heartbeatMs, taskHistoryLimit: 2 },
    },
    random,
  );
}

/** A node as joining writes it; a manager when it is a member of the consensus group. */
export function createNode(id: string, hostname: string, member: RaftMember | null): Action {
  return {
    kind: 'create',
    table: 'node',
    object: {
      id: id as NodeId,
      meta: NEW_META,
      spec: { labels: {}, role: member === null ? 'worker' : 'manager', availability: 'active' },
      description: unknownDescription(hostname),
      status: { state: 'unknown', message: 'starting', address: hostname },
      attachments: [],
      rpcAddress: `${hostname}:2377`,
      ...(member === null ? {} : { manager: { raftId: member.id, address: member.address } }),
    },
  };
}

/** Configs that make the state large. */
export function ballast(bytes: number, random: Random): Action[] {
  if (bytes === 0) return [];
  return Array.from({ length: BALLAST_CONFIGS }, (_, i) => ({
    kind: 'create',
    table: 'config',
    object: {
      id: newId<ConfigId>(random),
      meta: NEW_META,
      spec: { name: `ballast-${i}`, labels: {}, data: 'A'.repeat(Math.floor(bytes / BALLAST_CONFIGS)) },
    },
  }));
}
