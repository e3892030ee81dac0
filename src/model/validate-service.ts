/**
 * Service specs from outside: read, filled with defaults, and checked.
 *
 * Invariant: a spec that passes can be stored and planned; a refusal names each field that is wrong and what to do.
 */
import type { Result } from '../base/result.ts';
import { defaultUpdateConfig } from './defaults.ts';
import { resultOf, type Problems } from './field-reader.ts';
import { checkDnsName, checkLabels } from './names.ts';
import { readServiceSpec } from './service-shape.ts';
import type { EndpointSpec, ServiceSpec, UpdateConfig } from './spec.ts';
import { checkTaskSpec } from './validate-task.ts';

/** Reads a value from outside as a service spec. Network targets and file ids may still be names. */
export function parseServiceSpec(value: unknown): Result<ServiceSpec> {
  const problems: Problems = [];
  const spec = readServiceSpec(value, '', problems);
  // Stand-ins of unreadable fields would only add misleading problems.
  return problems.length > 0 ? resultOf(spec, problems) : validateServiceSpec(spec);
}

/** Checks the rules that hold across the fields of a service spec. */
export function validateServiceSpec(spec: ServiceSpec): Result<ServiceSpec> {
  const problems: Problems = [];
  checkDnsName(spec.name, 'name', problems);
  checkLabels(spec.labels, 'labels', problems);
  checkTaskSpec(spec.task, 'task', problems);
  checkMode(spec, problems);
  checkEndpoint(spec.endpoint, 'endpoint', problems);
  return resultOf(spec, problems);
}

function checkMode(spec: ServiceSpec, problems: Problems): void {
  const { kind } = spec.mode;
  const isJob = kind === 'replicated-job' || kind === 'global-job';
  for (const name of ['update', 'rollback'] as const) {
    if (isJob && !isDefaultConfig(spec[name])) {
      problems.push(`${name}: a job is not updated in steps; leave it out`);
    }
  }
  if (spec.rollback.failureAction === 'rollback') {
    problems.push('rollback.failureAction: a rollback is never rolled back; use pause or continue');
  }
  if (kind !== 'replicated' && spec.rebalance !== undefined) {
    problems.push(
      'rebalance: only a replicated service has tasks that may move; use it with mode replicated',
    );
  }
  if ((kind === 'global' || kind === 'global-job') && spec.task.placement.maxReplicasPerNode !== 0) {
    problems.push(
      'task.placement.maxReplicasPerNode: a global service has one task a node; use it with mode replicated',
    );
  }
}

function isDefaultConfig(config: UpdateConfig): boolean {
  return (Object.keys(defaultUpdateConfig) as (keyof UpdateConfig)[]).every(
    (key) => config[key] === defaultUpdateConfig[key],
  );
}

function checkEndpoint(spec: EndpointSpec, path: string, problems: Problems): void {
  const seen = new Set<string>();
  for (const [index, port] of spec.ports.entries()) {
    const at = `${path}.ports[${index}]`;
    if (spec.mode === 'dnsrr' && port.publishMode === 'ingress') {
      problems.push(
        `${at}: mode dnsrr has no address to publish in ingress mode; use publishMode host or mode vip`,
      );
    }
    if (port.publishedPort === 0) continue;
    const key = `${port.protocol}/${port.publishedPort}`;
    if (seen.has(key)) problems.push(`${at}.publishedPort: duplicate published port ${key}`);
    seen.add(key);
  }
}
