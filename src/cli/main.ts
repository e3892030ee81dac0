/** The command line of swarmd. */
import { readFileSync } from 'node:fs';

/** Runs the command in `argv` (as in `process.argv`) and returns the exit code. */
export async function main(argv: readonly string[]): Promise<number> {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  process.stdout.write(argv.includes('--version') ? `swarmd ${version}\n` : 'usage: swarmd --version\n');
  return 0;
}
