/** The command line of swarmd. */
import { CommanderError } from 'commander';
import type { Run } from './command.ts';
import type { Outside } from './context.ts';
import { reportFailure } from './failure.ts';
import { realOutside } from './outside.ts';
import { makeProgram } from './program.ts';

/**
 * Runs the command in `argv` (as in `process.argv`) and returns the exit code: 0 success, 1 error, 125 bad flag.
 * Never ends the process. `outside` replaces terminal, environment and daemon in tests.
 */
export async function main(argv: readonly string[], outside?: Outside): Promise<number> {
  const real = outside === undefined ? realOutside() : null;
  const run: Run = { outside: outside ?? (real as NonNullable<typeof real>).outside, exitCode: 0 };
  try {
    await makeProgram(run).parseAsync([...argv]);
    return run.exitCode;
  } catch (error) {
    if (error instanceof CommanderError)
      return error.exitCode === 0 || error.code === 'commander.help' ? 0 : 1;
    return reportFailure(run.outside, error);
  } finally {
    real?.close();
  }
}
