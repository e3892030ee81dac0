/** `service ls`, `service ps`, `service inspect` and `service rm`. */
import type { ServiceView } from '../../model/api.ts';
import type { ClusterNode, Task } from '../../model/objects.ts';
import type { Run, SwarmdCommand } from '../command.ts';
import type { ApiConnection, Outside } from '../context.ts';
import { matchesFilter, matchesLabels, parseFilters } from '../filters.ts';
import { withApi, withConnectionFlags } from '../host.ts';
import { forEachRef, withNearestName } from '../lookup.ts';
import { naturalCompare, printError, printInspect, printLine, printList } from '../output.ts';
import { serviceColumns, serviceRow, taskColumns, taskName, taskRows } from '../rows.ts';
import { prettyService } from '../pretty.ts';

interface ListFlags {
  readonly filter: readonly string[];
  readonly format?: string;
  readonly quiet?: boolean;
}

/** The flags of every listing. */
export function withListFlags(command: SwarmdCommand): SwarmdCommand {
  command
    .list('-f, --filter <key=value>', 'show only what matches')
    .value('--format <format>', 'table, json, or a template such as "{{.Name}}"')
    .flag('-q, --quiet', 'ids only');
  return withConnectionFlags(command);
}

/** The flags of the task listings. */
export function withTaskFlags(command: SwarmdCommand): SwarmdCommand {
  return withListFlags(command)
    .flag('--no-resolve', 'ids instead of names')
    .flag('--no-trunc', 'full ids and errors');
}

export function registerServiceList(parent: SwarmdCommand, run: Run): void {
  withListFlags(parent.sub('ls', 'list services').alias('list')).run(run, async (_args, command) => {
    const { outside } = run;
    const services = await withApi(command, outside, (api) =>
      api.call('service.list', { stack: null }, { signal: outside.interrupt }),
    );
    printServices(outside, services, command.opts<ListFlags>(), []);
    return 0;
  });
}

/** Prints services as `service ls` and `stack services` do. */
export function printServices(
  outside: Outside,
  services: readonly ServiceView[],
  options: ListFlags,
  moreFilters: readonly string[],
): void {
  const filters = parseFilters(options.filter, ['id', 'label', 'mode', 'name', ...moreFilters]);
  const rows = services
    .filter(
      ({ id, spec }) =>
        matchesFilter(filters, 'id', (value) => id.startsWith(value)) &&
        matchesFilter(filters, 'name', (value) => spec.name.startsWith(value)) &&
        matchesFilter(filters, 'service', (value) => spec.name === value || id.startsWith(value)) &&
        matchesFilter(filters, 'mode', (value) => spec.mode.kind === value) &&
        matchesLabels(filters, 'label', spec.labels),
    )
    .sort((a, b) => naturalCompare(a.spec.name, b.spec.name))
    .map((service) => serviceRow(service));
  printList(outside, rows, serviceColumns, options);
}

interface TaskFlags extends ListFlags {
  readonly trunc?: boolean;
  readonly resolve?: boolean;
}

/** Prints tasks as `service ps`, `stack ps` and `node ps` do. */
export function printTasks(
  outside: Outside,
  tasks: readonly Task[],
  nodes: readonly ClusterNode[],
  options: TaskFlags,
): void {
  const filters = parseFilters(options.filter, ['id', 'name', 'node', 'desired-state', 'label']);
  const matching = tasks.filter((task) => {
    const hostname = nodes.find((node) => node.id === task.nodeId)?.description.hostname ?? '';
    return (
      matchesFilter(filters, 'id', (value) => task.id.startsWith(value)) &&
      matchesFilter(filters, 'name', (value) => taskName(task).startsWith(value)) &&
      matchesFilter(filters, 'node', (value) => task.nodeId.startsWith(value) || hostname === value) &&
      matchesFilter(filters, 'desired-state', (value) => task.desiredState === value.toLowerCase()) &&
      matchesLabels(filters, 'label', task.serviceAnnotations.labels)
    );
  });
  const full = options.trunc === false;
  const rows = taskRows(matching, nodes, {
    full: full || options.quiet === true,
    raw: options.resolve === false,
    nowMs: outside.clock.nowMs(),
  });
  const short =
    options.quiet === true && !full
      ? rows.map((row) => ({ ...row, ID: (row['ID'] ?? '').slice(0, 12) }))
      : rows;
  printList(outside, short, taskColumns, options);
}

export function registerServicePs(parent: SwarmdCommand, run: Run): void {
  const command = parent.sub('ps', 'list the tasks of services').argument('<service...>', 'names or ids');
  withTaskFlags(command).run(run, async (refs, self) => {
    const { outside } = run;
    return withApi(self, outside, async (api) => {
      const signal = outside.interrupt;
      const nodes = await api.call('node.list', {}, { signal });
      const tasks: Task[] = [];
      const exitCode = await forEachRef(
        refs,
        async (ref) => {
          const service = await inspectService(outside, api, ref);
          tasks.push(
            ...(await api.call('task.list', { service: service.id, node: null, stack: null }, { signal })),
          );
        },
        (error) => printError(outside, `Error: ${error.message}`),
      );
      if (exitCode === 0 || tasks.length > 0) printTasks(outside, tasks, nodes, self.opts<TaskFlags>());
      return exitCode;
    });
  });
}

/** A service by reference; an unknown one is told with the nearest name. */
export async function inspectService(
  outside: Outside,
  api: ApiConnection,
  ref: string,
): Promise<ServiceView> {
  try {
    return await api.call('service.inspect', { ref }, { signal: outside.interrupt });
  } catch (error) {
    const services = await api.call('service.list', { stack: null }, { signal: outside.interrupt });
    throw withNearestName(
      error,
      ref,
      services.map((service) => service.spec.name),
    );
  }
}

export function registerServiceInspect(parent: SwarmdCommand, run: Run): void {
  const command = parent
    .sub('inspect', 'show everything about services')
    .argument('<service...>', 'names or ids')
    .value('-f, --format <format>', 'json or a template such as "{{.Spec.Name}}"')
    .flag('--pretty', 'for people');
  withConnectionFlags(command).run(run, (refs, self) => {
    const { outside } = run;
    return withApi(self, outside, async (api) => {
      const { format, pretty } = self.opts<{ format?: string; pretty?: boolean }>();
      const found: ServiceView[] = [];
      const exitCode = await forEachRef(
        refs,
        async (ref) => {
          found.push(await inspectService(outside, api, ref));
        },
        (error) => printError(outside, `Error: ${error.message}`),
      );
      if (pretty === true) for (const service of found) outside.terminal.stdout.write(prettyService(service));
      else printInspect(outside, found, format);
      return exitCode;
    });
  });
}

export function registerServiceRemove(parent: SwarmdCommand, run: Run): void {
  const command = parent
    .sub('rm', 'remove services')
    .alias('remove')
    .argument('<service...>', 'names or ids');
  withConnectionFlags(command).run(run, (refs, self) => {
    const { outside } = run;
    return withApi(self, outside, (api) =>
      forEachRef(
        refs,
        async (ref) => {
          const service = await inspectService(outside, api, ref);
          await api.call('service.remove', { ref: service.id }, { signal: outside.interrupt });
          printLine(outside, ref);
        },
        (error) => printError(outside, `Error: ${error.message}`),
      ),
    );
  });
}
