/**
 * A running group under frames that no honest member would send now: random, cut, lengthened, of members that are
 * none, for somebody else, and everything it ever said again. It must go on, agree, and count what it refused.
 *
 * `FUZZ_SEEDS=1000 npm test -- raft fuzz` for a longer run.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { randomBelow } from '../../src/base/random.ts';
import { decodeFrame, encodeMessage } from '../../src/raft/codec.ts';
import { bytes } from './network.ts';
import { SimCluster } from './cluster.ts';

const SEEDS = Number(process.env['FUZZ_SEEDS'] ?? 8);
const FRAMES = 400;
const forever = new AbortController().signal;
/** Ids that no member has. */
const STRANGER = 77;

/** What is made of a frame that was sent once. */
const tricks: Readonly<Record<string, (cluster: SimCluster, frame: Uint8Array) => Uint8Array | null>> = {
  random: (cluster) =>
    Uint8Array.from({ length: randomBelow(cluster.random, 200) }, () => cluster.random.uint32()),
  cut: (cluster, frame) => frame.subarray(0, randomBelow(cluster.random, frame.length)),
  longer: (cluster, frame) => Uint8Array.from([...frame, cluster.random.uint32() & 255]),
  stranger: (_cluster, frame) => readdressed(frame, { from: STRANGER }),
  misaddressed: (_cluster, frame) => readdressed(frame, { to: STRANGER }),
  replayed: (_cluster, frame) => frame,
};

function readdressed(frame: Uint8Array, fields: { from?: number; to?: number }): Uint8Array | null {
  const decoded = decodeFrame(frame);
  return decoded?.kind === 'message' ? encodeMessage({ ...decoded.message, ...fields }) : null;
}

describe('frames from outside', () => {
  test(`neither end a member nor lead it astray (${SEEDS} seeds of ${FRAMES} frames)`, async () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const cluster = new SimCluster(seed, { snapshotEntries: 40, snapshotKeepEntries: 5 });
      const said: Uint8Array[] = [];
      cluster.onFrame = (frame) => said.push(frame);
      await cluster.form([1, 2, 3]);
      const names = Object.keys(tricks);
      let written = 0;
      for (let i = 0; i < FRAMES; i++) {
        const frame = said[randomBelow(cluster.random, said.length)] as Uint8Array;
        const name = names[randomBelow(cluster.random, names.length)] as string;
        const forged = tricks[name]?.(cluster, frame) ?? null;
        const to = 1 + randomBelow(cluster.random, 3);
        if (forged !== null) cluster.nodeOf(to).receive(forged);
        if (i % 20 === 0) {
          const leader = cluster.leader();
          if (leader !== null) void cluster.nodeOf(leader).propose(bytes(`w${written++}`), forever);
        }
        await cluster.run(3);
      }
      await cluster.until(() => cluster.leader() !== null, 'a leader');
      const leader = cluster.leader() as number;
      const last = await cluster.whilePumping(cluster.nodeOf(leader).propose(bytes('last'), forever));
      assert.equal(last.kind, 'committed', `seed ${seed}`);
      await cluster.until(
        () => [1, 2, 3].every((id) => cluster.get(id).machine.commands.at(-1) === 'last'),
        'all have the same state',
      );
      assert.deepEqual(cluster.violations, [], `seed ${seed}`);
      const refused = [1, 2, 3].map((id) => cluster.nodeOf(id).refusedFrames().malformed);
      assert.ok(
        refused.reduce((sum, count) => sum + count, 0) > FRAMES / 10,
        'what cannot be decoded is counted',
      );
      await cluster.stop();
    }
  });
});
