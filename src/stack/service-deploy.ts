/** The `deploy` section of a service, and the older keys that mean the same. */
import {
  defaultPlacement,
  defaultRebalanceConfig,
  defaultRestartPolicy,
  defaultUpdateConfig,
} from '../model/defaults.ts';
import type {
  EndpointSpec,
  Placement,
  RebalanceConfig,
  ResourceAmount,
  ResourceRequirements,
  RestartPolicy,
  ServiceMode,
  UpdateConfig,
} from '../model/spec.ts';
import { parseConstraint } from '../model/constraint.ts';
import { composeError } from './compose-error.ts';
import type { LoadContext } from './load-context.ts';
import {
  bytes,
  checkKeys,
  choice,
  compact,
  decimal,
  durationMs,
  get,
  integer,
  mapping,
  nanoCpus,
  optional,
  sequence,
  text,
  wrongKind,
} from './reader.ts';
import {
  deployKeys,
  limitsKeys,
  placementKeys,
  rebalanceKeys,
  reservationsKeys,
  resourcesKeys,
  restartKeys,
  updateKeys,
} from './service-keys.ts';
import type { MappingNode, YamlNode } from './yaml-tree.ts';

/** The deploy mapping of a service (empty when absent), its keys checked. */
export function deploySection(service: MappingNode, path: string, context: LoadContext): MappingNode {
  const node = service.entries.get('deploy');
  if (node === undefined) return { kind: 'mapping', entries: new Map(), mark: service.mark, tag: '' };
  const deploy = mapping(node.value, `${path}.deploy`);
  checkKeys(deploy, `${path}.deploy`, deployKeys, context.warnings);
  return deploy;
}

const MODES = ['replicated', 'global', 'replicated-job', 'global-job'] as const;

/** `deploy.mode` with `deploy.replicas` (or `scale`). */
export function readMode(service: MappingNode, deploy: MappingNode, path: string): ServiceMode {
  const kind = optional(deploy, `${path}.deploy`, 'mode', choice(MODES)) ?? 'replicated';
  const replicas =
    optional(deploy, `${path}.deploy`, 'replicas', integer(0)) ??
    optional(service, path, 'scale', integer(0));
  if (kind === 'replicated') return { kind, replicas: replicas ?? 1 };
  if (kind === 'replicated-job')
    return { kind, maxConcurrent: replicas ?? 1, totalCompletions: replicas ?? 1 };
  if (replicas === undefined) return { kind };
  const entry = deploy.entries.get('replicas') ?? service.entries.get('scale');
  throw composeError(
    entry?.mark ?? deploy.mark,
    `${path}.deploy.replicas does not go with mode ${kind}: it runs one task on each node`,
  );
}

export function readEndpointMode(deploy: MappingNode, path: string): EndpointSpec['mode'] {
  return optional(deploy, `${path}.deploy`, 'endpoint_mode', choice(['vip', 'dnsrr'])) ?? 'vip';
}

/** `update_config` or `rollback_config`. */
export function readUpdateConfig(
  deploy: MappingNode,
  path: string,
  key: 'update_config' | 'rollback_config',
  context: LoadContext,
): UpdateConfig {
  const at = `${path}.deploy.${key}`;
  const node = get(deploy, key);
  if (node === undefined) return defaultUpdateConfig;
  const config = mapping(node, at);
  checkKeys(config, at, updateKeys, context.warnings);
  const actions: readonly UpdateConfig['failureAction'][] =
    key === 'update_config' ? ['pause', 'continue', 'rollback'] : ['pause', 'continue'];
  return {
    ...defaultUpdateConfig,
    ...compact({
      parallelism: optional(config, at, 'parallelism', integer(0)),
      delayMs: optional(config, at, 'delay', durationMs),
      failureAction: optional(config, at, 'failure_action', choice(actions)),
      monitorMs: optional(config, at, 'monitor', durationMs),
      maxFailureRatio: optional(config, at, 'max_failure_ratio', ratio),
      order: optional(config, at, 'order', choice(['stop-first', 'start-first'])),
    }),
  };
}

/** `deploy.x-rebalance`; absent: tasks stay where they are. */
export function readRebalance(
  deploy: MappingNode,
  path: string,
  context: LoadContext,
): RebalanceConfig | undefined {
  const at = `${path}.deploy.x-rebalance`;
  const node = get(deploy, 'x-rebalance');
  if (node === undefined) return undefined;
  const config = mapping(node, at);
  checkKeys(config, at, rebalanceKeys, context.warnings);
  return {
    ...defaultRebalanceConfig,
    ...compact({
      maxMoves: optional(config, at, 'max_moves', integer(1)),
      margin: optional(config, at, 'margin', integer(2)),
      cooldownMs: optional(config, at, 'cooldown', durationMs),
    }),
  };
}

function ratio(node: YamlNode, path: string): number {
  const value = decimal(node, path);
  if (value < 0 || value > 1)
    throw composeError(node.mark, `${path} must be between 0 and 1, but is ${value}`);
  return value;
}

/** `deploy.restart_policy`, or `restart` where there is none. */
export function readRestartPolicy(
  service: MappingNode,
  deploy: MappingNode,
  path: string,
  context: LoadContext,
): RestartPolicy {
  const at = `${path}.deploy.restart_policy`;
  const node = get(deploy, 'restart_policy');
  if (node === undefined) {
    return { ...defaultRestartPolicy, ...(optional(service, path, 'restart', readRestartWord) ?? {}) };
  }
  const policy = mapping(node, at);
  checkKeys(policy, at, restartKeys, context.warnings);
  return {
    ...defaultRestartPolicy,
    ...compact({
      condition: optional(policy, at, 'condition', choice(['none', 'on-failure', 'any'])),
      delayMs: optional(policy, at, 'delay', durationMs),
      maxAttempts: optional(policy, at, 'max_attempts', integer(0)),
      windowMs: optional(policy, at, 'window', durationMs),
    }),
  };
}

function readRestartWord(node: YamlNode, path: string): Partial<RestartPolicy> {
  // An unquoted `no` is a text, but some write `false`.
  const word = text(node, path);
  const limited = /^on-failure:([0-9]+)$/.exec(word);
  if (limited !== null) return { condition: 'on-failure', maxAttempts: Number(limited[1]) };
  switch (word) {
    case '':
    case 'no':
    case 'false':
      return { condition: 'none' };
    case 'always':
    case 'unless-stopped':
      return { condition: 'any' };
    case 'on-failure':
      return { condition: 'on-failure' };
    default:
      throw wrongKind(node, path, 'no, always, unless-stopped, on-failure or on-failure:N');
  }
}

/** `deploy.resources`; `cpus`, `mem_limit`, `mem_reservation` and `pids_limit` of the service fill what it leaves. */
export function readResources(
  service: MappingNode,
  deploy: MappingNode,
  path: string,
  context: LoadContext,
): ResourceRequirements {
  const at = `${path}.deploy.resources`;
  const resources = mapping(get(deploy, 'resources') ?? emptyOf(deploy), at);
  checkKeys(resources, at, resourcesKeys, context.warnings);
  const limitsNode = mapping(get(resources, 'limits') ?? emptyOf(resources), `${at}.limits`);
  const reservedNode = mapping(get(resources, 'reservations') ?? emptyOf(resources), `${at}.reservations`);
  checkKeys(limitsNode, `${at}.limits`, limitsKeys, context.warnings);
  checkKeys(reservedNode, `${at}.reservations`, reservationsKeys, context.warnings);
  const limits: ResourceAmount = compact({
    nanoCpus:
      optional(limitsNode, `${at}.limits`, 'cpus', nanoCpus) ?? optional(service, path, 'cpus', nanoCpus),
    memoryBytes:
      optional(limitsNode, `${at}.limits`, 'memory', bytes) ?? optional(service, path, 'mem_limit', bytes),
    pids: positive(
      optional(limitsNode, `${at}.limits`, 'pids', integer(-1)) ??
        optional(service, path, 'pids_limit', integer(-1)),
    ),
  });
  const reservations: ResourceAmount = compact({
    nanoCpus: optional(reservedNode, `${at}.reservations`, 'cpus', nanoCpus),
    memoryBytes:
      optional(reservedNode, `${at}.reservations`, 'memory', bytes) ??
      optional(service, path, 'mem_reservation', bytes),
    generic: optional(reservedNode, `${at}.reservations`, 'generic_resources', readGenericResources),
  });
  return {
    ...(Object.keys(limits).length === 0 ? {} : { limits }),
    ...(Object.keys(reservations).length === 0 ? {} : { reservations }),
  };
}

function emptyOf(near: MappingNode): YamlNode {
  return { kind: 'mapping', entries: new Map(), mark: near.mark, tag: '' };
}

function positive(value: number | undefined): number | undefined {
  return value !== undefined && value > 0 ? value : undefined;
}

function readGenericResources(node: YamlNode, path: string): Record<string, number> {
  const counts: Record<string, number> = {};
  sequence(node, path).forEach((item, i) => {
    const at = `${path}[${i}]`;
    const spec = get(mapping(item, at), 'discrete_resource_spec');
    if (spec === undefined)
      throw composeError(item.mark, `${at} needs a discrete_resource_spec with kind and value`);
    const discrete = mapping(spec, at);
    const kind = optional(discrete, at, 'kind', text);
    const value = optional(discrete, at, 'value', integer(1));
    if (kind === undefined || value === undefined)
      throw composeError(spec.mark, `${at} needs kind and value`);
    counts[kind] = value;
  });
  return counts;
}

/** `deploy.placement`, and `platform` as a requirement on the node. */
export function readPlacement(
  service: MappingNode,
  deploy: MappingNode,
  path: string,
  context: LoadContext,
): Placement {
  const at = `${path}.deploy.placement`;
  const placement = mapping(get(deploy, 'placement') ?? emptyOf(deploy), at);
  checkKeys(placement, at, placementKeys, context.warnings);
  return {
    ...defaultPlacement,
    ...compact({
      constraints: optional(placement, at, 'constraints', readConstraints),
      preferences: optional(placement, at, 'preferences', readPreferences),
      maxReplicasPerNode: optional(placement, at, 'max_replicas_per_node', integer(0)),
      platforms: optional(service, path, 'platform', readPlatform),
    }),
  };
}

function readPlatform(node: YamlNode, path: string): Placement['platforms'] {
  const [os = '', architecture = ''] = text(node, path).split('/');
  if (os === '' || architecture === '') throw wrongKind(node, path, 'os/architecture such as linux/amd64');
  return [{ os, architecture }];
}

/** Constraints as written; one that no node could ever be checked against is refused here, where its line is known. */
function readConstraints(node: YamlNode, path: string): string[] {
  return sequence(node, path).map((item, i) => {
    const at = `${path}[${i}]`;
    const constraint = text(item, at);
    const result = parseConstraint(constraint);
    if (!result.ok) throw composeError(item.mark, `${at}: ${result.reason.message}`);
    return constraint;
  });
}

function readPreferences(node: YamlNode, path: string): { spread: string }[] {
  return sequence(node, path).map((item, i) => {
    const at = `${path}[${i}]`;
    const preference = mapping(item, at);
    const spread = optional(preference, at, 'spread', text);
    if (spread === undefined || preference.entries.size !== 1) {
      throw composeError(item.mark, `${at} must be a single \`spread: node.labels.…\``);
    }
    return { spread };
  });
}
