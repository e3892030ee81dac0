/** A process that simulates the seeds it is sent, one after another, and answers each with its result. */
import { optionsOf, type SeedJob } from './seed-pool.ts';
import { simulate } from './simulation.ts';

const job = JSON.parse(process.argv[2] ?? '') as SeedJob;
// Whoever started this decides when it ends.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => {});
process.on('message', (seed) => {
  void simulate(optionsOf(seed as number, job)).then((result) => process.send?.(result));
});
