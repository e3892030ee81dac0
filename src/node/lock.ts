/**
 * One process a data folder: a file with the owner's pid and the time it started.
 *
 * Invariants: a lock whose owner is dead (or whose pid belongs to another process now) is taken over; a live one
 * never. A stale file is removed under a guard of the kernel's (a name that one process at a time can listen on, and
 * that is free again when the process dies), so that of several that find it stale no one removes the lock of another.
 */
import { link, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { SwarmdError, systemErrorCode } from '../base/errors.ts';
import { folderError } from './folder-error.ts';
import { makeFolder } from './make-folder.ts';

/** A held lock. */
export interface FolderLock {
  release(): Promise<void>;
}

/** Makes the names of files in the making unique in this process. */
let attempts = 0;

/** Attempts against others that take over the same stale lock at the same time. */
const ATTEMPTS_MAX = 50;
/** Wait while another process removes a stale lock, milliseconds. */
const GUARD_WAIT_MS = 10;

/** Makes the data folder (mode 0700) and locks it. Throws LOCKED while another process has it. */
export async function lockFolder(dataDir: string): Promise<FolderLock> {
  const path = join(dataDir, 'swarmd.pid');
  const own = `${path}.${process.pid}.${attempts++}`;
  try {
    makeFolder(dataDir, 0o700);
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
      if (taken) return heldLock(path);
      const owner = await liveOwner(path);
      if (owner !== null) {
        throw new SwarmdError(
          'LOCKED',
          `the data folder ${dataDir} is in use by another swarmd daemon (pid ${owner}); stop that one, or choose another folder with --data-dir`,
          { details: { pid: owner } },
        );
      }
      await removeStale(dataDir, path);
    }
  } finally {
    await rm(own, { force: true });
  }
  throw new SwarmdError(
    'LOCKED',
    `the data folder ${dataDir} cannot be locked: other daemons start there all the time`,
  );
}

function heldLock(path: string): FolderLock {
  let released: Promise<void> | null = null;
  return {
    release: () => {
      // Once only: afterwards the file may be another's.
      released ??= rm(path, { force: true });
      return released;
    },
  };
}

/** Removes the lock file unless its owner lives, or another process is at it now. */
async function removeStale(dataDir: string, path: string): Promise<void> {
  const guard = createServer();
  const { dev, ino } = await stat(dataDir);
  const isMine = await new Promise<boolean>((resolve, reject) => {
    guard.once('error', (error) => {
      if (systemErrorCode(error) === 'EADDRINUSE') resolve(false);
      else reject(folderError(dataDir, error));
    });
    guard.listen(`\0swarmd-lock-${dev}-${ino}`, () => resolve(true));
  });
  if (!isMine) {
    await setTimeout(GUARD_WAIT_MS);
    return;
  }
  try {
    if ((await liveOwner(path)) === null) await rm(path, { force: true });
  } finally {
    await new Promise<void>((resolve) => guard.close(() => resolve()));
  }
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
