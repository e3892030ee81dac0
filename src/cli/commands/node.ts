/** `node ls`, `node inspect`, `node update`, `node ps` and `node rm`. */
import type { NodeView } from '../../model/api.ts';
import type { NodeSpec } from '../../model/spec.ts';
import { FlagReader, keyValues } from '../flag-values.ts';
import { UsageError, fullName, type Run, type SwarmdCommand } from '../command.ts';
import type { ApiConnection, Outside } from '../context.ts';
import { matchesFilter, matchesLabels, parseFilters } from '../filters.ts';
import { printForecast } from '../forecast-view.ts';
import { withApi, withConnectionFlags } from '../host.ts';
import { forEachRef, withNearestName } from '../lookup.ts';
import { naturalCompare, printError, printInspect, printLine, printList } from '../output.ts';
import { prettyNode } from '../pretty.ts';
import { nodeColumns, nodeRow } from '../rows.ts';
import { printTasks, withListFlags, withTaskFlags } from './service-view.ts';

/** The `node` commands. */
export function registerNode(program: SwarmdCommand, run: Run): void {
  const node = program.sub(
    'node',
    'the machines of the cluster: ls, inspect, update, promote, demote, ps, rm',
  );
  registerList(node, run);
  registerInspect(node, run);
  registerUpdate(node, run);
  registerRole(node, run, 'promote', 'manager');
  registerRole(node, run, 'demote', 'worker');
  registerPs(node, run);
  registerRemove(node, run);
}

/** `self` is the node that answers. */
async function inspectNode(outside: Outside, api: ApiConnection, ref: string): Promise<NodeView> {
  const options = { signal: outside.interrupt };
  if (ref === 'self') {
    const { nodeId } = await api.call('info', {}, options);
    return api.call('node.inspect', { ref: nodeId }, options);
  }
  try {
    return await api.call('node.inspect', { ref }, options);
  } catch (error) {
    const nodes = await api.call('node.list', {}, options);
    throw withNearestName(
      error,
      ref,
      nodes.map((node) => node.description.hostname),
    );
  }
}

/** `node promote` and `node demote`: several nodes, one after the other. */
function registerRole(parent: SwarmdCommand, run: Run, name: string, role: NodeSpec['role']): void {
  const help = role === 'manager' ? 'make workers managers' : 'make managers workers';
  const command = parent.sub(name, help).argument('<node...>', 'names, ids or "self"');
  withConnectionFlags(command).run(run, (refs, self) => {
    const { outside } = run;
    return withApi(self, outside, (api) =>
      forEachRef(
        refs,
        async (ref) => printLine(outside, await setRole(outside, api, ref, role)),
        (error) => printError(outside, `Error: ${error.message}`),
      ),
    );
  });
}

async function setRole(
  outside: Outside,
  api: ApiConnection,
  ref: string,
  role: NodeSpec['role'],
): Promise<string> {
  const node = await inspectNode(outside, api, ref);
  const { hostname } = node.description;
  if (node.spec.role === role) return `Node ${hostname} is already a ${role}.`;
  const params = { ref: node.id, version: node.meta.version, spec: { ...node.spec, role } };
  await api.call('node.update', params, { signal: outside.interrupt });
  return role === 'manager'
    ? `Node ${hostname} promoted to a manager in the swarm.`
    : `Manager ${hostname} demoted in the swarm.`;
}

function registerList(parent: SwarmdCommand, run: Run): void {
  withListFlags(parent.sub('ls', 'list nodes').alias('list')).run(run, (_args, command) => {
    const { outside } = run;
    return withApi(command, outside, async (api) => {
      const options = command.opts<{ filter: string[]; format?: string; quiet?: boolean }>();
      const signal = outside.interrupt;
      const [nodes, info] = await Promise.all([
        api.call('node.list', {}, { signal }),
        api.call('info', {}, { signal }),
      ]);
      const filters = parseFilters(options.filter, [
        'id',
        'label',
        'node.label',
        'membership',
        'name',
        'role',
      ]);
      const rows = nodes
        .filter(
          (node) =>
            matchesFilter(filters, 'id', (value) => node.id.startsWith(value)) &&
            matchesFilter(filters, 'name', (value) => node.description.hostname.startsWith(value)) &&
            matchesFilter(filters, 'role', (value) => node.spec.role === value) &&
            matchesFilter(filters, 'membership', (value) => value === 'accepted') &&
            matchesLabels(filters, 'label', node.description.engineLabels) &&
            matchesLabels(filters, 'node.label', node.spec.labels),
        )
        .sort((a, b) => naturalCompare(a.description.hostname, b.description.hostname))
        .map((node) => nodeRow(node, info.nodeId));
      printList(outside, rows, nodeColumns, options);
      return 0;
    });
  });
}

function registerInspect(parent: SwarmdCommand, run: Run): void {
  const command = parent
    .sub('inspect', 'show everything about nodes')
    .argument('<node...>', 'names, ids or "self"')
    .value('-f, --format <format>', 'json or a template such as "{{.Status.State}}"')
    .flag('--pretty', 'for people');
  withConnectionFlags(command).run(run, (refs, self) => {
    const { outside } = run;
    return withApi(self, outside, async (api) => {
      const { format, pretty } = self.opts<{ format?: string; pretty?: boolean }>();
      const found: NodeView[] = [];
      const exitCode = await forEachRef(
        refs,
        async (ref) => {
          found.push(await inspectNode(outside, api, ref));
        },
        (error) => printError(outside, `Error: ${error.message}`),
      );
      if (pretty === true) for (const node of found) outside.terminal.stdout.write(prettyNode(node));
      else printInspect(outside, found, format);
      return exitCode;
    });
  });
}

function registerUpdate(parent: SwarmdCommand, run: Run): void {
  const command = parent
    .sub('update', 'change labels and availability of a node')
    .argument('<node>', 'name, id or "self"')
    .value('--availability <state>', 'active, pause (no new tasks) or drain (tasks move away)')
    .list('--label-add <name=value>', 'add or change a label')
    .list('--label-rm <name>', 'remove a label')
    .flag('--dry-run', 'with --availability drain: show where its tasks would go; nothing is changed')
    .unsupported(['--role <role>']);
  withConnectionFlags(command).run(run, (args, self) => {
    const { outside } = run;
    const flags = new FlagReader(self.opts());
    const availability = flags.oneOf('availability', ['active', 'pause', 'drain']);
    if (availability === undefined && !flags.has('label-add') && !flags.has('label-rm')) {
      throw new UsageError(
        'nothing to change; give --availability, --label-add or --label-rm',
        fullName(self),
        1,
      );
    }
    const dryRun = flags.bool('dry-run') === true;
    if (dryRun && availability !== 'drain') {
      throw new UsageError('--dry-run goes with --availability drain', fullName(self));
    }
    return withApi(self, outside, async (api) => {
      const node = await inspectNode(outside, api, args[0] ?? '');
      if (dryRun) {
        const params = { lose: [], drain: [node.id] };
        const forecast = await api.call('node.forecast', params, { signal: outside.interrupt });
        printForecast(outside, forecast, undefined);
        return 0;
      }
      const removed = new Set(flags.list('label-rm'));
      const kept = Object.entries(node.spec.labels).filter(([name]) => !removed.has(name));
      const spec: NodeSpec = {
        ...node.spec,
        availability: availability ?? node.spec.availability,
        labels: { ...Object.fromEntries(kept), ...keyValues('label-add', flags.list('label-add')) },
      };
      const params = { ref: node.id, version: node.meta.version, spec };
      await api.call('node.update', params, { signal: outside.interrupt });
      printLine(outside, args[0] ?? '');
      return 0;
    });
  });
}

function registerPs(parent: SwarmdCommand, run: Run): void {
  const command = parent
    .sub('ps', 'list the tasks of nodes')
    .argument('[node...]', 'names or ids (default: self)');
  withTaskFlags(command).run(run, (refs, self) => {
    const { outside } = run;
    return withApi(self, outside, async (api) => {
      const signal = outside.interrupt;
      const nodes = await api.call('node.list', {}, { signal });
      const lists = [];
      for (const ref of refs.length === 0 ? ['self'] : refs) {
        const node = await inspectNode(outside, api, ref);
        lists.push(await api.call('task.list', { service: null, node: node.id, stack: null }, { signal }));
      }
      printTasks(outside, lists.flat(), nodes, self.opts());
      return 0;
    });
  });
}

function registerRemove(parent: SwarmdCommand, run: Run): void {
  const command = parent
    .sub('rm', 'remove nodes that have left')
    .alias('remove')
    .argument('<node...>', 'names or ids')
    .flag('-f, --force', 'even if the node is not down');
  withConnectionFlags(command).run(run, (refs, self) => {
    const { outside } = run;
    const force = self.opts<{ force?: boolean }>().force === true;
    return withApi(self, outside, (api) =>
      forEachRef(
        refs,
        async (ref) => {
          const node = await inspectNode(outside, api, ref);
          await api.call('node.remove', { ref: node.id, force }, { signal: outside.interrupt });
          printLine(outside, ref);
        },
        (error) => printError(outside, `Error: ${error.message}`),
      ),
    );
  });
}
