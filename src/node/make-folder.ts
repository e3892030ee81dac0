/**
 * Makes a folder and its parents, without the endless loop that Node's own `recursive` falls into where a file system
 * answers "no such file" for a folder that cannot be made (as below /proc).
 */
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { systemErrorCode } from '../base/errors.ts';

/** Makes `path` with `mode`, its missing parents too; one that is there is left as it is. Throws the system's error. */
export function makeFolder(path: string, mode: number): void {
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    const code = systemErrorCode(error);
    // What is there already may still be no folder: the caller's next use of it says so.
    if (code === 'EEXIST') return;
    const parent = dirname(path);
    if (code !== 'ENOENT' || parent === path) throw error;
    makeFolder(parent, mode);
    mkdirSync(path, { mode });
  }
}
