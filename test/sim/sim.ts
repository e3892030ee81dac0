/**
 * `npm run sim -- [--from N | --seed N] [--seeds K] [--events M] [--jobs J] [--broken VARIANT] [--faults A,B]
 * [--managers N] [--workers N] [--keep-going] [--verbose] [--trace]`: simulates K seeds from N on, in J processes.
 *
 * Ends with status 1 after the first failure (with `--keep-going`: after all seeds), which it describes with the
 * command that repeats it, and says in the end how many seeds were clean, how fast, and what was drawn.
 */
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { systemRandom } from '../../src/base/random.ts';
import { brokenVariants } from './broken.ts';
import { faultKinds } from './draws.ts';
import { describeFailure } from './report.ts';
import { optionsOf, runSeeds, type SeedJob } from './seed-pool.ts';
import { freshSeed, simulate, type SimulationResult } from './simulation.ts';
import { Totals } from './totals.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    from: { type: 'string' },
    events: { type: 'string', default: '20000' },
    seeds: { type: 'string', default: '1' },
    jobs: { type: 'string' },
    broken: { type: 'string' },
    faults: { type: 'string' },
    managers: { type: 'string' },
    workers: { type: 'string' },
    trace: { type: 'boolean', default: false },
    'keep-going': { type: 'boolean', default: false },
    verbose: { type: 'boolean', default: false },
  },
});

/** Ends the process over a wrong argument. */
function usage(what: string): never {
  process.stderr.write(`${what}\n`);
  process.exit(2);
}

function count(name: string, text: string): number {
  const value = Number(text);
  return Number.isSafeInteger(value) && value >= 0 ? value : usage(`--${name} takes a number, not ${text}`);
}

const start = values.from ?? values.seed;
const first = start === undefined ? freshSeed(systemRandom()) : count('seed', start);
const seeds = count('seeds', values.seeds);
const broken = brokenVariants.find((variant) => variant === values.broken) ?? null;
if (values.broken !== undefined && broken === null)
  usage(`--broken takes one of ${brokenVariants.join(', ')}`);
const named = values.faults?.split(',');
const unknown = named?.find((name) => !faultKinds.some((kind) => kind === name));
if (unknown !== undefined) usage(`there is no fault ${unknown}; --faults takes ${faultKinds.join(', ')}`);
const job: SeedJob = {
  events: count('events', values.events),
  broken,
  faults: named === undefined ? null : faultKinds.filter((kind) => named.includes(kind)),
  managers: values.managers === undefined ? null : count('managers', values.managers),
  workers: values.workers === undefined ? null : count('workers', values.workers),
};
const jobs = values.jobs === undefined ? availableParallelism() : Math.max(1, count('jobs', values.jobs));
const startedMs = performance.now();
const totals = new Totals();
let isInterrupted = false;
// The seeds under way are finished, and the summary is printed.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => (isInterrupted = true));

/** Tells of one seed; returns whether to go on. */
function take(result: SimulationResult): boolean {
  totals.add(result);
  const isClean = result.problems.length === 0;
  if (!isClean) process.stdout.write(`${describeFailure(result, job)}\n`);
  else if (values.verbose || seeds === 1) {
    const trail = (result.trail >>> 0).toString(16);
    const facts = JSON.stringify(result.facts);
    process.stdout.write(
      `seed ${result.seed}: ${result.events} events, ${result.virtualMs} ms, trail ${trail}, ${facts}\n`,
    );
  }
  return !isInterrupted && (isClean || values['keep-going']);
}

if (values.trace) {
  const trace = (line: string): void => void process.stdout.write(`${line}\n`);
  take(await simulate({ ...optionsOf(first, job), trace }));
} else await runSeeds(first, seeds, job, Math.min(jobs, seeds), take);

process.stdout.write(`${totals.describe((performance.now() - startedMs) / 1_000)}\n`);
process.exitCode = totals.failed === 0 ? 0 : 1;
