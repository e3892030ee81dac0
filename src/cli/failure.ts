/** How failures are shown: one `Error:` line, and a hint for those that people meet first. */
import { SwarmdError, errorMessage, type ErrorCode } from '../base/errors.ts';
import { UsageError } from './command.ts';
import type { Outside } from './context.ts';
import { printError } from './output.ts';

const HINTS: Partial<Record<ErrorCode, string>> = {
  NOT_A_MANAGER:
    'Run it on a manager, or name one with --host. `swarmd info` shows the managers this node knows.',
  NO_LEADER:
    'More than half of the managers must be reachable. Start the ones that are down; `swarmd info` shows what this one sees.',
  OUTCOME_UNKNOWN: 'The change may have been made. Look before you repeat it.',
  UNAUTHENTICATED: 'Ask a manager for a fresh token: `swarmd join-token worker`.',
};

/** Prints a failure and returns the exit code. */
export function reportFailure(outside: Outside, error: unknown): number {
  if (error instanceof UsageError) {
    printError(outside, `Error: ${error.message}`);
    if (error.command !== '') printError(outside, `See '${error.command} --help'.`);
    return error.exitCode;
  }
  printError(outside, `Error: ${errorMessage(error)}`);
  if (error instanceof SwarmdError) {
    const hint = HINTS[error.code];
    if (hint !== undefined) printError(outside, hint);
    if (error.code === 'INTERNAL' && outside.env['SWARMD_DEBUG'] !== undefined)
      printError(outside, error.stack ?? '');
    return 1;
  }
  // A plain Error is a defect: its stack is what a report needs.
  printError(outside, error instanceof Error ? (error.stack ?? '') : '');
  return 1;
}
