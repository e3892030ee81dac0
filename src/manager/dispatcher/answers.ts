/** PURE: small things the dispatcher says and reads: refusals, peers, the status of a node. */
import { SwarmdError } from '../../base/errors.ts';
import type { NodeId } from '../../model/ids.ts';
import type { ClusterNode, NodeStatus } from '../../model/objects.ts';
import type { SessionMessage } from '../../model/wire.ts';
import type { RpcContext } from '../../rpc/types.ts';

/** The node's status, with the time it entered its state. */
export function statusOf(
  node: ClusterNode,
  state: NodeStatus['state'],
  message: string,
  address: string,
  nowMs: number,
): NodeStatus {
  const { status, meta } = node;
  const since = status.state === state ? (status.since ?? meta.updatedAt) : nowMs;
  return { state, since, message, address };
}

/** What a node is to be. A manager on its way out stays one until it has left the consensus group. */
export function roleOf(node: ClusterNode): Extract<SessionMessage, { kind: 'role' }> {
  const { manager } = node;
  if (manager === undefined) return { kind: 'role', role: 'worker', raftId: 0 };
  return { kind: 'role', role: 'manager', raftId: manager.raftId };
}

/** The session named is not the current one of the node. */
export function sessionOver(): SwarmdError {
  return new SwarmdError('FAILED_PRECONDITION', 'the session is over; open a new one', {
    details: { reason: 'unknown-session' },
  });
}

/** Leadership ended while the request was served. */
export function notLeading(): SwarmdError {
  return new SwarmdError('FAILED_PRECONDITION', 'this manager is not the leader any more; ask another one');
}

/** The host of a peer's `host:port`, without brackets and IPv4-mapped prefix. */
export function hostOf(remoteAddress: string): string {
  const colon = remoteAddress.lastIndexOf(':');
  return remoteAddress
    .slice(0, colon)
    .replace(/^\[|\]$/g, '')
    .replace(/^::ffff:/, '');
}

/** The node was removed from the cluster. */
export function removed(nodeId: string): SwarmdError {
  return new SwarmdError(
    'NOT_FOUND',
    `node ${nodeId} is not part of the cluster any more: it was removed. Run "swarmd leave --force" on it, then join again`,
    { details: { reason: 'removed' } },
  );
}

/** The node id of the peer's certificate; UNAUTHENTICATED without one. */
export function requirePeer(context: RpcContext): NodeId {
  const { peer } = context.connection;
  if (peer === null)
    throw new SwarmdError('UNAUTHENTICATED', 'a node certificate is needed; join the cluster first');
  return peer.nodeId as NodeId;
}
