/** Adding and removing one member at the same time. Found by the simulator of whole clusters. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SimCluster } from '../cluster.ts';

const never = new AbortController().signal;
const settled = (work: Promise<void>): Promise<string> =>
  work.then(
    () => 'done',
    (error: unknown) => (error as { code?: string }).code ?? String(error),
  );

for (const waitMs of [0, 5, 15, 30]) {
  test(`a member removed ${waitMs} ms after its addition began is not promoted after all`, async () => {
    const cluster = new SimCluster(7);
    cluster.faults = { ...cluster.faults, delayMaxMs: 8, diskDelayMaxMs: 20 };
    await cluster.form([1, 2]);
    const { member } = cluster.define(3);
    await cluster.start(3, 'join');
    const leader = cluster.nodeOf(1);
    const adding = settled(leader.addMember(member, never));
    await cluster.run(waitMs);
    const removing = settled(leader.removeMember(3, never));
    const [added, removed] = await cluster.whilePumping(Promise.all([adding, removing]));
    assert.equal(removed, 'done');
    await cluster.run(500);
    assert.deepEqual(
      leader.status().members.map(({ id }) => id),
      [1, 2],
      `the addition ended with ${added}`,
    );
  });
}
