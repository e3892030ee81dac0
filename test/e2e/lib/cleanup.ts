/**
 * Removes what a test bed leaves on the machine, from its folder alone: it works after a crash as well as at the end.
 *
 * Owns: `/tmp/swarmd-bed-PID-N` folders, the network namespaces `sbPID-N-*` and the bridges `sbrPID`.
 *
 * Invariant: only processes inside a bed's own namespaces, and their descendants, are ever ended.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, readlinkSync, rmdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const FOLDER = /^swarmd-bed-(\d+)-(\d+)$/;
const BRIDGE = /^sbr(\d+)$/;
const NAMESPACES = '/run/netns';
const CGROUPS = '/sys/fs/cgroup';

/** The folder of bed `sequence` of this process, and the prefix of its namespaces' names. */
export function bedNames(sequence: number): { readonly folder: string; readonly prefix: string } {
  return {
    folder: join(tmpdir(), `swarmd-bed-${process.pid}-${sequence}`),
    prefix: `sb${process.pid}-${sequence}-`,
  };
}

function list(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : [];
}

function readOr<T>(read: () => T, otherwise: T): T {
  try {
    return read();
  } catch {
    // Processes and their files go away while one looks at them.
    return otherwise;
  }
}

interface Process {
  readonly pid: number;
  readonly parent: number;
  readonly namespaces: readonly string[];
}

function processes(): Process[] {
  return list('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => ({
      pid: Number(name),
      parent: Number(
        /\) \S (\d+)/.exec(readOr(() => readFileSync(`/proc/${name}/stat`, 'utf8'), ''))?.[1] ?? 0,
      ),
      namespaces: ['net', 'mnt'].map((kind) => readOr(() => readlinkSync(`/proc/${name}/ns/${kind}`), '')),
    }));
}

/** The processes in one of `namespaces` (as `net:[4026532000]`) and all that they started. */
function processesWithin(namespaces: ReadonlySet<string>): number[] {
  const all = processes().filter((one) => one.pid !== process.pid);
  const found = new Set(
    all.filter((one) => one.namespaces.some((id) => namespaces.has(id))).map((one) => one.pid),
  );
  for (let before = -1; before !== found.size; ) {
    before = found.size;
    for (const one of all) if (found.has(one.parent)) found.add(one.pid);
  }
  return [...found];
}

function isRunning(pid: number): boolean {
  const state = /\) (\S)/.exec(readOr(() => readFileSync(`/proc/${pid}/stat`, 'utf8'), ''))?.[1];
  return state !== undefined && state !== 'Z';
}

function endAll(namespaces: ReadonlySet<string>): void {
  const deadlineMs = performance.now() + 5_000;
  while (performance.now() < deadlineMs) {
    const pids = processesWithin(namespaces).filter(isRunning);
    if (pids.length === 0) return;
    for (const pid of pids) readOr(() => process.kill(pid, 'SIGKILL'), false);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
  }
}

function containerIds(folder: string): string[] {
  return list(folder).flatMap((host) => list(join(folder, host, 'engine/data/containers')));
}

function removeCgroups(ids: readonly string[]): void {
  for (const root of [CGROUPS, ...list(CGROUPS).map((name) => join(CGROUPS, name))]) {
    for (const id of ids) readOr(() => rmdirSync(join(root, 'docker', id)), undefined);
  }
}

/**
 * Ends everything of the bed in `folder`, then removes its namespaces, control groups and files. `mountNamespaces`
 * are the ids that the bed wrote to its folder. Synchronous, so that it also runs while the process exits.
 */
export function removeBed(folder: string, prefix: string): void {
  const names = list(NAMESPACES).filter((name) => name.startsWith(prefix));
  const ids = names.map((name) => `net:[${statSync(join(NAMESPACES, name)).ino}]`);
  const mounts = readOr(() => readFileSync(join(folder, 'mount-namespaces'), 'utf8'), '').split('\n');
  endAll(new Set([...ids, ...mounts].filter((id) => id !== '')));
  for (const name of names)
    readOr(() => execFileSync('ip', ['netns', 'del', name], { stdio: 'ignore' }), null);
  removeCgroups(containerIds(folder));
  rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
}

/** Removes the beds of processes that are no more. */
export function removeLeftovers(): void {
  for (const name of list(tmpdir())) {
    const [, pid, sequence] = FOLDER.exec(name) ?? [];
    if (pid === undefined || sequence === undefined || isRunning(Number(pid))) continue;
    removeBed(join(tmpdir(), name), `sb${pid}-${sequence}-`);
  }
  // The bridge of an engine on this machine's own network outlives an engine that was killed. Two of them with the
  // same subnet lead its traffic nowhere.
  for (const name of list('/sys/class/net')) {
    const [, pid] = BRIDGE.exec(name) ?? [];
    if (pid === undefined || isRunning(Number(pid))) continue;
    readOr(() => execFileSync('ip', ['link', 'del', name], { stdio: 'ignore' }), null);
  }
}
