/** Whole clusters under faults: fixed seeds, fresh ones, and defects that must be found. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemRandom } from '../../src/base/random.ts';
import { brokenVariants, hunts } from './broken.ts';
import { describeFailure } from './report.ts';
import { freshSeed, simulate } from './simulation.ts';

const FIXED_SEEDS = [1, 4, 8, 11, 16];
const FRESH_SEEDS = 4;
const EVENTS = 8_000;
for (const seed of FIXED_SEEDS) {
  test(`a cluster survives the faults of seed ${seed}`, async () => {
    const result = await simulate({ seed, events: EVENTS });
    assert.deepEqual(result.problems, [], describeFailure(result, { events: EVENTS }));
    assert.ok(Number(result.facts['committed']) > 20, 'something was committed');
    assert.ok(result.events >= EVENTS, 'the run was as long as asked');
  });
}

for (let i = 0; i < FRESH_SEEDS; i++) {
  const seed = freshSeed(systemRandom());
  test(`a cluster survives the faults of fresh seed ${seed}`, async () => {
    const result = await simulate({ seed, events: EVENTS });
    assert.deepEqual(result.problems, [], describeFailure(result, { events: EVENTS }));
  });
}

test('a seed repeats its run exactly', async () => {
  const [one, two] = [await simulate({ seed: 2, events: 3_000 }), await simulate({ seed: 2, events: 3_000 })];
  assert.deepEqual({ ...one }, { ...two });
  const other = await simulate({ seed: 3, events: 3_000 });
  assert.notEqual(other.trail, one.trail);
});

for (const broken of brokenVariants) {
  const { defect, draws, events, seedsMax } = hunts[broken];
  test(`a cluster is caught in which ${defect} (${broken})`, async (t) => {
    for (let seed = 1; seed <= seedsMax; seed++) {
      const { problems } = await simulate({ seed, events, broken, draws });
      if (problems.length === 0) continue;
      t.diagnostic(`seed ${seed}: ${problems[0]}`);
      return;
    }
    assert.fail(`${broken} was not found within ${seedsMax} seeds`);
  });
}
