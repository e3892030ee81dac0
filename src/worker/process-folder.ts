/**
 * The folder of one process task: what was to be run, what runs, how it ended.
 *
 * Layout of `<dataDir>/tasks/<task id>/`: task.json (the record, written last at create), run.json (the process,
 * written before the command begins), exit (its code, by the supervisor), stdout.log, stderr.log with their
 * `.times` and `.1`, work/ (working folder) and tmp/.
 * Invariant: a folder under its own name is complete; one in the making is called `<task id>.partial`.
 */
import { readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { systemErrorCode } from '../base/errors.ts';
import { isId, type TaskId } from '../model/ids.ts';
import type { PortMapping } from '../model/objects.ts';
import type { HealthCheck, ResourceAmount } from '../model/spec.ts';
import type { ProcessIdentity } from './process-shim.ts';
import { writeFileAtomically } from './worker-store.ts';

/** Everything needed to run the task again in every respect but the process itself. */
export interface ProcessRecord {
  readonly taskId: TaskId;
  readonly argv: readonly string[];
  /** Complete environment. */
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  readonly uid: number | null;
  readonly gid: number | null;
  readonly stopSignal: string;
  readonly stopGraceMs: number;
  readonly healthCheck?: HealthCheck;
  readonly limits?: ResourceAmount;
  readonly ports: readonly PortMapping[];
  /** Ports the user fixed: never picked anew. */
  readonly fixedPorts: readonly number[];
}

export interface ProcessRun extends ProcessIdentity {
  readonly startedAtMs: number;
  /** What this host could not do for the task; empty when nothing. */
  readonly note: string;
}

export interface ProcessExit {
  readonly code: number;
  readonly atMs: number;
}

/** Where a task's folder is, and the one while it is made. */
export function taskFolder(root: string, taskId: string): string {
  return join(root, taskId);
}

export function partialFolder(root: string, taskId: string): string {
  return join(root, `${taskId}.partial`);
}

/** Ids of all tasks with a complete folder. */
export async function listFolders(root: string): Promise<TaskId[]> {
  try {
    return (await readdir(root)).filter(isId) as TaskId[];
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return [];
    throw error;
  }
}

export function readRecord(folder: string): Promise<ProcessRecord | null> {
  return readJson<ProcessRecord>(join(folder, 'task.json'));
}

export function readRun(folder: string): Promise<ProcessRun | null> {
  return readJson<ProcessRun>(join(folder, 'run.json'));
}

export function writeRecord(folder: string, record: ProcessRecord): Promise<void> {
  return writeFileAtomically(join(folder, 'task.json'), JSON.stringify(record));
}

export function writeRun(folder: string, run: ProcessRun): Promise<void> {
  return writeFileAtomically(join(folder, 'run.json'), JSON.stringify(run));
}

/** The exit code the supervisor wrote; null while it has not (completely). */
export async function readExit(folder: string): Promise<ProcessExit | null> {
  const path = join(folder, 'exit');
  const text = await readText(path);
  if (text === null || !/^\d+\n/.test(text)) return null;
  return { code: Number.parseInt(text, 10), atMs: (await stat(path)).mtimeMs };
}

export async function removeFolder(root: string, taskId: string): Promise<void> {
  await rm(partialFolder(root, taskId), { recursive: true, force: true });
  await rm(taskFolder(root, taskId), { recursive: true, force: true });
}

/** Removes what an earlier life of the daemon began to make and did not finish. */
export async function removePartialFolders(root: string): Promise<void> {
  const names = await readdir(root).catch(() => []);
  for (const name of names) {
    if (name.endsWith('.partial')) await rm(join(root, name), { recursive: true, force: true });
  }
}

async function readText(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return null;
    throw error;
  }
}

async function readJson<T>(path: string): Promise<T | null> {
  const text = await readText(path);
  // Written by this program, as a whole or not at all.
  return text === null ? null : (JSON.parse(text) as T);
}
