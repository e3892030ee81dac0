/** PURE: a node as the API shows it. */
import type { NodeView } from '../../model/api.ts';
import type { ClusterNode } from '../../model/objects.ts';
import type { RaftStatus } from '../../raft/types.ts';

/** The node, with what the consensus group says of a manager. */
export function nodeView(node: ClusterNode, status: RaftStatus): NodeView {
  if (node.manager === undefined) return node;
  const leader = status.leaderId === node.manager.raftId;
  const reachable = leader || node.status.state === 'ready';
  return { ...node, managerStatus: { leader, reachable, address: node.manager.address } };
}
