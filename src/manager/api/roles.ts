/**
 * Changing a node's role in place. Runs on the leader.
 *
 * Promotion: the state says manager, with a member id; the node hears of it, renews its certificate, starts consensus
 * with an empty log, and is added when it answers. Demotion: the state says worker, the member is taken out of the
 * group, then the state forgets it; the node hears of that and stops consensus.
 * Invariants: a demotion never leaves fewer managers in reach than the remaining group needs; a demotion that was
 * interrupted is finished by the next leader (`src/manager/leadership.ts`).
 */
import { SwarmdError } from '../../base/errors.ts';
import type { NodeView } from '../../model/api.ts';
import type { NodeId } from '../../model/ids.ts';
import type { ClusterNode } from '../../model/objects.ts';
import type { NodeSpec } from '../../model/spec.ts';
import type { RaftMember } from '../../raft/types.ts';
import { newRaftId } from '../raft-id.ts';
import type { Action } from '../state/actions.ts';
import type { StateView } from '../state/view.ts';
import { type ApiContext, commit, commitLatest } from './commit.ts';
import { nodeView } from './node-view.ts';
import type { NodeApiContext } from './nodes.ts';

/** Makes a worker a manager. It takes part in consensus once it has caught up, a moment after this returns. */
export async function promoteNode(
  context: NodeApiContext,
  node: ClusterNode,
  spec: NodeSpec,
  signal: AbortSignal,
): Promise<NodeView> {
  const name = node.description.hostname;
  if (node.status.state !== 'ready') {
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      `node ${name} is ${node.status.state}; only a node that is ready can become a manager`,
    );
  }
  if (node.rpcAddress === undefined) {
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      `node ${name} did not say how managers reach it; restart its daemon, or let it leave and join as a manager`,
    );
  }
  const manager = node.manager ?? { raftId: newRaftId(context.random), address: node.rpcAddress };
  const object: ClusterNode = { ...node, spec, manager };
  await commit(context, [{ kind: 'update', table: 'node', object, expect: node.meta.version }], signal);
  return nodeView(context.view.get('node', node.id) ?? object, context.raftStatus());
}

/** Makes a manager a worker. The leader hands over first, and the call is answered by its successor. */
export async function demoteNode(
  context: NodeApiContext,
  node: ClusterNode,
  spec: NodeSpec,
  signal: AbortSignal,
): Promise<NodeView> {
  requireQuorumWithout(context, node, 'demoting');
  const raftId = node.manager?.raftId ?? 0;
  if (raftId === context.raftStatus().memberId) {
    await context.handOver(signal);
    throw new SwarmdError(
      'NO_LEADER',
      'this manager handed over leadership to be demoted; ask the new leader',
    );
  }
  const object: ClusterNode = { ...node, spec };
  context.leaving.add(raftId);
  try {
    await commit(context, [{ kind: 'update', table: 'node', object, expect: node.meta.version }], signal);
    await finishDemotion(context, node.id, signal);
  } finally {
    context.leaving.delete(raftId);
  }
  return nodeView(context.view.get('node', node.id) ?? object, context.raftStatus());
}

/** Takes a node whose spec says worker out of the consensus group, then out of the state's list of managers. */
export async function finishDemotion(
  context: ApiContext & Pick<NodeApiContext, 'removeMember'>,
  id: NodeId,
  signal: AbortSignal,
): Promise<void> {
  const raftId = context.view.get('node', id)?.manager?.raftId;
  if (raftId === undefined) return;
  // Also where it is no member (any more): its addition may be under way, and must not end after this.
  await context.removeMember(raftId, signal);
  const build = (): Action[] => {
    const node = context.view.get('node', id);
    if (node === undefined || node.manager === undefined || node.spec.role === 'manager') return [];
    const { manager: _gone, ...rest } = node;
    return [{ kind: 'update', table: 'node', object: rest, expect: node.meta.version }];
  };
  await commitLatest(context, build, signal);
}

/** Takes back a demotion that cannot be: the spec of a manager says manager again. */
export async function keepAsManager(context: ApiContext, id: NodeId, signal: AbortSignal): Promise<void> {
  const build = (): Action[] => {
    const node = context.view.get('node', id);
    if (node?.manager === undefined || node.spec.role === 'manager') return [];
    const object: ClusterNode = { ...node, spec: { ...node.spec, role: 'manager' } };
    return [{ kind: 'update', table: 'node', object, expect: node.meta.version }];
  };
  await commitLatest(context, build, signal);
}

/** Refuses what would leave a group that cannot decide anything, with the numbers. */
export function requireQuorumWithout(
  context: NodeApiContext,
  node: ClusterNode,
  doing: 'demoting' | 'removing',
): void {
  const { members, memberId } = context.raftStatus();
  const voters = members.filter((member) => member.voter);
  const rest = voters.filter((member) => member.id !== node.manager?.raftId);
  const name = node.description.hostname;
  if (rest.length === voters.length) return;
  if (rest.length === 0) {
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      `node ${name} is the last manager of the swarm: ${doing} it would lose the cluster. Promote another node first`,
    );
  }
  const isUp = (member: RaftMember): boolean =>
    // Whoever runs this is up, whatever its worker is at.
    member.id === memberId || isReachable(context.view, member.nodeId);
  const reachable = rest.filter(isUp).length;
  const needed = Math.floor(rest.length / 2) + 1;
  if (reachable >= needed) return;
  throw new SwarmdError(
    'FAILED_PRECONDITION',
    `${doing} node ${name} would lose the quorum: ${rest.length} managers would remain and ${needed} of them must be up, but only ${reachable} ${reachable === 1 ? 'is' : 'are'}. Bring managers back, or remove the dead ones first`,
    { details: { remaining: rest.length, needed, reachable } },
  );
}

function isReachable(view: StateView, nodeId: string): boolean {
  return view.get('node', nodeId)?.status.state === 'ready';
}
