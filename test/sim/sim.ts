/**
 * `npm run sim -- --seed N --events M [--seeds K] [--broken VARIANT] [--faults A,B]
 * [--managers N] [--workers N] [--keep-going] [--trace]`: simulates K seeds from N on.
 *
 * Ends with status 1 after the first failure, which it describes with the command that repeats it.
 */
import { parseArgs } from 'node:util';
import { systemRandom } from '../../src/base/random.ts';
import { brokenVariants, faultKinds } from './draws.ts';
import { freshSeed, simulate } from './simulation.ts';
import { describeFailure } from './report.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    events: { type: 'string', default: '20000' },
    seeds: { type: 'string', default: '1' },
    broken: { type: 'string' },
    faults: { type: 'string' },
    managers: { type: 'string' },
    workers: { type: 'string' },
    trace: { type: 'boolean', default: false },
    'keep-going': { type: 'boolean', default: false },
    quiet: { type: 'boolean', default: false },
  },
});

const first = values.seed === undefined ? freshSeed(systemRandom()) : Number(values.seed);
const events = Number(values.events);
const broken = brokenVariants.find((variant) => variant === values.broken) ?? null;
const named = values.faults?.split(',');
const draws = {
  ...(named === undefined ? {} : { faults: new Set(faultKinds.filter((kind) => named.includes(kind))) }),
  ...(values.managers === undefined ? {} : { managers: Number(values.managers) }),
  ...(values.workers === undefined ? {} : { workers: Number(values.workers) }),
};
if (
  !Number.isSafeInteger(first) ||
  !Number.isSafeInteger(events) ||
  (values.broken !== undefined && broken === null)
) {
  process.stderr.write(`--seed and --events take numbers, --broken one of ${brokenVariants.join(', ')}\n`);
  process.exit(2);
}

const startedMs = performance.now();
let ran = 0;
let failures = 0;
let clean = 0;
for (let seed = first; seed < first + Number(values.seeds); seed++) {
  const trace = values.trace ? { trace: (line: string) => void process.stdout.write(`${line}\n`) } : {};
  const result = await simulate({ seed, events, broken, draws, ...trace });
  ran += result.events;
  if (result.problems.length === 0) {
    clean += 1;
    if (!values.quiet)
      process.stdout.write(
        `seed ${seed}: ${result.events} events, ${result.virtualMs} ms, trail ${(result.trail >>> 0).toString(16)}, ${JSON.stringify(result.facts)}\n`,
      );
    continue;
  }
  failures += 1;
  process.stdout.write(`${describeFailure(result, { events, broken, draws })}\n`);
  if (!values['keep-going']) break;
}
const seconds = (performance.now() - startedMs) / 1_000;
process.stdout.write(
  `${clean} seeds clean, ${failures} failed; ${ran} events in ${seconds.toFixed(1)} s: ${Math.round(ran / seconds)} events/s\n`,
);
process.exitCode = failures === 0 ? 0 : 1;
