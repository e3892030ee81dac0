/** How a failed run is told: what was violated, the last events, and the command that repeats it. */
import type { BrokenVariant } from './draws.ts';
import type { SimulationResult } from './simulation.ts';

/** Everything one needs to look into a failure. */
export function describeFailure(
  result: SimulationResult,
  events: number,
  broken: BrokenVariant | null,
): string {
  const variant = broken === null ? '' : ` --broken ${broken}`;
  return [
    `seed ${result.seed} FAILED at event ${result.failedAt} (${result.virtualMs} ms)`,
    ...result.problems.map((problem) => `  violated: ${problem}`),
    `  last events:`,
    ...result.history.map((line) => `    ${line}`),
    `  facts: ${JSON.stringify(result.facts)}`,
    `  repeat: npm run sim -- --seed ${result.seed} --events ${events}${variant}`,
  ].join('\n');
}
