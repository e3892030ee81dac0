/** Flags of `service create` to a spec. Pure: env files and ids are passed in. */
import {
  defaultContainerSpec,
  defaultEndpointSpec,
  defaultPlacement,
  defaultServiceSpec,
  defaultTaskSpec,
} from '../model/defaults.ts';
import type { ConfigId, SecretId } from '../model/ids.ts';
import type {
  ContainerSpec,
  FileReference,
  HealthCheck,
  NetworkAttachmentConfig,
  ResourceRequirements,
  RestartPolicy,
  RuntimeKind,
  ServiceMode,
  ServiceSpec,
  UpdateConfig,
} from '../model/spec.ts';
import { imageReferenceProblem } from '../model/image-reference.ts';
import { compact } from '../stack/reader.ts';
import type { IdsByName } from '../stack/resolve.ts';
import { effectiveCapabilities } from '../stack/capabilities.ts';
import { didYouMean } from '../stack/compose-error.ts';
import { SwarmdError } from '../base/errors.ts';
import { UsageError } from './command.ts';
import { rebalanceOf } from './rebalance-flag.ts';
import {
  commaPairs,
  keyValues,
  parseGenericResource,
  parseHostLine,
  parseMount,
  parsePreference,
  parsePublish,
  parseUlimit,
  unwrap,
  type FlagReader,
} from './flag-values.ts';

/** What `service create` is given besides flags. */
export interface CreateInput {
  readonly flags: FlagReader;
  /** IMAGE [COMMAND] [ARG...]; with the process runtime the command alone. */
  readonly args: readonly string[];
  readonly name: string;
  /** Lines of the env files, in order. */
  readonly envFileLines: readonly string[];
  readonly environment: (name: string) => string | undefined;
  readonly ids: IdsByName;
}

/** The spec of a new service. */
export function createSpec(input: CreateInput): ServiceSpec {
  const { flags } = input;
  const runtime: RuntimeKind = flags.oneOf('runtime', ['docker', 'process']) ?? 'docker';
  const container = createContainer(input, runtime);
  const logDriver = flags.text('log-driver');
  const logOptions = keyValues('log-opt', flags.list('log-opt'));
  const rebalance = rebalanceOf(flags, undefined);
  return {
    ...(rebalance === undefined ? {} : { rebalance }),
    ...defaultServiceSpec,
    name: input.name,
    labels: keyValues('label', flags.list('label')),
    mode: createMode(flags),
    update: updateConfigOf(flags, 'update', defaultServiceSpec.update),
    rollback: updateConfigOf(flags, 'rollback', defaultServiceSpec.rollback),
    endpoint: {
      ...defaultEndpointSpec,
      mode: flags.oneOf('endpoint-mode', ['vip', 'dnsrr']) ?? 'vip',
      ports: flags.list('publish').flatMap((text) => parsePublish('publish', text)),
    },
    task: {
      ...defaultTaskSpec,
      runtime,
      container,
      resources: resourcesOf(flags, {}, flags.list('generic-resource')),
      restart: restartOf(flags, defaultTaskSpec.restart),
      networks: flags.list('network').map((text) => networkOf('network', text, input.ids)),
      placement: {
        ...defaultPlacement,
        constraints: [...flags.list('constraint')],
        preferences: flags.list('placement-pref').map((text) => parsePreference('placement-pref', text)),
        maxReplicasPerNode: flags.count('replicas-max-per-node') ?? 0,
      },
      ...(logDriver === undefined && Object.keys(logOptions).length === 0
        ? {}
        : { logDriver: { name: logDriver ?? '', options: logOptions } }),
    },
  };
}

function createMode(flags: FlagReader): ServiceMode {
  const kind = flags.oneOf('mode', ['replicated', 'global', 'replicated-job', 'global-job']) ?? 'replicated';
  const replicas = flags.count('replicas');
  const concurrent = flags.count('max-concurrent');
  if (concurrent !== undefined && kind !== 'replicated-job') {
    throw new UsageError('--max-concurrent goes with --mode replicated-job only');
  }
  switch (kind) {
    case 'replicated':
      return { kind, replicas: replicas ?? 1 };
    case 'replicated-job':
      return { kind, maxConcurrent: concurrent ?? replicas ?? 1, totalCompletions: replicas ?? 1 };
    default:
      if (replicas !== undefined)
        throw new UsageError(`--replicas does not go with --mode ${kind}: it runs one task on each node`);
      return { kind };
  }
}

function createContainer(input: CreateInput, runtime: RuntimeKind): ContainerSpec {
  const { flags, args, ids } = input;
  const image = runtime === 'docker' ? (args[0] ?? '') : '';
  const command = runtime === 'docker' ? args.slice(1) : args;
  if (runtime === 'docker') {
    const problem = imageReferenceProblem(image);
    if (problem !== null) throw new UsageError(`"${image}" is not an image reference: ${problem}`, '', 1);
  } else if (command.length === 0 && flags.words('entrypoint') === undefined) {
    throw new UsageError('with --runtime process, give the command to run', '', 1);
  }
  const capabilities = effectiveCapabilities({ add: flags.list('cap-add'), drop: flags.list('cap-drop') });
  return {
    ...defaultContainerSpec,
    ...containerScalars(flags),
    image,
    env: envLines([...input.envFileLines, ...flags.list('env')], input.environment),
    labels: keyValues('container-label', flags.list('container-label')),
    mounts: flags.list('mount').map((text) => parseMount('mount', text)),
    secrets: flags.list('secret').map((text) => fileReference<SecretId>('secret', text, ids.secrets)),
    configs: flags.list('config').map((text) => fileReference<ConfigId>('config', text, ids.configs)),
    ...compact({
      args: command.length === 0 ? undefined : [...command],
      groups: someOf(flags.list('group')),
      hosts: someOf(flags.list('host').map((text) => parseHostLine('host', text))),
      capabilityAdd: someOf(capabilities.add),
      capabilityDrop: someOf(capabilities.drop),
      sysctls: flags.has('sysctl') ? keyValues('sysctl', flags.list('sysctl')) : undefined,
      ulimits: someOf(flags.list('ulimit').map((text) => parseUlimit('ulimit', text))),
      dns: dnsOf(flags),
      healthCheck: healthOf(flags, undefined),
    }),
  };
}

/** The flags that set one value of the container, for create and update alike. */
export function containerScalars(flags: FlagReader): Partial<ContainerSpec> {
  return compact({
    command: flags.words('entrypoint'),
    hostname: flags.text('hostname'),
    user: flags.text('user'),
    dir: flags.text('workdir'),
    tty: flags.bool('tty'),
    readOnly: flags.bool('read-only'),
    init: flags.bool('init'),
    stopSignal: flags.text('stop-signal'),
    stopGraceMs: flags.durationMs('stop-grace-period'),
  });
}

function someOf<T>(list: readonly T[]): readonly T[] | undefined {
  return list.length === 0 ? undefined : list;
}

function dnsOf(flags: FlagReader): ContainerSpec['dns'] {
  const dns = {
    nameservers: flags.list('dns'),
    search: flags.list('dns-search'),
    options: flags.list('dns-option'),
  };
  return dns.nameservers.length + dns.search.length + dns.options.length === 0 ? undefined : dns;
}

/** `NAME` alone takes its value from the environment; the last of a name wins. */
export function envLines(
  lines: readonly string[],
  environment: (name: string) => string | undefined,
): readonly string[] {
  const result = new Map<string, string>();
  for (const line of lines) {
    const name = line.split('=', 1)[0] ?? '';
    if (name === '') throw new UsageError(`--env: "${line}" has no name before the =`);
    const value = environment(name);
    if (line.includes('=')) result.set(name, line);
    else if (value !== undefined) result.set(name, `${name}=${value}`);
    else result.set(name, name);
  }
  return [...result.values()];
}

/** Health flags over what there is; `--no-healthcheck` turns it off. */
export function healthOf(flags: FlagReader, before: HealthCheck | undefined): HealthCheck | undefined {
  const command = flags.text('health-cmd');
  // Commander gives --no-healthcheck as healthcheck: false.
  if (flags.bool('healthcheck') === false) {
    if (command !== undefined)
      throw new UsageError('--no-healthcheck and --health-cmd contradict each other');
    return { test: ['NONE'] };
  }
  const given = compact({
    intervalMs: flags.durationMs('health-interval'),
    timeoutMs: flags.durationMs('health-timeout'),
    startPeriodMs: flags.durationMs('health-start-period'),
    retries: flags.count('health-retries'),
  });
  if (command === undefined && Object.keys(given).length === 0) return before;
  const test = command === undefined ? (before?.test ?? []) : command === '' ? [] : ['CMD-SHELL', command];
  return { ...before, ...given, test: test[0] === 'NONE' ? [] : test };
}

/** Resource flags over what there is; `generic` are `--generic-resource` values to add. */
export function resourcesOf(
  flags: FlagReader,
  before: ResourceRequirements,
  generic: readonly string[],
): ResourceRequirements {
  const limits = {
    ...before.limits,
    ...compact({
      nanoCpus: flags.nanoCpus('limit-cpu'),
      memoryBytes: flags.bytes('limit-memory'),
      pids: flags.count('limit-pids'),
    }),
  };
  const reservations = {
    ...before.reservations,
    ...compact({ nanoCpus: flags.nanoCpus('reserve-cpu'), memoryBytes: flags.bytes('reserve-memory') }),
    ...(generic.length === 0
      ? {}
      : {
          generic: {
            ...before.reservations?.generic,
            ...Object.fromEntries(generic.map((text) => parseGenericResource('generic-resource', text))),
          },
        }),
  };
  return {
    ...(Object.keys(limits).length === 0 ? {} : { limits }),
    ...(Object.keys(reservations).length === 0 ? {} : { reservations }),
  };
}

export function restartOf(flags: FlagReader, before: RestartPolicy): RestartPolicy {
  return {
    ...before,
    ...compact({
      condition: flags.oneOf('restart-condition', ['none', 'on-failure', 'any']),
      delayMs: flags.durationMs('restart-delay'),
      maxAttempts: flags.count('restart-max-attempts'),
      windowMs: flags.durationMs('restart-window'),
    }),
  };
}

export function updateConfigOf(
  flags: FlagReader,
  kind: 'update' | 'rollback',
  before: UpdateConfig,
): UpdateConfig {
  const actions: readonly UpdateConfig['failureAction'][] =
    kind === 'update' ? ['pause', 'continue', 'rollback'] : ['pause', 'continue'];
  return {
    ...before,
    ...compact({
      parallelism: flags.count(`${kind}-parallelism`),
      delayMs: flags.durationMs(`${kind}-delay`),
      failureAction: flags.oneOf(`${kind}-failure-action`, actions),
      monitorMs: flags.durationMs(`${kind}-monitor`),
      maxFailureRatio: flags.ratio(`${kind}-max-failure-ratio`),
      order: flags.oneOf(`${kind}-order`, ['stop-first', 'start-first']),
    }),
  };
}

function idOf<Id extends string>(kind: string, ids: ReadonlyMap<string, Id>, name: string): Id {
  const found = ids.get(name) ?? [...ids.values()].find((id) => id === name);
  if (found !== undefined) return found;
  throw new SwarmdError('NOT_FOUND', `the ${kind} "${name}" does not exist.${didYouMean(name, ids.keys())}`);
}

/** `NAME` or `name=NAME,alias=OTHER`. */
export function networkOf(flag: string, text: string, ids: IdsByName): NetworkAttachmentConfig {
  if (!text.includes('=')) return { target: idOf('network', ids.networks, text), aliases: [] };
  const aliases: string[] = [];
  let name = '';
  for (const field of text.split(',')) {
    const [[key, value] = ['', '']] = commaPairs(flag, field);
    if (key === 'name') name = value;
    else if (key === 'alias') aliases.push(value);
    else throw new UsageError(`--${flag}: "${key}" is not supported; use name= and alias=`);
  }
  return { target: idOf('network', ids.networks, name), aliases };
}

/** `NAME` or `source=NAME,target=FILE,uid=0,gid=0,mode=0444`. */
export function fileReference<Id extends SecretId | ConfigId>(
  flag: 'secret' | 'config' | 'secret-add' | 'config-add',
  text: string,
  ids: ReadonlyMap<string, Id>,
): FileReference<Id> {
  const kind = flag.startsWith('secret') ? 'secret' : 'config';
  const pairs = text.includes('=') ? commaPairs(flag, text) : new Map([['source', text]]);
  const known = ['source', 'src', 'target', 'uid', 'gid', 'mode'];
  for (const key of pairs.keys()) {
    if (!known.includes(key))
      throw new UsageError(`--${flag}: "${key}" is not one of source, target, uid, gid, mode`);
  }
  const name = pairs.get('source') ?? pairs.get('src') ?? '';
  const mode = pairs.get('mode') ?? '0444';
  if (!/^[0-7]{1,5}$/.test(mode))
    throw new UsageError(`--${flag}: mode must be octal such as 0444, not "${mode}"`);
  return {
    id: unwrapId(kind, ids, name),
    name,
    file: {
      name: pairs.get('target') ?? name,
      uid: pairs.get('uid') ?? '0',
      gid: pairs.get('gid') ?? '0',
      mode: Number.parseInt(mode, 8),
    },
  };
}

function unwrapId<Id extends string>(kind: string, ids: ReadonlyMap<string, Id>, name: string): Id {
  return idOf(
    kind,
    ids,
    unwrap(kind, name === '' ? { ok: false, reason: 'source is missing' } : { ok: true, value: name }),
  );
}
