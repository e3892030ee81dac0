/** `service create`. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { errorMessage } from '../../base/errors.ts';
import { randomBase36, systemRandom } from '../../base/random.ts';
import { parseEnvFile } from '../../stack/env-file.ts';
import { UsageError, fullName, type Run, type SwarmdCommand } from '../command.ts';
import type { Outside } from '../context.ts';
import { FlagReader, unwrap } from '../flag-values.ts';
import { printForecast } from '../forecast-view.ts';
import { withApi, withConnectionFlags } from '../host.ts';
import { fetchIds } from '../lookup.ts';
import { printLine } from '../output.ts';
import { addServiceFlags } from '../service-flags.ts';
import { createSpec } from '../service-spec.ts';
import { reportOutcome, waitForService } from '../wait.ts';

export function registerServiceCreate(parent: SwarmdCommand, run: Run): void {
  const command = parent
    .sub('create', 'start a service: swarmd service create [flags] IMAGE [COMMAND] [ARG...]')
    .argument('[image]', 'image to run (none with --runtime process)')
    .argument('[command...]', 'command and arguments')
    .stopAtOperand()
    .value('--name <name>', 'name of the service')
    .value('--mode <mode>', 'replicated, global, replicated-job or global-job')
    .value('--runtime <runtime>', 'docker, or process: run the command on the node itself');
  addServiceFlags(command, 'create');
  // `--host` is a hosts entry here, as in docker's command: the daemon is chosen with -H.
  withConnectionFlags(command, '-H <address>');
  command.run(run, (args, self) => create(run.outside, self, args));
}

async function create(outside: Outside, command: SwarmdCommand, args: readonly string[]): Promise<number> {
  const flags = new FlagReader(command.opts());
  if (args.length === 0) throw new UsageError('an image is missing', fullName(command), 1);
  return withApi(command, outside, async (api) => {
    const environment = (name: string): string | undefined => outside.env[name];
    const spec = createSpec({
      flags,
      args,
      name: flags.text('name') || `service-${randomBase36(systemRandom(), 8)}`,
      envFileLines: flags.list('env-file').flatMap((file) => readEnvLines(outside, file)),
      environment,
      ids: await fetchIds(outside, api),
    });
    if (flags.bool('dry-run') === true) {
      const forecast = await api.call(
        'service.forecast',
        { service: null, spec },
        { signal: outside.interrupt },
      );
      printForecast(outside, forecast, undefined);
      return 0;
    }
    const service = await api.call('service.create', { spec }, { signal: outside.interrupt });
    printLine(outside, service.id);
    if (flags.bool('detach') === true) return 0;
    const strict = flags.bool('strict') === true;
    const wait = { quiet: flags.bool('quiet') === true, strict, verify: true, timeoutMs: null };
    const outcome = await waitForService(outside, api, service.id, wait);
    return reportOutcome(outside, outcome, strict, `swarmd service ps ${service.spec.name}`);
  });
}

function readEnvLines(outside: Outside, file: string): string[] {
  let content: Uint8Array;
  try {
    content = readFileSync(resolve(outside.cwd, file));
  } catch (error) {
    throw new UsageError(`--env-file: ${errorMessage(error)}`);
  }
  const pairs = unwrap(
    'env-file',
    parseEnvFile(content, (name) => outside.env[name]),
  );
  return pairs.map(([name, value]) => `${name}=${value}`);
}
