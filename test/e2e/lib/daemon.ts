/**
 * A swarmd daemon as a process of its own, run by the command line as a user runs it, and commands against it.
 *
 * Owns the daemon's data folder and, when asked to end everything, the process tasks recorded in it: they outlive
 * the daemon by design, so a test must end them. A process is signalled only when its start time proves that it is
 * the task's.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { connectApi } from '../../../src/http/client.ts';
import type { ApiMethod, ApiParams, ApiResult } from '../../../src/model/api.ts';
import type { Task } from '../../../src/model/objects.ts';
import { projectFolder } from '../../support/imports.ts';
import { waitFor } from '../../support/wait.ts';
import { type ExecOptions, type ExecResult, execCommand, TestProcess } from './processes.ts';

/** Where daemons and commands run: this machine or a host of a test bed. */
export interface Place {
  /** Data folders and logs are made here. */
  readonly folder: string;
  exec(argv: readonly string[], options?: ExecOptions): Promise<ExecResult>;
  spawn(argv: readonly string[], name: string, options?: Pick<ExecOptions, 'env' | 'cwd'>): TestProcess;
}

/** This machine, with files in `folder`. */
export function plainPlace(folder: string): Place {
  return {
    folder,
    exec: (argv, options) => execCommand(argv, options),
    spawn: (argv, name, options) => new TestProcess(argv, join(folder, `${name}.log`), options),
  };
}

const SWARMD: readonly string[] = [process.execPath, join(projectFolder, 'bin/swarmd.ts')];
const READY_TIMEOUT_MS = 30_000;
const CALL_TIMEOUT_MS = 20_000;

/** Runs one swarmd command at a place, without a daemon of its own. */
export async function runSwarmd(
  place: Place,
  args: readonly string[],
  options?: ExecOptions,
): Promise<ExecResult> {
  return await place.exec([...SWARMD, ...args], { ...options, env: cleanEnvironment(options?.env) });
}

/** Nothing of the caller's own swarmd or engine leads a command elsewhere. */
function cleanEnvironment(env: ExecOptions['env'] = {}): Record<string, string> {
  return { SWARMD_HOST: '', SWARMD_DATA_DIR: '', DOCKER_HOST: '', ...env };
}

/** The identity of a running process task: the same before and after means that it was not restarted. */
export interface TaskProcess {
  readonly taskId: string;
  readonly pid: number;
  readonly startTicks: number;
}

/** A daemon with its data folder, which can be started, stopped and killed any number of times. */
export class Daemon {
  readonly place: Place;
  readonly name: string;
  readonly dataDir: string;
  readonly #env: Readonly<Record<string, string>>;
  #process: TestProcess | null = null;

  /** `name` is unique at the place. Starts nothing yet. */
  constructor(place: Place, name: string, options: { readonly env?: Readonly<Record<string, string>> } = {}) {
    this.place = place;
    this.name = name;
    this.dataDir = join(place.folder, name);
    this.#env = cleanEnvironment(options.env);
  }

  get socketPath(): string {
    return join(this.dataDir, 'swarmd.sock');
  }

  get running(): boolean {
    return this.#process?.running === true;
  }

  get pid(): number {
    if (this.#process === null) throw new Error(`daemon ${this.name} was not started`);
    return this.#process.pid;
  }

  /** Everything the daemon's processes have written so far. */
  log(): string {
    const path = join(this.place.folder, `${this.name}.log`);
    return existsSync(path) ? readFileSync(path, 'utf8') : '';
  }

  /** Starts `swarmd ARGS...` on the data folder and waits until the daemon answers. */
  async start(...args: readonly string[]): Promise<void> {
    if (this.running) throw new Error(`daemon ${this.name} runs already`);
    const daemon = this.place.spawn([...SWARMD, ...args, '--data-dir', this.dataDir], this.name, {
      env: this.#env,
    });
    this.#process = daemon;
    const before = this.log().length;
    const outcome = await waitFor(
      `daemon ${this.name}`,
      async () => {
        if (!daemon.running) return 'ended' as const;
        await this.call('info', {}, 1_000);
        return 'ready' as const;
      },
      { timeoutMs: READY_TIMEOUT_MS, everyMs: 20 },
    ).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${this.log().slice(before)}`, { cause: error });
    });
    if (outcome === 'ended') throw new Error(`daemon ${this.name} ended:\n${this.log()}`);
  }

  /** Runs `swarmd ARGS...` on the data folder to its end: for daemons that are expected not to start. */
  async attempt(...args: readonly string[]): Promise<ExecResult> {
    return await runSwarmd(this.place, [...args, '--data-dir', this.dataDir], { env: this.#env });
  }

  /** Runs a command against the daemon. */
  async cli(args: readonly string[], options?: ExecOptions): Promise<ExecResult> {
    const env = { ...this.#env, SWARMD_HOST: `unix://${this.socketPath}` };
    return await this.place.exec([...SWARMD, ...args], { ...options, env: { ...env, ...options?.env } });
  }

  /** Runs a command that must succeed; returns its standard output. */
  async run(...args: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.cli(args, { timeoutMs: 60_000 });
    if (code !== 0) throw new Error(`swarmd ${args.join(' ')}: exit code ${code}\n${stdout}${stderr}`);
    return stdout;
  }

  /** Starts a command that goes on until it is stopped. */
  follow(args: readonly string[], name: string): TestProcess {
    const env = { ...this.#env, SWARMD_HOST: `unix://${this.socketPath}` };
    return this.place.spawn([...SWARMD, ...args], name, { env });
  }

  /** Calls the daemon's API, as its commands do. */
  async call<M extends ApiMethod>(
    method: M,
    params: ApiParams<M>,
    timeoutMs = CALL_TIMEOUT_MS,
  ): Promise<ApiResult<M>> {
    const api = connectApi(`unix://${this.socketPath}`);
    try {
      return await api.call(method, params, { signal: AbortSignal.timeout(timeoutMs) });
    } finally {
      api.close();
    }
  }

  /** Every task of a service. */
  async tasks(service: string): Promise<readonly Task[]> {
    return await this.call('task.list', { service, node: null, stack: null });
  }

  /** Waits until exactly `count` tasks of a service run and are wanted; returns them by slot. */
  async waitForRunning(service: string, count: number, timeoutMs = 20_000): Promise<readonly Task[]> {
    return await this.waitForTasks(service, (tasks) => tasks.length === count, timeoutMs);
  }

  /** Waits until the tasks of a service that run and are wanted satisfy `accept`; returns them by slot. */
  async waitForTasks(
    service: string,
    accept: (running: readonly Task[]) => boolean,
    timeoutMs = 20_000,
  ): Promise<readonly Task[]> {
    let seen: readonly Task[] = [];
    try {
      return await waitFor(
        `tasks of ${service}`,
        async () => {
          seen = await this.tasks(service);
          const running = seen.filter(isUp).toSorted((a, b) => a.slot - b.slot);
          const stray = seen.some((task) => !isUp(task) && task.status.state === 'running');
          return !stray && accept(running) ? running : undefined;
        },
        { timeoutMs, everyMs: 50 },
      );
    } catch (error) {
      throw new Error(`${String(error)}\n${seen.map(describeTask).join('\n')}\n${tail(this.log())}`, {
        cause: error,
      });
    }
  }

  /** Asks the daemon to end (SIGTERM) and returns its exit code. */
  async stop(): Promise<number | null> {
    const daemon = this.#process;
    if (daemon === null) return null;
    await daemon.stop(20_000);
    return (await daemon.ended).code;
  }

  /** Waits for a daemon that ends by itself and returns its exit code. */
  async ended(): Promise<number | null> {
    return (await this.#process?.ended)?.code ?? null;
  }

  /** Sends a signal to the daemon alone. */
  signal(signal: NodeJS.Signals): void {
    this.#process?.kill(signal);
  }

  /** Ends the daemon at once, as a crash would. */
  async kill(): Promise<void> {
    this.signal('SIGKILL');
    await this.#process?.ended;
  }

  /** The supervisors of the process tasks that run now, by what their folders and the kernel say. */
  taskProcesses(): TaskProcess[] {
    const root = join(this.dataDir, 'tasks');
    if (!existsSync(root)) return [];
    return readdirSync(root).flatMap((taskId) => {
      const run = readJson<{ pid: number; startTicks: number }>(join(root, taskId, 'run.json'));
      if (run === null || startTicksOf(run.pid) !== run.startTicks) return [];
      return [{ taskId, pid: run.pid, startTicks: run.startTicks }];
    });
  }

  /** Ends the daemon and its process tasks at once. Synchronous, so that it also runs while the process exits. */
  destroy(): void {
    this.signal('SIGKILL');
    // Until it is dead it may still start a task.
    const pid = this.#process?.child.pid;
    for (let tries = 0; pid !== undefined && startTicksOf(pid) !== null && tries < 500; tries++) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
    }
    for (const { pid } of this.taskProcesses()) {
      for (const member of sessionOf(pid)) killQuietly(member);
      killQuietly(pid);
    }
  }
}

function isUp(task: Task): boolean {
  return task.desiredState === 'running' && task.status.state === 'running';
}

/** A task in a line, for failure messages. */
export function describeTask(task: Task): string {
  const { state, error, message } = task.status;
  const where = `${task.serviceAnnotations.name}.${task.slot} on ${task.nodeId.slice(0, 6)}`;
  return `${task.id.slice(0, 8)} ${where}: ${state}, wanted ${task.desiredState} ${error || message}`;
}

function tail(text: string): string {
  return text.split('\n').slice(-15).join('\n');
}

function readJson<T>(path: string): T | null {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as T;
  } catch {
    return null;
  }
}

function statOf(pid: number | string): readonly string[] {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return [];
  }
}

function startTicksOf(pid: number): number | null {
  const fields = statOf(pid);
  return fields[0] === undefined || fields[0] === 'Z' ? null : Number(fields[19]);
}

function sessionOf(leader: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && statOf(name)[3] === String(leader))
    .map(Number);
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended by itself.
  }
}
