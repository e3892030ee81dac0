/**
 * PURE: sessions, heartbeats and per-node assignment differences of the leader.
 *
 * Data owned: one session per connected node, and what changed for it since its last message.
 * Invariants:
 * 1. A node has at most one session; a newer one ends the older.
 * 2. The first message of a session is a COMPLETE set; each later one has the next sequence number.
 * 3. Applying a session's messages in order gives exactly `completeSet` of the state they were made from.
 * 4. A node without a heartbeat for `heartbeatMs * HEARTBEATS_MISSED_MAX` is expired, once.
 */
import { HEARTBEATS_MISSED_MAX } from '../../model/defaults.ts';
import type { NetworkId, NodeId } from '../../model/ids.ts';
import type { ClusterNode, Task } from '../../model/objects.ts';
import type { AssignmentItem, AssignmentKind, SessionMessage } from '../../model/wire.ts';
import type { Change } from '../state/actions.ts';
import type { StateView } from '../state/view.ts';
import {
  assignedNetworkOf,
  completeSet,
  endpointOf,
  fileIdsOf,
  isDispatchable,
  sameAssignment,
  serviceRecordOf,
} from './items.ts';

type AssignmentMessage = Extract<SessionMessage, { kind: 'assignments' }>;

interface Session {
  readonly id: string;
  readonly nodeId: NodeId;
  lastHeartbeatMs: number;
  sequence: number;
  /** Pending differences by `kind/id`; null value: remove. */
  readonly pending: Map<string, AssignmentItem | null>;
  /** Secret and config ids the node was sent. */
  files: Set<string>;
}

/** Approximate bytes of items in one message; the RPC message limit is well above it. */
const MESSAGE_BYTES_TARGET = 512 * 1024;
/** What an item without a payload is taken to weigh. */
const ITEM_BYTES_ESTIMATE = 2_048;

/** Grace of a new leader for nodes it has not heard from yet, in heartbeat periods. */
const NEW_LEADER_GRACE_PERIODS = 5;

export type HeartbeatAnswer = 'ok' | 'unknown-session';

/** The dispatcher's state. One for each term of leadership. */
export class DispatcherCore {
  readonly #sessions = new Map<NodeId, Session>();
  /** Nodes without a session since this leader began: when their grace ends. */
  readonly #awaited = new Map<NodeId, number>();
  readonly #heartbeatMs: number;

  /** `nowMs` is monotonic time here and in every method. */
  constructor(view: StateView, options: { readonly heartbeatMs: number; readonly nowMs: number }) {
    this.#heartbeatMs = options.heartbeatMs;
    for (const node of view.all('node')) {
      if (node.status.state === 'down') continue;
      this.#awaited.set(node.id, options.nowMs + options.heartbeatMs * NEW_LEADER_GRACE_PERIODS);
    }
  }

  /** Opens a session; its messages are the COMPLETE set. The node's older session, if any, is over. */
  open(view: StateView, node: ClusterNode, sessionId: string, nowMs: number): AssignmentMessage[] {
    const items = completeSet(view, node);
    const files = new Set(
      items.filter((item) => item.kind === 'secret' || item.kind === 'config').map(keyOf),
    );
    this.#awaited.delete(node.id);
    this.#sessions.set(node.id, {
      id: sessionId,
      nodeId: node.id,
      lastHeartbeatMs: nowMs,
      sequence: 1,
      pending: new Map(),
      files,
    });
    return messages('complete', 1, items, []);
  }

  heartbeat(nodeId: NodeId, sessionId: string, nowMs: number): HeartbeatAnswer {
    const session = this.#sessions.get(nodeId);
    if (session === undefined || session.id !== sessionId) return 'unknown-session';
    session.lastHeartbeatMs = nowMs;
    return 'ok';
  }

  /** Whether this is the node's current session. */
  isCurrent(nodeId: NodeId, sessionId: string): boolean {
    return this.#sessions.get(nodeId)?.id === sessionId;
  }

  /** Ids of nodes whose time is over. Their sessions end; each is returned once. */
  expire(nowMs: number): NodeId[] {
    const gone: NodeId[] = [];
    for (const session of this.#sessions.values()) {
      if (nowMs - session.lastHeartbeatMs >= this.#heartbeatMs * HEARTBEATS_MISSED_MAX)
        gone.push(session.nodeId);
    }
    for (const [nodeId, until] of this.#awaited) if (nowMs >= until) gone.push(nodeId);
    for (const nodeId of gone) {
      this.#sessions.delete(nodeId);
      this.#awaited.delete(nodeId);
    }
    return gone;
  }

  /** Lets the node expire once more, after one heartbeat period: what its expiry asked for could not be done. */
  expireAgain(nodeId: NodeId, nowMs: number): void {
    if (!this.#sessions.has(nodeId)) this.#awaited.set(nodeId, nowMs + this.#heartbeatMs);
  }

  /** When `expire` should next be called; null while nothing is awaited. */
  nextExpiryMs(): number | null {
    let next: number | null = null;
    for (const session of this.#sessions.values()) {
      const at = session.lastHeartbeatMs + this.#heartbeatMs * HEARTBEATS_MISSED_MAX;
      if (next === null || at < next) next = at;
    }
    for (const at of this.#awaited.values()) if (next === null || at < next) next = at;
    return next;
  }

  /** Takes note of one applied batch. `view` is the state after it. */
  changed(view: StateView, changes: readonly Change[]): void {
    const networks = new Set<NetworkId>();
    for (const change of changes) {
      switch (change.table) {
        case 'task':
          this.#taskChanged(view, change.before, change.after);
          break;
        case 'service':
          this.#broadcast(
            `service/${change.id}`,
            change.after && { kind: 'service', id: change.after.id, value: serviceRecordOf(change.after) },
          );
          break;
        case 'node':
          this.#nodeChanged(view, change.before, change.after, networks);
          break;
        case 'network':
          if (change.after !== null) networks.add(change.after.id);
          break;
        case 'cluster':
        case 'secret':
        case 'config':
          break;
      }
    }
    for (const id of networks) this.#networkChanged(view, id);
  }

  /**
   * The messages that bring every changed node up to date; afterwards nothing is pending for them. Nodes that do not
   * accept now are left out: their differences go on gathering, at most one an object.
   */
  flush(
    view: StateView,
    accepts: (nodeId: NodeId) => boolean = () => true,
  ): { nodeId: NodeId; sessionId: string; messages: AssignmentMessage[] }[] {
    const out: { nodeId: NodeId; sessionId: string; messages: AssignmentMessage[] }[] = [];
    for (const session of this.#sessions.values()) {
      if (session.pending.size === 0 || !accepts(session.nodeId)) continue;
      const put: AssignmentItem[] = [];
      const remove: { kind: AssignmentKind; id: string }[] = [];
      if ([...session.pending.keys()].some((key) => key.startsWith('task/')))
        this.#refreshFiles(view, session, put, remove);
      for (const [key, item] of session.pending) {
        if (item !== null) put.push(item);
        else
          remove.push({
            kind: key.slice(0, key.indexOf('/')) as AssignmentKind,
            id: key.slice(key.indexOf('/') + 1),
          });
      }
      session.pending.clear();
      session.sequence += 1;
      const list = messages('incremental', session.sequence, put, remove);
      out.push({ nodeId: session.nodeId, sessionId: session.id, messages: list });
    }
    return out;
  }

  #refreshFiles(
    view: StateView,
    session: Session,
    put: AssignmentItem[],
    remove: { kind: AssignmentKind; id: string }[],
  ): void {
    const wanted = fileIdsOf(view, session.nodeId);
    const next = new Set<string>();
    const add = (kind: 'secret' | 'config', id: string): void => {
      const object = view.get(kind, id);
      if (object === undefined) return;
      next.add(`${kind}/${id}`);
      if (session.files.has(`${kind}/${id}`)) return;
      put.push({
        kind,
        id: object.id,
        value: { name: object.spec.name, data: object.spec.data },
      } as AssignmentItem);
    };
    for (const id of wanted.secrets) add('secret', id);
    for (const id of wanted.configs) add('config', id);
    for (const key of session.files) {
      if (next.has(key)) continue;
      const [kind, id] = key.split('/') as ['secret' | 'config', string];
      remove.push({ kind, id });
    }
    session.files = next;
  }

  #taskChanged(view: StateView, before: Task | null, after: Task | null): void {
    const id = (after ?? before)?.id;
    if (id === undefined) return;
    const oldNode = before?.nodeId ?? '';
    const newNode = after?.nodeId ?? '';
    if (oldNode !== '' && oldNode !== newNode) this.#mark(oldNode, `task/${id}`, null);
    if (newNode !== '' && after !== null && isDispatchable(view, after)) {
      const known = before !== null && oldNode === newNode && sameAssignment(before, after);
      // A status below ASSIGNED was never sent, so the step to ASSIGNED is news even when nothing else changed.
      const wasSent = known && before.status.state !== 'new' && before.status.state !== 'pending';
      if (!wasSent) this.#mark(newNode, `task/${id}`, { kind: 'task', id: after.id, value: after });
    }
    const was = before === null ? null : endpointOf(view, before);
    const is = after === null ? null : endpointOf(view, after);
    // A deleted task is always withdrawn: its node may be gone from the view too.
    if (after !== null && JSON.stringify(was) === JSON.stringify(is)) return;
    if (after === null && before?.status.state !== 'running') return;
    this.#endpointChanged(view, id, after);
  }

  #endpointChanged(view: StateView, id: string, task: Task | null): void {
    const endpoint = task === null ? null : endpointOf(view, task);
    this.#broadcast(`endpoint/${id}`, endpoint && { kind: 'endpoint', id: endpoint.taskId, value: endpoint });
  }

  #nodeChanged(
    view: StateView,
    before: ClusterNode | null,
    after: ClusterNode | null,
    networks: Set<NetworkId>,
  ): void {
    const id = (after ?? before)?.id;
    if (id === undefined) return;
    if (after === null) {
      this.#sessions.delete(id);
      this.#awaited.delete(id);
    }
    const attachmentsChanged = before?.attachments !== after?.attachments;
    const addressChanged = before?.status.address !== after?.status.address;
    if (attachmentsChanged || addressChanged) {
      for (const attachment of [...(before?.attachments ?? []), ...(after?.attachments ?? [])]) {
        networks.add(attachment.networkId);
      }
    }
    const downChanged = (before?.status.state === 'down') !== (after?.status.state === 'down');
    if (!attachmentsChanged && !addressChanged && !downChanged && after !== null) return;
    for (const task of view.tasksOfNode(id)) {
      if (downChanged || addressChanged || after === null) this.#endpointChanged(view, task.id, task);
      // A task waits for its node's addresses; it may be complete now.
      if (attachmentsChanged && isDispatchable(view, task)) {
        this.#mark(id, `task/${task.id}`, { kind: 'task', id: task.id, value: task });
      }
    }
  }

  #networkChanged(view: StateView, id: NetworkId): void {
    for (const session of this.#sessions.values()) {
      const node = view.get('node', session.nodeId);
      if (node === undefined) continue;
      const network = assignedNetworkOf(view, id, node);
      this.#mark(node.id, `network/${id}`, network && { kind: 'network', id, value: network });
    }
  }

  #broadcast(key: string, item: AssignmentItem | null): void {
    for (const session of this.#sessions.values()) session.pending.set(key, item);
  }

  #mark(nodeId: NodeId, key: string, item: AssignmentItem | null): void {
    this.#sessions.get(nodeId)?.pending.set(key, item);
  }
}

function keyOf(item: AssignmentItem): string {
  return `${item.kind}/${item.id}`;
}

function weightOf(item: AssignmentItem): number {
  return item.kind === 'secret' || item.kind === 'config' ? item.value.data.length : ITEM_BYTES_ESTIMATE;
}

/** Splits a set into messages of bounded size; all but the last say that more follow. */
function messages(
  type: AssignmentMessage['type'],
  sequence: number,
  put: readonly AssignmentItem[],
  remove: AssignmentMessage['remove'],
): AssignmentMessage[] {
  const chunks: AssignmentItem[][] = [[]];
  let bytes = 0;
  for (const item of put) {
    const weight = weightOf(item);
    if (bytes > 0 && bytes + weight > MESSAGE_BYTES_TARGET) {
      chunks.push([]);
      bytes = 0;
    }
    (chunks.at(-1) as AssignmentItem[]).push(item);
    bytes += weight;
  }
  return chunks.map((chunk, index) => ({
    kind: 'assignments',
    type,
    sequence,
    more: index < chunks.length - 1,
    put: chunk,
    remove: index === 0 ? remove : [],
  }));
}
