/** Defaults of every spec, with units. docs/LIMITS.md lists them. */
import type {
  ClusterSpec,
  ContainerSpec,
  EndpointSpec,
  Placement,
  RebalanceConfig,
  RestartPolicy,
  ServiceSpec,
  TaskSpec,
  UpdateConfig,
} from './spec.ts';

export const defaultRestartPolicy: RestartPolicy = {
  condition: 'any',
  delayMs: 5_000,
  maxAttempts: 0,
  windowMs: 0,
};

export const defaultUpdateConfig: UpdateConfig = {
  parallelism: 1,
  delayMs: 0,
  failureAction: 'pause',
  monitorMs: 5_000,
  maxFailureRatio: 0,
  order: 'stop-first',
};

/** What rebalancing does where a service asks for it and says no more. */
export const defaultRebalanceConfig: RebalanceConfig = { maxMoves: 1, margin: 2, cooldownMs: 60_000 };

export const defaultPlacement: Placement = {
  constraints: [],
  preferences: [],
  maxReplicasPerNode: 0,
  platforms: [],
};

export const defaultEndpointSpec: EndpointSpec = { mode: 'vip', ports: [] };

export const defaultContainerSpec: ContainerSpec = {
  image: '',
  env: [],
  labels: {},
  stopGraceMs: 10_000,
  mounts: [],
  secrets: [],
  configs: [],
};

export const defaultTaskSpec: TaskSpec = {
  runtime: 'docker',
  container: defaultContainerSpec,
  resources: {},
  restart: defaultRestartPolicy,
  placement: defaultPlacement,
  networks: [],
  forceUpdate: 0,
};

/** A replicated service of one task; the caller gives the name and what differs. */
export const defaultServiceSpec: Omit<ServiceSpec, 'name'> = {
  labels: {},
  task: defaultTaskSpec,
  mode: { kind: 'replicated', replicas: 1 },
  update: defaultUpdateConfig,
  rollback: defaultUpdateConfig,
  endpoint: defaultEndpointSpec,
};

export const defaultClusterSpec: ClusterSpec = {
  labels: {},
  taskHistoryLimit: 5,
  heartbeatMs: 1_000,
  orphanAfterMs: 24 * 3_600_000,
  defaultAddressPool: ['10.0.0.0/8'],
  subnetSize: 24,
};

/** A node is DOWN after this many heartbeat periods without a heartbeat. */
export const HEARTBEATS_MISSED_MAX = 3;

/** First and last port given to published ports without a number. */
export const DYNAMIC_PORT_FIRST = 30_000;
export const DYNAMIC_PORT_LAST = 32_767;

/** Smallest resource amounts accepted: 0.001 CPU, 4 MiB. */
export const NANO_CPUS_MIN = 1_000_000;
export const MEMORY_BYTES_MIN = 4 * 1024 * 1024;

/** Payload bounds of configs and secrets, bytes. */
export const SECRET_BYTES_MAX = 500 * 1024;
export const CONFIG_BYTES_MAX = 1000 * 1024;

/** A replacement waits at most this long for the task before it to stop. */
export const STOP_WAIT_MS = 60_000;

/** A task of an update that makes no progress towards RUNNING for this long counts as a failure. */
export const UPDATE_START_DEADLINE_MS = 600_000;

/** Most restarts counted inside a window; a higher `maxAttempts` with a window acts as this. */
export const WINDOW_RESTARTS_MAX = 1_000;
