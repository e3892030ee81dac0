/** `secret …` and `config …`: create, ls, inspect and rm. The two differ in name and in that secrets never show. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { errorMessage } from '../../base/errors.ts';
import type { Config, Secret } from '../../model/objects.ts';
import { FlagReader, keyValues } from '../flag-values.ts';
import { UsageError, type Run, type SwarmdCommand } from '../command.ts';
import type { ApiConnection, Outside } from '../context.ts';
import { matchesFilter, matchesLabels, parseFilters } from '../filters.ts';
import { withApi, withConnectionFlags } from '../host.ts';
import { forEachRef } from '../lookup.ts';
import {
  durationWords,
  naturalCompare,
  printError,
  printInspect,
  printLine,
  printList,
  type Column,
} from '../output.ts';
import { withListFlags } from './service-view.ts';

type Kind = 'secret' | 'config';

const columns: readonly Column[] = [
  ['ID', 'ID'],
  ['NAME', 'Name'],
  ['CREATED', 'CreatedAt'],
  ['UPDATED', 'UpdatedAt'],
];

/** The `secret` or `config` commands. */
export function registerFileObjects(program: SwarmdCommand, run: Run, kind: Kind): void {
  const what = kind === 'secret' ? 'confidential files for services' : 'plain files for services';
  const parent = program.sub(kind, `${what}: create, ls, inspect, rm`);
  registerCreate(parent, run, kind);
  registerList(parent, run, kind);
  registerInspect(parent, run, kind);
  registerRemove(parent, run, kind);
}

async function readContent(outside: Outside, file: string): Promise<Uint8Array> {
  if (file === '-') return outside.readStdin();
  try {
    return readFileSync(resolve(outside.cwd, file));
  } catch (error) {
    throw new UsageError(`the file cannot be read: ${errorMessage(error)}`, '', 1);
  }
}

function registerCreate(parent: SwarmdCommand, run: Run, kind: Kind): void {
  const { outside } = run;
  const command = parent
    .sub('create', `make a ${kind} from a file`)
    .argument('<name>', 'name')
    .argument('[file]', 'file, or "-" for standard input', '-')
    .list('-l, --label <name=value>', 'label')
    .unsupported(
      kind === 'secret'
        ? ['--driver <driver>', '--template-driver <driver>']
        : ['--template-driver <driver>'],
    );
  withConnectionFlags(command).run(run, async (args, self) => {
    const data = Buffer.from(await readContent(outside, args[1] ?? '-')).toString('base64');
    const labels = keyValues('label', new FlagReader(self.opts()).list('label'));
    const spec = { name: args[0] ?? '', labels, data };
    return withApi(self, outside, async (api) => {
      const options = { signal: outside.interrupt };
      const made =
        kind === 'secret'
          ? await api.call('secret.create', { spec }, options)
          : await api.call('config.create', { spec }, options);
      printLine(outside, made.id);
      return 0;
    });
  });
}

function list(outside: Outside, api: ApiConnection, kind: Kind): Promise<readonly (Secret | Config)[]> {
  const options = { signal: outside.interrupt };
  return kind === 'secret'
    ? api.call('secret.list', { stack: null }, options)
    : api.call('config.list', { stack: null }, options);
}

function registerList(parent: SwarmdCommand, run: Run, kind: Kind): void {
  const { outside } = run;
  withListFlags(parent.sub('ls', `list ${kind}s`).alias('list')).run(run, (_args, self) =>
    withApi(self, outside, async (api) => {
      const options = self.opts<{ filter: string[]; format?: string; quiet?: boolean }>();
      const filters = parseFilters(options.filter, ['id', 'label', 'name']);
      const now = outside.clock.nowMs();
      const ago = (at: number): string => `${durationWords(now - at)} ago`;
      const rows = (await list(outside, api, kind))
        .filter(
          ({ id, spec }) =>
            matchesFilter(filters, 'id', (value) => id.startsWith(value)) &&
            matchesFilter(filters, 'name', (value) => spec.name.startsWith(value)) &&
            matchesLabels(filters, 'label', spec.labels),
        )
        .sort((a, b) => naturalCompare(a.spec.name, b.spec.name))
        .map(({ id, spec, meta }) => ({
          ID: id,
          Name: spec.name,
          CreatedAt: ago(meta.createdAt),
          UpdatedAt: ago(meta.updatedAt),
        }));
      printList(outside, rows, columns, options);
      return 0;
    }),
  );
}

function registerInspect(parent: SwarmdCommand, run: Run, kind: Kind): void {
  const { outside } = run;
  const command = parent
    .sub('inspect', `show everything about ${kind}s`)
    .argument(`<${kind}...>`, 'names or ids')
    .value('-f, --format <format>', 'json or a template')
    .flag('--pretty', 'for people');
  withConnectionFlags(command).run(run, (refs, self) =>
    withApi(self, outside, async (api) => {
      const { format, pretty } = self.opts<{ format?: string; pretty?: boolean }>();
      const found: (Secret | Config)[] = [];
      const exitCode = await forEachRef(
        refs,
        async (ref) => {
          const options = { signal: outside.interrupt };
          const object =
            kind === 'secret'
              ? await api.call('secret.inspect', { ref }, options)
              : await api.call('config.inspect', { ref }, options);
          found.push(kind === 'secret' ? withoutData(object as Secret) : object);
        },
        (error) => printError(outside, `Error: ${error.message}`),
      );
      if (pretty === true)
        for (const object of found) outside.terminal.stdout.write(prettyFile(object, kind));
      else printInspect(outside, found, format);
      return exitCode;
    }),
  );
}

/** A secret as it may be shown, whatever the daemon sent. */
function withoutData(secret: Secret): Secret {
  return { ...secret, spec: { ...secret.spec, data: '' } };
}

function prettyFile(object: Secret | Config, kind: Kind): string {
  const labels = Object.entries(object.spec.labels).map(([key, value]) => `${key}=${value}`);
  const head = [
    `ID:       ${object.id}`,
    `Name:     ${object.spec.name}`,
    ...(labels.length === 0 ? [] : [`Labels:   ${labels.join(', ')}`]),
    `Created:  ${new Date(object.meta.createdAt).toISOString()}`,
  ];
  const data =
    kind === 'config' ? `Data:\n${Buffer.from(object.spec.data, 'base64').toString('utf8')}\n` : '';
  return `${head.join('\n')}\n${data}`;
}

function registerRemove(parent: SwarmdCommand, run: Run, kind: Kind): void {
  const { outside } = run;
  const command = parent
    .sub('rm', `remove ${kind}s`)
    .alias('remove')
    .argument(`<${kind}...>`, 'names or ids');
  withConnectionFlags(command).run(run, (refs, self) =>
    withApi(self, outside, (api) =>
      forEachRef(
        refs,
        async (ref) => {
          const options = { signal: outside.interrupt };
          if (kind === 'secret') await api.call('secret.remove', { ref }, options);
          else await api.call('config.remove', { ref }, options);
          printLine(outside, ref);
        },
        (error) => printError(outside, `Error: ${error.message}`),
      ),
    ),
  );
}
