/** Flags of `service update` applied to a spec. Pure. */
import type { ConfigId, SecretId } from '../model/ids.ts';
import type {
  ContainerSpec,
  Placement,
  PortConfig,
  ServiceMode,
  ServiceSpec,
  TaskSpec,
} from '../model/spec.ts';
import { imageReferenceProblem } from '../model/image-reference.ts';
import { compact } from '../stack/reader.ts';
import type { IdsByName } from '../stack/resolve.ts';
import { changeCapabilities } from '../stack/capabilities.ts';
import { UsageError } from './command.ts';
import {
  keyValues,
  parseHostLine,
  parseMount,
  parsePreference,
  parsePublish,
  parseUlimit,
  type FlagReader,
} from './flag-values.ts';
import { rebalanceOf } from './rebalance-flag.ts';
import {
  containerScalars,
  envLines,
  fileReference,
  healthOf,
  networkOf,
  resourcesOf,
  restartOf,
  updateConfigOf,
} from './service-spec.ts';

export interface ChangeInput {
  readonly flags: FlagReader;
  readonly spec: ServiceSpec;
  readonly environment: (name: string) => string | undefined;
  readonly ids: IdsByName;
}

/** The spec after the flags. */
export function changeSpec(input: ChangeInput): ServiceSpec {
  const { flags, spec } = input;
  const { rebalance: before, ...kept } = spec;
  const rebalance = rebalanceOf(flags, before);
  return {
    ...kept,
    ...(rebalance === undefined ? {} : { rebalance }),
    labels: changedMap(flags, 'label', spec.labels),
    mode: changeMode(flags, spec.mode),
    update: updateConfigOf(flags, 'update', spec.update),
    rollback: updateConfigOf(flags, 'rollback', spec.rollback),
    endpoint: {
      mode: flags.oneOf('endpoint-mode', ['vip', 'dnsrr']) ?? spec.endpoint.mode,
      ports: changePorts(flags, spec.endpoint.ports),
    },
    task: changeTask(input),
  };
}

function changeMode(flags: FlagReader, mode: ServiceMode): ServiceMode {
  const replicas = flags.count('replicas');
  const concurrent = flags.count('max-concurrent');
  if (replicas === undefined && concurrent === undefined) return mode;
  if (mode.kind === 'replicated' && concurrent === undefined)
    return { kind: 'replicated', replicas: replicas ?? mode.replicas };
  if (mode.kind === 'replicated-job') {
    return {
      ...mode,
      ...compact({ totalCompletions: replicas, maxConcurrent: concurrent }),
    };
  }
  throw new UsageError(
    `${replicas === undefined ? '--max-concurrent' : '--replicas'} does not go with a service of mode ${mode.kind}`,
  );
}

function changeTask(input: ChangeInput): TaskSpec {
  const { flags, spec } = input;
  const { task } = spec;
  const driver = flags.text('log-driver');
  const options = keyValues('log-opt', flags.list('log-opt'));
  const removedGeneric = new Set(flags.list('generic-resource-rm'));
  const resources = resourcesOf(flags, task.resources, flags.list('generic-resource-add'));
  const generic = Object.fromEntries(
    Object.entries(resources.reservations?.generic ?? {}).filter(([kind]) => !removedGeneric.has(kind)),
  );
  return {
    ...task,
    container: changeContainer(input),
    resources:
      removedGeneric.size === 0
        ? resources
        : { ...resources, reservations: { ...resources.reservations, generic } },
    restart: restartOf(flags, task.restart),
    placement: changePlacement(flags, task.placement),
    networks: changeNetworks(input, task),
    forceUpdate: task.forceUpdate + (flags.bool('force') === true ? 1 : 0),
    ...(driver === undefined && Object.keys(options).length === 0
      ? {}
      : { logDriver: { name: driver ?? task.logDriver?.name ?? '', options } }),
  };
}

function changeNetworks({ flags, ids }: ChangeInput, task: TaskSpec): TaskSpec['networks'] {
  const removed = new Set<string>(flags.list('network-rm').map((name) => ids.networks.get(name) ?? name));
  const kept = task.networks.filter((network) => !removed.has(network.target));
  const added = flags.list('network-add').map((text) => networkOf('network-add', text, ids));
  for (const { target } of added) {
    if (!kept.some((network) => network.target === target)) continue;
    const name = [...ids.networks].find(([, id]) => id === target)?.[0] ?? target;
    throw new UsageError(`--network-add: the service is attached to the network ${name} already`, '', 1);
  }
  return [...kept, ...added];
}

function changePlacement(flags: FlagReader, placement: Placement): Placement {
  const removedPreferences = flags
    .list('placement-pref-rm')
    .map((text) => parsePreference('placement-pref-rm', text).spread);
  return {
    ...placement,
    constraints: changedList(flags, 'constraint', placement.constraints),
    preferences: [
      ...placement.preferences.filter((preference) => !removedPreferences.includes(preference.spread)),
      ...flags.list('placement-pref-add').map((text) => parsePreference('placement-pref-add', text)),
    ],
    maxReplicasPerNode: flags.count('replicas-max-per-node') ?? placement.maxReplicasPerNode,
  };
}

function changeContainer(input: ChangeInput): ContainerSpec {
  const { flags, spec, ids, environment } = input;
  const { container } = spec.task;
  const image = flags.text('image');
  if (image !== undefined) {
    const problem = imageReferenceProblem(image);
    if (problem !== null) throw new UsageError(`--image: "${image}" is not an image reference: ${problem}`);
  }
  const args = flags.words('args');
  const removedEnv = new Set(flags.list('env-rm'));
  const removedTargets = new Set(flags.list('mount-rm'));
  const removedSecrets = new Set(flags.list('secret-rm'));
  const removedConfigs = new Set(flags.list('config-rm'));
  const addedMounts = flags.list('mount-add').map((text) => parseMount('mount-add', text));
  for (const mount of addedMounts) removedTargets.add(mount.target);
  return {
    ...container,
    ...containerScalars(flags),
    ...compact({ image, args, healthCheck: healthOf(flags, container.healthCheck) }),
    ...changeContainerLists(flags, container),
    env: envLines(
      [
        ...container.env.filter((line) => !removedEnv.has(line.split('=', 1)[0] ?? '')),
        ...flags.list('env-add'),
      ],
      // Lines already stored keep what they say.
      (name) => (flags.list('env-add').includes(name) ? environment(name) : undefined),
    ),
    labels: changedMap(flags, 'container-label', container.labels),
    mounts: [...container.mounts.filter((mount) => !removedTargets.has(mount.target)), ...addedMounts],
    secrets: [
      ...container.secrets.filter((use) => !removedSecrets.has(use.name)),
      ...flags.list('secret-add').map((text) => fileReference<SecretId>('secret-add', text, ids.secrets)),
    ],
    configs: [
      ...container.configs.filter((use) => !removedConfigs.has(use.name)),
      ...flags.list('config-add').map((text) => fileReference<ConfigId>('config-add', text, ids.configs)),
    ],
  };
}

/** Lists that are left out of the spec while empty. */
function changeContainerLists(flags: FlagReader, container: ContainerSpec): Partial<ContainerSpec> {
  const dns = {
    nameservers: changedList(flags, 'dns', container.dns?.nameservers ?? []),
    search: changedList(flags, 'dns-search', container.dns?.search ?? []),
    options: changedList(flags, 'dns-option', container.dns?.options ?? []),
  };
  const removedHosts = new Set(
    flags.list('host-rm').map((text) => (text.includes(':') ? parseHostLine('host-rm', text) : text)),
  );
  const hosts = [
    ...(container.hosts ?? []).filter(
      (line) => !removedHosts.has(line) && !removedHosts.has(line.split(' ')[1] ?? ''),
    ),
    ...flags.list('host-add').map((text) => parseHostLine('host-add', text)),
  ];
  const removedLimits = new Set(flags.list('ulimit-rm'));
  const addedLimits = flags.list('ulimit-add').map((text) => parseUlimit('ulimit-add', text));
  for (const limit of addedLimits) removedLimits.add(limit.name);
  const ulimits = [
    ...(container.ulimits ?? []).filter((limit) => !removedLimits.has(limit.name)),
    ...addedLimits,
  ];
  const capabilities = changeCapabilities(
    { add: container.capabilityAdd ?? [], drop: container.capabilityDrop ?? [] },
    { add: flags.list('cap-add'), drop: flags.list('cap-drop') },
  );
  const capabilitiesTouched = flags.has('cap-add') || flags.has('cap-drop');
  const set = <T>(value: T, isSet: boolean): T | undefined => (isSet ? value : undefined);
  const touched = (...names: readonly string[]): boolean =>
    names.some((name) => flags.has(`${name}-add`) || flags.has(`${name}-rm`));
  return compact({
    groups: set(changedList(flags, 'group', container.groups ?? []), touched('group')),
    hosts: set(hosts, touched('host')),
    dns: set(dns, touched('dns', 'dns-search', 'dns-option')),
    sysctls: set(changedMap(flags, 'sysctl', container.sysctls ?? {}), touched('sysctl')),
    ulimits: set(ulimits, touched('ulimit')),
    capabilityAdd: set(capabilities.add, capabilitiesTouched),
    capabilityDrop: set(capabilities.drop, capabilitiesTouched),
  });
}

function changedList(flags: FlagReader, name: string, before: readonly string[]): string[] {
  const removed = new Set(flags.list(`${name}-rm`));
  const kept = before.filter((entry) => !removed.has(entry));
  return [...new Set([...kept, ...flags.list(`${name}-add`)])];
}

function changedMap(
  flags: FlagReader,
  name: string,
  before: Readonly<Record<string, string>>,
): Record<string, string> {
  const removed = new Set(flags.list(`${name}-rm`));
  const kept = Object.fromEntries(Object.entries(before).filter(([key]) => !removed.has(key)));
  return { ...kept, ...keyValues(`${name}-add`, flags.list(`${name}-add`)) };
}

/** `--publish-rm` takes the target port, with or without protocol, or the whole `published:target`. */
function changePorts(flags: FlagReader, before: readonly PortConfig[]): readonly PortConfig[] {
  const removals = flags.list('publish-rm').map((text) => {
    const match = /^(?:([0-9]+):)?([0-9]+)(?:\/(tcp|udp|sctp))?$/.exec(text);
    if (match === null)
      throw new UsageError(`--publish-rm: "${text}" is not a target port such as 80 or 80/udp`);
    return { target: Number(match[2]), protocol: match[3] ?? 'tcp' };
  });
  const added = flags.list('publish-add').flatMap((text) => parsePublish('publish-add', text));
  const kept = before.filter(
    (port) =>
      !removals.some((removal) => removal.target === port.targetPort && removal.protocol === port.protocol) &&
      !added.some((other) => samePlace(other, port)),
  );
  return [...kept, ...added];
}

function samePlace(a: PortConfig, b: PortConfig): boolean {
  return a.targetPort === b.targetPort && a.protocol === b.protocol && a.publishedPort === b.publishedPort;
}
