/** Paths named in compose files, made absolute. */
import { isAbsolute, join } from 'node:path/posix';
import type { LoadContext } from './load-context.ts';

/** `./x` and `x` below the compose file's folder, `~/x` below the home folder. */
export function absolutePath(context: Pick<LoadContext, 'directory' | 'home'>, path: string): string {
  if ((path === '~' || path.startsWith('~/')) && context.home !== undefined)
    return join(context.home, path.slice(1)).replace(/(.)\/+$/, '$1');
  if (isAbsolute(path) || /^[A-Za-z]:[\\/]/.test(path) || path.startsWith('\\')) return path;
  return join(context.directory, path).replace(/(.)\/+$/, '$1');
}
