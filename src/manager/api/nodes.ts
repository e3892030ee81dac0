/** API methods of nodes and of the cluster. They run on the leader. */
import { SwarmdError } from '../../base/errors.ts';
import type { ApiParams, ApiResult, ClusterView, NodeView } from '../../model/api.ts';
import type { NodeId } from '../../model/ids.ts';
import type { Cluster, ClusterNode } from '../../model/objects.ts';
import { parseNodeSpec } from '../../model/validate-objects.ts';
import { createJoinSecret, formatJoinToken, rootDigest } from '../../pki/join-token.ts';
import { nodeCertificateLifeMs } from '../../pki/certificate-authority.ts';
import type { RaftStatus } from '../../raft/types.ts';
import type { DraftStore } from '../forecast/forecast.ts';
import type { Action } from '../state/actions.ts';
import type { StateView } from '../state/view.ts';
import { type ApiContext, commit, commitLatest, outOfSequence } from './commit.ts';
import { findNode } from './lookup.ts';
import { nodeView } from './node-view.ts';
import { demoteNode, promoteNode, requireQuorumWithout } from './roles.ts';
import { required } from './services.ts';

/** What node methods need besides the state. */
export interface NodeApiContext extends ApiContext {
  /** The state, with drafts that are taken back. */
  readonly view: DraftStore;
  raftStatus(): RaftStatus;
  /** Takes a manager out of the consensus group; resolves once that is committed. */
  removeMember(raftId: number, signal: AbortSignal): Promise<void>;
  /** Gives leadership to another manager. */
  handOver(signal: AbortSignal): Promise<void>;
  /** Member ids being removed: nobody brings them back meanwhile. */
  readonly leaving: Set<number>;
  /** Runs one change after another: what it checks in the state still holds when it is made. */
  exclusively<T>(run: () => Promise<T>): Promise<T>;
}

export function listNodes(context: NodeApiContext): NodeView[] {
  const status = context.raftStatus();
  return [...context.view.all('node')].map((node) => nodeView(node, status));
}

export function inspectNode(context: NodeApiContext, ref: string): NodeView {
  return nodeView(findNode(context.view, ref), context.raftStatus());
}

export async function updateNode(
  context: NodeApiContext,
  params: ApiParams<'node.update'>,
  signal: AbortSignal,
): Promise<NodeView> {
  const node = findNode(context.view, params.ref);
  const spec = required(parseNodeSpec(params.spec));
  if (params.version !== node.meta.version) {
    throw outOfSequence('node', node.description.hostname, params.version, node.meta.version);
  }
  if (spec.role === 'manager' && node.spec.role === 'worker') return promoteNode(context, node, spec, signal);
  if (spec.role === 'worker' && node.manager !== undefined) return demoteNode(context, node, spec, signal);
  const object = { ...node, spec };
  await commit(context, [{ kind: 'update', table: 'node', object, expect: params.version }], signal);
  return inspectNode(context, node.id);
}

export async function removeNode(
  context: NodeApiContext,
  params: ApiParams<'node.remove'>,
  signal: AbortSignal,
): Promise<null> {
  const { view } = context;
  const node = findNode(view, params.ref);
  const name = node.description.hostname;
  if (node.status.state === 'ready' && !params.force) {
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      `node ${name} is not down and can't be removed; run "swarmd leave" on it first, or remove it with --force`,
    );
  }
  const raftId = node.manager?.raftId ?? 0;
  if (node.manager !== undefined) requireRemovable(context, node, params.force);
  context.leaving.add(raftId);
  try {
    if (node.manager !== undefined) await context.removeMember(raftId, signal);
    await forgetNode(context, node.id, signal);
  } finally {
    context.leaving.delete(raftId);
  }
  return null;
}

/** Takes the node out of the state and refuses its certificate from now on. */
async function forgetNode(context: NodeApiContext, id: NodeId, signal: AbortSignal): Promise<void> {
  const { view } = context;
  const build = (): Action[] => {
    const current = view.get('node', id);
    const [cluster] = view.all('cluster');
    if (current === undefined || cluster === undefined) return [];
    return [
      { kind: 'delete', table: 'node', id, expect: null },
      blockNode(cluster, current, context.nowMs()),
    ];
  };
  await commitLatest(context, build, signal);
}

function requireRemovable(context: NodeApiContext, node: ClusterNode, force: boolean): void {
  const status = context.raftStatus();
  const raftId = node.manager?.raftId ?? 0;
  const member = status.members.find((one) => one.id === raftId);
  if (member === undefined) return;
  const voters = status.members.filter((one) => one.voter);
  if (voters.length === 1 && member.voter) {
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      `node ${node.description.hostname} is the last manager; the cluster needs it`,
    );
  }
  if (!force) {
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      `node ${node.description.hostname} is a manager; removing it changes the quorum (${voters.length} voters now). Repeat with --force`,
    );
  }
  if (raftId === status.memberId) {
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      'the leader does not remove itself; run "swarmd leave --force" on it',
    );
  }
  requireQuorumWithout(context, node, 'removing');
}

/** The certificate of a removed node is refused until it would have expired anyway. */
function blockNode(cluster: Cluster, node: ClusterNode, nowMs: number): Action {
  const blockedNodes = cluster.blockedNodes.filter((blocked) => blocked.until > nowMs);
  const object = {
    ...cluster,
    blockedNodes: [...blockedNodes, { id: node.id, until: nowMs + nodeCertificateLifeMs }],
  };
  return { kind: 'update', table: 'cluster', object, expect: cluster.meta.version };
}

export function theCluster(view: StateView): Cluster {
  const [cluster] = view.all('cluster');
  if (cluster === undefined)
    throw new SwarmdError('FAILED_PRECONDITION', 'the cluster is still starting; try again');
  return cluster;
}

export function inspectCluster(view: StateView): ClusterView {
  const cluster = theCluster(view);
  const managers = [...view.all('node')].filter((node) => node.manager !== undefined).length;
  return { id: cluster.id, meta: cluster.meta, spec: cluster.spec, nodes: view.count('node'), managers };
}

export async function joinTokens(
  context: ApiContext,
  params: ApiParams<'cluster.tokens'>,
  signal: AbortSignal,
): Promise<ApiResult<'cluster.tokens'>> {
  const { rotate } = params;
  if (rotate !== null && rotate !== 'worker' && rotate !== 'manager') {
    throw new SwarmdError(
      'INVALID_ARGUMENT',
      `parameter rotate of cluster.tokens is ${JSON.stringify(rotate)}; give "worker", "manager" or null`,
    );
  }
  if (rotate !== null) {
    const secret = createJoinSecret(context.random);
    const build = (): Action[] => {
      const cluster = theCluster(context.view);
      const object = { ...cluster, joinSecrets: { ...cluster.joinSecrets, [rotate]: secret } };
      return [{ kind: 'update', table: 'cluster', object, expect: cluster.meta.version }];
    };
    await commitLatest(context, build, signal);
  }
  const cluster = theCluster(context.view);
  const digest = rootDigest(cluster.rootCertificatePem);
  const token = (secret: string): string => formatJoinToken({ digest, secret });
  return { worker: token(cluster.joinSecrets.worker), manager: token(cluster.joinSecrets.manager) };
}
