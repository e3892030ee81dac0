/**
 * What a worker keeps on disk so that it can go on before any manager answers: its tasks with their last status,
 * the managers it knows, and the routing part of its assignments. Never secrets or configs.
 *
 * Data owned: `<dataDir>/worker/`: tasks/<id>.json, managers.json, routing.json.
 * Invariants: a file is replaced as a whole (temporary file, fsync, rename) or not at all; of several changes to
 * one file only the newest is written; a file that cannot be read is set aside as `.corrupt` and named in the log.
 */
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errorMessage, SwarmdError, systemErrorCode } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { isId, type TaskId } from '../model/ids.ts';
import type { Task, TaskStatus } from '../model/objects.ts';
import type { AssignedNetwork, EndpointRecord, ManagerPeer, ServiceRecord } from '../model/wire.ts';
import { isTaskState } from '../model/task-state.ts';

export interface StoredTask {
  readonly task: Task;
  readonly status: TaskStatus;
}

export interface StoredRouting {
  readonly networks: readonly AssignedNetwork[];
  readonly services: readonly ServiceRecord[];
  readonly endpoints: readonly EndpointRecord[];
}

export interface StoredWorker {
  readonly tasks: readonly StoredTask[];
  readonly managers: readonly ManagerPeer[];
  readonly routing: StoredRouting;
}

/** Replaces a file atomically. Mode 0600 unless given. */
export async function writeFileAtomically(
  path: string,
  content: string | Uint8Array,
  mode = 0o600,
): Promise<void> {
  const temporary = `${path}.new`;
  const file = await open(temporary, 'w', mode);
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
}

/** The worker's folder. */
export class WorkerStore {
  readonly #directory: string;
  readonly #log: Logger;
  /** Content by path still to be written; null: to be removed. */
  readonly #pending = new Map<string, (() => string) | null>();
  #writing: Promise<void> | null = null;

  constructor(dataDir: string, log: Logger) {
    this.#directory = join(dataDir, 'worker');
    this.#log = log;
  }

  /** Reads everything; makes the folder when there is none. */
  async load(): Promise<StoredWorker> {
    const tasks = join(this.#directory, 'tasks');
    await mkdir(tasks, { recursive: true, mode: 0o700 });
    const found: StoredTask[] = [];
    for (const name of await readdir(tasks)) {
      const id = name.endsWith('.json') ? name.slice(0, -5) : '';
      if (!isId(id)) continue;
      const record = await this.#read(join(tasks, name), isStoredTask);
      if (record !== null) found.push(record);
    }
    const managers = await this.#read(join(this.#directory, 'managers.json'), isManagerList);
    const routing = await this.#read(join(this.#directory, 'routing.json'), isStoredRouting);
    return {
      tasks: found,
      managers: managers ?? [],
      routing: routing ?? { networks: [], services: [], endpoints: [] },
    };
  }

  putTask(record: StoredTask): void {
    this.#write(join('tasks', `${record.task.id}.json`), () => JSON.stringify(record));
  }

  removeTask(id: TaskId): void {
    this.#write(join('tasks', `${id}.json`), null);
  }

  putManagers(managers: readonly ManagerPeer[]): void {
    this.#write('managers.json', () => JSON.stringify(managers));
  }

  putRouting(routing: StoredRouting): void {
    this.#write('routing.json', () => JSON.stringify(routing));
  }

  /** Resolves once everything given so far is on disk (or its failure is logged). */
  async flush(): Promise<void> {
    while (this.#writing !== null) await this.#writing;
  }

  /** Removes the whole folder: the node left its cluster. */
  async clear(): Promise<void> {
    this.#pending.clear();
    await this.flush();
    await rm(this.#directory, { recursive: true, force: true });
  }

  #write(name: string, content: (() => string) | null): void {
    this.#pending.set(join(this.#directory, name), content);
    this.#writing ??= this.#drain().finally(() => {
      this.#writing = null;
    });
  }

  async #drain(): Promise<void> {
    // Changes of the same moment gather first, so that only the last one of a file is written.
    await Promise.resolve();
    for (;;) {
      const next = this.#pending.entries().next();
      if (next.done === true) return;
      const [path, content] = next.value;
      this.#pending.delete(path);
      try {
        if (content === null) await rm(path, { force: true });
        else await writeFileAtomically(path, content());
      } catch (error) {
        // The worker goes on: what it could not note down costs a look at the runtime after a restart.
        this.#log.error('worker state could not be written', { path, error: errorMessage(error) });
      }
    }
  }

  async #read<T>(path: string, accepts: (value: unknown) => value is T): Promise<T | null> {
    let text: string;
    try {
      text = await readFile(path, 'utf8');
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return null;
      throw new SwarmdError('UNAVAILABLE', `cannot read ${path}: ${errorMessage(error)}`, { cause: error });
    }
    try {
      const value: unknown = JSON.parse(text);
      if (accepts(value)) return value;
    } catch {
      // Falls through: unreadable content is set aside like content of the wrong form.
    }
    this.#log.error('worker state file is damaged and was set aside', { path, as: `${path}.corrupt` });
    await rename(path, `${path}.corrupt`);
    return null;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isStoredTask(value: unknown): value is StoredTask {
  if (!isRecord(value) || !isRecord(value['task']) || !isRecord(value['status'])) return false;
  const { task, status } = value as { task: Record<string, unknown>; status: Record<string, unknown> };
  return (
    typeof task['id'] === 'string' &&
    isId(task['id']) &&
    isRecord(task['spec']) &&
    isTaskState(status['state'])
  );
}

function isManagerList(value: unknown): value is ManagerPeer[] {
  return (
    Array.isArray(value) &&
    value.every(
      (peer) => isRecord(peer) && typeof peer['address'] === 'string' && typeof peer['nodeId'] === 'string',
    )
  );
}

function isStoredRouting(value: unknown): value is StoredRouting {
  return (
    isRecord(value) &&
    ['networks', 'services', 'endpoints'].every((key) => {
      const list = value[key];
      return Array.isArray(list) && list.every((item) => isRecord(item));
    })
  );
}
