/**
 * How a task is attached to its networks on this node.
 *
 * Invariants: attachments keep the order of the task's networks with the ingress network first, where engines look
 * for the default route; a task outside containers has no attachments.
 */
import type { Task } from '../model/objects.ts';
import type { AssignedNetwork } from '../model/wire.ts';
import type { TaskNetworking } from '../worker/types.ts';
import { bareAddress, engineNetworkName, taskMac } from './plan.ts';

/** Facts of the node. */
export interface AttachmentFacts {
  readonly overlay: boolean;
  /** Whether a DNS server answers on this node's gateway address of every network. */
  readonly gatewayDns: boolean;
}

/** The attachment of `task` to `networks`: those of the task, all of them. */
export function taskNetworking(
  task: Task,
  networks: readonly AssignedNetwork[],
  facts: AttachmentFacts,
): TaskNetworking {
  if (task.spec.runtime !== 'docker')
    return { attachments: [], dnsServers: [], publishOnNode: !facts.overlay };
  const byId = new Map<string, AssignedNetwork>(networks.map((network) => [network.id, network]));
  const attached = task.networks
    .flatMap((attachment) => {
      const network = byId.get(attachment.networkId);
      return network === undefined ? [] : [{ attachment, network }];
    })
    .toSorted((a, b) => Number(b.network.ingress) - Number(a.network.ingress));
  // Names come from the first server that knows one, so any gateway would do; the task's own networks go first.
  const resolvers = attached.toSorted((a, b) => Number(a.network.ingress) - Number(b.network.ingress));
  return {
    attachments: attached.map(({ attachment, network }) => ({
      engineNetwork: engineNetworkName(network),
      address: bareAddress(attachment.address),
      // Peers have forwarding entries for this hardware address; with another one their frames are flooded.
      ...(attachment.address === '' ? {} : { mac: taskMac(bareAddress(attachment.address)) }),
      // The engine answers for aliases before it asks our server, and knows only its own containers.
      aliases: facts.gatewayDns || network.ingress ? [] : engineAliases(task, attachment.aliases),
    })),
    dnsServers: facts.gatewayDns ? resolvers.map(({ network }) => bareAddress(network.gateway)) : [],
    publishOnNode: !facts.overlay,
  };
}

/** Names for the engine's own DNS where ours cannot be reached: they cover the tasks of this node. */
function engineAliases(task: Task, aliases: readonly string[]): readonly string[] {
  const names = new Set([task.serviceAnnotations.name, ...aliases]);
  return [...names].flatMap((name) => [name, `tasks.${name}`]);
}
