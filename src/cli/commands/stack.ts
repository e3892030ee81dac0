/** `stack ls`, `stack ps`, `stack services` and `stack rm`; `stack deploy` is in a file of its own. */
import { sleep } from '../../base/clock.ts';
import { SwarmdError } from '../../base/errors.ts';
import type { ServiceView } from '../../model/api.ts';
import { STACK_LABEL } from '../../model/objects.ts';
import { didYouMean } from '../../stack/compose-error.ts';
import type { Run, SwarmdCommand } from '../command.ts';
import type { ApiConnection, Outside } from '../context.ts';
import { withApi, withConnectionFlags } from '../host.ts';
import { naturalCompare, printError, printLine, printList } from '../output.ts';
import { printServices, printTasks, withListFlags, withTaskFlags } from './service-view.ts';
import { registerStackDeploy } from './stack-deploy.ts';

/** The `stack` commands. */
export function registerStack(program: SwarmdCommand, run: Run): void {
  const stack = program.sub('stack', 'services of one compose file: deploy, ls, ps, services, rm');
  registerStackDeploy(stack, run);
  registerList(stack, run);
  registerPs(stack, run);
  registerServices(stack, run);
  registerRemove(stack, run);
}

function registerList(parent: SwarmdCommand, run: Run): void {
  const command = parent
    .sub('ls', 'list stacks')
    .alias('list')
    .value('--format <format>', 'table, json or a template');
  withConnectionFlags(command).run(run, (_args, self) => {
    const { outside } = run;
    return withApi(self, outside, async (api) => {
      const services = await api.call('service.list', { stack: null }, { signal: outside.interrupt });
      const counts = new Map<string, number>();
      for (const service of services) {
        const name = service.spec.labels[STACK_LABEL];
        if (name !== undefined) counts.set(name, (counts.get(name) ?? 0) + 1);
      }
      const rows = [...counts]
        .sort(([a], [b]) => naturalCompare(a, b))
        .map(([name, count]) => ({ Name: name, Services: String(count) }));
      const columns = [
        ['NAME', 'Name'],
        ['SERVICES', 'Services'],
      ] as const;
      printList(outside, rows, columns, self.opts<{ format?: string }>(), 'Name');
      return 0;
    });
  });
}

async function stackServices(outside: Outside, api: ApiConnection, stack: string): Promise<ServiceView[]> {
  const services = await api.call('service.list', { stack }, { signal: outside.interrupt });
  if (services.length > 0) return services;
  const all = await api.call('service.list', { stack: null }, { signal: outside.interrupt });
  const names = new Set(all.flatMap((service) => service.spec.labels[STACK_LABEL] ?? []));
  throw new SwarmdError('NOT_FOUND', `there is no stack "${stack}".${didYouMean(stack, names)}`);
}

function registerPs(parent: SwarmdCommand, run: Run): void {
  const command = parent.sub('ps', 'list the tasks of a stack').argument('<stack>', 'name');
  withTaskFlags(command).run(run, (args, self) => {
    const { outside } = run;
    return withApi(self, outside, async (api) => {
      const stack = args[0] ?? '';
      await stackServices(outside, api, stack);
      const signal = outside.interrupt;
      const [tasks, nodes] = await Promise.all([
        api.call('task.list', { service: null, node: null, stack }, { signal }),
        api.call('node.list', {}, { signal }),
      ]);
      printTasks(outside, tasks, nodes, self.opts());
      return 0;
    });
  });
}

function registerServices(parent: SwarmdCommand, run: Run): void {
  const command = parent.sub('services', 'list the services of a stack').argument('<stack>', 'name');
  withListFlags(command).run(run, (args, self) => {
    const { outside } = run;
    return withApi(self, outside, async (api) => {
      printServices(outside, await stackServices(outside, api, args[0] ?? ''), self.opts(), ['service']);
      return 0;
    });
  });
}

function registerRemove(parent: SwarmdCommand, run: Run): void {
  const command = parent
    .sub('rm', 'remove stacks')
    .aliases(['remove', 'down'])
    .argument('<stack...>', 'names')
    .flag('-d, --detach', 'do not wait until the tasks are gone (default)', true);
  withConnectionFlags(command).run(run, (stacks, self) => {
    const { outside } = run;
    const { detach } = self.opts<{ detach: boolean }>();
    return withApi(self, outside, async (api) => {
      let exitCode = 0;
      for (const stack of stacks) {
        if (!(await removeStack(outside, api, stack, detach))) exitCode = 1;
      }
      return exitCode;
    });
  });
}

/** Removes services, then secrets, configs and networks of a stack; false when there was none. */
async function removeStack(
  outside: Outside,
  api: ApiConnection,
  stack: string,
  detach: boolean,
): Promise<boolean> {
  const signal = outside.interrupt;
  const [services, secrets, configs, networks] = await Promise.all([
    api.call('service.list', { stack }, { signal }),
    api.call('secret.list', { stack }, { signal }),
    api.call('config.list', { stack }, { signal }),
    api.call('network.list', { stack }, { signal }),
  ]);
  if (services.length + secrets.length + configs.length + networks.length === 0) {
    printError(outside, `Error: there is no stack "${stack}"`);
    return false;
  }
  for (const service of services) {
    printLine(outside, `Removing service ${service.spec.name}`);
    await api.call('service.remove', { ref: service.id }, { signal });
  }
  // Tasks that still stop hold on to what they use.
  const remove = async (what: string, work: () => Promise<unknown>): Promise<void> => {
    printLine(outside, `Removing ${what}`);
    await untilFree(outside, work);
  };
  for (const { id, spec } of secrets) {
    await remove(`secret ${spec.name}`, () => api.call('secret.remove', { ref: id }, { signal }));
  }
  for (const { id, spec } of configs) {
    await remove(`config ${spec.name}`, () => api.call('config.remove', { ref: id }, { signal }));
  }
  for (const { id, spec } of networks) {
    await remove(`network ${spec.name}`, () => api.call('network.remove', { ref: id }, { signal }));
  }
  if (!detach) await untilGone(outside, api, stack);
  return true;
}

/** Time tasks are given to let go of a network, secret or config. */
const RELEASE_MS = 60_000;
const RETRY_MS = 250;

async function untilFree(outside: Outside, work: () => Promise<unknown>): Promise<void> {
  const deadline = outside.clock.monotonicMs() + RELEASE_MS;
  for (;;) {
    try {
      await work();
      return;
    } catch (error) {
      const isInUse = error instanceof SwarmdError && error.code === 'FAILED_PRECONDITION';
      if (error instanceof SwarmdError && error.code === 'NOT_FOUND') return;
      if (!isInUse || outside.clock.monotonicMs() > deadline) throw error;
      await sleep(outside.clock, RETRY_MS, outside.interrupt);
    }
  }
}

async function untilGone(outside: Outside, api: ApiConnection, stack: string): Promise<void> {
  for (;;) {
    const params = { service: null, node: null, stack };
    const tasks = await api.call('task.list', params, { signal: outside.interrupt });
    if (tasks.length === 0) return;
    await sleep(outside.clock, RETRY_MS, outside.interrupt);
  }
}
