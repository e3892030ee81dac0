/** How a failed run is told: what was violated, the last events, and the command that repeats it. */
import type { SeedJob } from './seed-pool.ts';
import type { SimulationResult } from './simulation.ts';

/** Everything one needs to look into a failure. */
export function describeFailure(
  result: SimulationResult,
  options: Pick<SeedJob, 'events'> & Partial<SeedJob>,
): string {
  const { events, broken = null, faults = null, managers = null, workers = null } = options;
  const variant = broken === null ? '' : ` --broken ${broken}`;
  const given = [
    faults === null ? '' : ` --faults ${faults.join(',')}`,
    managers === null ? '' : ` --managers ${managers}`,
    workers === null ? '' : ` --workers ${workers}`,
  ];
  return [
    `seed ${result.seed} FAILED at event ${result.failedAt} (${result.virtualMs} ms)`,
    ...result.problems.map((problem) => `  violated: ${problem}`),
    `  last events:`,
    ...result.history.map((line) => `    ${line}`),
    `  facts: ${JSON.stringify(result.facts)}`,
    `  repeat: npm run sim -- --seed ${result.seed} --events ${events}${variant}${given.join('')}`,
  ].join('\n');
}
