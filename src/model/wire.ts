/**
 * Messages between a worker and the managers' dispatcher, over one RPC connection.
 *
 * Methods: stream `dispatcher.session` (SessionRequest in, SessionMessage out), calls `dispatcher.heartbeat`,
 * `dispatcher.status`; towards the worker: stream `worker.logs` (LogRequest in, LogRecord out).
 * Invariants: assignment sequences count up by one within a session, the first is `complete`; a worker refuses
 * an incremental that does not follow the last one it took and opens a new session.
 */
import type { Labels, PortConfig, EndpointSpec } from './spec.ts';
import type { NetworkId, NodeId, ServiceId, TaskId, SecretId, ConfigId } from './ids.ts';
import type { NetworkAttachment, NodeDescription, PortMapping, Task, TaskStatus } from './objects.ts';

export interface SessionRequest {
  readonly description: NodeDescription;
  /** Address other nodes reach this one at (no port). Empty: the address the manager sees. */
  readonly address: string;
  /** host:port of the node's own RPC server; '' while it says none. */
  readonly rpcAddress: string;
  /** The session to replace, '' at first. */
  readonly previousSession: string;
}

export interface ManagerPeer {
  readonly nodeId: NodeId;
  /** host:port */
  readonly address: string;
}

/** A network as one node sees it. */
export interface AssignedNetwork {
  readonly id: NetworkId;
  readonly name: string;
  readonly subnet: string;
  readonly vni: number;
  readonly internal: boolean;
  readonly ingress: boolean;
  /** This node's own address on the network, with prefix length: gateway, DNS and source address. */
  readonly gateway: string;
  /** The other nodes on the network: node address and their gateway. */
  readonly peers: readonly { readonly nodeId: NodeId; readonly address: string; readonly gateway: string }[];
}

/** A service as routing and DNS see it. */
export interface ServiceRecord {
  readonly id: ServiceId;
  readonly name: string;
  /** Stack name, '' for none. */
  readonly stack: string;
  readonly mode: EndpointSpec['mode'];
  readonly ports: readonly PortConfig[];
  readonly virtualIps: readonly NetworkAttachment[];
}

/** A running, healthy task that wants traffic. It exists exactly as long as the task may be reached. */
export interface EndpointRecord {
  readonly taskId: TaskId;
  readonly serviceId: ServiceId;
  readonly slot: number;
  readonly nodeId: NodeId;
  /** Address of the node the task runs on. */
  readonly nodeAddress: string;
  readonly networks: Task['networks'];
  /** Ports on the node's address; where present for a target port they are the way in. */
  readonly ports: readonly PortMapping[];
}

export type AssignmentItem =
  | { readonly kind: 'task'; readonly id: TaskId; readonly value: Task }
  | { readonly kind: 'network'; readonly id: NetworkId; readonly value: AssignedNetwork }
  | { readonly kind: 'service'; readonly id: ServiceId; readonly value: ServiceRecord }
  | { readonly kind: 'endpoint'; readonly id: TaskId; readonly value: EndpointRecord }
  | {
      readonly kind: 'secret';
      readonly id: SecretId;
      readonly value: { readonly name: string; readonly data: string };
    }
  | {
      readonly kind: 'config';
      readonly id: ConfigId;
      readonly value: { readonly name: string; readonly data: string };
    };

export type AssignmentKind = AssignmentItem['kind'];

export type SessionMessage =
  | {
      readonly kind: 'welcome';
      readonly sessionId: string;
      readonly heartbeatMs: number;
      readonly managers: readonly ManagerPeer[];
    }
  | { readonly kind: 'managers'; readonly managers: readonly ManagerPeer[] }
  /** What the node is to be, after `welcome` and whenever that changes. `raftId` 0: no manager. */
  | { readonly kind: 'role'; readonly role: 'manager' | 'worker'; readonly raftId: number }
  | {
      readonly kind: 'assignments';
      readonly type: 'complete' | 'incremental';
      readonly sequence: number;
      /** More messages of the same sequence follow; apply none before the last. */
      readonly more: boolean;
      readonly put: readonly AssignmentItem[];
      readonly remove: readonly { readonly kind: AssignmentKind; readonly id: string }[];
    };

export interface HeartbeatRequest {
  readonly sessionId: string;
}

export interface StatusReport {
  readonly sessionId: string;
  readonly updates: readonly { readonly taskId: TaskId; readonly status: TaskStatus }[];
}

export interface LogRequest {
  readonly taskId: TaskId;
  readonly follow: boolean;
  /** Last lines only; null: all. */
  readonly tail: number | null;
  /** Wall-clock milliseconds; null: from the start. */
  readonly sinceMs: number | null;
}

export interface LogRecord {
  readonly stream: 'stdout' | 'stderr';
  readonly atMs: number;
  /** One line without its newline. */
  readonly line: string;
}

/** What a new node sends to join (call `node.join`, no client certificate, pinned root). */
export interface JoinRequest {
  readonly token: string;
  readonly csrPem: string;
  /** Address other nodes reach the new node at; '' : as seen by the manager. */
  readonly address: string;
  /** Port of the node's own RPC server. */
  readonly port: number;
  readonly hostname: string;
}

export interface JoinAnswer {
  readonly nodeId: NodeId;
  readonly role: 'manager' | 'worker';
  readonly clusterId: string;
  readonly certificatePem: string;
  readonly rootPem: string;
  /** Address of the new node as the manager saw it (no port). */
  readonly observedAddress: string;
  readonly managers: readonly ManagerPeer[];
  /** Managers only: the Raft member id to use. */
  readonly raftId: number;
  readonly labels: Labels;
}
