/**
 * Whether a group that is well ever elects a new leader: three members on loopback under a fixed rate of writes, their
 * terms looked at every second. Prints each election it sees, and the sum.
 *
 * `node bench/raft/elections.ts [--minutes 60] [--rate 200] [--tick 50] [--ticks 5]`. Asserts nothing.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { SwarmdGroup } from './group.ts';
import { fixedRate } from './load.ts';
import type { Target } from './settings.ts';

const { values: flags } = parseArgs({
  options: {
    minutes: { type: 'string', default: '60' },
    rate: { type: 'string', default: '200' },
    tick: { type: 'string', default: '50' },
    ticks: { type: 'string', default: '5' },
  },
});
const minutes = Number(flags.minutes);
const rate = Number(flags.rate);

const folder = await mkdtemp(join(tmpdir(), 'swarmd-elections-'));
const group = await SwarmdGroup.start({
  name: '',
  folder,
  firstPort: 26_100,
  tickMs: Number(flags.tick),
  electionTicks: Number(flags.ticks),
});
try {
  let leader = await group.leader();
  const { term: first } = await group.status(leader);
  let term = first;
  const targets = await Promise.all([0, 1, 2].map((member) => group.target(member, 1)));
  const stop = new AbortController();
  const watching = (async () => {
    while (!stop.signal.aborted) {
      await delay(1000);
      const status = await group.status(leader).catch(() => null);
      if (status === null || status.term === term) continue;
      console.log(
        `${new Date().toISOString()} term ${status.term} (was ${term}), member ${status.leaderId} leads`,
      );
      term = status.term;
      leader = await group.leader();
    }
  })();
  const put = (n: number): Promise<void> => (targets[leader] as Target).put(`key-${n % 10_000}`);
  const figures = await fixedRate(rate, minutes * 60, put);
  stop.abort();
  await watching;
  for (const target of targets) await target.close();
  console.log(
    `${minutes} min at ${rate} writes/s, tick ${flags.tick} ms, election timeout ${flags.ticks}-${2 * Number(flags.ticks)} ticks: ` +
      `${term - first} elections; p50 ${figures.p50Ms.toFixed(2)} ms, p99 ${figures.p99Ms.toFixed(2)} ms, ${figures.errors} errors`,
  );
} finally {
  await group.stop();
  await rm(folder, { recursive: true, force: true });
}
