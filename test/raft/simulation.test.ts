/** A few seeds of the raft simulation. `node test/raft/simulate.ts` runs more, and longer. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { simulate } from './simulation.ts';

for (const seed of [1, 2, 3, 4, 5, 6, 7, 8]) {
  test(`a raft group survives the faults of seed ${seed}`, async () => {
    const result = await simulate(seed, 3_000);
    assert.deepEqual(result.problems, [], `seed ${seed}`);
    assert.ok(result.acknowledged > 10, 'commands were acknowledged');
  });
}
