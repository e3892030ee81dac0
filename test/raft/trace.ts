/**
 * Writes a trace of a random run for etcd-raft's TLA+ trace specification (see docs/TESTING.md).
 *
 * `npm run trace -- [--seed 1] [--events 400] [--out trace.ndjson]`
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { ndjson, TracedRun } from './tracing.ts';

const { values: flags } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    events: { type: 'string', default: '400' },
    out: { type: 'string', default: 'trace.ndjson' },
  },
});
const events = new TracedRun(Number(flags.seed)).run(Number(flags.events));
writeFileSync(flags.out, ndjson(events));
console.log(`${events.length} events of seed ${flags.seed} in ${flags.out}`);
