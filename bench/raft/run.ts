/**
 * swarmd's consensus beside etcd: three members of each on loopback, 256-byte values, the same closed-loop client.
 *
 * `node bench/raft/run.ts [--seconds 5] [--clients 1,64,256] [--trials 20] [--only swarmd|etcd] [--skip-failover]`. Needs Debian's
 * etcd-server for the comparison; without it only swarmd's figures are printed. Asserts nothing.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { spawnSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import { etcdClientUrl, type EtcdOptions, etcdTarget, startEtcd } from './etcd.ts';
import { Group } from './group.ts';
import { closedLoop } from './load.ts';
import type { Target } from './settings.ts';

const { values: flags } = parseArgs({
  options: {
    seconds: { type: 'string', default: '5' },
    clients: { type: 'string', default: '1,64,256' },
    trials: { type: 'string', default: '20' },
    only: { type: 'string', default: '' },
    'skip-failover': { type: 'boolean', default: false },
  },
});
const seconds = Number(flags.seconds);
const trials = Number(flags.trials);
const timings = [
  { name: '100 ms/1 s', tickMs: 100, electionTicks: 10 },
  { name: '50/250 ms', tickMs: 50, electionTicks: 5 },
];

function print(cells: readonly (string | number)[]): void {
  console.log(
    `| ${cells.map((cell) => (typeof cell === 'number' ? cell.toFixed(cell >= 100 ? 0 : 2) : cell)).join(' | ')} |`,
  );
}

async function throughput(target: Target): Promise<void> {
  for (const clients of flags.clients.split(',').map(Number)) {
    const figures = await closedLoop(clients, seconds, (n) => target.put(`key-${n % 10_000}`));
    print([
      target.name,
      `put, ${clients} clients`,
      figures.perSecond,
      figures.p50Ms,
      figures.p99Ms,
      String(figures.errors),
    ]);
  }
  const reads = await closedLoop(64, seconds, (n) => target.get(`key-${n % 10_000}`));
  print([target.name, 'get, 64 clients', reads.perSecond, reads.p50Ms, reads.p99Ms, String(reads.errors)]);
}

/** Time from `kill` to the first acknowledged write through any of the others, milliseconds. */
async function timeToWrite(kill: () => Promise<void>, write: () => Promise<void>): Promise<number> {
  const begin = performance.now();
  await kill();
  for (;;) {
    try {
      await write();
      return performance.now() - begin;
    } catch {
      if (performance.now() - begin > 30_000) throw new Error('no write for 30 s');
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}

function summary(name: string, what: string, times: number[]): void {
  times.sort((a, b) => a - b);
  const median = times[times.length >> 1] ?? 0;
  print([
    name,
    what,
    `min ${times[0]?.toFixed(0)}`,
    `median ${median.toFixed(0)}`,
    `max ${times.at(-1)?.toFixed(0)}`,
    `${times.length} trials`,
  ]);
}

async function swarmd(folder: string): Promise<void> {
  for (const timing of timings) {
    const group = await Group.start({
      folder: join(folder, `s${timing.tickMs}`),
      firstPort: 24_100 + timing.tickMs,
      ...timing,
    });
    try {
      if (timing.tickMs === 100) {
        const target = await group.target((await group.leader()) ?? 0, 4);
        await throughput(target);
        await target.close();
      }
      if (flags['skip-failover']) continue;
      for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
        const times: number[] = [];
        for (let trial = 0; trial < trials; trial++) {
          const leader = await waitForLeader(group);
          const others = [0, 1, 2].filter((index) => index !== leader);
          const targets = await Promise.all(others.map((index) => group.target(index, 1)));
          const write = (): Promise<void> => Promise.any(targets.map((target) => target.put('failover')));
          times.push(await timeToWrite(() => group.kill(leader, signal), write));
          for (const target of targets) await target.close();
          await group.run(leader);
        }
        summary('swarmd', `${signal} of the leader to a write, ${timing.name}`, times);
      }
    } finally {
      await group.stop();
    }
  }
}

async function waitForLeader(group: Group): Promise<number> {
  for (let attempt = 0; attempt < 1_000; attempt++) {
    const leader = await group.leader();
    if (leader !== null) {
      const status = await group.status(leader);
      if (status.members.filter((member) => member.voter).length === 3) return leader;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error('no leader');
}

function etcdLeader(options: EtcdOptions): number {
  for (const index of [0, 1, 2]) {
    const out = spawnSync(
      'etcdctl',
      ['--endpoints', etcdClientUrl(options, index), 'endpoint', 'status', '-w', 'json'],
      {
        env: { ...process.env, ETCDCTL_API: '3' },
      },
    );
    const [status] = JSON.parse(out.stdout.toString() || '[]') as {
      Status: { leader: number; header: { member_id: number } };
    }[];
    if (status !== undefined && status.Status.leader === status.Status.header.member_id) return index;
  }
  return -1;
}

async function etcd(folder: string): Promise<void> {
  for (const timing of timings) {
    const options: EtcdOptions = {
      folder: join(folder, `e${timing.tickMs}`),
      firstPort: 25_100 + timing.tickMs,
      heartbeatMs: timing.tickMs,
      electionMs: timing.tickMs * timing.electionTicks,
    };
    const children = [0, 1, 2].map((index) => startEtcd(options, index, 'new'));
    const stop = async (index: number, signal: NodeJS.Signals): Promise<void> => {
      const child = children[index];
      if (child === undefined || child.exitCode !== null) return;
      const ended = new Promise((resolve) => child.once('exit', resolve));
      child.kill(signal);
      await ended;
    };
    try {
      let leader = -1;
      for (let attempt = 0; attempt < 100 && leader < 0; attempt++) {
        await new Promise((resolve) => setTimeout(resolve, 100));
        leader = etcdLeader(options);
      }
      if (timing.tickMs === 100) {
        const target = etcdTarget(etcdClientUrl(options, leader), 4);
        await throughput(target);
        await target.close();
      }
      if (flags['skip-failover']) continue;
      for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
        const times: number[] = [];
        for (let trial = 0; trial < trials; trial++) {
          let index = -1;
          while (index < 0) index = etcdLeader(options);
          const targets = [0, 1, 2]
            .filter((other) => other !== index)
            .map((other) => etcdTarget(etcdClientUrl(options, other), 1));
          const write = (): Promise<void> => Promise.any(targets.map((target) => target.put('failover')));
          times.push(await timeToWrite(() => stop(index, signal), write));
          for (const target of targets) await target.close();
          children[index] = startEtcd(options, index, 'existing');
          await new Promise((resolve) => setTimeout(resolve, 1_000));
        }
        summary('etcd', `${signal} of the leader to a write, ${timing.name}`, times);
      }
    } finally {
      await Promise.all([0, 1, 2].map((index) => stop(index, 'SIGKILL')));
    }
  }
}

const folder = await mkdtemp(join(tmpdir(), 'swarmd-bench-raft-'));
try {
  print(['who', 'what', 'requests/s', 'p50 ms', 'p99 ms', 'errors']);
  print(['---', '---', '---', '---', '---', '---']);
  if (flags.only !== 'etcd') await swarmd(folder);
  const hasEtcd = spawnSync('etcd', ['--version']).status === 0;
  if (!hasEtcd) console.log('etcd is not here (apt-get install etcd-server): no comparison');
  else if (flags.only !== 'swarmd') await etcd(folder);
} finally {
  await rm(folder, { recursive: true, force: true });
}
