/** `network create`, `ls`, `inspect` and `rm`. */
import type { Network } from '../../model/objects.ts';
import type { NetworkSpec } from '../../model/spec.ts';
import { FlagReader, keyValues } from '../flag-values.ts';
import type { Run, SwarmdCommand } from '../command.ts';
import { matchesFilter, matchesLabels, parseFilters } from '../filters.ts';
import { withApi, withConnectionFlags } from '../host.ts';
import { forEachRef } from '../lookup.ts';
import {
  naturalCompare,
  printError,
  printInspect,
  printLine,
  printList,
  shortId,
  type Column,
} from '../output.ts';
import { withListFlags } from './service-view.ts';

const columns: readonly Column[] = [
  ['NETWORK ID', 'ID'],
  ['NAME', 'Name'],
  ['DRIVER', 'Driver'],
  ['SCOPE', 'Scope'],
];

/** The `network` commands. */
export function registerNetwork(program: SwarmdCommand, run: Run): void {
  const network = program.sub('network', 'networks of the cluster: create, ls, inspect, rm');
  registerCreate(network, run);
  registerList(network, run);
  registerInspectAndRemove(network, run);
}

function registerCreate(parent: SwarmdCommand, run: Run): void {
  const command = parent
    .sub('create', 'make a network')
    .argument('<name>', 'name')
    .value('-d, --driver <driver>', 'overlay, bridge or host', 'overlay')
    .value('--subnet <cidr>', 'subnet such as 10.5.0.0/24 (default: from the pool)')
    .flag('--attachable', 'other containers may join')
    .flag('--internal', 'no way to the outside')
    .flag('--ingress', 'the routing mesh of published ports')
    .list('--label <name=value>', 'label')
    .list('-o, --opt <name=value>', 'driver option')
    .value('--scope <scope>', 'accepted; networks here are of the whole cluster')
    .unsupported([
      '--aux-address <map>',
      '--config-from <name>',
      '--config-only',
      '--gateway <address>',
      '--ip-range <cidr>',
      '--ipam-driver <driver>',
      '--ipam-opt <map>',
      '--ipv4',
      '--ipv6',
    ]);
  withConnectionFlags(command).run(run, (args, self) => {
    const { outside } = run;
    const flags = new FlagReader(self.opts());
    const subnet = flags.text('subnet');
    const spec: NetworkSpec = {
      name: args[0] ?? '',
      labels: keyValues('label', flags.list('label')),
      driver: flags.oneOf('driver', ['overlay', 'bridge', 'host']) ?? 'overlay',
      internal: flags.bool('internal') ?? false,
      attachable: flags.bool('attachable') ?? false,
      ingress: flags.bool('ingress') ?? false,
      driverOptions: keyValues('opt', flags.list('opt')),
      ...(subnet === undefined ? {} : { subnet }),
    };
    return withApi(self, outside, async (api) => {
      const network = await api.call('network.create', { spec }, { signal: outside.interrupt });
      printLine(outside, network.id);
      return 0;
    });
  });
}

function registerList(parent: SwarmdCommand, run: Run): void {
  const command = withListFlags(parent.sub('ls', 'list networks').alias('list')).flag(
    '--no-trunc',
    'full ids',
  );
  command.run(run, (_args, self) => {
    const { outside } = run;
    return withApi(self, outside, async (api) => {
      const options = self.opts<{ filter: string[]; format?: string; quiet?: boolean; trunc?: boolean }>();
      const filters = parseFilters(options.filter, ['id', 'name', 'label', 'driver', 'scope']);
      const networks = await api.call('network.list', { stack: null }, { signal: outside.interrupt });
      const rows = networks
        .filter(
          ({ id, spec }) =>
            matchesFilter(filters, 'id', (value) => id.startsWith(value)) &&
            matchesFilter(filters, 'name', (value) => spec.name.includes(value)) &&
            matchesFilter(filters, 'driver', (value) => spec.driver === value) &&
            matchesFilter(filters, 'scope', (value) => value === 'swarm') &&
            matchesLabels(filters, 'label', spec.labels),
        )
        .sort((a, b) => naturalCompare(a.spec.name, b.spec.name))
        .map(({ id, spec, subnet }) => ({
          ID: shortId(id, options.trunc === false),
          Name: spec.name,
          Driver: spec.driver,
          Scope: 'swarm',
          Internal: String(spec.internal),
          Subnet: subnet,
        }));
      printList(outside, rows, columns, options);
      return 0;
    });
  });
}

function registerInspectAndRemove(parent: SwarmdCommand, run: Run): void {
  const { outside } = run;
  const inspect = parent
    .sub('inspect', 'show everything about networks')
    .argument('<network...>', 'names or ids')
    .value('-f, --format <format>', 'json or a template');
  withConnectionFlags(inspect).run(run, (refs, self) =>
    withApi(self, outside, async (api) => {
      const found: Network[] = [];
      const exitCode = await forEachRef(
        refs,
        async (ref) => {
          found.push(await api.call('network.inspect', { ref }, { signal: outside.interrupt }));
        },
        (error) => printError(outside, `Error: ${error.message}`),
      );
      printInspect(outside, found, self.opts<{ format?: string }>().format);
      return exitCode;
    }),
  );
  const remove = parent.sub('rm', 'remove networks').alias('remove').argument('<network...>', 'names or ids');
  withConnectionFlags(remove).run(run, (refs, self) =>
    withApi(self, outside, (api) =>
      forEachRef(
        refs,
        async (ref) => {
          await api.call('network.remove', { ref }, { signal: outside.interrupt });
          printLine(outside, ref);
        },
        (error) => printError(outside, `Error: ${error.message}`),
      ),
    ),
  );
}
