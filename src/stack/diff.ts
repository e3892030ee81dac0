/**
 * A stack's plan against what the cluster has of it: what to create, update, leave and (with prune) remove.
 *
 * Invariants: services are compared as the managers store them, with ids; an object is only ever removed when it
 * carries the stack's label.
 */
import type { Config, Network, Secret, Service } from '../model/objects.ts';
import { STACK_LABEL } from '../model/objects.ts';
import type { ConfigSpec, NetworkSpec, SecretSpec, ServiceSpec } from '../model/spec.ts';
import { resolveSpec, type IdsByName } from './resolve.ts';
import type { StackPlan } from './load-stack.ts';

/** What the cluster has: every object, of this stack or not (names are unique in the cluster). */
export interface ExistingObjects {
  readonly services: readonly Service[];
  readonly networks: readonly Network[];
  readonly secrets: readonly Secret[];
  readonly configs: readonly Config[];
}

export type ServiceChange =
  | { readonly kind: 'create'; readonly spec: ServiceSpec }
  | { readonly kind: 'update'; readonly spec: ServiceSpec; readonly existing: Service }
  | { readonly kind: 'unchanged'; readonly spec: ServiceSpec; readonly existing: Service };

/** Objects to make before services, and reasons the stack cannot be deployed as it is. */
export interface Prerequisites {
  readonly networks: readonly NetworkSpec[];
  readonly secrets: readonly SecretSpec[];
  readonly configs: readonly ConfigSpec[];
  readonly problems: readonly string[];
  /** Differences that are left as they are, because the object cannot change. */
  readonly notes: readonly string[];
}

/** Networks, secrets and configs the plan needs and the cluster lacks. */
export function planPrerequisites(plan: StackPlan, existing: ExistingObjects): Prerequisites {
  const problems: string[] = [];
  const notes: string[] = [];
  for (const kind of ['networks', 'secrets', 'configs'] as const) {
    const names = new Set(existing[kind].map((object) => object.spec.name));
    for (const name of plan.external[kind]) {
      if (names.has(name)) continue;
      const one = kind.slice(0, -1);
      problems.push(
        `the external ${one} "${name}" does not exist; create it first: swarmd ${one} create ${name}`,
      );
    }
  }
  const networks = plan.networks.filter((spec) => {
    const found = existing.networks.find((network) => network.spec.name === spec.name);
    if (found === undefined) return true;
    if (found.spec.labels[STACK_LABEL] !== plan.name) {
      problems.push(
        `a network "${spec.name}" exists but is not of this stack; declare it \`external: true\``,
      );
    } else if (!sameNetwork(found.spec, spec)) {
      notes.push(
        `network ${spec.name} has other options than the file; remove the stack and deploy it again to change them`,
      );
    }
    return false;
  });
  const configs = plan.configs.filter((spec) => {
    const found = existing.configs.find((config) => config.spec.name === spec.name);
    if (found !== undefined && found.spec.data !== spec.data) {
      problems.push(
        `config ${spec.name} exists with other content, and configs never change; give it a new \`name:\``,
      );
    }
    return found === undefined;
  });
  const secrets = plan.secrets.filter((spec) => {
    const found = existing.secrets.find((secret) => secret.spec.name === spec.name);
    // Reads of secrets leave the payload out, so that a difference often cannot be seen.
    if (found !== undefined && found.spec.data !== '' && found.spec.data !== spec.data) {
      problems.push(
        `secret ${spec.name} exists with other content, and secrets never change; give it a new \`name:\``,
      );
    }
    return found === undefined;
  });
  return { networks, secrets, configs, problems, notes };
}

function sameNetwork(found: NetworkSpec, wanted: NetworkSpec): boolean {
  const shape = (spec: NetworkSpec): unknown => ({
    ...spec,
    labels: {},
    subnet: wanted.subnet && spec.subnet,
  });
  return sameValue(shape(found), shape(wanted));
}

/** Each service of the plan with what to do; `problems` names what its spec needs and does not exist. */
export function planServices(
  plan: StackPlan,
  existing: readonly Service[],
  ids: IdsByName,
): { readonly changes: readonly ServiceChange[]; readonly problems: readonly string[] } {
  const changes: ServiceChange[] = [];
  const problems: string[] = [];
  for (const named of plan.services) {
    const resolved = resolveSpec(named, ids);
    if (!resolved.ok) {
      problems.push(resolved.reason);
      continue;
    }
    const found = existing.find((service) => service.spec.name === named.name && !service.pendingDelete);
    if (found === undefined) {
      changes.push({ kind: 'create', spec: resolved.value });
      continue;
    }
    if (found.spec.labels[STACK_LABEL] !== plan.name) {
      problems.push(`a service "${named.name}" exists but is not of this stack; rename one of them`);
      continue;
    }
    // The force counter is the cluster's own: a deploy neither resets nor needs it.
    const task = { ...resolved.value.task, forceUpdate: found.spec.task.forceUpdate };
    const spec = { ...resolved.value, task };
    changes.push({ kind: sameValue(spec, found.spec) ? 'unchanged' : 'update', spec, existing: found });
  }
  return { changes, problems };
}

/** Services of the stack that the plan no longer has. */
export function servicesToPrune(plan: StackPlan, existing: readonly Service[]): Service[] {
  const names = new Set(plan.services.map((spec) => spec.name));
  return existing.filter(
    (service) =>
      service.spec.labels[STACK_LABEL] === plan.name &&
      !names.has(service.spec.name) &&
      !service.pendingDelete,
  );
}

/** Whether two JSON values are equal, whatever the order of keys; members of value undefined count as absent. */
export function sameValue(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const left = entriesOf(a);
  const right = entriesOf(b);
  if (left.size !== right.size) return false;
  for (const [key, value] of left) if (!right.has(key) || !sameValue(value, right.get(key))) return false;
  return true;
}

function entriesOf(value: object): Map<string, unknown> {
  return new Map(Object.entries(value).filter(([, member]) => member !== undefined));
}
