/**
 * Torture of real daemons: managers are killed, stopped and cut off, their disks fill up, slow down and lose what they
 * hold, while clients change and read registers through the API; the recorded histories must be linearizable, and
 * nothing acknowledged may be lost.
 *
 * `npm run torture -- [--daemons 3] [--seconds 60] [--clients 6] [--seed N] [--hosts] [--faults NAME,NAME] [--each]`.
 * With `--hosts` (root) each daemon is a host of its own in a network namespace, and partitions are among the faults.
 * The seed draws the faults, their victims and lengths; `--each` begins with every kind of fault once. Exits 1 when a
 * history is not linearizable or a fault does not end as it must; what there is to see is then left in the folder that
 * is printed.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { type Random, randomBelow, seededRandom } from '../../src/base/random.ts';
import type { Daemon } from '../e2e/lib/daemon.ts';
import { canMount, type Cluster, makeCluster } from './cluster.ts';
import { damagingLog, fillingDisk, slowingDisk } from './disk-faults.ts';
import { type Fault, killing, oneOf, partitioning, stopping, terminating } from './faults.ts';
import { CALM, Registers } from './registers.ts';
import { compileShim } from './slow-disk.ts';

const ALL: readonly Fault[] = [
  ...[killing, stopping, terminating, partitioning],
  ...[fillingDisk, slowingDisk, damagingLog],
];

const { values: flags } = parseArgs({
  options: {
    daemons: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '60' },
    clients: { type: 'string', default: '6' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    hosts: { type: 'boolean', default: false },
    faults: { type: 'string', default: ALL.map(({ name }) => name).join(',') },
    each: { type: 'boolean', default: false },
  },
});
const daemonCount = Number(flags.daemons);
const seconds = Number(flags.seconds);
const seed = Number(flags.seed);

/** Of the faults that were asked for, those that this machine can do; the others with a notice. */
function possible(folder: string): { kinds: Fault[]; shim: ReturnType<typeof compileShim> } {
  const names = flags.faults.split(',');
  const unknown = names.filter((name) => !ALL.some((fault) => fault.name === name));
  if (unknown.length > 0)
    throw new Error(
      `no such fault: ${unknown.join(', ')}; there are ${ALL.map(({ name }) => name).join(', ')}`,
    );
  const shim = names.includes(slowingDisk.name) ? compileShim(folder) : null;
  const lacks = new Map<Fault, string | null>([
    [partitioning, flags.hosts ? null : '--hosts'],
    [fillingDisk, canMount() ? null : 'the right to mount file systems: run it as root'],
    [slowingDisk, shim === null ? 'a C compiler: apt-get install gcc libc6-dev' : null],
  ]);
  const kinds: Fault[] = [];
  for (const fault of ALL.filter(({ name }) => names.includes(name))) {
    const lack = lacks.get(fault) ?? null;
    if (lack === null) kinds.push(fault);
    else console.log(`NOTICE: fault ${fault.name} is left out. It needs ${lack}`);
  }
  if (kinds.length === 0) throw new Error('none of these faults is possible here');
  return { kinds, shim };
}

async function faults(
  cluster: Cluster,
  registers: Registers,
  kinds: readonly Fault[],
  random: Random,
  until: number,
): Promise<Map<string, number>> {
  const done = new Map<string, number>();
  const count = (what: string): void => void done.set(what, (done.get(what) ?? 0) + 1);
  const startedAt = performance.now();
  const first = flags.each ? [...kinds] : [];
  while (first.length > 0 || performance.now() < until) {
    await pause(500 + randomBelow(random, 2_500));
    const index = randomBelow(random, cluster.daemons.length);
    const drawn = oneOf(random, kinds);
    const fault = first.shift() ?? drawn;
    const lengthMs = 200 + randomBelow(random, 4_000);
    const daemon = cluster.daemons[index] as Daemon;
    const begin = (name: string, victims: readonly number[]): void => {
      registers.condition = { name, victims };
      const on = victims.map((victim) => cluster.daemons[victim]?.name).join(', ');
      console.log(
        `${((performance.now() - startedAt) / 1_000).toFixed(1)} s: ${name} on ${on}, ${lengthMs} ms`,
      );
    };
    await fault.run({ cluster, random, index, daemon, lengthMs, begin, count });
    registers.condition = CALM;
    count(fault.name);
  }
  return done;
}

async function torture(folder: string): Promise<boolean> {
  const { kinds, shim } = possible(folder);
  const { hosts } = flags;
  const disks = kinds.includes(fillingDisk);
  const cluster = await makeCluster({ daemons: daemonCount, hosts, disks, shim, folder });
  const registers = new Registers(cluster.daemons);
  let isOver = false;
  try {
    await registers.create();
    const until = performance.now() + seconds * 1_000;
    const clients = Array.from({ length: Number(flags.clients) }, (_, id) =>
      registers.client(id, seededRandom(seed * 1_000 + id + 1), () => isOver),
    );
    let done: Map<string, number>;
    try {
      done = await faults(cluster, registers, kinds, seededRandom(seed), until);
    } finally {
      isOver = true;
      await Promise.all(clients);
    }
    await cluster.settled();
    await registers.readEverywhere();
    console.log('faults:', Object.fromEntries(done), 'operations:', registers.counts);
    for (const line of registers.latencies()) console.log(`  ${line}`);
  } finally {
    cluster.remove();
  }
  return registers.judge(folder);
}

console.log(
  `seed ${seed}, ${daemonCount} daemons, ${seconds} s${flags.hosts ? ', hosts in namespaces' : ''}`,
);
const folder = mkdtempSync(join(tmpdir(), 'swarmd-torture-'));
let good = false;
try {
  good = await torture(folder);
} catch (error) {
  console.error(error);
}
if (good) rmSync(folder, { recursive: true });
console.log(good ? 'all linearizable' : `NOT linearizable, or the run failed: see ${folder}`);
process.exitCode = good ? 0 : 1;
