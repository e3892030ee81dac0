/**
 * Gateway addresses of nodes: one a node and network, kept while the node has a task on the network.
 *
 * Invariants: a gateway never collides with a task's address; on the ingress network every node that can build
 * overlays has one as long as containers are published through the mesh.
 */
import type { ClusterNode, Network, NetworkAttachment } from '../../model/objects.ts';
import { isTerminalState, taskStateRank } from '../../model/task-state.ts';
import type { Action } from '../state/actions.ts';
import type { PlanNote } from '../state/planner.ts';
import type { StateView } from '../state/view.ts';
import { formatIpv4 } from './ipv4.ts';
import type { NetworkPool } from './network-pools.ts';
import { isAllocated, isManaged } from './network-allocation.ts';

/** Networks a node must gain, and the attachments it keeps. */
export interface AttachmentNeed {
  readonly node: ClusterNode;
  readonly keep: readonly NetworkAttachment[];
  readonly gain: readonly Network[];
}

/** The nodes whose attachments must change. `ingress` is null when nothing uses it. */
export function findAttachmentNeeds(
  view: StateView,
  networks: ReadonlyMap<string, Network>,
  ingress: Network | null,
): readonly AttachmentNeed[] {
  const needs: AttachmentNeed[] = [];
  for (const node of view.all('node')) {
    const wanted = new Set<string>();
    if (ingress !== null && node.description.networkRung === 'overlay') wanted.add(ingress.id);
    for (const task of view.tasksOfNode(node.id)) {
      const { state } = task.status;
      if (taskStateRank[state] < taskStateRank.assigned || isTerminalState(state)) continue;
      for (const { networkId } of task.networks) wanted.add(networkId);
    }
    const keep = node.attachments.filter(({ networkId }) => wanted.has(networkId));
    const held = new Set<string>(keep.map(({ networkId }) => networkId));
    const gain = [...wanted].flatMap((id) => {
      const network = networks.get(id);
      const usable = network !== undefined && isManaged(network) && isAllocated(network);
      return usable && !held.has(id) ? [network] : [];
    });
    if (gain.length > 0 || keep.length < node.attachments.length) needs.push({ node, keep, gain });
  }
  return needs;
}

/** Gives the nodes their gateways. A network without a free address is noted and tried again. */
export function planAttachmentActions(
  needs: readonly AttachmentNeed[],
  pools: ReadonlyMap<string, NetworkPool>,
): { readonly actions: readonly Action[]; readonly notes: readonly PlanNote[] } {
  const actions: Action[] = [];
  const notes: PlanNote[] = [];
  for (const { node, keep, gain } of needs) {
    const attachments = [...keep];
    for (const network of gain) {
      const entry = pools.get(network.id);
      const address = entry?.pool.takeForNode() ?? null;
      if (entry === undefined || address === null) {
        const fields = { network: network.spec.name, subnet: network.subnet, nodeId: node.id };
        notes.push({ message: 'no free address for a node on a network', fields });
        continue;
      }
      attachments.push({ networkId: network.id, address: `${formatIpv4(address)}/${entry.prefixLength}` });
    }
    const unchanged = keep.length === node.attachments.length && attachments.length === keep.length;
    if (unchanged) continue;
    const object: ClusterNode = { ...node, attachments };
    actions.push({ kind: 'update', table: 'node', object, expect: node.meta.version });
  }
  return { actions, notes };
}
