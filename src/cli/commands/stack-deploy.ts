/** `stack deploy`. */
import { SwarmdError } from '../../base/errors.ts';
import { parseDurationMs } from '../../stack/quantities.ts';
import type { StackPlan } from '../../stack/load-stack.ts';
import { UsageError, fullName, type Run, type SwarmdCommand } from '../command.ts';
import type { Outside } from '../context.ts';
import { deployStack } from '../deploy.ts';
import { unwrap } from '../flag-values.ts';
import { withApi, withConnectionFlags } from '../host.ts';
import { printError } from '../output.ts';
import { readStack } from '../stack-files.ts';
import { exitCodeOf, waitForServices } from '../wait.ts';

interface DeployFlags {
  readonly composeFile: readonly string[];
  readonly detach: boolean;
  readonly prune?: boolean;
  readonly quiet?: boolean;
  readonly strict?: boolean;
  readonly timeout: string;
}

export function registerStackDeploy(parent: SwarmdCommand, run: Run): void {
  const command = parent
    .sub('deploy', 'create or change a stack from compose files')
    .alias('up')
    .argument('[stack]', "name of the stack (default: the file's `name`)")
    .list('-c, --compose-file <file>', 'compose file, "-" for standard input; several are merged')
    .flag('-d, --detach', 'do not wait (default; --detach=false waits for all services)', true)
    .flag('--prune', 'remove services that are no longer in the file')
    .flag('-q, --quiet', 'no progress')
    .flag('--strict', 'refuse keys that a cluster cannot honour; a rollback while waiting is a failure')
    .value('--timeout <duration>', 'longest wait with --detach=false', '10m')
    .oneOf('--resolve-image <mode>', 'accepted; images are not resolved to digests', [
      'always',
      'changed',
      'never',
    ])
    .flag('--with-registry-auth', 'accepted; images are pulled with the credentials of each node');
  withConnectionFlags(command).run(run, (args, self) => deploy(run.outside, self, args[0] ?? null));
}

async function deploy(outside: Outside, command: SwarmdCommand, name: string | null): Promise<number> {
  const flags = command.opts<DeployFlags>();
  if (flags.composeFile.length === 0) {
    throw new UsageError('give at least one compose file with -c', fullName(command), 1);
  }
  const timeoutMs = unwrap('timeout', parseDurationMs(flags.timeout));
  const strict = flags.strict === true;
  const plan = await readStack(outside, name, flags.composeFile);
  reportWarnings(outside, plan, strict);
  return withApi(command, outside, async (api) => {
    const quiet = flags.quiet === true;
    const changed = await deployStack(outside, api, plan, { prune: flags.prune === true, quiet });
    if (flags.detach) return 0;
    const options = { quiet, strict, verify: changed.length > 0, timeoutMs };
    const names = plan.services.map((service) => service.name);
    const results = await waitForServices(outside, api, names, options);
    if (results.some(({ outcome }) => outcome.kind === 'interrupted')) {
      printError(outside, `The work goes on without this command. To look: swarmd stack ps ${plan.name}`);
    }
    for (const { outcome } of results) {
      if (outcome.kind !== 'converged' && outcome.kind !== 'interrupted')
        printError(outside, `Error: ${outcome.message}`);
    }
    return Math.max(0, ...results.map(({ outcome }) => exitCodeOf(outcome, strict)));
  });
}

/** Prints warnings, or refuses the stack for them. */
function reportWarnings(outside: Outside, plan: StackPlan, strict: boolean): void {
  const lines = plan.warnings.map(({ file, line, key, message }) => `${file}:${line}: ${key}: ${message}`);
  if (strict && lines.length > 0) {
    throw new SwarmdError('COMPOSE', `refused by --strict:\n  ${lines.join('\n  ')}`);
  }
  for (const line of lines) printError(outside, `warning: ${line}`);
}
