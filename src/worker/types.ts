/**
 * Ports of the worker: what it needs from runtimes and networks, and what it tells the rest of the node.
 *
 * Invariants: every runtime call is idempotent by task id; nothing a runtime made is forgotten: `list` finds it
 * again after a daemon restart.
 */
import type { RuntimeKind } from '../model/spec.ts';
import type { AssignedNetwork, EndpointRecord, LogRecord, LogRequest, ServiceRecord } from '../model/wire.ts';
import type { ContainerStatus, NodeDescription, PortMapping, Task } from '../model/objects.ts';
import type { TaskId } from '../model/ids.ts';

/** What a runtime knows of one task it holds something for. */
export interface RuntimeTaskState {
  readonly taskId: TaskId;
  readonly phase: 'created' | 'running' | 'exited';
  readonly container: ContainerStatus;
  readonly ports: readonly PortMapping[];
  /** Absent: no health check. */
  readonly health?: 'starting' | 'healthy' | 'unhealthy';
  /** Exited: why, in words (OOM kill, signal); empty when there is nothing to add to the exit code. */
  readonly error: string;
  /** A remark for the task's status message, such as a limit this host cannot enforce. */
  readonly note?: string;
  readonly finishedAtMs?: number;
}

/** Files and networking a task gets from the node. */
export interface TaskSetup {
  readonly networking: TaskNetworking;
  /** File content by secret or config id. */
  readonly secrets: ReadonlyMap<string, Uint8Array>;
  readonly configs: ReadonlyMap<string, Uint8Array>;
  /** host name and address of this node, for the process runtime's environment. */
  readonly nodeAddress: string;
  readonly hostname: string;
}

/**
 * One way to run tasks. Errors are SwarmdErrors. UNAVAILABLE, TIMEOUT, RESOURCE_EXHAUSTED and CONFLICT may be
 * tried again, others cannot be helped by it; `details.waits: true` marks an outage of the runtime itself, which
 * says nothing about the task and is waited out without limit.
 */
export interface Runtime {
  readonly kind: RuntimeKind;
  /** Fetches what is missing (the image). */
  prepare(task: Task, signal: AbortSignal): Promise<void>;
  /** Makes the container or process folder, not started. */
  create(task: Task, setup: TaskSetup, signal: AbortSignal): Promise<void>;
  start(taskId: TaskId, signal: AbortSignal): Promise<void>;
  /** Stop signal, grace, SIGKILL as given at create. Returns once it is dead; nothing there is success. */
  stop(taskId: TaskId, signal: AbortSignal): Promise<void>;
  /** Removes what is held for the task, killing what still runs; nothing there is success. */
  remove(taskId: TaskId, signal: AbortSignal): Promise<void>;
  inspect(taskId: TaskId, signal: AbortSignal): Promise<RuntimeTaskState | null>;
  /** Everything this runtime holds for this node, running or not. */
  list(signal: AbortSignal): Promise<RuntimeTaskState[]>;
  /** Calls back with a task id whenever its state may have changed. */
  onEvent(listener: (taskId: TaskId) => void): void;
  logs(request: LogRequest, signal: AbortSignal): AsyncIterable<LogRecord>;
  /** Facts for the node description; null while the runtime cannot be reached. */
  describe(signal: AbortSignal): Promise<Partial<NodeDescription> | null>;
  close(): Promise<void>;
}

/** How a task is attached to its networks on this node. */
export interface TaskNetworking {
  /** Engine networks with the task's address on each (no prefix), in order; empty: the engine's default. */
  readonly attachments: readonly {
    readonly engineNetwork: string;
    readonly address: string;
    readonly mac?: string;
    readonly aliases: readonly string[];
  }[];
  readonly dnsServers: readonly string[];
  /** The host-ports rung: publish every endpoint port on the node's address. */
  readonly publishOnNode: boolean;
}

/** Makes task networks on this node (implemented in src/network). */
export interface TaskNetworkProvider {
  /** Makes the networks of the task; idempotent. */
  prepare(
    task: Task,
    networks: ReadonlyMap<string, AssignedNetwork>,
    signal: AbortSignal,
  ): Promise<TaskNetworking>;
}

/** The routing part of the assignments, given to DNS, ingress and network after every change. */
export interface RoutingState {
  readonly networks: ReadonlyMap<string, AssignedNetwork>;
  readonly services: ReadonlyMap<string, ServiceRecord>;
  readonly endpoints: ReadonlyMap<string, EndpointRecord>;
}
