/** Deploying a stack: makes what it needs, creates and updates its services, prunes. */
import { SwarmdError } from '../base/errors.ts';
import type { Service } from '../model/objects.ts';
import { planPrerequisites, planServices, servicesToPrune } from '../stack/diff.ts';
import type { StackPlan } from '../stack/load-stack.ts';
import type { ApiConnection, Outside } from './context.ts';
import { fetchIds } from './lookup.ts';
import { printError, printLine } from './output.ts';

export interface DeployOptions {
  readonly prune: boolean;
  readonly quiet: boolean;
}

/** Deploys the plan and returns the names of the services created or changed. */
export async function deployStack(
  outside: Outside,
  api: ApiConnection,
  plan: StackPlan,
  options: DeployOptions,
): Promise<readonly string[]> {
  const say = (line: string): void => {
    if (!options.quiet) printLine(outside, line);
  };
  const call = { signal: outside.interrupt };
  const [services, networks, secrets, configs] = await Promise.all([
    api.call('service.list', { stack: null }, call),
    api.call('network.list', { stack: null }, call),
    api.call('secret.list', { stack: null }, call),
    api.call('config.list', { stack: null }, call),
  ]);
  const needed = planPrerequisites(plan, { services, networks, secrets, configs });
  refuseProblems(plan, needed.problems);
  for (const note of needed.notes) printError(outside, `warning: ${note}`);
  for (const spec of needed.secrets) {
    say(`Creating secret ${spec.name}`);
    await api.call('secret.create', { spec }, call);
  }
  for (const spec of needed.configs) {
    say(`Creating config ${spec.name}`);
    await api.call('config.create', { spec }, call);
  }
  for (const spec of needed.networks) {
    say(`Creating network ${spec.name}`);
    await api.call('network.create', { spec }, call);
  }
  const { changes, problems } = planServices(plan, services, await fetchIds(outside, api));
  refuseProblems(plan, problems);
  if (options.prune) await prune(outside, api, servicesToPrune(plan, services), say);
  const changed: string[] = [];
  for (const change of changes) {
    const { name } = change.spec;
    if (change.kind === 'unchanged') {
      say(`Service ${name} is up to date`);
      continue;
    }
    changed.push(name);
    if (change.kind === 'create') {
      say(`Creating service ${name}`);
      await api.call('service.create', { spec: change.spec }, call);
    } else {
      say(`Updating service ${name} (id: ${change.existing.id})`);
      const { id, meta } = change.existing;
      await api.call('service.update', { ref: id, version: meta.version, spec: change.spec }, call);
    }
  }
  return changed;
}

function refuseProblems(plan: StackPlan, problems: readonly string[]): void {
  if (problems.length === 0) return;
  throw new SwarmdError(
    'FAILED_PRECONDITION',
    `stack ${plan.name} cannot be deployed: ${problems.join('; ')}`,
  );
}

async function prune(
  outside: Outside,
  api: ApiConnection,
  services: readonly Service[],
  say: (line: string) => void,
): Promise<void> {
  for (const service of services) {
    say(`Removing service ${service.spec.name}`);
    await api.call('service.remove', { ref: service.id }, { signal: outside.interrupt });
  }
}
