/**
 * swarmd's consensus beside etcd, in one run: three members of each on loopback, 256-byte values, the same load.
 *
 * `node bench/raft/run.ts [--parts throughput,rates,failover,restart] [--seconds 5] [--trials 20] [--megabytes 205]
 * [--clients 1,64,256] [--rates 1000,5000,10000] [--only swarmd|etcd|etcd-tls]`. swarmd speaks mutual TLS; etcd is
 * measured plain and with it. Needs Debian's etcd-server and etcd-client for the comparison; without them only
 * swarmd's figures are printed. Asserts nothing.
 */
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { EtcdGroup } from './etcd.ts';
import { type GroupOptions, SwarmdGroup } from './group.ts';
import { closedLoop, fixedRate, type LoadFigures } from './load.ts';
import { type Group, type Target, type Timing, until, VALUE_BYTES } from './settings.ts';

const { values: flags } = parseArgs({
  options: {
    parts: { type: 'string', default: 'throughput,rates,failover,restart' },
    seconds: { type: 'string', default: '5' },
    trials: { type: 'string', default: '20' },
    megabytes: { type: 'string', default: '205' },
    clients: { type: 'string', default: '1,64,256' },
    rates: { type: 'string', default: '1000,5000,10000' },
    only: { type: 'string', default: '' },
  },
});
const seconds = Number(flags.seconds);
const trials = Number(flags.trials);
const slow: Timing = { name: '100 ms/1 s', tickMs: 100, electionTicks: 10 };
const fast: Timing = { name: '50/250 ms', tickMs: 50, electionTicks: 5 };

/** What is compared. */
interface System {
  readonly name: string;
  readonly firstPort: number;
  start(options: GroupOptions): Promise<Group>;
}

const systems: readonly System[] = [
  { name: 'swarmd', firstPort: 24_100, start: (options) => SwarmdGroup.start(options) },
  { name: 'etcd', firstPort: 25_100, start: (options) => EtcdGroup.start(options, false) },
  { name: 'etcd-tls', firstPort: 25_400, start: (options) => EtcdGroup.start(options, true) },
];

function print(cells: readonly (string | number)[]): void {
  console.log(
    `| ${cells.map((cell) => (typeof cell === 'number' ? cell.toFixed(cell >= 100 ? 0 : 2) : cell)).join(' | ')} |`,
  );
}

function printLoad(name: string, what: string, figures: LoadFigures): void {
  print([name, what, figures.perSecond, figures.p50Ms, figures.p99Ms, String(figures.errors)]);
}

function printTimes(name: string, what: string, times: number[]): void {
  times.sort((a, b) => a - b);
  const [least, middle, most] = [times[0], times[times.length >> 1], times.at(-1)].map((ms) =>
    ms?.toFixed(0),
  );
  print([name, what, `min ${least}`, `median ${middle}`, `max ${most}`, `${times.length} trials`]);
}

/** Runs `work` on a group of its own. */
async function withGroup(
  system: System,
  folder: string,
  timing: Timing,
  work: (group: Group) => Promise<void>,
): Promise<void> {
  const at = await mkdtemp(join(folder, 'group-'));
  const group = await system.start({ ...timing, folder: at, firstPort: system.firstPort });
  try {
    await work(group);
  } finally {
    await group.stop();
    await rm(at, { recursive: true, force: true });
  }
}

const key = (n: number): string => `key-${n % 10_000}`;

async function throughput(name: string, target: Target): Promise<void> {
  for (const clients of flags.clients.split(',').map(Number)) {
    printLoad(name, `put, ${clients} clients`, await closedLoop(clients, seconds, (n) => target.put(key(n))));
  }
  printLoad(name, 'get, 64 clients', await closedLoop(64, seconds, (n) => target.get(key(n))));
}

async function rates(name: string, target: Target): Promise<void> {
  for (const rate of flags.rates.split(',').map(Number)) {
    printLoad(name, `put, ${rate}/s asked`, await fixedRate(rate, seconds, (n) => target.put(key(n))));
  }
}

/** Milliseconds between attempts at a write, each of which may wait long for its answer. */
const ATTEMPT_EVERY_MS = 2;

/** Milliseconds since `begin` when the first of the writes that are tried again and again is acknowledged. */
async function firstWrite(targets: readonly Target[], begin: number): Promise<number> {
  let elapsed: number | null = null;
  const attempts: Promise<void>[] = [];
  for (const deadline = begin + 60_000; elapsed === null; ) {
    if (performance.now() > deadline) throw new Error('no write for a minute');
    for (const target of targets) {
      const noteFirst = (): void => void (elapsed ??= performance.now() - begin);
      attempts.push(target.put('failover').then(noteFirst, () => {}));
    }
    await new Promise((resolve) => setTimeout(resolve, ATTEMPT_EVERY_MS));
  }
  await Promise.all(attempts);
  return elapsed;
}

/** Milliseconds from the signal to the first write that any of the others acknowledged. */
async function failover(group: Group, signal: 'SIGKILL' | 'SIGTERM'): Promise<number> {
  const leader = await group.leader();
  await until('everybody up to date', async () => {
    const all = await Promise.all([0, 1, 2].map((member) => group.hasAll(member)));
    return all.every(Boolean);
  });
  const others = [0, 1, 2].filter((member) => member !== leader);
  const targets = await Promise.all(others.map((member) => group.target(member, 1)));
  const begin = performance.now();
  const killing = group.kill(leader, signal);
  const elapsed = await firstWrite(targets, begin);
  await killing;
  for (const target of targets) await target.close();
  await group.start(leader);
  return elapsed;
}

async function failovers(system: System, folder: string, timing: Timing): Promise<void> {
  await withGroup(system, folder, timing, async (group) => {
    for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
      const times: number[] = [];
      for (let trial = 0; trial < trials; trial++) times.push(await failover(group, signal));
      printTimes(system.name, `${signal} of the leader to a write, ${timing.name}, ms`, times);
    }
  });
}

/** How long a follower takes to have everything: after a kill, and as a new member with an empty folder. */
async function restart(system: System, folder: string): Promise<void> {
  await withGroup(system, folder, slow, async (group) => {
    const leader = await group.leader();
    const target = await group.target(leader, 4);
    const count = Math.round((Number(flags.megabytes) * 1e6) / VALUE_BYTES);
    let next = 0;
    const fill = async (): Promise<void> => {
      while (next < count) await target.put(`key-${next++}`);
    };
    await Promise.all(Array.from({ length: 256 }, fill));
    await target.close();
    const member = (leader + 1) % 3;
    for (const [what, again] of [
      ['restart', () => group.start(member)],
      ['wiped and joined again', () => group.replace(member)],
    ] as const) {
      const times: number[] = [];
      for (let trial = 0; trial < 3; trial++) {
        await group.kill(member, 'SIGKILL');
        const begin = performance.now();
        await again();
        await until(`${what}: up to date`, () => group.hasAll(member));
        times.push(performance.now() - begin);
      }
      printTimes(system.name, `${what} with ${flags.megabytes} MB, ms`, times);
    }
  });
}

async function measure(system: System, folder: string, parts: ReadonlySet<string>): Promise<void> {
  if (parts.has('throughput') || parts.has('rates')) {
    await withGroup(system, folder, slow, async (group) => {
      const target = await group.target(await group.leader(), 4);
      if (parts.has('throughput')) await throughput(system.name, target);
      if (parts.has('rates')) await rates(system.name, target);
      await target.close();
    });
  }
  if (parts.has('failover')) for (const timing of [slow, fast]) await failovers(system, folder, timing);
  if (parts.has('restart')) await restart(system, folder);
}

const folder = await mkdtemp(join(tmpdir(), 'swarmd-bench-raft-'));
try {
  const parts = new Set(flags.parts.split(','));
  const hasEtcd = spawnSync('etcd', ['--version']).status === 0;
  if (!hasEtcd) console.log('etcd is not here (apt-get install etcd-server etcd-client): no comparison');
  print(['who', 'what', 'requests/s', 'p50 ms', 'p99 ms', 'errors']);
  print(['---', '---', '---', '---', '---', '---']);
  for (const system of systems) {
    if (flags.only !== '' && flags.only !== system.name) continue;
    if (system.name === 'swarmd' || hasEtcd) await measure(system, folder, parts);
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}
