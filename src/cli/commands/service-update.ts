/** `service update`, `service rollback` and `service scale`. */
import { SwarmdError } from '../../base/errors.ts';
import { UsageError, fullName, type Run, type SwarmdCommand } from '../command.ts';
import type { ApiConnection, Outside } from '../context.ts';
import { FlagReader } from '../flag-values.ts';
import { printForecast } from '../forecast-view.ts';
import { withApi, withConnectionFlags } from '../host.ts';
import { fetchIds, forEachRef } from '../lookup.ts';
import { printError, printLine } from '../output.ts';
import { changeSpec } from '../service-change.ts';
import { addServiceFlags } from '../service-flags.ts';
import { inspectService } from './service-view.ts';
import { exitCodeOf, reportOutcome, waitForService } from '../wait.ts';

export function registerServiceUpdate(parent: SwarmdCommand, run: Run): void {
  const command = parent
    .sub('update', 'change a service; its tasks are replaced step by step')
    .argument('<service>', 'name or id')
    .value('--image <image>', 'image to run')
    .value('--args <command>', 'arguments of the command')
    .flag('--force', 'replace the tasks even if nothing changed')
    .flag('--rollback', 'go back to the previous spec');
  addServiceFlags(command, 'update');
  withConnectionFlags(command);
  command.run(run, (args, self) => update(run.outside, self, args[0] ?? ''));
}

async function update(outside: Outside, command: SwarmdCommand, ref: string): Promise<number> {
  const flags = new FlagReader(command.opts());
  if (flags.bool('rollback') === true && flags.bool('dry-run') === true) {
    throw new UsageError('--dry-run does not go with --rollback', fullName(command));
  }
  if (flags.bool('rollback') === true) return rollback(outside, command, ref);
  return withApi(command, outside, async (api) => {
    const signal = outside.interrupt;
    const service = await inspectService(outside, api, ref);
    const environment = (name: string): string | undefined => outside.env[name];
    const spec = changeSpec({ flags, spec: service.spec, environment, ids: await fetchIds(outside, api) });
    if (flags.bool('dry-run') === true) {
      printForecast(
        outside,
        await api.call('service.forecast', { service: service.id, spec }, { signal }),
        undefined,
      );
      return 0;
    }
    const params = { ref: service.id, version: service.meta.version, spec };
    await api.call('service.update', params, { signal });
    printLine(outside, ref);
    return waitUnlessDetached(outside, api, service.id, ref, flags);
  });
}

async function waitUnlessDetached(
  outside: Outside,
  api: ApiConnection,
  id: string,
  ref: string,
  flags: FlagReader,
): Promise<number> {
  if (flags.bool('detach') === true) return 0;
  const strict = flags.bool('strict') === true;
  const wait = { quiet: flags.bool('quiet') === true, strict, verify: true, timeoutMs: null };
  const outcome = await waitForService(outside, api, id, wait);
  return reportOutcome(outside, outcome, strict, `swarmd service ps ${ref}`);
}

export function registerServiceRollback(parent: SwarmdCommand, run: Run): void {
  const command = parent
    .sub('rollback', 'go back to the previous spec of a service')
    .argument('<service>', 'name or id')
    .flag('-d, --detach', 'do not wait')
    .flag('-q, --quiet', 'no progress');
  withConnectionFlags(command);
  command.run(run, (args, self) => rollback(run.outside, self, args[0] ?? ''));
}

async function rollback(outside: Outside, command: SwarmdCommand, ref: string): Promise<number> {
  const flags = new FlagReader(command.opts());
  return withApi(command, outside, async (api) => {
    const signal = outside.interrupt;
    const service = await inspectService(outside, api, ref);
    await api.call('service.rollback', { ref: service.id, version: service.meta.version }, { signal });
    printLine(outside, ref);
    if (flags.bool('detach') === true) return 0;
    const wait = { quiet: flags.bool('quiet') === true, strict: false, verify: true, timeoutMs: null };
    const outcome = await waitForService(outside, api, service.id, wait);
    // A rollback that was asked for and completed is what was wanted.
    if (outcome.kind === 'rolled-back') return 0;
    return reportOutcome(outside, outcome, false, `swarmd service ps ${ref}`);
  });
}

export function registerServiceScale(parent: SwarmdCommand, run: Run): void {
  const command = parent
    .sub('scale', 'set the number of tasks: swarmd service scale web=5 api=2')
    .argument('<service=replicas...>', 'services and their replicas')
    .flag('-d, --detach', 'do not wait')
    .flag('--dry-run', 'show where the tasks would go, each service for itself; nothing is changed');
  withConnectionFlags(command);
  command.run(run, (args, self) => scale(run.outside, self, args));
}

function parseScale(
  command: SwarmdCommand,
  text: string,
): { readonly ref: string; readonly replicas: number } {
  const match = /^(.+)=([0-9]{1,9})$/.exec(text);
  if (match === null)
    throw new UsageError(`"${text}" is not SERVICE=REPLICAS, such as web=3`, fullName(command), 1);
  return { ref: match[1] ?? '', replicas: Number(match[2]) };
}

async function scale(outside: Outside, command: SwarmdCommand, args: readonly string[]): Promise<number> {
  const wanted = new Map(
    args.map((text) => parseScale(command, text)).map((entry) => [entry.ref, entry.replicas]),
  );
  const { detach, dryRun } = command.opts<{ detach?: boolean; dryRun?: boolean }>();
  return withApi(command, outside, async (api) => {
    const scaled: string[] = [];
    const failed = (error: SwarmdError): void => printError(outside, `Error: ${error.message}`);
    let exitCode = await forEachRef(
      [...wanted.keys()],
      async (ref) => {
        await scaleOne(outside, api, ref, wanted.get(ref) ?? 0, dryRun === true);
        scaled.push(ref);
      },
      failed,
    );
    if (detach === true || dryRun === true) return exitCode;
    for (const ref of scaled) {
      const wait = { quiet: false, strict: false, verify: true, timeoutMs: null };
      const outcome = await waitForService(outside, api, ref, wait);
      if (outcome.kind === 'interrupted') return reportOutcome(outside, outcome, false, 'swarmd service ls');
      if (outcome.kind !== 'converged') reportOutcome(outside, outcome, false, '');
      exitCode = Math.max(exitCode, exitCodeOf(outcome, false));
    }
    return exitCode;
  });
}

async function scaleOne(
  outside: Outside,
  api: ApiConnection,
  ref: string,
  replicas: number,
  dryRun: boolean,
): Promise<void> {
  const signal = outside.interrupt;
  const service = await inspectService(outside, api, ref);
  const { mode } = service.spec;
  if (mode.kind !== 'replicated' && mode.kind !== 'replicated-job') {
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      `service ${ref} is of mode ${mode.kind}: it runs one task on each node and cannot be scaled`,
    );
  }
  const changed =
    mode.kind === 'replicated' ? { ...mode, replicas } : { ...mode, totalCompletions: replicas };
  const spec = { ...service.spec, mode: changed };
  if (dryRun) {
    printLine(outside, `${ref} scaled to ${replicas} would mean:`);
    printForecast(
      outside,
      await api.call('service.forecast', { service: service.id, spec }, { signal }),
      undefined,
    );
    return;
  }
  await api.call('service.update', { ref: service.id, version: service.meta.version, spec }, { signal });
  printLine(outside, `${ref} scaled to ${replicas}`);
}
