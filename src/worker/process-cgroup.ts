/**
 * Limits of process tasks by control groups, version 1 or 2, where this host lets the daemon write them.
 *
 * Invariant: a limit that could not be set is named in the returned note; it never keeps a task from running.
 */
import { mkdir, readFile, rmdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errorMessage } from '../base/errors.ts';
import type { ResourceAmount } from '../model/spec.ts';

type Controller = 'memory' | 'cpu' | 'pids';

/** A file below the task's group, its content, and the controller it belongs to. */
export interface LimitWrite {
  readonly controller: Controller;
  readonly file: string;
  readonly value: string;
}

const CPU_PERIOD_US = 100_000;

/** The writes that make the limits, for a version of control groups. Empty when there is no limit. */
export function limitWrites(limits: ResourceAmount | undefined, version: 1 | 2): LimitWrite[] {
  const writes: LimitWrite[] = [];
  if (limits?.memoryBytes !== undefined && limits.memoryBytes > 0) {
    const file = version === 2 ? 'memory.max' : 'memory.limit_in_bytes';
    writes.push({ controller: 'memory', file, value: String(Math.floor(limits.memoryBytes)) });
  }
  if (limits?.nanoCpus !== undefined && limits.nanoCpus > 0) {
    const quota = Math.max(1_000, Math.round((limits.nanoCpus / 1e9) * CPU_PERIOD_US));
    if (version === 2)
      writes.push({ controller: 'cpu', file: 'cpu.max', value: `${quota} ${CPU_PERIOD_US}` });
    else {
      writes.push({ controller: 'cpu', file: 'cpu.cfs_period_us', value: String(CPU_PERIOD_US) });
      writes.push({ controller: 'cpu', file: 'cpu.cfs_quota_us', value: String(quota) });
    }
  }
  if (limits?.pids !== undefined && limits.pids > 0) {
    writes.push({ controller: 'pids', file: 'pids.max', value: String(limits.pids) });
  }
  return writes;
}

async function versionOf(root: string): Promise<1 | 2> {
  return stat(join(root, 'cgroup.controllers')).then(
    () => 2,
    () => 1,
  );
}

function groupPath(root: string, version: 1 | 2, controller: Controller, taskId: string): string {
  return version === 2 ? join(root, 'swarmd', taskId) : join(root, controller, 'swarmd', taskId);
}

/** Puts a process under its limits; answers with a note on what this host cannot enforce, '' when nothing. */
export async function applyLimits(
  root: string,
  taskId: string,
  pid: number,
  limits: ResourceAmount | undefined,
): Promise<string> {
  const version = await versionOf(root);
  const writes = limitWrites(limits, version);
  const failed = new Map<Controller, string>();
  for (const controller of new Set(writes.map((write) => write.controller))) {
    const group = groupPath(root, version, controller, taskId);
    try {
      if (version === 2) await delegate(root, controller);
      await mkdir(group, { recursive: true });
      for (const write of writes) {
        if (write.controller === controller) await writeFile(join(group, write.file), write.value);
      }
      await writeFile(join(group, 'cgroup.procs'), String(pid));
    } catch (error) {
      failed.set(controller, errorMessage(error));
    }
  }
  if (failed.size === 0) return '';
  const [reason] = failed.values();
  return `limits not enforced on this node: ${[...failed.keys()].join(', ')}: ${reason}`;
}

/** Version 2: hands a controller down to the groups of tasks. */
async function delegate(root: string, controller: Controller): Promise<void> {
  const parent = join(root, 'swarmd');
  await mkdir(parent, { recursive: true });
  for (const folder of [root, parent]) {
    const enabled = await readFile(join(folder, 'cgroup.subtree_control'), 'utf8');
    if (!enabled.split(/\s+/).includes(controller)) {
      await writeFile(join(folder, 'cgroup.subtree_control'), `+${controller}`);
    }
  }
}

/** Whether the kernel killed something of the task for want of memory. */
export async function wasOutOfMemory(root: string, taskId: string): Promise<boolean> {
  const version = await versionOf(root);
  const file = version === 2 ? 'memory.events' : 'memory.oom_control';
  const text = await readFile(join(groupPath(root, version, 'memory', taskId), file), 'utf8').catch(() => '');
  return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0) > 0;
}

/** Removes the groups of a task whose processes are gone. */
export async function removeGroups(root: string, taskId: string): Promise<void> {
  const version = await versionOf(root);
  for (const controller of ['memory', 'cpu', 'pids'] as const) {
    await rmdir(groupPath(root, version, controller, taskId)).catch(() => {});
  }
}
