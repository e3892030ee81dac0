/**
 * PURE: what workers send, read field by field: nothing else of it reaches the log or a planner.
 *
 * Invariants: texts and lists are bounded; what is missing gets its default where that is safe (an older or newer
 * worker), and the request is refused where it is not.
 */
import { SwarmdError } from '../../base/errors.ts';
import type { NodeId, TaskId } from '../../model/ids.ts';
import type { ContainerStatus, NodeDescription, PortMapping, TaskStatus } from '../../model/objects.ts';
import type { RuntimeKind } from '../../model/spec.ts';
import { isTaskState, taskStateOwner } from '../../model/task-state.ts';
import type { SessionRequest } from '../../model/wire.ts';
import type { Action } from '../state/actions.ts';

/** Characters kept of a status message or error; the task's own logs have the rest. */
const STATUS_TEXT_MAX = 1_024;
/** Characters kept of any text of a description. */
const TEXT_MAX = 255;
/** Entries kept of any list or record of a description or status. */
const ENTRIES_MAX = 256;

type Fields = Readonly<Record<string, unknown>>;

function fieldsOf(value: unknown): Fields {
  return typeof value === 'object' && value !== null ? (value as Fields) : {};
}

function textOf(value: unknown, max = TEXT_MAX): string {
  return typeof value === 'string' ? value.slice(0, max) : '';
}

function amountOf(value: unknown): number {
  return typeof value === 'number' && Number.isFinite(value) && value > 0 ? value : 0;
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value.slice(0, ENTRIES_MAX) : [];
}

function recordOf<T>(value: unknown, read: (one: unknown) => T): Record<string, T> {
  const entries = Object.entries(fieldsOf(value)).slice(0, ENTRIES_MAX);
  return Object.fromEntries(entries.map(([key, one]) => [textOf(key), read(one)]));
}

/** The session a request names; '' when it names none. */
export function sessionIdOf(params: unknown): string {
  return textOf(fieldsOf(params)['sessionId']);
}

/** Reads a session request; INVALID_ARGUMENT without a host name, resources, runtimes or platform. */
export function parseSessionRequest(params: unknown): SessionRequest {
  const request = fieldsOf(params);
  const description = fieldsOf(request['description']);
  const resources = fieldsOf(description['resources']);
  const isWhole =
    typeof description['hostname'] === 'string' &&
    typeof resources['nanoCpus'] === 'number' &&
    typeof resources['memoryBytes'] === 'number' &&
    Array.isArray(description['runtimes']) &&
    typeof fieldsOf(description['platform'])['os'] === 'string';
  if (!isWhole)
    throw new SwarmdError('INVALID_ARGUMENT', 'the session request has no valid node description');
  return {
    description: parseDescription(description, resources),
    address: textOf(request['address']),
    rpcAddress: textOf(request['rpcAddress']),
    previousSession: textOf(request['previousSession']),
  };
}

function parseDescription(description: Fields, resources: Fields): NodeDescription {
  const platform = fieldsOf(description['platform']);
  const isRuntime = (kind: unknown): kind is RuntimeKind => kind === 'docker' || kind === 'process';
  return {
    hostname: textOf(description['hostname']),
    platform: { os: textOf(platform['os']), architecture: textOf(platform['architecture']) },
    resources: {
      nanoCpus: amountOf(resources['nanoCpus']),
      memoryBytes: amountOf(resources['memoryBytes']),
      generic: recordOf(resources['generic'], amountOf),
    },
    runtimes: listOf(description['runtimes']).filter(isRuntime),
    engineVersion: textOf(description['engineVersion']),
    engineLabels: recordOf(description['engineLabels'], (value) => textOf(value)),
    plugins: listOf(description['plugins']).map((plugin) => {
      const { type, name } = fieldsOf(plugin);
      return { type: textOf(type), name: textOf(name) };
    }),
    swarmdVersion: textOf(description['swarmdVersion']),
    networkRung: description['networkRung'] === 'overlay' ? 'overlay' : 'host-ports',
    warnings: listOf(description['warnings']).map((warning) => textOf(warning, STATUS_TEXT_MAX)),
  };
}

/** The actions of a status report. A malformed one is refused as a whole: none of it reaches the log. */
export function parseReports(nodeId: NodeId, params: unknown): Action[] {
  const { updates } = fieldsOf(params);
  if (!Array.isArray(updates)) throw new SwarmdError('INVALID_ARGUMENT', 'a status report has no updates');
  return updates.map((update: unknown): Action => {
    const { taskId, status } = fieldsOf(update);
    const parsed = parseStatus(fieldsOf(status));
    if (typeof taskId !== 'string' || parsed === null)
      throw new SwarmdError('INVALID_ARGUMENT', 'a status report is malformed');
    return { kind: 'report-task', id: taskId.slice(0, TEXT_MAX) as TaskId, nodeId, status: parsed };
  });
}

function parseStatus(status: Fields): TaskStatus | null {
  const { state, at, message, error, container, ports, healthy } = status;
  if (!isTaskState(state) || taskStateOwner[state] !== 'worker') return null;
  if (typeof at !== 'number' || !Number.isFinite(at)) return null;
  if (typeof message !== 'string' || typeof error !== 'string') return null;
  return {
    state,
    at,
    message: textOf(message, STATUS_TEXT_MAX),
    error: textOf(error, STATUS_TEXT_MAX),
    ...(container === undefined || container === null ? {} : { container: containerOf(fieldsOf(container)) }),
    ...(Array.isArray(ports) ? { ports: portsOf(ports) } : {}),
    ...(typeof healthy === 'boolean' ? { healthy } : {}),
  };
}

function containerOf({ containerId, pid, exitCode }: Fields): ContainerStatus {
  return {
    containerId: textOf(containerId),
    pid: amountOf(pid),
    ...(typeof exitCode === 'number' && Number.isInteger(exitCode) ? { exitCode } : {}),
  };
}

function portsOf(ports: readonly unknown[]): PortMapping[] {
  const isPort = (port: unknown): port is number =>
    typeof port === 'number' && Number.isInteger(port) && port > 0 && port <= 65_535;
  return listOf(ports).flatMap((entry): PortMapping[] => {
    const { protocol, targetPort, hostPort } = fieldsOf(entry);
    if (protocol !== 'tcp' && protocol !== 'udp' && protocol !== 'sctp') return [];
    return isPort(targetPort) && isPort(hostPort) ? [{ protocol, targetPort, hostPort }] : [];
  });
}
