/** What happens to disks: they fill up, they are slow, and what they hold is damaged. */
import {
  appendFileSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { type Random, randomBelow } from '../../src/base/random.ts';
import type { Daemon } from '../e2e/lib/daemon.ts';
import { waitFor } from '../support/wait.ts';
import { type Fault, oneOf, type Scene } from './faults.ts';
import { setDelay } from './slow-disk.ts';

const END_MS = 30_000;

/** Fills what is left of the disk with a file. */
function fill(path: string): void {
  for (let size = 1024 * 1024; size >= 1; size = Math.floor(size / 2)) {
    try {
      for (;;) appendFileSync(path, Buffer.alloc(size));
    } catch {
      // Smaller pieces may still fit.
    }
  }
}

/** Exit code of a daemon that ends by itself in time. */
async function ended(daemon: Daemon): Promise<number | null> {
  const code = await Promise.race([daemon.ended(), pause(END_MS, 'late' as const, { ref: false })]);
  if (code === 'late') throw new Error(`${daemon.name} did not end in ${END_MS} ms\n${daemon.log()}`);
  return code;
}

/** The disk is full: the daemon ends and says why; with space again it comes back with all it acknowledged. */
export const fillingDisk: Fault = {
  name: 'full-disk',
  async run({ cluster, daemon, index, lengthMs, begin, count }) {
    const ballast = join(cluster.disk(index), 'ballast');
    begin('full-disk', [index]);
    const before = daemon.log().length;
    fill(ballast);
    const code = await ended(daemon);
    const said = daemon.log().slice(before);
    if (code !== 1 || !/(is full|no space is left).*free/.test(said))
      throw new Error(`on a full disk ${daemon.name} ended with exit code ${code}\n${said}`);
    await pause(lengthMs);
    const again = await daemon.attempt('daemon');
    if (again.code !== 1 || !/Error: .*(is full|no space is left).*free/.test(again.stderr))
      throw new Error(`on a full disk ${daemon.name} started: ${again.code}\n${again.stderr}`);
    rmSync(ballast);
    await daemon.start('daemon');
    count('full-disk: ended with 1, came back');
  },
};

const DELAYS_MS = [50, 200, 1_000, 2_500, 5_000];
/** From here on a leader must not keep its office: an election timeout, and some. */
const DEPOSING_MS = 2_500;

/** Syncs of one disk, or of a majority's, take long. Half of the time the leader's is among them. */
export const slowingDisk: Fault = {
  name: 'slow-disk',
  async run(scene) {
    const { cluster, random, lengthMs, begin, count } = scene;
    const total = cluster.daemons.length;
    const many = randomBelow(random, 3) === 0 ? Math.floor(total / 2) + 1 : 1;
    const delayMs = oneOf(random, DELAYS_MS);
    const isLeaderWanted = randomBelow(random, 2) === 0;
    const leader = (await Promise.all(cluster.daemons.map(leads))).indexOf(true);
    const first = isLeaderWanted && leader >= 0 ? leader : scene.index;
    const victims = Array.from({ length: many }, (_, i) => (first + i) % total);
    const who = many > 1 ? 'majority' : first === leader ? 'leader' : 'follower';
    begin(`slow-disk: ${who}, ${delayMs} ms`, victims);
    for (const victim of victims) setDelay(cluster.delayFile(victim), delayMs);
    try {
      await pause(lengthMs + delayMs);
      if (who === 'leader' && delayMs >= DEPOSING_MS) await deposed({ ...scene, index: first }, delayMs);
    } finally {
      for (const victim of victims) setDelay(cluster.delayFile(victim), 0);
    }
    count(`slow-disk: ${who}`);
  },
};

async function leads(daemon: Daemon): Promise<boolean> {
  return (await daemon.call('info', {}, 3_000)).raft?.role === 'leader';
}

/** Waits until the others have another leader. */
async function deposed({ cluster, index }: Scene, delayMs: number): Promise<void> {
  const others = cluster.daemons.filter((_, i) => i !== index);
  await waitFor(
    `another leader than one whose syncs take ${delayMs} ms`,
    async () => (await Promise.all(others.map(leads))).includes(true),
    { timeoutMs: 20_000 },
  );
}

/** One way to damage a log. */
interface Harm {
  readonly name: string;
  /** What the start afterwards must do; `either` where it depends on what was hit. */
  readonly expects: 'start' | 'either';
  /** Does it; returns what was done, in words. */
  run(raft: string, random: Random): string;
}

function logFiles(raft: string, pattern: RegExp): string[] {
  return readdirSync(raft)
    .filter((name) => pattern.test(name) && statSync(join(raft, name)).size > 0)
    .toSorted();
}

const HARMS: readonly Harm[] = [
  {
    name: 'end cut',
    // What was not acknowledged may be lost; and the journal may hold nothing since it was begun.
    expects: 'either',
    run(raft, random) {
      const name = logFiles(raft, /\.log$/).at(-1);
      if (name === undefined) return 'nothing to cut';
      const { size } = statSync(join(raft, name));
      const bytes = 1 + randomBelow(random, Math.min(size, 4_096));
      truncateSync(join(raft, name), size - bytes);
      return `${bytes} of ${size} bytes cut from ${name}`;
    },
  },
  {
    name: 'torn write',
    expects: 'start',
    run(raft, random) {
      const name = readdirSync(raft)
        .filter((file) => file.endsWith('.log'))
        .toSorted()
        .at(-1);
      if (name === undefined) return 'no journal';
      const bytes = 1 + randomBelow(random, 40_000);
      appendFileSync(join(raft, name), Buffer.alloc(bytes, randomBelow(random, 256)));
      return `${bytes} bytes of a write that was never finished at the end of ${name}`;
    },
  },
  {
    name: 'bit flipped',
    expects: 'either',
    run(raft, random) {
      const name = oneOf(random, logFiles(raft, /\.(log|ldb)$|^MANIFEST/));
      const bytes = readFileSync(join(raft, name));
      const at = randomBelow(random, bytes.length);
      bytes[at] = (bytes[at] ?? 0) ^ (1 << randomBelow(random, 8));
      writeFileSync(join(raft, name), bytes);
      return `a bit of byte ${at} of ${bytes.length} flipped in ${name}`;
    },
  },
  {
    name: 'file deleted',
    expects: 'either',
    run(raft, random) {
      const name = oneOf(random, logFiles(raft, /\.(log|ldb)$|^MANIFEST|^CURRENT$/));
      rmSync(join(raft, name));
      return `${name} deleted`;
    },
  },
];

/**
 * The log is damaged while its daemon is dead. Either the daemon starts, and then nothing it acknowledged may be missing
 * (the histories tell), or it refuses, says so, and is replaced as documented.
 */
export const damagingLog: Fault = {
  name: 'corrupt-log',
  async run({ cluster, daemon, index, lengthMs, random, begin, count }) {
    const harm = oneOf(random, HARMS);
    begin(`corrupt-log: ${harm.name}`, [index]);
    await daemon.kill();
    const what = harm.run(join(cluster.disk(index), 'raft'), random);
    await pause(lengthMs);
    const before = daemon.log().length;
    try {
      await daemon.start('daemon');
      count(`corrupt-log: ${harm.name}, started`);
      console.log(`  ${daemon.name}: ${what}: started`);
      return;
    } catch (error) {
      const said = daemon.log().slice(before);
      if (harm.expects === 'start' || (await ended(daemon)) !== 1 || !REFUSAL.test(said))
        throw new Error(`${daemon.name}: ${what}: ${said}`, { cause: error });
      console.log(`  ${daemon.name}: ${what}: refused: ${/is damaged: (.*?)\. This/.exec(said)?.[1]}`);
    }
    // A refusal lasts, and the inspector sees the damage too, without a daemon.
    const again = await daemon.attempt('daemon');
    const inspected = await daemon.attempt('log', 'inspect');
    if (again.code !== 1 || !REFUSAL.test(again.stderr) || inspected.code !== 1)
      throw new Error(`${daemon.name}: ${what}: ${again.stderr}\n${inspected.stdout}${inspected.stderr}`);
    await cluster.rejoin(index);
    count(`corrupt-log: ${harm.name}, refused and joined anew`);
  },
};

const REFUSAL = /the raft log in .* is damaged: .*This manager does not start with it.*join again/s;
