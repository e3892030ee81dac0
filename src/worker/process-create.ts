/**
 * Makes the folder of a process task: its environment, its files, and the record of what is to be run.
 *
 * Invariant: the folder appears under its own name only when it is complete.
 */
import {
  access,
  chmod,
  chown,
  constants,
  mkdir,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises';
import { constants as osConstants } from 'node:os';
import { dirname, isAbsolute, join, normalize, resolve } from 'node:path';
import { SwarmdError } from '../base/errors.ts';
import type { Random } from '../base/random.ts';
import type { PortMapping, Task } from '../model/objects.ts';
import type { ContainerSpec } from '../model/spec.ts';
import { healthPlan } from './core/health.ts';
import { partialFolder, type ProcessRecord, taskFolder, writeRecord } from './process-folder.ts';
import { mapPorts, portEnvironment, type PortRange } from './process-ports.ts';
import { type ProcessUser, resolveUser } from './process-user.ts';
import type { TaskSetup } from './types.ts';

export interface ProcessCreateOptions {
  readonly nodeId: string;
  /** PATH of tasks that set none. */
  readonly path: string;
  readonly ports: readonly PortMapping[];
  readonly fixedPorts: readonly number[];
}

/** Ports for everything the task's service publishes. */
export function portsOf(
  task: Task,
  range: PortRange,
  taken: ReadonlySet<number>,
  random: Random,
): Promise<{ readonly ports: readonly PortMapping[]; readonly fixed: readonly number[] }> {
  return mapPorts(task.endpointPorts, range, taken, random);
}

/** The record with newly picked ports, in its environment too. */
export async function withPorts(
  record: ProcessRecord,
  range: PortRange,
  taken: ReadonlySet<number>,
  random: Random,
): Promise<ProcessRecord> {
  const { ports } = await mapPorts(
    record.ports.map(({ protocol, targetPort, hostPort }) =>
      record.fixedPorts.includes(hostPort)
        ? { protocol, targetPort, publishedPort: hostPort, publishMode: 'host' as const }
        : { protocol, targetPort, publishedPort: 0, publishMode: 'ingress' as const },
    ),
    range,
    taken,
    random,
  );
  const before = portEnvironment(record.ports);
  const env = { ...record.env };
  for (const [name, value] of Object.entries(portEnvironment(ports))) {
    // A value the user set stays.
    if (env[name] === before[name]) env[name] = value;
  }
  return { ...record, ports, env };
}

/** Makes the complete folder of a task. INVALID_ARGUMENT says what a process cannot have. */
export async function makeTaskFolder(
  root: string,
  task: Task,
  setup: TaskSetup,
  options: ProcessCreateOptions,
): Promise<void> {
  const { container } = task.spec;
  refuseUnsupported(task);
  const user = await userOf(container);
  const partial = partialFolder(root, task.id);
  const folder = taskFolder(root, task.id);
  await rm(partial, { recursive: true, force: true });
  const [work, tmp] = [join(partial, 'work'), join(partial, 'tmp')];
  // Another user's task must be able to pass through to its own folders.
  const mode = user === null ? 0o700 : 0o711;
  await mkdir(root, { recursive: true, mode: 0o711 });
  await mkdir(partial, { mode });
  await chmod(partial, mode);
  for (const path of [work, tmp]) {
    await mkdir(path, { mode: 0o700 });
    if (user !== null) await chown(path, user.uid, user.gid);
  }
  await writeFiles(work, container, setup, user);
  const env = environment(task, setup, options, user, folder);
  const cwd = container.dir === undefined ? join(folder, 'work') : container.dir;
  if (container.dir !== undefined && !(await isFolder(container.dir))) {
    throw new SwarmdError('INVALID_ARGUMENT', `working folder ${container.dir} does not exist on this node`);
  }
  const [command, ...args] = [...(container.command ?? []), ...(container.args ?? [])];
  const file = await findCommand(command as string, env['PATH'] ?? options.path, cwd, container.dir ?? work);
  const { limits } = task.spec.resources;
  const record: ProcessRecord = {
    taskId: task.id,
    argv: [file, ...args],
    env,
    cwd,
    uid: user?.uid ?? null,
    gid: user?.gid ?? null,
    stopSignal: stopSignal(container.stopSignal),
    stopGraceMs: container.stopGraceMs,
    ...(container.healthCheck === undefined ? {} : { healthCheck: container.healthCheck }),
    ...(limits === undefined ? {} : { limits }),
    ports: options.ports,
    fixedPorts: options.fixedPorts,
  };
  await writeRecord(partial, record);
  await rename(partial, folder);
}

function refuseUnsupported(task: Task): void {
  const { container } = task.spec;
  const refused = (what: string): never => {
    throw new SwarmdError('INVALID_ARGUMENT', `a process task ${what}; use the docker runtime for that`);
  };
  if ((container.command ?? []).length + (container.args ?? []).length === 0) {
    throw new SwarmdError('INVALID_ARGUMENT', 'a process task needs a command; its service has none');
  }
  if (container.mounts.length > 0) refused('has the files of its node and cannot have mounts');
  if (container.tty === true) refused('cannot have a terminal');
  if (container.readOnly === true) refused('cannot have a read-only root');
  if ((container.groups ?? []).length > 0) refused('cannot have additional groups');
  const plan = healthPlan(container.healthCheck);
  if (!plan.ok) throw new SwarmdError('INVALID_ARGUMENT', plan.reason);
}

async function userOf(container: ContainerSpec): Promise<ProcessUser | null> {
  if (container.user === undefined || container.user === '') return null;
  const texts = await Promise.all(
    ['/etc/passwd', '/etc/group'].map((path) => readFile(path, 'utf8').catch(() => '')),
  );
  const user = resolveUser(container.user, texts[0] ?? '', texts[1] ?? '');
  if (!user.ok) throw new SwarmdError('INVALID_ARGUMENT', user.reason);
  const own = process.getuid?.() ?? 0;
  if (own !== 0 && user.value.uid !== own) {
    throw new SwarmdError(
      'INVALID_ARGUMENT',
      `swarmd runs as user ${own} on this node and cannot run tasks as ${container.user}; run it as root for that`,
    );
  }
  return user.value;
}

/** SIGTERM and the like from `TERM`, `SIGTERM` or a number. */
export function stopSignal(name: string | undefined): string {
  if (name === undefined || name === '') return 'SIGTERM';
  const signals = osConstants.signals as Readonly<Record<string, number>>;
  if (/^\d+$/.test(name)) {
    const found = Object.entries(signals).find(([, number]) => number === Number(name));
    if (found !== undefined) return found[0];
  }
  const full = name.toUpperCase().startsWith('SIG') ? name.toUpperCase() : `SIG${name.toUpperCase()}`;
  if (signals[full] !== undefined) return full;
  throw new SwarmdError('INVALID_ARGUMENT', `stop signal ${name} does not exist on this node`);
}

/** A clean base, then what the managers and the node know, then the user's own settings. */
export function environment(
  task: Task,
  setup: Pick<TaskSetup, 'nodeAddress' | 'hostname'>,
  options: ProcessCreateOptions,
  user: ProcessUser | null,
  folder: string,
): Record<string, string> {
  const env: Record<string, string> = {
    PATH: options.path,
    HOME: user === null || user.home === '' ? join(folder, 'work') : user.home,
    LANG: 'C.UTF-8',
    TMPDIR: join(folder, 'tmp'),
    SWARMD_TASK_ID: task.id,
    SWARMD_SERVICE: task.serviceAnnotations.name,
    SWARMD_SLOT: String(task.slot),
    SWARMD_NODE: options.nodeId,
    SWARMD_NODE_ADDRESS: setup.nodeAddress,
    SWARMD_HOSTNAME: setup.hostname,
    SWARMD_SECRETS: join(folder, 'work', 'run', 'secrets'),
    ...portEnvironment(options.ports),
  };
  for (const entry of task.spec.container.env) {
    const equals = entry.indexOf('=');
    if (equals < 0) delete env[entry];
    else env[entry.slice(0, equals)] = entry.slice(equals + 1);
  }
  return env;
}

/**
 * Secrets under `run/secrets/`, configs at their own path, both below the working folder as they would be below a
 * container's root.
 */
async function writeFiles(
  work: string,
  container: ContainerSpec,
  setup: TaskSetup,
  user: ProcessUser | null,
): Promise<void> {
  for (const { id, file } of container.secrets) {
    const name = isAbsolute(file.name) ? file.name : join('run', 'secrets', file.name);
    await writeOne(work, name, file.mode, setup.secrets.get(id), user);
  }
  for (const { id, file } of container.configs) {
    await writeOne(work, file.name, file.mode, setup.configs.get(id), user);
  }
}

async function writeOne(
  work: string,
  name: string,
  wantedMode: number,
  content: Uint8Array | undefined,
  user: ProcessUser | null,
): Promise<void> {
  // Made absolute first, so that `..` cannot lead out.
  const relative = normalize(join('/', name)).slice(1);
  if (relative === '') throw new SwarmdError('INVALID_ARGUMENT', `a file of a task cannot be called ${name}`);
  const path = join(work, relative);
  const parts = dirname(relative) === '.' ? [] : dirname(relative).split('/');
  let folder = work;
  for (const part of parts) {
    folder = join(folder, part);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    if (user !== null) await chown(folder, user.uid, user.gid);
  }
  // For the owner alone, whatever the spec grants to others: there is no container around the file.
  await writeFile(path, content ?? new Uint8Array(), { mode: 0o600 | (wantedMode & 0o100) });
  if (user !== null) await chown(path, user.uid, user.gid);
}

async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}

/** The absolute path of a command as a shell in `cwd` would find it; `lookIn` is where `cwd` is for now. */
async function findCommand(command: string, path: string, cwd: string, lookIn: string): Promise<string> {
  if (command.includes('/')) {
    if (await isExecutable(resolve(lookIn, command))) return resolve(cwd, command);
    throw new SwarmdError('INVALID_ARGUMENT', `${resolve(cwd, command)} is no executable file on this node`);
  }
  for (const folder of path.split(':')) {
    if (folder !== '' && (await isExecutable(join(folder, command)))) return join(folder, command);
  }
  throw new SwarmdError('INVALID_ARGUMENT', `command ${command} is not on this node (looked in ${path})`);
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}
