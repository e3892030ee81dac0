/** A daemon's worth of process runtime for process-daemon.test.ts: starts the tasks it is given, says so, and waits. */
import { readFileSync } from 'node:fs';
import { systemClock } from '../../../../src/base/clock.ts';
import { silentLogger } from '../../../../src/base/log.ts';
import { systemRandom } from '../../../../src/base/random.ts';
import type { Task } from '../../../../src/model/objects.ts';
import { ProcessRuntime } from '../../../../src/worker/process-runtime.ts';
import { plainSetup } from '../../../support/worker-fixtures.ts';

const dataDir = process.argv[2] as string;
const tasks = JSON.parse(readFileSync(process.argv[3] as string, 'utf8')) as Task[];
const runtime = new ProcessRuntime(
  { dataDir, nodeId: 'n1' },
  { clock: systemClock(), random: systemRandom(), log: silentLogger },
);
const { signal } = new AbortController();
for (const task of tasks) {
  await runtime.create(task, plainSetup, signal);
  await runtime.start(task.id, signal);
}
console.log('started');
