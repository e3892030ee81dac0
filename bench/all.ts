/**
 * Runs every benchmark, one after another, each in a process of its own: `node bench/all.ts [NAME...]`.
 *
 * What they need is said in their headers; one that cannot run says so and the next one follows. Ends with 1 when one
 * of them failed.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

const benchmarks: readonly string[] = [
  'startup',
  'memory',
  'replicas',
  'control-loop',
  'scheduler',
  'ingress',
  'raft/run',
];

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !benchmarks.includes(name));
if (unknown.length > 0) {
  process.stderr.write(`no benchmark ${unknown.join(', ')}; there are: ${benchmarks.join(', ')}\n`);
  process.exitCode = 1;
} else {
  for (const name of wanted.length > 0 ? wanted : benchmarks) {
    const file = join(import.meta.dirname, `${name}.ts`);
    const { status } = spawnSync(process.execPath, [file], { stdio: 'inherit' });
    if (status !== 0) process.exitCode = 1;
  }
}
