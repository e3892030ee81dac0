/** Loads compose texts in tests: no disk unless a folder is named. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ok, refuse } from '../../src/base/result.ts';
import { loadStack, type StackPlan } from '../../src/stack/load-stack.ts';

export interface LoadOptions {
  readonly stack?: string | null;
  readonly env?: Readonly<Record<string, string>>;
  /** Files the compose file may name, by absolute path. */
  readonly files?: Readonly<Record<string, string>>;
}

/** Folder the compose files of {@link load} are said to be in. */
export const FOLDER = '/cwd';

/** The plan of one or several texts (`compose.yml`, `compose-2.yml`, …). */
export function load(texts: string | readonly string[], options: LoadOptions = {}): StackPlan {
  const list = typeof texts === 'string' ? [texts] : texts;
  return loadStack({
    sources: list.map((text, i) => ({ file: i === 0 ? 'compose.yml' : `compose-${i + 1}.yml`, text })),
    stack: options.stack === undefined ? 'stack' : options.stack,
    environment: (name) => options.env?.[name],
    directory: FOLDER,
    home: '/home/user',
    readFile: (path) => {
      const text = options.files?.[path];
      return text === undefined ? refuse(`there is no file ${path}`) : ok(Buffer.from(text));
    },
  });
}

/** Folder of the public compose files beside the repository. */
export const composeFolder = fileURLToPath(new URL('../../../shared/data/compose/', import.meta.url));

/** The plan of a public file, the files beside it readable. */
export function loadPublicFile(file: string, env: Readonly<Record<string, string>>): StackPlan {
  const path = `${composeFolder}${file}`;
  return loadStack({
    sources: [{ file: 'compose.yml', text: readFileSync(path, 'utf8') }],
    stack: 'stack',
    environment: (name) => env[name],
    directory: FOLDER,
    home: '/home/user',
    readFile: (wanted) => {
      try {
        return ok(readFileSync(wanted.replace(FOLDER, dirname(path))));
      } catch {
        return refuse(`there is no file ${wanted}`);
      }
    },
  });
}

/** A whole file of vectors beside the repository, or null where it is not there (the test then skips). */
export function readVectorFile<Content>(name: string): Content | null {
  const path = fileURLToPath(new URL(`../../../shared/data/vectors/${name}.json`, import.meta.url));
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as Content) : null;
}
