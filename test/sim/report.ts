/** How a failed run is told: what was violated, the last events, and the command that repeats it. */
import type { SimulationOptions, SimulationResult } from './simulation.ts';

/** Everything one needs to look into a failure. */
export function describeFailure(result: SimulationResult, options: Omit<SimulationOptions, 'seed'>): string {
  const { events, broken = null, draws = {} } = options;
  const variant = broken === null ? '' : ` --broken ${broken}`;
  const { faults, managers, workers } = draws;
  const given = [
    faults === undefined ? '' : ` --faults ${[...faults].join(',')}`,
    managers === undefined ? '' : ` --managers ${managers}`,
    workers === undefined ? '' : ` --workers ${workers}`,
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
