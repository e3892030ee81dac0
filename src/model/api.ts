/**
 * swarmd's own API: every method with its parameters and answer. Served over HTTP under /swarmd/v1 and
 * forwarded between managers over RPC; the CLI uses it through src/http/client.ts.
 *
 * Invariants: objects are addressed by id, id prefix or name (`ref`); a change carries the version it was based
 * on where the caller read one; errors are SwarmdErrors.
 */
import type { Cluster, ClusterNode, Config, Network, Secret, Service, Task } from './objects.ts';
import type { Forecast, ServiceExplanation, TaskPlacementExplanation } from './forecast.ts';
import type { LogRecord } from './wire.ts';
import type { ConfigSpec, NetworkSpec, NodeSpec, SecretSpec, ServiceSpec } from './spec.ts';

/** A node as listed: the object, and what only the asked manager knows. */
export interface NodeView extends ClusterNode {
  /** Managers only. */
  readonly managerStatus?: {
    readonly leader: boolean;
    readonly reachable: boolean;
    readonly address: string;
  };
}

/** A service as listed: the object and counts of its tasks. */
export interface ServiceView extends Service {
  readonly taskCounts: { readonly running: number; readonly desired: number; readonly completed: number };
}

export interface ClusterView {
  readonly id: Cluster['id'];
  readonly meta: Cluster['meta'];
  readonly spec: Cluster['spec'];
  readonly nodes: number;
  readonly managers: number;
}

/** A copy of the whole state: it holds every secret of the cluster. */
export interface ClusterSnapshot {
  readonly clusterId: string;
  readonly index: number;
  readonly term: number;
  readonly members: readonly {
    readonly id: number;
    readonly nodeId: string;
    readonly address: string;
    readonly voter: boolean;
  }[];
  /** base64 */
  readonly state: string;
}

/** Counts of what came from other nodes and was refused. */
export interface RefusedView {
  /** Clients that were not let in: certificate, handshake, too many. */
  readonly connections: number;
  /** Connections that were closed because the peer broke the protocol. */
  readonly violations: number;
  /** Consensus frames that could not be decoded, or came from a member that was left behind. */
  readonly frames: number;
}

export interface InfoView {
  readonly nodeId: string;
  readonly role: 'manager' | 'worker';
  readonly clusterId: string;
  readonly version: string;
  readonly dataDir: string;
  readonly advertiseAddress: string;
  /** Managers only. */
  readonly raft?: {
    readonly role: string;
    readonly term: number;
    readonly leaderNodeId: string | null;
    readonly commitIndex: number;
    readonly appliedIndex: number;
    readonly members: number;
  };
  /** What was refused since the daemon started: a sign of another cluster or version, or of an attack. */
  readonly refused: RefusedView;
  readonly managers: readonly { readonly nodeId: string; readonly address: string }[];
  readonly dnsAddress: string;
}

/** A log line with the task it comes from, or a notice about a task that cannot be read. */
export type ServiceLogRecord =
  | ({
      readonly kind: 'line';
      readonly taskId: string;
      readonly serviceName: string;
      readonly slot: number;
      readonly nodeId: string;
      readonly hostname: string;
    } & LogRecord)
  | { readonly kind: 'notice'; readonly taskId: string; readonly nodeId: string; readonly message: string };

/** Parameters of every call that changes something. */
export interface Keyed {
  /**
   * A key of the caller's choice, one a change: 16 to 64 characters of 0-9, A-Z, a-z, _ and -. A call made again
   * with the same key within an hour applies at most once, and answers as the first one did.
   */
  readonly once?: string;
}

export interface ApiMethods {
  /** Answered by the asked daemon itself, manager or worker. */
  info: { params: Record<never, never>; result: InfoView };
  /** Asks the daemon to leave its cluster and stop. `force` on a manager. */
  'node.leave': { params: { force: boolean }; result: null };

  /** The state as the asked manager has it, at least as new as every acknowledged change; `state` is base64. */
  'cluster.snapshot': { params: Record<never, never>; result: ClusterSnapshot };

  'cluster.inspect': { params: Record<never, never>; result: ClusterView };
  'cluster.tokens': {
    params: { rotate: 'worker' | 'manager' | null };
    result: { worker: string; manager: string };
  };

  'node.list': { params: Record<never, never>; result: NodeView[] };
  'node.inspect': { params: { ref: string }; result: NodeView };
  'node.update': { params: { ref: string; version: number; spec: NodeSpec } & Keyed; result: NodeView };
  'node.remove': { params: { ref: string; force: boolean } & Keyed; result: null };

  /** What losing (as if down) and draining the nodes would do; refs. Nothing is changed. */
  'node.forecast': {
    params: { lose: readonly string[]; drain: readonly string[] };
    result: Forecast;
  };

  'service.create': { params: { spec: ServiceSpec } & Keyed; result: ServiceView };
  'service.list': { params: { stack: string | null }; result: ServiceView[] };
  'service.inspect': { params: { ref: string }; result: ServiceView };
  'service.update': {
    params: { ref: string; version: number; spec: ServiceSpec } & Keyed;
    result: ServiceView;
  };
  'service.rollback': { params: { ref: string; version: number } & Keyed; result: ServiceView };
  'service.remove': { params: { ref: string } & Keyed; result: null };

  /** Why its tasks are where they are, and how each node stands to one more. */
  'service.explain': { params: { ref: string }; result: ServiceExplanation };
  /** What updating `service` to the spec would do, or creating it (null). Nothing is changed. */
  'service.forecast': { params: { service: string | null; spec: ServiceSpec }; result: Forecast };

  /** `service` and `node` are refs; null: any. `desiredState` filters. */
  'task.list': {
    params: { service: string | null; node: string | null; stack: string | null };
    result: Task[];
  };
  'task.inspect': { params: { ref: string }; result: Task };
  'task.explain': { params: { ref: string }; result: TaskPlacementExplanation };

  'network.create': { params: { spec: NetworkSpec } & Keyed; result: Network };
  'network.list': { params: { stack: string | null }; result: Network[] };
  'network.inspect': { params: { ref: string }; result: Network };
  'network.remove': { params: { ref: string } & Keyed; result: null };

  'secret.create': { params: { spec: SecretSpec } & Keyed; result: Secret };
  'secret.list': { params: { stack: string | null }; result: Secret[] };
  'secret.inspect': { params: { ref: string }; result: Secret };
  'secret.remove': { params: { ref: string } & Keyed; result: null };

  'config.create': { params: { spec: ConfigSpec } & Keyed; result: Config };
  'config.list': { params: { stack: string | null }; result: Config[] };
  'config.inspect': { params: { ref: string }; result: Config };
  'config.remove': { params: { ref: string } & Keyed; result: null };
}

export type ApiMethod = keyof ApiMethods;
export type ApiParams<M extends ApiMethod> = ApiMethods[M]['params'];
export type ApiResult<M extends ApiMethod> = ApiMethods[M]['result'];

/** Parameters of the log stream of a service or one task. */
export interface ServiceLogsParams {
  /** Service name or id, or a task id. */
  readonly ref: string;
  readonly follow: boolean;
  readonly tail: number | null;
  readonly sinceMs: number | null;
}

/** What the CLI and other programs call. */
export interface ApiClient {
  call<M extends ApiMethod>(
    method: M,
    params: ApiParams<M>,
    options: { readonly signal: AbortSignal },
  ): Promise<ApiResult<M>>;
  serviceLogs(
    params: ServiceLogsParams,
    options: { readonly signal: AbortSignal },
  ): AsyncIterable<ServiceLogRecord>;
}
