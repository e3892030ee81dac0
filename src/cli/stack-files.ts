/** Reads the compose files of a command and hands their text to the pure loader. */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { SwarmdError, systemErrorCode } from '../base/errors.ts';
import { ok, refuse } from '../base/result.ts';
import { loadStack, type StackPlan, type StackSource } from '../stack/load-stack.ts';
import type { ReadFile } from '../stack/load-context.ts';
import type { Outside } from './context.ts';

/** Why a file cannot be read, in words. */
function fileProblem(path: string, error: unknown): string {
  switch (systemErrorCode(error)) {
    case 'ENOENT':
      return `there is no file ${path}`;
    case 'EACCES':
      return `the file ${path} may not be read by this user`;
    case 'EISDIR':
      return `${path} is a folder, not a file`;
    default:
      return `the file ${path} cannot be read: ${String(error)}`;
  }
}

const readFile: ReadFile = (path) => {
  try {
    return ok(readFileSync(path));
  } catch (error) {
    return refuse(fileProblem(path, error));
  }
};

/** Loads the stack `name` from compose files (`-` is standard input). Throws SwarmdError COMPOSE. */
export async function readStack(
  outside: Outside,
  name: string | null,
  files: readonly string[],
): Promise<StackPlan> {
  const sources: StackSource[] = [];
  for (const file of files)
    sources.push({ file: file === '-' ? 'stdin' : file, text: await readSource(outside, file) });
  const first = files.find((file) => file !== '-');
  return loadStack({
    sources,
    stack: name,
    environment: (variable) => outside.env[variable],
    readFile,
    directory: first === undefined ? outside.cwd : dirname(resolve(outside.cwd, first)),
    home: outside.home,
  });
}

async function readSource(outside: Outside, file: string): Promise<string> {
  if (file === '-') return Buffer.from(await outside.readStdin()).toString('utf8');
  try {
    return readFileSync(resolve(outside.cwd, file), 'utf8');
  } catch (error) {
    throw new SwarmdError('COMPOSE', fileProblem(file, error), { cause: error });
  }
}
