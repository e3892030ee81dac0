/** Checks what a manager sends on a session before the worker believes it. */
import { ok, type Result, refuse } from '../base/result.ts';
import type { LogRequest, ManagerPeer, SessionMessage } from '../model/wire.ts';

type Fields = Readonly<Record<string, unknown>>;

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isPeer(value: unknown): value is ManagerPeer {
  return isFields(value) && typeof value['nodeId'] === 'string' && typeof value['address'] === 'string';
}

const assignmentKinds = ['task', 'network', 'service', 'endpoint', 'secret', 'config'];

function isAssignmentKey(value: unknown): value is Fields {
  return (
    isFields(value) && assignmentKinds.includes(value['kind'] as string) && typeof value['id'] === 'string'
  );
}

function isAssignmentItem(value: unknown): boolean {
  if (!isAssignmentKey(value) || !isFields(value['value'])) return false;
  if (value['kind'] !== 'task') return true;
  const task = value['value'];
  return task['id'] === value['id'] && isFields(task['spec']) && isFields(task['status']);
}

/** Reads one message of `dispatcher.session`. */
export function parseSessionMessage(value: unknown): Result<SessionMessage> {
  if (!isFields(value)) return refuse('a session message is not an object');
  const { kind, managers } = value;
  if (kind === 'welcome' || kind === 'managers') {
    if (!Array.isArray(managers) || !managers.every(isPeer))
      return refuse(`${kind}: the managers are malformed`);
    if (kind === 'managers') return ok({ kind, managers });
    const { sessionId, heartbeatMs } = value;
    if (typeof sessionId !== 'string' || typeof heartbeatMs !== 'number' || !(heartbeatMs > 0)) {
      return refuse('welcome: session id or heartbeat is malformed');
    }
    return ok({ kind, managers, sessionId, heartbeatMs });
  }
  if (kind === 'role') {
    const { role, raftId } = value;
    if ((role !== 'manager' && role !== 'worker') || typeof raftId !== 'number') {
      return refuse('role: role or member id is malformed');
    }
    return ok({ kind, role, raftId });
  }
  if (kind !== 'assignments') return refuse(`unknown session message ${JSON.stringify(kind)}`);
  const { type, sequence, more, put, remove } = value;
  const wellFormed =
    (type === 'complete' || type === 'incremental') &&
    typeof sequence === 'number' &&
    typeof more === 'boolean' &&
    Array.isArray(put) &&
    put.every(isAssignmentItem) &&
    Array.isArray(remove) &&
    remove.every(isAssignmentKey);
  if (!wellFormed) return refuse('a set of assignments is malformed');
  return ok(value as unknown as SessionMessage);
}

/** Reads the parameters of `worker.logs`. */
export function parseLogRequest(value: unknown): Result<LogRequest> {
  if (!isFields(value)) return refuse('a log request is an object');
  const { taskId, follow, tail, sinceMs } = value;
  const wellFormed =
    typeof taskId === 'string' &&
    typeof follow === 'boolean' &&
    (tail === null || (typeof tail === 'number' && Number.isInteger(tail) && tail >= 0)) &&
    (sinceMs === null || (typeof sinceMs === 'number' && Number.isFinite(sinceMs)));
  return wellFormed
    ? ok(value as unknown as LogRequest)
    : refuse('a log request has taskId, follow, tail and sinceMs');
}
