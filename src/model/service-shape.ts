/**
 * The shape of a service spec: every field with its type, range and default, for values that come from outside.
 *
 * Invariant: the readers check one field at a time; what fields mean together is in validate-service.ts and
 * validate-task.ts.
 */
import {
  defaultContainerSpec,
  defaultEndpointSpec,
  defaultPlacement,
  defaultRebalanceConfig,
  defaultRestartPolicy,
  defaultServiceSpec,
  defaultTaskSpec,
  defaultUpdateConfig,
} from './defaults.ts';
import {
  boolean,
  integer,
  listOf,
  number,
  object,
  oneOf,
  optional,
  recordOf,
  required,
  someText,
  text,
  withDefault,
  type Field,
  type Reader,
} from './field-reader.ts';
import type { ConfigId, NetworkId, SecretId } from './ids.ts';
import type {
  ContainerSpec,
  EndpointSpec,
  FileReference,
  HealthCheck,
  Mount,
  NetworkAttachmentConfig,
  Placement,
  PortConfig,
  RebalanceConfig,
  ResourceAmount,
  ResourceRequirements,
  RestartPolicy,
  ServiceMode,
  ServiceSpec,
  TaskSpec,
  UpdateConfig,
} from './spec.ts';

/** Most tasks one service may ask for: a typo must not fill the cluster. */
export const REPLICAS_MAX = 100_000;

const PORT_MAX = 65_535;

const texts = listOf(text);
const labels = recordOf(text);
const durationMs = number(0);

const mount = object<Mount>({
  type: required(oneOf(['bind', 'volume', 'tmpfs'])),
  source: optional(text),
  target: required(someText),
  readOnly: withDefault(boolean, false),
  bindPropagation: optional(oneOf(['private', 'rprivate', 'shared', 'rshared', 'slave', 'rslave'])),
  volume: optional(
    object<NonNullable<Mount['volume']>>({
      noCopy: optional(boolean),
      labels: optional(labels),
      driver: optional(text),
      driverOptions: optional(labels),
    }),
  ),
  tmpfs: optional(
    object<NonNullable<Mount['tmpfs']>>({
      sizeBytes: optional(integer(0)),
      mode: optional(integer(0, 0o7777)),
    }),
  ),
});

const healthCheck = object<HealthCheck>({
  test: withDefault(texts, []),
  intervalMs: optional(durationMs),
  timeoutMs: optional(durationMs),
  startPeriodMs: optional(durationMs),
  retries: optional(integer(0)),
});

function fileReference<Id extends SecretId | ConfigId>(): Reader<FileReference<Id>> {
  return object<FileReference<Id>>({
    // Empty: found by its name when the spec is stored.
    id: withDefault(text, '') as unknown as Field<Exclude<Id, undefined>>,
    name: required(someText),
    file: required(
      object<FileReference<Id>['file']>({
        name: required(someText),
        uid: withDefault(text, '0'),
        gid: withDefault(text, '0'),
        mode: withDefault(integer(0, 0o7777), 0o444),
      }),
    ),
  });
}

const dns = object<NonNullable<ContainerSpec['dns']>>({
  nameservers: withDefault(texts, []),
  search: withDefault(texts, []),
  options: withDefault(texts, []),
});

const ulimit = object<NonNullable<ContainerSpec['ulimits']>[number]>({
  name: required(someText),
  soft: required(integer(-1)),
  hard: required(integer(-1)),
});

const container = object<ContainerSpec>({
  image: withDefault(text, defaultContainerSpec.image),
  command: optional(texts),
  args: optional(texts),
  env: withDefault(texts, defaultContainerSpec.env),
  labels: withDefault(labels, defaultContainerSpec.labels),
  hostname: optional(text),
  user: optional(text),
  groups: optional(texts),
  dir: optional(text),
  tty: optional(boolean),
  openStdin: optional(boolean),
  readOnly: optional(boolean),
  init: optional(boolean),
  stopSignal: optional(text),
  stopGraceMs: withDefault(durationMs, defaultContainerSpec.stopGraceMs),
  healthCheck: optional(healthCheck),
  hosts: optional(texts),
  dns: optional(dns),
  mounts: withDefault(listOf(mount), defaultContainerSpec.mounts),
  secrets: withDefault(listOf(fileReference<SecretId>()), defaultContainerSpec.secrets),
  configs: withDefault(listOf(fileReference<ConfigId>()), defaultContainerSpec.configs),
  capabilityAdd: optional(texts),
  capabilityDrop: optional(texts),
  sysctls: optional(labels),
  ulimits: optional(listOf(ulimit)),
});

const resourceAmount = object<ResourceAmount>({
  nanoCpus: optional(integer(0)),
  memoryBytes: optional(integer(0)),
  pids: optional(integer(-1)),
  generic: optional(recordOf(integer(1))),
});

const resources = object<ResourceRequirements>({
  limits: optional(resourceAmount),
  reservations: optional(resourceAmount),
});

const restart = object<RestartPolicy>({
  condition: withDefault(oneOf(['none', 'on-failure', 'any']), defaultRestartPolicy.condition),
  delayMs: withDefault(durationMs, defaultRestartPolicy.delayMs),
  maxAttempts: withDefault(integer(0), defaultRestartPolicy.maxAttempts),
  windowMs: withDefault(durationMs, defaultRestartPolicy.windowMs),
});

const placement = object<Placement>({
  constraints: withDefault(texts, defaultPlacement.constraints),
  preferences: withDefault(
    listOf(object<Placement['preferences'][number]>({ spread: required(someText) })),
    defaultPlacement.preferences,
  ),
  maxReplicasPerNode: withDefault(integer(0), defaultPlacement.maxReplicasPerNode),
  platforms: withDefault(
    listOf(
      object<Placement['platforms'][number]>({
        os: withDefault(text, ''),
        architecture: withDefault(text, ''),
      }),
    ),
    defaultPlacement.platforms,
  ),
});

const attachment = object<NetworkAttachmentConfig>({
  target: required(someText as Reader<string> as Reader<NetworkId>),
  aliases: withDefault(texts, []),
});

const task = object<TaskSpec>({
  runtime: withDefault(oneOf(['docker', 'process']), defaultTaskSpec.runtime),
  container: withDefault(container, defaultTaskSpec.container),
  resources: withDefault(resources, defaultTaskSpec.resources),
  restart: withDefault(restart, defaultTaskSpec.restart),
  placement: withDefault(placement, defaultTaskSpec.placement),
  networks: withDefault(listOf(attachment), defaultTaskSpec.networks),
  logDriver: optional(
    object<NonNullable<TaskSpec['logDriver']>>({ name: required(text), options: withDefault(labels, {}) }),
  ),
  forceUpdate: withDefault(integer(0), defaultTaskSpec.forceUpdate),
});

const updateConfig = object<UpdateConfig>({
  parallelism: withDefault(integer(0), defaultUpdateConfig.parallelism),
  delayMs: withDefault(durationMs, defaultUpdateConfig.delayMs),
  failureAction: withDefault(oneOf(['pause', 'continue', 'rollback']), defaultUpdateConfig.failureAction),
  monitorMs: withDefault(durationMs, defaultUpdateConfig.monitorMs),
  maxFailureRatio: withDefault(number(0, 1), defaultUpdateConfig.maxFailureRatio),
  order: withDefault(oneOf(['stop-first', 'start-first']), defaultUpdateConfig.order),
});

const rebalance = object<RebalanceConfig>({
  maxMoves: withDefault(integer(1, REPLICAS_MAX), defaultRebalanceConfig.maxMoves),
  margin: withDefault(integer(2, REPLICAS_MAX), defaultRebalanceConfig.margin),
  cooldownMs: withDefault(durationMs, defaultRebalanceConfig.cooldownMs),
});

const port = object<PortConfig>({
  name: optional(text),
  protocol: withDefault(oneOf(['tcp', 'udp', 'sctp']), 'tcp'),
  targetPort: required(integer(1, PORT_MAX)),
  publishedPort: withDefault(integer(0, PORT_MAX), 0),
  publishMode: withDefault(oneOf(['ingress', 'host']), 'ingress'),
});

const endpoint = object<EndpointSpec>({
  mode: withDefault(oneOf(['vip', 'dnsrr']), defaultEndpointSpec.mode),
  ports: withDefault(listOf(port), defaultEndpointSpec.ports),
});

type ModeOf<K extends ServiceMode['kind']> = Extract<ServiceMode, { kind: K }>;

const modeReaders: { readonly [K in ServiceMode['kind']]: Reader<ModeOf<K>> } = {
  replicated: object<ModeOf<'replicated'>>({
    kind: required(oneOf(['replicated'])),
    replicas: withDefault(integer(0, REPLICAS_MAX), 1),
  }),
  global: object<ModeOf<'global'>>({ kind: required(oneOf(['global'])) }),
  'replicated-job': object<ModeOf<'replicated-job'>>({
    kind: required(oneOf(['replicated-job'])),
    maxConcurrent: withDefault(integer(0, REPLICAS_MAX), 1),
    totalCompletions: withDefault(integer(0, REPLICAS_MAX), 1),
  }),
  'global-job': object<ModeOf<'global-job'>>({ kind: required(oneOf(['global-job'])) }),
};

const modeKind = oneOf(['replicated', 'global', 'replicated-job', 'global-job']);

const mode: Reader<ServiceMode> = (value, path, problems) => {
  const known = problems.length;
  const hasKind = typeof value === 'object' && value !== null && 'kind' in value;
  const kind = hasKind ? modeKind(value.kind, `${path}.kind`, problems) : 'replicated';
  return problems.length > known ? defaultServiceSpec.mode : modeReaders[kind](value, path, problems);
};

/** Reads a service spec, filling defaults. */
export const readServiceSpec: Reader<ServiceSpec> = object<ServiceSpec>({
  name: required(text),
  labels: withDefault(labels, defaultServiceSpec.labels),
  task: required(task),
  mode: withDefault(mode, defaultServiceSpec.mode),
  update: withDefault(updateConfig, defaultServiceSpec.update),
  rollback: withDefault(updateConfig, defaultServiceSpec.rollback),
  endpoint: withDefault(endpoint, defaultServiceSpec.endpoint),
  rebalance: optional(rebalance),
});
