/** `node test/raft/simulate.ts [first seed] [seeds] [ms]`: the raft simulation over many seeds. */
import { simulate } from './simulation.ts';

const [first = 1, count = 100, ms = 10_000] = process.argv.slice(2).map(Number);
let failed = 0;
for (let seed = first; seed < first + count; seed++) {
  const result = await simulate(seed, ms);
  if (result.problems.length === 0 && process.env['SIM_QUIET'] !== undefined) continue;
  console.log(JSON.stringify(result));
  if (result.problems.length > 0) failed++;
}
console.log(`${count} seeds, ${failed} with problems`);
process.exitCode = failed === 0 ? 0 : 1;
