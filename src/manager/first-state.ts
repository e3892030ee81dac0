/** The first objects of a new cluster: what `swarmd init` writes as the first entry of the log. */
import type { Random } from '../base/random.ts';
import { defaultClusterSpec } from '../model/defaults.ts';
import { type ClusterId, type NetworkId, newId, type NodeId } from '../model/ids.ts';
import type { Cluster, ClusterNode, Network } from '../model/objects.ts';
import type { ClusterSpec } from '../model/spec.ts';
import { createJoinSecret } from '../pki/join-token.ts';
import { unknownDescription } from './joining.ts';
import type { Action } from './state/actions.ts';

/** What is known of the first node and its cluster. */
export interface FirstNode {
  readonly clusterId: ClusterId;
  readonly nodeId: NodeId;
  readonly raftId: number;
  readonly hostname: string;
  /** Address without port. */
  readonly address: string;
  /** host:port. */
  readonly managerAddress: string;
  readonly rootCertificatePem: string;
  readonly rootKeyPem: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly availability: ClusterNode['spec']['availability'];
  /** What differs from the defaults. */
  readonly spec: Partial<ClusterSpec>;
}

const NEW_META = { version: 0, createdAt: 0, updatedAt: 0 };

/** Cluster, first node and ingress network. */
export function firstActions(first: FirstNode, random: Random): Action[] {
  const cluster: Cluster = {
    id: first.clusterId,
    meta: NEW_META,
    spec: { ...defaultClusterSpec, ...first.spec },
    rootCertificatePem: first.rootCertificatePem,
    rootKeyPem: first.rootKeyPem,
    joinSecrets: { manager: createJoinSecret(random), worker: createJoinSecret(random) },
    blockedNodes: [],
  };
  const node: ClusterNode = {
    id: first.nodeId,
    meta: NEW_META,
    spec: { labels: first.labels, role: 'manager', availability: first.availability },
    description: unknownDescription(first.hostname),
    status: { state: 'unknown', message: 'starting', address: first.address },
    rpcAddress: first.managerAddress,
    manager: { raftId: first.raftId, address: first.managerAddress },
    attachments: [],
  };
  const ingress: Network = {
    id: newId<NetworkId>(random),
    meta: NEW_META,
    spec: {
      name: 'ingress',
      labels: {},
      driver: 'overlay',
      internal: false,
      attachable: false,
      ingress: true,
      driverOptions: {},
    },
    subnet: '',
    vni: 0,
  };
  return [
    { kind: 'create', table: 'cluster', object: cluster },
    { kind: 'create', table: 'node', object: node },
    { kind: 'create', table: 'network', object: ingress },
  ];
}
