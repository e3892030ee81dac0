/**
 * The allocator: subnets for networks, ports for services, addresses for tasks and nodes. A planner.
 *
 * Invariants: everything in use is derived from the view, so a new leader resumes from the store alone; a task
 * moves from NEW to PENDING once, with all its addresses and its service's ports; one that cannot keeps its reason
 * in its status, written when it changes, and is tried again at every plan; ended tasks hold nothing.
 */
import { ok, refuse, type Result } from '../../base/result.ts';
import type { Network, Task } from '../../model/objects.ts';
import type { NetworkId } from '../../model/ids.ts';
import type { Action } from '../state/actions.ts';
import type { Plan, PlanContext } from '../state/planner.ts';
import type { StateView } from '../state/view.ts';
import { formatIpv4 } from './ipv4.ts';
import { isAllocated, isManaged, planNetworks, type NetworkPlan } from './network-allocation.ts';
import { buildPools, type NetworkPool } from './network-pools.ts';
import { findAttachmentNeeds, planAttachmentActions, type AttachmentNeed } from './node-attachments.ts';
import { planPorts, usesIngressNetwork, type PortPlan } from './port-allocation.ts';

/** Status text of a task that waits for the scheduler. */
export const PENDING_MESSAGE = 'pending task scheduling';

/** A network a task joins, with the names it answers to there. */
interface WantedNetwork {
  readonly network: Network;
  readonly aliases: readonly string[];
}

/** Plans everything the managers allocate. */
export function planAllocation(view: StateView, context: PlanContext): Plan {
  const networks = planNetworks(view);
  const ports = planPorts(view);
  const waiting: { readonly task: Task; readonly wanted: Result<readonly WantedNetwork[]> }[] = [];
  for (const task of view.all('task')) {
    if (!isNew(task)) continue;
    const wanted = wantedNetworks(task, networks, ports);
    if (wanted !== null) waiting.push({ task, wanted });
  }
  const ingress = ports.usesIngress ? networks.ingress : null;
  const needs = findAttachmentNeeds(view, networks.networks, ingress);

  const ids = poolIds(needs);
  for (const { wanted } of waiting) {
    if (wanted.ok) for (const { network } of wanted.value) ids.add(network.id);
  }
  const pools = buildPools(view, networks.networks, ids);
  // Nodes first: without its gateway no task of the node reaches the network.
  const attachments = planAttachmentActions(needs, pools);
  const taskActions = waiting.flatMap(({ task, wanted }) =>
    allocateTask(task, wanted, ports, pools, context.nowMs),
  );
  return {
    actions: [...networks.actions, ...ports.actions, ...attachments.actions, ...taskActions],
    wakeAt: null,
    notes: attachments.notes,
  };
}

/** Plans only the gateways of nodes: cheap enough to follow every round of scheduling. */
export function planAttachments(view: StateView): Plan {
  const networks = new Map<string, Network>();
  let ingress: Network | null = null;
  for (const network of view.all('network')) {
    networks.set(network.id, network);
    if (isManaged(network) && network.spec.ingress) ingress ??= network;
  }
  let usesIngress = false;
  for (const service of view.all('service')) usesIngress ||= usesIngressNetwork(service);
  const needs = findAttachmentNeeds(view, networks, usesIngress ? ingress : null);
  const { actions, notes } = planAttachmentActions(needs, buildPools(view, networks, poolIds(needs)));
  return { actions, wakeAt: null, notes };
}

function poolIds(needs: readonly AttachmentNeed[]): Set<string> {
  return new Set(needs.flatMap((need) => need.gain.map((network) => network.id)));
}

function isNew(task: Task): boolean {
  return task.status.state === 'new' && task.desiredState !== 'shutdown' && task.desiredState !== 'remove';
}

/** The networks the task needs addresses on; a refusal says why it must wait; null: its service is gone. */
function wantedNetworks(
  task: Task,
  networks: NetworkPlan,
  ports: PortPlan,
): Result<readonly WantedNetwork[]> | null {
  const service = ports.services.get(task.serviceId);
  if (service === undefined) {
    const reason = ports.reasons.get(task.serviceId);
    return reason === undefined ? null : refuse(reason);
  }
  if (task.spec.runtime !== 'docker') return ok([]);
  const wanted = new Map<NetworkId, WantedNetwork>();
  for (const { target, aliases } of task.spec.networks) {
    const network = networks.networks.get(target);
    if (network === undefined) return refuse(`network ${target} does not exist`);
    wanted.set(network.id, { network, aliases });
  }
  const { ingress } = networks;
  if (ingress !== null && usesIngressNetwork(service) && !wanted.has(ingress.id)) {
    wanted.set(ingress.id, { network: ingress, aliases: [] });
  }
  const managed = [...wanted.values()].filter(({ network }) => isManaged(network));
  for (const { network } of managed) {
    if (isAllocated(network)) continue;
    const reason = networks.reasons.get(network.id) ?? 'it has no subnet yet';
    return refuse(`network ${network.spec.name} is not ready: ${reason}`);
  }
  return ok(managed);
}

function allocateTask(
  task: Task,
  wanted: Result<readonly WantedNetwork[]>,
  ports: PortPlan,
  pools: ReadonlyMap<string, NetworkPool>,
  nowMs: number,
): readonly Action[] {
  const addresses = wanted.ok ? takeAddresses(wanted.value, pools) : wanted;
  if (!addresses.ok) return explain(task, addresses.reason, nowMs);
  return [
    {
      kind: 'patch-task',
      id: task.id,
      expect: task.meta.version,
      patch: {
        networks: addresses.value,
        endpointPorts: ports.services.get(task.serviceId)?.endpoint.ports ?? [],
        status: { state: 'pending', at: nowMs, message: PENDING_MESSAGE, error: '' },
      },
    },
  ];
}

/** One address on each network, or none at all. */
function takeAddresses(
  wanted: readonly WantedNetwork[],
  pools: ReadonlyMap<string, NetworkPool>,
): Result<Task['networks']> {
  const taken: { readonly entry: NetworkPool; readonly address: number }[] = [];
  const networks: Task['networks'][number][] = [];
  for (const { network, aliases } of wanted) {
    const entry = pools.get(network.id);
    const address = entry?.pool.takeForTask() ?? null;
    if (entry === undefined || address === null) {
      for (const earlier of taken) earlier.entry.pool.release(earlier.address);
      return refuse(
        `no free address on network ${network.spec.name} (${network.subnet}); stop tasks there or use a network with a larger subnet`,
      );
    }
    taken.push({ entry, address });
    networks.push({
      networkId: network.id,
      address: `${formatIpv4(address)}/${entry.prefixLength}`,
      aliases,
    });
  }
  return ok(networks);
}

/** Writes why the task waits, unless it already says so. */
function explain(task: Task, reason: string, nowMs: number): readonly Action[] {
  if (task.status.error === reason) return [];
  return [
    {
      kind: 'patch-task',
      id: task.id,
      expect: task.meta.version,
      patch: { status: { ...task.status, at: nowMs, message: reason, error: reason } },
    },
  ];
}
