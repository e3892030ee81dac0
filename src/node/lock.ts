/**
 * One process a data folder: a file with the owner's pid and the time it started.
 *
 * Invariant: a lock whose owner is dead (or whose pid belongs to another process now) is taken over; a live one
 * never.
 */
import { link, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SwarmdError, systemErrorCode } from '../base/errors.ts';
import { folderError } from './folder-error.ts';

/** A held lock. */
export interface FolderLock {
  release(): Promise<void>;
}

/** Attempts against others that take over the same stale lock at the same time. */
const ATTEMPTS_MAX = 10;

/** Makes the data folder (mode 0700) and locks it. Throws LOCKED while another process has it. */
export async function lockFolder(dataDir: string): Promise<FolderLock> {
  const path = join(dataDir, 'swarmd.pid');
  const own = `${path}.${process.pid}`;
  try {
    await mkdir(dataDir, { recursive: true, mode: 0o700 });
    await writeFile(own, `${process.pid} ${await startTime(process.pid)}\n`, { mode: 0o644 });
  } catch (error) {
    throw folderError(dataDir, error);
  }
  try {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      // A link is made whole or not at all, so that no one ever reads half a lock.
      const taken = await link(own, path).then(
        () => true,
        (error: unknown) => {
          if (systemErrorCode(error) === 'EEXIST') return false;
          throw folderError(dataDir, error);
        },
      );
      if (taken) return { release: () => rm(path, { force: true }) };
      const owner = await liveOwner(path);
      if (owner !== null) {
        throw new SwarmdError(
          'LOCKED',
          `the data folder ${dataDir} is in use by another swarmd daemon (pid ${owner}); stop that one, or choose another folder with --data-dir`,
          { details: { pid: owner } },
        );
      }
      await rm(path, { force: true });
    }
  } finally {
    await rm(own, { force: true });
  }
  throw new SwarmdError(
    'LOCKED',
    `the data folder ${dataDir} cannot be locked: other daemons start there all the time`,
  );
}

/** Pid of the live process that holds the lock file; null when there is none. */
export async function liveOwner(path: string): Promise<number | null> {
  const text = await readFile(path, 'utf8').catch(() => '');
  const [pid, started] = text.trim().split(' ');
  if (pid === undefined || started === undefined || !/^\d+$/.test(pid)) return null;
  const now = await startTime(Number(pid));
  return now !== '' && now === started ? Number(pid) : null;
}

/** When a process started, in clock ticks since boot; '' when there is no such process. Tells a reused pid apart. */
async function startTime(pid: number): Promise<string> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  // The second field is the program's name in parentheses and may hold anything; the 22nd is the start time.
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
}
