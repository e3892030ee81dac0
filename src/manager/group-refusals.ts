/** Refusals about the group of managers: no leader, and nodes that were removed. */
import { SwarmdError } from '../base/errors.ts';
import type { Cluster } from '../model/objects.ts';
import type { RaftStatus } from '../raft/types.ts';
import type { PeerIdentity } from '../rpc/types.ts';
import type { StateView } from './state/view.ts';

/** What a node that was removed is told. */
export const REMOVED_NODE =
  'this node was removed from the cluster; run "swarmd leave --force" on it, then join again';

/** Why no change can be made now, and what would help. `details`: voters, and how many of them are needed. */
export function noLeaderError({ members, memberId }: RaftStatus): SwarmdError {
  const voters = members.filter((member) => member.voter).length;
  const needed = Math.floor(voters / 2) + 1;
  if (!members.some((member) => member.id === memberId)) {
    return new SwarmdError(
      'NO_LEADER',
      'this manager is not part of the group of managers yet (or any more); wait until the leader added it, or ask another manager',
      { details: { voters, needed } },
    );
  }
  return new SwarmdError(
    'NO_LEADER',
    `the cluster has no leader: ${needed} of ${voters} managers must be up and reach one another. Start the managers that are down, or check the network between them`,
    { details: { voters, needed } },
  );
}

/** The nodes that were removed from the cluster and whose certificates have not ended yet. */
export class BlockedNodes {
  readonly #view: StateView;
  #list: Cluster['blockedNodes'] | null = null;
  #ids: ReadonlySet<string> = new Set();

  constructor(view: StateView) {
    this.#view = view;
  }

  /** Their ids; the same set until it changes. */
  ids(): ReadonlySet<string> {
    const [cluster] = this.#view.all('cluster');
    if (cluster !== undefined && cluster.blockedNodes !== this.#list) {
      this.#list = cluster.blockedNodes;
      this.#ids = new Set(cluster.blockedNodes.map((blocked) => blocked.id));
    }
    return this.#ids;
  }

  has(nodeId: string): boolean {
    return this.ids().has(nodeId);
  }

  /** Throws PERMISSION_DENIED for a node that was removed. */
  refuse(peer: PeerIdentity | null): void {
    if (peer === null || !this.has(peer.nodeId)) return;
    throw new SwarmdError('PERMISSION_DENIED', REMOVED_NODE, { details: { reason: 'removed' } });
  }
}
