/**
 * Running the system's network commands: an argument vector in, exit code and output out. No shell.
 *
 * Invariants: output kept is bounded; a command that outlives its time is killed; what is awaited always ends.
 */
import { spawn } from 'node:child_process';
import { SwarmdError, systemErrorCode } from '../base/errors.ts';

/** What a finished command left. */
export interface CommandResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `argv` with `input` on its standard input. Rejects with NOT_FOUND, TIMEOUT or CANCELLED; an exit code is a value. */
export type CommandRunner = (
  argv: readonly string[],
  options: { readonly signal: AbortSignal; readonly input?: string },
) => Promise<CommandResult>;

const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;
const COMMAND_TIMEOUT_MS = 20_000;
/** Where the commands live that a plain user's PATH leaves out. */
const SYSTEM_FOLDERS = '/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin';

/** A runner for this machine. */
export function systemCommands(): CommandRunner {
  return (argv, { signal, input }) =>
    new Promise((resolve, reject) => {
      const [command, ...args] = argv as [string, ...string[]];
      const child = spawn(command, args, {
        stdio: ['pipe', 'pipe', 'pipe'],
        env: { PATH: SYSTEM_FOLDERS, LC_ALL: 'C' },
        signal: AbortSignal.any([signal, AbortSignal.timeout(COMMAND_TIMEOUT_MS)]),
        killSignal: 'SIGKILL',
      });
      const output = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
      let bytes = 0;
      const collect = (into: Buffer[]) => (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes <= OUTPUT_BYTES_MAX) into.push(chunk);
        else child.kill('SIGKILL');
      };
      child.stdout.on('data', collect(output.stdout));
      child.stderr.on('data', collect(output.stderr));
      // A command that ends without reading all of its input is judged by its exit code.
      child.stdin.on('error', () => {});
      child.stdin.end(input ?? '');
      child.once('error', (cause) => reject(commandError(command, signal, cause)));
      child.once('close', (code) => {
        resolve({
          exitCode: code ?? 137,
          stdout: Buffer.concat(output.stdout).toString('utf8'),
          stderr: Buffer.concat(output.stderr).toString('utf8').trim(),
        });
      });
    });
}

function commandError(command: string, signal: AbortSignal, cause: unknown): SwarmdError {
  if (systemErrorCode(cause) === 'ENOENT') {
    return new SwarmdError('NOT_FOUND', `the command "${command}" is not installed`, { cause });
  }
  if (signal.aborted) return new SwarmdError('CANCELLED', `"${command}" was cancelled`, { cause });
  if (cause instanceof Error && cause.name === 'AbortError') {
    return new SwarmdError('TIMEOUT', `"${command}" took longer than ${COMMAND_TIMEOUT_MS} ms`, { cause });
  }
  return new SwarmdError('INTERNAL', `"${command}" could not be started`, { cause });
}
