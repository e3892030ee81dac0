/**
 * Rules of a task spec across its fields: runtime, image, environment, files, mounts, resources, placement.
 *
 * Invariant: each check only adds problems that name the field and what to write; none changes the spec.
 */
import { constraintKeys, isLabelKey, labelOfKey, parseConstraint, spreadKeys } from './constraint.ts';
import { MEMORY_BYTES_MIN, NANO_CPUS_MIN } from './defaults.ts';
import type { Problems } from './field-reader.ts';
import { imageReferenceProblem } from './image-reference.ts';
import { parseIpAddress } from './ip-address.ts';
import { checkDnsName, checkLabels } from './names.ts';
import type {
  ContainerSpec,
  FileReference,
  HealthCheck,
  Mount,
  Placement,
  ResourceAmount,
  TaskSpec,
} from './spec.ts';
import type { ConfigId, SecretId } from './ids.ts';
import { isTemplate, templateProblem } from './template-check.ts';

/** Adds what is wrong with the task spec. `path` names it in the problems. */
export function checkTaskSpec(spec: TaskSpec, path: string, problems: Problems): void {
  checkRuntime(spec, path, problems);
  checkContainer(spec.container, `${path}.container`, problems);
  const { limits = {}, reservations = {} } = spec.resources;
  checkAmount(limits, `${path}.resources.limits`, problems);
  checkAmount(reservations, `${path}.resources.reservations`, problems);
  if (limits.generic !== undefined) {
    problems.push(`${path}.resources.limits.generic: generic resources are reserved, not limited`);
  }
  if (reservations.pids !== undefined) {
    problems.push(`${path}.resources.reservations.pids: a number of processes is limited, not reserved`);
  }
  checkPlacement(spec.placement, `${path}.placement`, problems);
  checkNetworks(spec, `${path}.networks`, problems);
}

function checkRuntime(spec: TaskSpec, path: string, problems: Problems): void {
  const { image, command = [], args = [] } = spec.container;
  if (spec.runtime === 'process') {
    if (command.length + args.length === 0 || (command[0] ?? args[0]) === '') {
      problems.push(`${path}.container.command: the process runtime needs a command to run`);
    }
    if (image !== '') {
      problems.push(
        `${path}.container.image: the process runtime takes no image; leave it out or use runtime docker`,
      );
    }
    return;
  }
  if (image === '') {
    problems.push(`${path}.container.image: an image must be given`);
    return;
  }
  const problem = imageReferenceProblem(image);
  if (problem !== null)
    problems.push(`${path}.container.image: '${image}' is no image reference: ${problem}`);
}

function checkContainer(spec: ContainerSpec, path: string, problems: Problems): void {
  checkLabels(spec.labels, `${path}.labels`, problems);
  for (const [index, entry] of spec.env.entries()) {
    if (entry === '' || entry.startsWith('=')) {
      problems.push(`${path}.env[${index}]: '${entry}' has no name; write NAME=value`);
    }
    checkTemplate(entry, `${path}.env[${index}]`, problems);
  }
  if (spec.hostname !== undefined) checkTemplate(spec.hostname, `${path}.hostname`, problems);
  if (spec.dir !== undefined && spec.dir !== '' && !isAbsolute(spec.dir)) {
    problems.push(`${path}.dir: '${spec.dir}' must be an absolute path`);
  }
  if (spec.stopSignal !== undefined && !/^(?:[0-9]{1,2}|(?:SIG)?[A-Z][A-Z0-9+-]*)?$/i.test(spec.stopSignal)) {
    problems.push(
      `${path}.stopSignal: '${spec.stopSignal}' is no signal; write a name such as SIGTERM or a number`,
    );
  }
  if (spec.healthCheck !== undefined) checkHealthCheck(spec.healthCheck, `${path}.healthCheck`, problems);
  checkAddresses(spec, path, problems);
  checkMounts(spec.mounts, `${path}.mounts`, problems);
  checkFiles(spec.secrets, `${path}.secrets`, problems);
  checkFiles(spec.configs, `${path}.configs`, problems);
  for (const [index, { name, soft, hard }] of (spec.ulimits ?? []).entries()) {
    if (hard !== -1 && (soft === -1 || soft > hard)) {
      problems.push(`${path}.ulimits[${index}]: the soft limit of ${name} is above its hard limit`);
    }
  }
}

function isAbsolute(path: string): boolean {
  return path.startsWith('/') || /^[A-Za-z]:[\\/]/.test(path) || isTemplate(path);
}

function checkTemplate(text: string, path: string, problems: Problems): void {
  const problem = isTemplate(text) ? templateProblem(text) : null;
  if (problem !== null) problems.push(`${path}: ${problem}`);
}

function checkHealthCheck(check: HealthCheck, path: string, problems: Problems): void {
  const [kind, ...rest] = check.test;
  if (kind !== undefined && !['NONE', 'CMD', 'CMD-SHELL'].includes(kind)) {
    problems.push(`${path}.test: starts with '${kind}'; the first item is NONE, CMD or CMD-SHELL`);
  } else if ((kind === 'CMD' || kind === 'CMD-SHELL') && rest.length === 0) {
    problems.push(`${path}.test: ${kind} needs a command after it`);
  }
  for (const name of ['intervalMs', 'timeoutMs', 'startPeriodMs'] as const) {
    const value = check[name] ?? 0;
    if (value !== 0 && value < 1) problems.push(`${path}.${name}: ${value} is below 1 ms`);
  }
}

function checkAddresses(spec: ContainerSpec, path: string, problems: Problems): void {
  for (const [index, line] of (spec.hosts ?? []).entries()) {
    const [address = '', ...names] = line.trim().split(/\s+/);
    if (names.length === 0 || (address !== 'host-gateway' && parseIpAddress(address) === null)) {
      problems.push(`${path}.hosts[${index}]: '${line}' is no hosts entry; write an address and a name`);
    }
  }
  for (const [index, address] of (spec.dns?.nameservers ?? []).entries()) {
    if (parseIpAddress(address) === null) {
      problems.push(`${path}.dns.nameservers[${index}]: '${address}' is no IP address`);
    }
  }
}

function checkMounts(mounts: readonly Mount[], path: string, problems: Problems): void {
  const targets = new Map<string, number>();
  for (const [index, mount] of mounts.entries()) {
    const at = `${path}[${index}]`;
    checkMount(mount, at, problems);
    const target = mount.target.length > 1 ? mount.target.replace(/\/+$/, '') : mount.target;
    const earlier = targets.get(target);
    if (earlier !== undefined) {
      problems.push(
        `${at}.target: duplicate mount point: ${mount.target} is also that of ${path}[${earlier}]`,
      );
    }
    targets.set(target, index);
  }
}

const VOLUME_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]+$/;

function checkMount(mount: Mount, path: string, problems: Problems): void {
  const { type, source = '', target } = mount;
  checkTemplate(target, `${path}.target`, problems);
  checkTemplate(source, `${path}.source`, problems);
  if (target !== '' && !isAbsolute(target))
    problems.push(`${path}.target: '${target}' must be an absolute path`);
  if (target === '/') problems.push(`${path}.target: the root folder cannot be mounted over`);
  if (type === 'bind' && !isAbsolute(source)) {
    problems.push(`${path}.source: a bind mount needs an absolute path on the node, not '${source}'`);
  }
  if (type === 'volume' && source !== '' && !isTemplate(source) && !VOLUME_NAME.test(source)) {
    problems.push(
      `${path}.source: '${source}' is no volume name (two or more letters, digits, '_', '.', '-'); for a path use type bind`,
    );
  }
  if (type === 'tmpfs' && source !== '') problems.push(`${path}.source: a tmpfs mount has no source`);
  if (type !== 'bind' && mount.bindPropagation !== undefined) {
    problems.push(`${path}.bindPropagation: only for type bind`);
  }
  if (type !== 'volume' && mount.volume !== undefined) problems.push(`${path}.volume: only for type volume`);
  if (type !== 'tmpfs' && mount.tmpfs !== undefined) problems.push(`${path}.tmpfs: only for type tmpfs`);
}

function checkFiles(
  references: readonly FileReference<SecretId | ConfigId>[],
  path: string,
  problems: Problems,
): void {
  const targets = new Map<string, string>();
  for (const [index, { name, file }] of references.entries()) {
    const earlier = targets.get(file.name);
    if (earlier !== undefined) {
      problems.push(
        `${path}[${index}].file.name: '${earlier}' and '${name}' have a conflicting target: '${file.name}'`,
      );
    }
    targets.set(file.name, name);
  }
}

function checkAmount(amount: ResourceAmount, path: string, problems: Problems): void {
  const { nanoCpus = 0, memoryBytes = 0, generic = {} } = amount;
  if (nanoCpus !== 0 && nanoCpus < NANO_CPUS_MIN) {
    problems.push(`${path}.nanoCpus: ${nanoCpus} is below the minimum of ${NANO_CPUS_MIN} (0.001 CPU)`);
  }
  if (memoryBytes !== 0 && memoryBytes < MEMORY_BYTES_MIN) {
    problems.push(`${path}.memoryBytes: ${memoryBytes} is below the minimum of ${MEMORY_BYTES_MIN} (4 MiB)`);
  }
  if (Object.hasOwn(generic, '')) problems.push(`${path}.generic: a generic resource needs a name`);
}

function checkPlacement(placement: Placement, path: string, problems: Problems): void {
  for (const [index, text] of placement.constraints.entries()) {
    const parsed = parseConstraint(text);
    if (!parsed.ok) problems.push(`${path}.constraints[${index}]: ${parsed.reason.message}`);
  }
  for (const [index, { spread }] of placement.preferences.entries()) {
    const label = labelOfKey(spread);
    if (label !== null && isLabelKey(label.label)) continue;
    const known = constraintKeys.some((key) => key === spread) ? ' (constraints may use it)' : '';
    problems.push(
      `${path}.preferences[${index}].spread: '${spread}' cannot be spread over${known}; use ${spreadKeys.join(' or ')}`,
    );
  }
}

function checkNetworks(spec: TaskSpec, path: string, problems: Problems): void {
  const seen = new Set<string>();
  for (const [index, { target, aliases }] of spec.networks.entries()) {
    if (seen.has(target)) problems.push(`${path}[${index}].target: network ${target} is listed twice`);
    seen.add(target);
    for (const alias of aliases) {
      if (!alias.includes('.')) checkDnsName(alias, `${path}[${index}].aliases`, problems);
      else for (const part of alias.split('.')) checkDnsName(part, `${path}[${index}].aliases`, problems);
    }
  }
}
