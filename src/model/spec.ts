/**
 * What users ask for: specs of services, nodes, networks, secrets, configs and the cluster.
 *
 * Invariants: plain JSON data, readonly; absent optional members are left out, never `undefined`-valued in
 * storage; durations are milliseconds (fractions allowed), memory is bytes, CPU is billionths of a core.
 */
import type { ConfigId, NetworkId, SecretId } from './ids.ts';

export type Labels = Readonly<Record<string, string>>;

/** Name and labels, common to all specs. */
export interface Annotations {
  readonly name: string;
  readonly labels: Labels;
}

/** How a task runs: a container of an engine, or a process of its own session. */
export type RuntimeKind = 'docker' | 'process';

export interface Mount {
  readonly type: 'bind' | 'volume' | 'tmpfs';
  /** Host path (bind), volume name (volume; absent: anonymous), absent for tmpfs. */
  readonly source?: string;
  /** Absolute path inside the task. */
  readonly target: string;
  readonly readOnly: boolean;
  readonly bindPropagation?: 'private' | 'rprivate' | 'shared' | 'rshared' | 'slave' | 'rslave';
  readonly volume?: {
    readonly noCopy?: boolean;
    readonly labels?: Labels;
    readonly driver?: string;
    readonly driverOptions?: Labels;
  };
  readonly tmpfs?: { readonly sizeBytes?: number; readonly mode?: number };
}

export interface HealthCheck {
  /** `['NONE']`, `['CMD', ...argv]` or `['CMD-SHELL', command]`; empty: the image's own. */
  readonly test: readonly string[];
  readonly intervalMs?: number;
  readonly timeoutMs?: number;
  readonly startPeriodMs?: number;
  readonly retries?: number;
}

/** A secret or config delivered to a task as a file. */
export interface FileReference<Id extends SecretId | ConfigId> {
  readonly id: Id;
  readonly name: string;
  readonly file: { readonly name: string; readonly uid: string; readonly gid: string; readonly mode: number };
}

export interface ContainerSpec {
  /** Image reference. Empty for the process runtime. */
  readonly image: string;
  /** Replaces the image's entrypoint. */
  readonly command?: readonly string[];
  /** Arguments (compose `command`). The process runtime runs `command ++ args`. */
  readonly args?: readonly string[];
  /** `NAME=value` entries; `NAME` alone unsets. */
  readonly env: readonly string[];
  readonly labels: Labels;
  readonly hostname?: string;
  readonly user?: string;
  readonly groups?: readonly string[];
  readonly dir?: string;
  readonly tty?: boolean;
  readonly openStdin?: boolean;
  readonly readOnly?: boolean;
  readonly init?: boolean;
  readonly stopSignal?: string;
  /** Time from the stop signal to SIGKILL. Default 10,000. */
  readonly stopGraceMs: number;
  readonly healthCheck?: HealthCheck;
  /** `IP host [alias...]` lines. */
  readonly hosts?: readonly string[];
  readonly dns?: {
    readonly nameservers: readonly string[];
    readonly search: readonly string[];
    readonly options: readonly string[];
  };
  readonly mounts: readonly Mount[];
  readonly secrets: readonly FileReference<SecretId>[];
  readonly configs: readonly FileReference<ConfigId>[];
  readonly capabilityAdd?: readonly string[];
  readonly capabilityDrop?: readonly string[];
  readonly sysctls?: Labels;
  readonly ulimits?: readonly { readonly name: string; readonly soft: number; readonly hard: number }[];
}

export interface ResourceAmount {
  /** Billionths of a core. */
  readonly nanoCpus?: number;
  readonly memoryBytes?: number;
  /** Limits only. */
  readonly pids?: number;
  /** Reservations only: counts by kind (`gpu` -> 1). */
  readonly generic?: Readonly<Record<string, number>>;
}

export interface ResourceRequirements {
  readonly limits?: ResourceAmount;
  readonly reservations?: ResourceAmount;
}

export interface RestartPolicy {
  readonly condition: 'none' | 'on-failure' | 'any';
  readonly delayMs: number;
  /** 0: unlimited. */
  readonly maxAttempts: number;
  /** Time in which attempts are counted; 0: all time. */
  readonly windowMs: number;
}

export interface Placement {
  /** Expressions such as `node.role==manager`. All must hold. */
  readonly constraints: readonly string[];
  /** Nested spread keys such as `node.labels.zone`. */
  readonly preferences: readonly { readonly spread: string }[];
  /** 0: no limit. */
  readonly maxReplicasPerNode: number;
  /** Empty: any. */
  readonly platforms: readonly { readonly os: string; readonly architecture: string }[];
}

export interface NetworkAttachmentConfig {
  readonly target: NetworkId;
  readonly aliases: readonly string[];
}

/** Everything that makes a task; two tasks of equal TaskSpec are interchangeable. */
export interface TaskSpec {
  readonly runtime: RuntimeKind;
  readonly container: ContainerSpec;
  readonly resources: ResourceRequirements;
  readonly restart: RestartPolicy;
  readonly placement: Placement;
  readonly networks: readonly NetworkAttachmentConfig[];
  readonly logDriver?: { readonly name: string; readonly options: Labels };
  /** Bumped to force an update with an unchanged spec. */
  readonly forceUpdate: number;
}

export interface UpdateConfig {
  /** Slots at a time; 0: all at once. */
  readonly parallelism: number;
  readonly delayMs: number;
  readonly failureAction: 'pause' | 'continue' | 'rollback';
  /** Time after RUNNING in which a death counts as a failure of the update. */
  readonly monitorMs: number;
  /** 0 .. 1. */
  readonly maxFailureRatio: number;
  readonly order: 'stop-first' | 'start-first';
}

export type PortProtocol = 'tcp' | 'udp' | 'sctp';

export interface PortConfig {
  readonly name?: string;
  readonly protocol: PortProtocol;
  readonly targetPort: number;
  /** 0: allocated by the managers from 30000-32767 (ingress), or by the node (host). */
  readonly publishedPort: number;
  readonly publishMode: 'ingress' | 'host';
}

export interface EndpointSpec {
  readonly mode: 'vip' | 'dnsrr';
  readonly ports: readonly PortConfig[];
}

export type ServiceMode =
  | { readonly kind: 'replicated'; readonly replicas: number }
  | { readonly kind: 'global' }
  | { readonly kind: 'replicated-job'; readonly maxConcurrent: number; readonly totalCompletions: number }
  | { readonly kind: 'global-job' };

/** Moves of running tasks to nodes that came back or joined. Replicated services only. */
export interface RebalanceConfig {
  /** Moves under way at once; 1 or more. */
  readonly maxMoves: number;
  /** Tasks of the service by which one place must be above another; 2 or more. */
  readonly margin: number;
  /** Time a node must be unchanged before it is given tasks, and to wait after a move that failed. */
  readonly cooldownMs: number;
}

export interface ServiceSpec extends Annotations {
  readonly task: TaskSpec;
  readonly mode: ServiceMode;
  readonly update: UpdateConfig;
  readonly rollback: UpdateConfig;
  readonly endpoint: EndpointSpec;
  /** Absent: tasks stay where they are. */
  readonly rebalance?: RebalanceConfig;
}

export type NodeRole = 'manager' | 'worker';
export type NodeAvailability = 'active' | 'pause' | 'drain';

export interface NodeSpec {
  readonly labels: Labels;
  readonly role: NodeRole;
  readonly availability: NodeAvailability;
}

export interface NetworkSpec extends Annotations {
  readonly driver: 'overlay' | 'host' | 'bridge';
  readonly internal: boolean;
  readonly attachable: boolean;
  readonly ingress: boolean;
  readonly driverOptions: Labels;
  /** CIDR text; absent: allocated from the pool. */
  readonly subnet?: string;
}

/** Payloads are base64 in the state. */
export interface SecretSpec extends Annotations {
  readonly data: string;
}
export interface ConfigSpec extends Annotations {
  readonly data: string;
}

export interface ClusterSpec {
  readonly labels: Labels;
  /** Old tasks kept per slot, the live one included. */
  readonly taskHistoryLimit: number;
  readonly heartbeatMs: number;
  /** Time a node may stay DOWN before its tasks are orphaned. */
  readonly orphanAfterMs: number;
  readonly defaultAddressPool: readonly string[];
  /** Prefix length of the subnets cut from the pool. */
  readonly subnetSize: number;
}
