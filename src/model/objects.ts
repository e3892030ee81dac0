/**
 * The replicated objects. A store table holds one kind each.
 *
 * Invariants: `meta.version` is the log index of the entry that last changed the object; ids and times are
 * stamped once, by the leader; objects are replaced, never mutated.
 */
import type { ClusterId, ConfigId, NetworkId, NodeId, SecretId, ServiceId, TaskId } from './ids.ts';
import type {
  Annotations,
  ClusterSpec,
  ConfigSpec,
  EndpointSpec,
  NetworkSpec,
  NodeSpec,
  PortConfig,
  PortProtocol,
  RuntimeKind,
  SecretSpec,
  ServiceSpec,
  TaskSpec,
} from './spec.ts';
import type { DesiredState, TaskState } from './task-state.ts';

export interface Meta {
  /** Log index of the last change. 0 before the first commit. */
  readonly version: number;
  /** Wall-clock milliseconds. */
  readonly createdAt: number;
  readonly updatedAt: number;
}

/** The cluster itself: one object, written at init. */
export interface Cluster {
  readonly id: ClusterId;
  readonly meta: Meta;
  readonly spec: ClusterSpec;
  /** Root certificate and key (PEM). The key is replicated so that any manager can sign. */
  readonly rootCertificatePem: string;
  readonly rootKeyPem: string;
  /** The secret part of each join token. */
  readonly joinSecrets: { readonly manager: string; readonly worker: string };
  /** Ids of nodes that were removed: their certificates are refused. Bounded by certificate life. */
  readonly blockedNodes: readonly { readonly id: NodeId; readonly until: number }[];
}

export interface Platform {
  readonly os: string;
  /** Docker's name: x86_64, aarch64. Compared through `normalArchitecture`. */
  readonly architecture: string;
}

/** What a node says of itself when it connects. */
export interface NodeDescription {
  readonly hostname: string;
  readonly platform: Platform;
  readonly resources: {
    readonly nanoCpus: number;
    readonly memoryBytes: number;
    readonly generic: Readonly<Record<string, number>>;
  };
  readonly runtimes: readonly RuntimeKind[];
  /** Empty where no engine answers. */
  readonly engineVersion: string;
  readonly engineLabels: Readonly<Record<string, string>>;
  readonly plugins: readonly { readonly type: string; readonly name: string }[];
  readonly swarmdVersion: string;
  /** How task networks are built on the node: see docs/ARCHITECTURE.md, "network rungs". */
  readonly networkRung: 'overlay' | 'host-ports';
  /** What does not work on the node now, in words: a published port that is taken, a network that cannot be made. */
  readonly warnings?: readonly string[];
}

export type NodeState = 'unknown' | 'down' | 'ready' | 'disconnected';

export interface NodeStatus {
  readonly state: NodeState;
  /** When the node entered this state, by the leader's clock. Absent: `meta.updatedAt` stands in. */
  readonly since?: number;
  readonly message: string;
  /** Address of the node as other nodes reach it (no port). */
  readonly address: string;
}

export interface NetworkAttachment {
  readonly networkId: NetworkId;
  /** Address with prefix length: `10.0.1.5/24`. */
  readonly address: string;
}

export interface ClusterNode {
  readonly id: NodeId;
  readonly meta: Meta;
  readonly spec: NodeSpec;
  readonly description: NodeDescription;
  readonly status: NodeStatus;
  /** host:port of the node's own RPC server, as it says itself. */
  readonly rpcAddress?: string;
  /** Set on managers: their Raft member id and the address peers reach. */
  readonly manager?: { readonly raftId: number; readonly address: string };
  /** The node's own address (gateway) on each network it takes part in. */
  readonly attachments: readonly NetworkAttachment[];
}

export type UpdateState =
  | 'updating'
  | 'paused'
  | 'completed'
  | 'rollback_started'
  | 'rollback_paused'
  | 'rollback_completed';

export interface UpdateStatus {
  readonly state: UpdateState;
  readonly startedAt: number;
  readonly completedAt?: number;
  readonly message: string;
  /** Slots that had to change when the update began: what the failure ratio is measured against. */
  readonly slots?: number;
}

export interface ServiceEndpoint {
  /** Published ports with their allocated numbers, in the order of the spec. */
  readonly ports: readonly PortConfig[];
  /** One VIP per service network in VIP mode. */
  readonly virtualIps: readonly NetworkAttachment[];
}

export interface Service {
  readonly id: ServiceId;
  readonly meta: Meta;
  readonly spec: ServiceSpec;
  /** Bumped each time the spec changes; tasks carry the value they were made from. */
  readonly specVersion: number;
  readonly previousSpec?: ServiceSpec;
  readonly previousSpecVersion?: number;
  readonly endpoint: ServiceEndpoint;
  readonly updateStatus?: UpdateStatus;
  /** Jobs: bumped at every update; tasks carry it. */
  readonly jobIteration?: number;
  /** Set by removal: the reaper deletes the service once its tasks are gone. */
  readonly pendingDelete: boolean;
}

/** What the updater knows of a task it made. Times are the leader's, in wall-clock milliseconds. */
export interface TaskUpdateMark {
  /** `updateStatus.startedAt` of the update that made the task. */
  readonly startedAt: number;
  /** When the task was first seen running and healthy. */
  readonly runningAt?: number;
  /** When the task was counted as a failure of the update. */
  readonly failedAt?: number;
}

/** Restarts of a slot under one spec version, carried from each task to its replacement. */
export interface RestartHistory {
  readonly count: number;
  /** Times of the newest restarts; kept only where the policy has a window. */
  readonly times: readonly number[];
}

/** A port of one task as reached on its node. */
export interface PortMapping {
  readonly protocol: PortProtocol;
  readonly targetPort: number;
  /** Port on the node's address. */
  readonly hostPort: number;
}

export interface ContainerStatus {
  readonly containerId: string;
  readonly pid: number;
  readonly exitCode?: number;
}

export interface TaskStatus {
  readonly state: TaskState;
  /** Wall-clock milliseconds of the observation (the observer's clock). */
  readonly at: number;
  /** Why the task is in this state; the scheduler's explanation while PENDING. */
  readonly message: string;
  /** What went wrong; empty when nothing did. */
  readonly error: string;
  readonly container?: ContainerStatus;
  /** Ports of the task on its node's own address (process runtime, host ports, the host-ports rung). */
  readonly ports?: readonly PortMapping[];
  /** False while a health check says starting or unhealthy. Absent: no health check, counts as healthy. */
  readonly healthy?: boolean;
}

export interface Task {
  readonly id: TaskId;
  readonly meta: Meta;
  readonly serviceId: ServiceId;
  /** Service name and labels when the task was made. */
  readonly serviceAnnotations: Annotations;
  /** 1.. for replicated services, 0 for global ones. */
  readonly slot: number;
  /** '' until assigned; preset for global services. */
  readonly nodeId: NodeId | '';
  readonly spec: TaskSpec;
  readonly specVersion: number;
  readonly status: TaskStatus;
  readonly desiredState: DesiredState;
  /** Addresses on its networks, by the managers; with the aliases it answers to there. */
  readonly networks: readonly (NetworkAttachment & { readonly aliases: readonly string[] })[];
  /** The service's published ports (allocated) when the task was allocated. */
  readonly endpointPorts: readonly PortConfig[];
  /** Generic resources claimed by the scheduler. */
  readonly genericResources?: Readonly<Record<string, number>>;
  readonly jobIteration?: number;
  /**
   * Set on a replacement made by the restart supervisor: it stays at desired READY until both hold:
   * `notBefore` has passed and `afterTask` is dead (1 min at most).
   */
  readonly delayedStart?: { readonly notBefore: number; readonly afterTask: TaskId };
  /** The service's endpoint spec when the task was made. */
  readonly endpointSpec?: EndpointSpec;
  /** Restarts of this slot so far, where the restart policy limits them. */
  readonly restarts?: RestartHistory;
  /** Set when the task ended and its restart policy asks for no replacement: it keeps its slot. */
  readonly finished?: boolean;
  /** Set on a task made by rebalancing: the task of its slot that stops once this one is up. */
  readonly movedFrom?: TaskId;
  /** Set on a task made by the updater. */
  readonly update?: TaskUpdateMark;
}

export interface Network {
  readonly id: NetworkId;
  readonly meta: Meta;
  readonly spec: NetworkSpec;
  /** '' until allocated. */
  readonly subnet: string;
  /** VXLAN network identifier; 0 until allocated. */
  readonly vni: number;
}

export interface Secret {
  readonly id: SecretId;
  readonly meta: Meta;
  readonly spec: SecretSpec;
}

export interface Config {
  readonly id: ConfigId;
  readonly meta: Meta;
  readonly spec: ConfigSpec;
}

/** Table name to object type. */
export interface Tables {
  readonly cluster: Cluster;
  readonly node: ClusterNode;
  readonly service: Service;
  readonly task: Task;
  readonly network: Network;
  readonly secret: Secret;
  readonly config: Config;
}

export type TableName = keyof Tables;
export const tableNames = [
  'cluster',
  'node',
  'service',
  'task',
  'network',
  'secret',
  'config',
] as const satisfies TableName[];

/** Label that groups the objects of a stack. */
export const STACK_LABEL = 'com.docker.stack.namespace';
