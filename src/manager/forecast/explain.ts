/**
 * PURE: why a task runs where it does, or cannot, node by node.
 *
 * Invariants: verdicts come from the scheduler's own filters and its own spread tree, in its order, so an
 * explanation cannot differ from what the scheduler does; nothing is changed.
 */
import { assertNever } from '../../base/assert.ts';
import { spreadValue } from '../../model/constraint.ts';
import type {
  NodeExplanation,
  NodeRefusal,
  ServiceExplanation,
  TaskExplanation,
  TaskPlacementExplanation,
} from '../../model/forecast.ts';
import type { TaskId } from '../../model/ids.ts';
import type { ClusterNode, Service, Task } from '../../model/objects.ts';
import { resourceClaim } from '../../model/resource-claims.ts';
import { isActive, isGlobal, slotsOf } from '../orchestrator/slots.ts';
import { filters, preparePipeline, type Filter } from '../scheduler/filters.ts';
import { hostPortKeys, readNodes, versionKey, type NodeInfo } from '../scheduler/node-info.ts';
import { buildSpreadTree, FAILURES_MIN } from '../scheduler/spread-tree.ts';
import type { StateView } from '../state/view.ts';

/** Explains a service: its live tasks, and how every node stands to one more task of it. */
export function explainService(view: StateView, service: Service, nowMs: number): ServiceExplanation {
  const nodes = explainNodes(view, probe(service), null, nowMs);
  const tasks = slotsOf(view, service).flatMap((slot) =>
    slot.active.length > 0 ? slot.active : slot.finished === null ? [] : [slot.finished],
  );
  return {
    service: service.spec.name,
    mode: service.spec.mode.kind,
    tasks: tasks.map((task) => explainState(view, task, nodes)),
    nodes,
  };
}

/** Explains one task: the nodes are judged as if it had no place yet. */
export function explainTask(view: StateView, task: Task, nowMs: number): TaskPlacementExplanation {
  const nodes = explainNodes(view, task, task.id, nowMs);
  return { task: explainState(view, task, nodes), nodes };
}

/** A task of the service's present version that waits for a place; no planner ever sees it. */
function probe(service: Service): Task {
  const { spec } = service;
  return {
    id: '' as TaskId,
    meta: { version: 0, createdAt: 0, updatedAt: 0 },
    serviceId: service.id,
    serviceAnnotations: { name: spec.name, labels: spec.labels },
    slot: 0,
    nodeId: '',
    spec: spec.task,
    specVersion: service.specVersion,
    status: { state: 'pending', at: 0, message: '', error: '' },
    desiredState: 'running',
    networks: [],
    endpointPorts: service.endpoint.ports.length > 0 ? service.endpoint.ports : spec.endpoint.ports,
  };
}

/** Every node's verdict on the task, best first, those that cannot take it last. `without`: a task not counted. */
function explainNodes(view: StateView, task: Task, without: TaskId | null, nowMs: number): NodeExplanation[] {
  const { nodes } = readNodes(view, nowMs, without);
  const pipeline = preparePipeline(task);
  const keys = task.spec.placement.preferences.map((preference) => preference.spread);
  const branches = branchCounts(nodes, keys, task);
  const version = versionKey(task);
  const refusals = new Map(nodes.map((info) => [info, pipeline.accepts(info) ? [] : refusalsOf(task, info)]));

  const ranks = new Map<NodeInfo, number>();
  const tree = buildSpreadTree(nodes, { serviceId: task.serviceId, version, keys }, pipeline.accepts);
  for (let best = tree.best(); best !== null; best = tree.best()) {
    ranks.set(best, ranks.size + 1);
    tree.placed(false);
  }

  return nodes
    .map((info): NodeExplanation => {
      const failures = info.failures.get(version) ?? 0;
      return {
        nodeId: info.node.id,
        hostname: info.node.description.hostname,
        refusals: refusals.get(info) ?? [],
        rank: ranks.get(info) ?? null,
        serviceTasks: info.activeByService.get(task.serviceId) ?? 0,
        allTasks: info.activeTasks,
        failures,
        avoided: failures >= FAILURES_MIN,
        branches: branches(info),
      };
    })
    .toSorted((a, b) => (a.rank ?? Infinity) - (b.rank ?? Infinity) || (a.hostname < b.hostname ? -1 : 1));
}

/** Tasks of the service in each branch of the preferences; branches nest. */
function branchCounts(
  nodes: readonly NodeInfo[],
  keys: readonly string[],
  task: Task,
): (info: NodeInfo) => NodeExplanation['branches'] {
  const path = (info: NodeInfo, depth: number): string =>
    JSON.stringify(keys.slice(0, depth + 1).map((key) => spreadValue(key, info.node)));
  const counts = new Map<string, number>();
  for (const info of nodes) {
    const here = info.activeByService.get(task.serviceId) ?? 0;
    for (const depth of keys.keys()) {
      counts.set(path(info, depth), (counts.get(path(info, depth)) ?? 0) + here);
    }
  }
  return (info) =>
    keys.map((key, depth) => ({
      key,
      value: spreadValue(key, info.node),
      serviceTasks: counts.get(path(info, depth)) ?? 0,
    }));
}

function refusalsOf(task: Task, info: NodeInfo): NodeRefusal[] {
  return filters.flatMap((filter) => {
    if (filter.prepare(task)?.(info) !== false) return [];
    return [{ filter: filter.name, ...detailOf(filter, task, info) }];
  });
}

type Detail = Pick<NodeRefusal, 'reason' | 'help'>;

/** What a refusal means on this node. A filter not known here is told in its own words. */
function detailOf(filter: Filter, task: Task, info: NodeInfo): Detail {
  const { placement } = task.spec;
  switch (filter.name) {
    case 'ready':
      return unavailable(info.node);
    case 'runtime':
      return {
        reason: `has no ${task.spec.runtime} runtime`,
        help: `start the ${task.spec.runtime} runtime on the node`,
      };
    case 'resources':
      return shortOf(task, info);
    case 'constraints': {
      const broken = placement.constraints.filter(
        (constraint) =>
          filter.prepare({
            ...task,
            spec: { ...task.spec, placement: { ...placement, constraints: [constraint] } },
          })?.(info) === false,
      );
      return {
        reason: `does not meet ${broken.join(', ')}`,
        help: 'change the constraint, or label the node with "swarmd node update --label-add"',
      };
    }
    case 'platform': {
      const { os, architecture } = info.node.description.platform;
      return { reason: `is ${os}/${architecture}`, help: 'use an image built for this platform' };
    }
    case 'host-port':
      return {
        reason: `host port ${hostPortKeys(task)
          .filter((key) => info.hostPorts.has(key))
          .join(', ')} in use`,
        help: 'publish another port, or publish it in ingress mode',
      };
    case 'max-replicas':
      return {
        reason: `has ${info.activeByService.get(task.serviceId) ?? 0} of at most ${placement.maxReplicasPerNode} tasks`,
        help: 'raise --replicas-max-per-node, or add nodes',
      };
    default:
      return { reason: filter.explain(1, task), help: '' };
  }
}

function unavailable(node: ClusterNode): Detail {
  if (node.status.state !== 'ready')
    return { reason: `is ${node.status.state}`, help: 'bring the node back, or remove it' };
  return {
    reason: `availability is ${node.spec.availability}`,
    help: `swarmd node update --availability active ${node.description.hostname}`,
  };
}

function shortOf(task: Task, info: NodeInfo): Detail {
  const claim = resourceClaim(task);
  const { available } = info;
  const short: string[] = [];
  if (claim.nanoCpus > available.nanoCpus)
    short.push(`${claim.nanoCpus / 1e9} CPU wanted, ${Math.max(0, available.nanoCpus) / 1e9} free`);
  if (claim.memoryBytes > available.memoryBytes) {
    const mebibytes = (bytes: number): number => Math.floor(Math.max(0, bytes) / 1024 ** 2);
    short.push(
      `${mebibytes(claim.memoryBytes)} MiB wanted, ${mebibytes(available.memoryBytes)} MiB of memory free`,
    );
  }
  for (const [kind, count] of claim.generic) {
    const free = available.generic.get(kind) ?? 0;
    if (count > free) short.push(`${count} ${kind} wanted, ${free} free`);
  }
  return { reason: short.join('; '), help: 'lower the reservation, stop other tasks there, or add nodes' };
}

function nameOf(view: StateView, task: Task, hostname: string): string {
  const service = view.get('service', task.serviceId);
  const place = service !== undefined && isGlobal(service) ? hostname : task.slot;
  return `${task.serviceAnnotations.name}.${place}`;
}

function explainState(view: StateView, task: Task, nodes: readonly NodeExplanation[]): TaskExplanation {
  const hostname = nodes.find((node) => node.nodeId === task.nodeId)?.hostname ?? task.nodeId;
  return {
    taskId: task.id,
    name: nameOf(view, task, hostname),
    nodeId: task.nodeId,
    hostname,
    state: task.status.state,
    ...reasonOf(view, task, nodes),
  };
}

type Reason = Pick<TaskExplanation, 'reason' | 'help'>;

function reasonOf(view: StateView, task: Task, nodes: readonly NodeExplanation[]): Reason {
  const said = task.status.error === '' ? task.status.message : task.status.error;
  const { state } = task.status;
  if (!isActive(task) && state !== 'failed' && state !== 'rejected' && state !== 'complete') {
    return { reason: `asked to stop (${task.desiredState})`, help: [] };
  }
  switch (state) {
    case 'new':
      return { reason: said === 'created' ? 'waits for addresses and ports' : said, help: [] };
    case 'pending':
      return waiting(task, said, nodes);
    case 'assigned':
    case 'accepted':
    case 'preparing':
    case 'ready':
    case 'starting':
      return { reason: delayOf(view, task) ?? `its node is starting it: ${said}`, help: [] };
    case 'running':
      return placed(task, nodes);
    case 'complete':
      return { reason: 'ended with success', help: [] };
    case 'failed':
    case 'rejected':
      return {
        reason: `${state}: ${said}`,
        help: [
          task.finished === true
            ? 'its restart policy allows no further attempt; correct the cause, then "swarmd service update --force"'
            : `see "swarmd service logs ${task.id}"`,
        ],
      };
    case 'shutdown':
    case 'remove':
    case 'orphaned':
      return { reason: `ended: ${said}`, help: [] };
    default:
      return assertNever(state);
  }
}

function delayOf(view: StateView, task: Task): string | null {
  if (task.desiredState !== 'ready' || task.delayedStart === undefined) return null;
  const before = view.get('task', task.delayedStart.afterTask);
  const other =
    before === undefined ? 'the one before it' : `task ${before.id} before it (${before.status.state})`;
  return `waits for the restart delay, and for ${other} to stop`;
}

function waiting(task: Task, said: string, nodes: readonly NodeExplanation[]): Reason {
  const looked = task.nodeId === '' ? nodes : nodes.filter((node) => node.nodeId === task.nodeId);
  if (looked.some((node) => node.refusals.length === 0))
    return { reason: 'a node can take it; it will be placed in the next turn', help: [] };
  if (looked.length === 0) return { reason: 'the cluster has no node for it', help: ['add a node'] };
  // What stands alone between a node and the task helps most.
  const first = looked.toSorted((a, b) => a.refusals.length - b.refusals.length);
  const help = first.flatMap((node) =>
    node.refusals.length === 1
      ? node.refusals.map((refusal) => `${node.hostname} ${refusal.reason}: ${refusal.help}`)
      : [],
  );
  return { reason: said, help: help.slice(0, 3) };
}

function placed(task: Task, nodes: readonly NodeExplanation[]): Reason {
  const node = nodes.find((one) => one.nodeId === task.nodeId);
  if (node === undefined) return { reason: 'its node is not part of the cluster any more', help: [] };
  const branches = node.branches.map(({ key, value }) => `${key}=${value === '' ? '(none)' : value}`);
  const where = branches.length === 0 ? '' : `, in the branch ${branches.join(', ')}`;
  if (node.refusals.length === 0)
    return {
      reason: `passes every filter; number ${node.rank ?? 0} in the order of nodes now${where}`,
      help: [],
    };
  return {
    reason: `placed there earlier; would not go there now: ${node.refusals.map((one) => one.reason).join('; ')}`,
    help: [],
  };
}
