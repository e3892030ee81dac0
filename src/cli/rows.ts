/** Rows of the listings: objects as the texts their columns show. Pure. */
import type { NodeView, ServiceView } from '../model/api.ts';
import type { ClusterNode, Task } from '../model/objects.ts';
import type { PortConfig, ServiceSpec } from '../model/spec.ts';
import { isTerminalState } from '../model/task-state.ts';
import { durationWords, familiarImage, naturalCompare, shortId, type Column, type Row } from './output.ts';

export const serviceColumns: readonly Column[] = [
  ['ID', 'ID'],
  ['NAME', 'Name'],
  ['MODE', 'Mode'],
  ['REPLICAS', 'Replicas'],
  ['IMAGE', 'Image'],
  ['PORTS', 'Ports'],
];

export const taskColumns: readonly Column[] = [
  ['ID', 'ID'],
  ['NAME', 'Name'],
  ['IMAGE', 'Image'],
  ['NODE', 'Node'],
  ['DESIRED STATE', 'DesiredState'],
  ['CURRENT STATE', 'CurrentState'],
  ['ERROR', 'Error'],
  ['PORTS', 'Ports'],
];

export const nodeColumns: readonly Column[] = [
  ['ID', 'IDWithSelf'],
  ['HOSTNAME', 'Hostname'],
  ['STATUS', 'Status'],
  ['AVAILABILITY', 'Availability'],
  ['MANAGER STATUS', 'ManagerStatus'],
  ['ENGINE VERSION', 'EngineVersion'],
];

function titled(word: string): string {
  return word.charAt(0).toUpperCase() + word.slice(1);
}

/** What a service runs, for the IMAGE column: the image, or the command of a process. */
export function workOf(spec: ServiceSpec['task']): string {
  if (spec.runtime === 'docker') return familiarImage(spec.container.image);
  const [program = ''] = [...(spec.container.command ?? []), ...(spec.container.args ?? [])];
  return `process:${program}`;
}

/** Ports of the PORTS column: `*:8080->80/tcp`. Host ports are shown by the tasks. */
export function portsText(ports: readonly PortConfig[]): string {
  return ports
    .filter((port) => port.publishMode === 'ingress')
    .map(
      (port) =>
        `*:${port.publishedPort === 0 ? '' : port.publishedPort}->${port.targetPort}/${port.protocol}`,
    )
    .join(', ');
}

/** `3/5`, `3/5 (max 2 per node)`, `1/1 (3/5 completed)`. */
export function replicasText(service: ServiceView): string {
  const { running, desired, completed } = service.taskCounts;
  const { mode, task } = service.spec;
  const counts = `${running}/${desired}`;
  if (mode.kind === 'replicated-job') return `${counts} (${completed}/${mode.totalCompletions} completed)`;
  if (mode.kind === 'global-job') return `${counts} (${completed}/${desired} completed)`;
  const most = task.placement.maxReplicasPerNode;
  return mode.kind === 'replicated' && most > 0 ? `${counts} (max ${most} per node)` : counts;
}

/** A service as a row of `service ls`. */
export function serviceRow(service: ServiceView, fullIds = false): Row {
  const { mode } = service.spec;
  return {
    ID: shortId(service.id, fullIds),
    Name: service.spec.name,
    Mode: mode.kind.replace('-', ' '),
    Replicas: replicasText(service),
    Image: workOf(service.spec.task),
    Ports: portsText(
      service.endpoint.ports.length > 0 ? service.endpoint.ports : service.spec.endpoint.ports,
    ),
  };
}

export interface TaskRowOptions {
  readonly full: boolean;
  /** Show ids instead of names. */
  readonly raw: boolean;
  readonly nowMs: number;
}

/** `web.1`, or `web.NODE` for a global service. */
export function taskName(task: Task): string {
  return `${task.serviceAnnotations.name}.${task.slot > 0 ? task.slot : task.nodeId}`;
}

/** Tasks as rows of `service ps`: by name, newest first, older ones indented. */
export function taskRows(
  tasks: readonly Task[],
  nodes: readonly ClusterNode[],
  options: TaskRowOptions,
): Row[] {
  const sorted = [...tasks].sort(
    (a, b) =>
      naturalCompare(taskName(a), taskName(b)) ||
      Number(isTerminalState(a.status.state)) - Number(isTerminalState(b.status.state)) ||
      b.meta.createdAt - a.meta.createdAt ||
      b.meta.version - a.meta.version,
  );
  let previous = '';
  return sorted.map((task) => {
    const name = options.raw
      ? `${task.serviceId}.${task.slot > 0 ? task.slot : task.nodeId}`
      : taskName(task);
    const hostname = nodes.find((node) => node.id === task.nodeId)?.description.hostname;
    const row = {
      ID: shortId(task.id, options.full),
      Name: name === previous ? ` \\_ ${name}` : name,
      Image: workOf(task.spec),
      Node: options.raw ? task.nodeId : (hostname ?? task.nodeId),
      DesiredState: titled(task.desiredState),
      CurrentState: `${titled(task.status.state)} ${durationWords(options.nowMs - task.status.at)} ago`,
      Error: taskError(task, options.full),
      Ports: taskPorts(task),
    };
    previous = name;
    return row;
  });
}

function taskError(task: Task, full: boolean): string {
  const waiting = task.status.state === 'pending' ? task.status.message : '';
  const error = (task.status.error === '' ? waiting : task.status.error).replace(/\s+/g, ' ');
  if (error === '') return '';
  const text = `"${error}"`;
  return full || text.length <= 60 ? text : `${text.slice(0, 58)}…"`;
}

function taskPorts(task: Task): string {
  const ports = task.spec.runtime === 'process' ? [] : (task.status.ports ?? []);
  return ports.map((port) => `*:${port.hostPort}->${port.targetPort}/${port.protocol}`).join(', ');
}

/** A node as a row of `node ls`. */
export function nodeRow(node: NodeView, selfId: string): Row {
  const id = node.id;
  const { managerStatus } = node;
  return {
    ID: id,
    IDWithSelf: node.id === selfId ? `${id} *` : id,
    Self: String(node.id === selfId),
    Hostname: node.description.hostname,
    Status: titled(node.status.state),
    Availability: titled(node.spec.availability),
    ManagerStatus:
      managerStatus === undefined
        ? ''
        : managerStatus.leader
          ? 'Leader'
          : managerStatus.reachable
            ? 'Reachable'
            : 'Unreachable',
    EngineVersion: node.description.engineVersion,
  };
}
