/**
 * PURE: what one node should hold, read from the state.
 *
 * Invariants: a task is assigned to exactly the node it names; an endpoint exists exactly while its task runs,
 * is healthy, is wanted and its node is not down; a network is assigned to exactly the nodes attached to it.
 */
import { compareTaskStates, taskStateRank } from '../../model/task-state.ts';
import type { NetworkId, NodeId } from '../../model/ids.ts';
import { STACK_LABEL, type ClusterNode, type Service, type Task } from '../../model/objects.ts';
import type {
  AssignedNetwork,
  AssignmentItem,
  EndpointRecord,
  ManagerPeer,
  ServiceRecord,
} from '../../model/wire.ts';
import type { StateView } from '../state/view.ts';

/** Whether the node should know of the task: placed on it, and its networks are up to receive it there. */
export function isDispatchable(view: StateView, task: Task): boolean {
  if (task.nodeId === '' || compareTaskStates(task.status.state, 'assigned') < 0) return false;
  if (task.status.state === 'orphaned') return false;
  const node = view.get('node', task.nodeId);
  if (node === undefined) return false;
  return task.networks.every((network) =>
    node.attachments.some((own) => own.networkId === network.networkId),
  );
}

/** Whether two versions of a task are the same work for its node (what the node itself reported is left out). */
export function sameAssignment(a: Task, b: Task): boolean {
  return (
    a.desiredState === b.desiredState &&
    a.nodeId === b.nodeId &&
    a.spec === b.spec &&
    a.networks === b.networks &&
    a.endpointPorts === b.endpointPorts &&
    a.genericResources === b.genericResources
  );
}

/** The endpoint of a task, or null while it must not be reached. */
export function endpointOf(view: StateView, task: Task): EndpointRecord | null {
  if (task.status.state !== 'running' || task.status.healthy === false) return null;
  if (taskStateRank[task.desiredState] > taskStateRank.running || task.nodeId === '') return null;
  const node = view.get('node', task.nodeId);
  if (node === undefined || node.status.state === 'down') return null;
  return {
    taskId: task.id,
    serviceId: task.serviceId,
    slot: task.slot,
    nodeId: task.nodeId,
    nodeAddress: node.status.address,
    networks: task.networks,
    ports: task.status.ports ?? [],
  };
}

/** A service as DNS and ingress see it. */
export function serviceRecordOf(service: Service): ServiceRecord {
  return {
    id: service.id,
    name: service.spec.name,
    stack: service.spec.labels[STACK_LABEL] ?? '',
    mode: service.spec.endpoint.mode,
    ports: service.endpoint.ports,
    virtualIps: service.endpoint.virtualIps,
  };
}

/** A network as `node` sees it, or null when the node is not attached to it. */
export function assignedNetworkOf(view: StateView, id: NetworkId, node: ClusterNode): AssignedNetwork | null {
  const network = view.get('network', id);
  const own = node.attachments.find((attachment) => attachment.networkId === id);
  if (network === undefined || own === undefined || network.subnet === '') return null;
  const peers: AssignedNetwork['peers'][number][] = [];
  for (const other of view.all('node')) {
    if (other.id === node.id) continue;
    const theirs = other.attachments.find((attachment) => attachment.networkId === id);
    if (theirs === undefined || other.status.address === '') continue;
    peers.push({ nodeId: other.id, address: other.status.address, gateway: theirs.address });
  }
  peers.sort((a, b) => (a.nodeId < b.nodeId ? -1 : 1));
  return {
    id,
    name: network.spec.name,
    subnet: network.subnet,
    vni: network.vni,
    internal: network.spec.internal,
    ingress: network.spec.ingress,
    gateway: own.address,
    peers,
  };
}

/** Ids of the secrets and configs that the live tasks of a node use. */
export function fileIdsOf(view: StateView, nodeId: NodeId): { secrets: Set<string>; configs: Set<string> } {
  const secrets = new Set<string>();
  const configs = new Set<string>();
  for (const task of view.tasksOfNode(nodeId)) {
    if (taskStateRank[task.status.state] > taskStateRank.running || !isDispatchable(view, task)) continue;
    for (const reference of task.spec.container.secrets) secrets.add(reference.id);
    for (const reference of task.spec.container.configs) configs.add(reference.id);
  }
  return { secrets, configs };
}

/** Everything a node should hold: the content of a COMPLETE set. Files first, tasks last. */
export function completeSet(view: StateView, node: ClusterNode): AssignmentItem[] {
  const items: AssignmentItem[] = [];
  const files = fileIdsOf(view, node.id);
  for (const id of files.secrets) {
    const secret = view.get('secret', id);
    if (secret === undefined) continue;
    items.push({ kind: 'secret', id: secret.id, value: { name: secret.spec.name, data: secret.spec.data } });
  }
  for (const id of files.configs) {
    const config = view.get('config', id);
    if (config === undefined) continue;
    items.push({ kind: 'config', id: config.id, value: { name: config.spec.name, data: config.spec.data } });
  }
  for (const attachment of node.attachments) {
    const network = assignedNetworkOf(view, attachment.networkId, node);
    if (network !== null) items.push({ kind: 'network', id: network.id, value: network });
  }
  for (const service of view.all('service')) {
    items.push({ kind: 'service', id: service.id, value: serviceRecordOf(service) });
  }
  for (const task of view.all('task')) {
    const endpoint = endpointOf(view, task);
    if (endpoint !== null) items.push({ kind: 'endpoint', id: task.id, value: endpoint });
  }
  for (const task of view.tasksOfNode(node.id)) {
    if (isDispatchable(view, task)) items.push({ kind: 'task', id: task.id, value: task });
  }
  return items;
}

/** The managers workers may turn to, in a stable order. */
export function managerPeers(view: StateView): ManagerPeer[] {
  const peers: ManagerPeer[] = [];
  for (const node of view.all('node')) {
    if (node.manager !== undefined) peers.push({ nodeId: node.id, address: node.manager.address });
  }
  return peers.sort((a, b) => (a.nodeId < b.nodeId ? -1 : 1));
}
