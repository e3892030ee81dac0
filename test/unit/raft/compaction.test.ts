/** A leader that writes all the time: whoever joins or returns must catch up with it nevertheless. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { compactionIndex, isBeingSent } from '../../../src/raft/compaction.ts';
import { newProgress, type Progress } from '../../../src/raft/core/progress.ts';
import { StableLog } from '../../../src/raft/core/stable-log.ts';
import { SimCluster } from '../../raft/cluster.ts';

const forever = new AbortController().signal;

/** Proposes `payload` every `everyMs` until stopped. */
function writer(cluster: SimCluster, payload: Uint8Array, everyMs: number): () => void {
  let dueMs = 0;
  cluster.onStep = (nowMs) => {
    if (nowMs < dueMs) return;
    dueMs = nowMs + everyMs;
    const leader = cluster.leader();
    if (leader !== null) void cluster.nodeOf(leader).propose(payload, forever);
  };
  return () => {
    cluster.onStep = () => {};
  };
}

async function joins(cluster: SimCluster, payload: Uint8Array, everyMs: number): Promise<void> {
  await cluster.form([1]);
  const stop = writer(cluster, payload, everyMs);
  await cluster.run(3_000);
  cluster.faults = { loss: 0, duplication: 0, delayMaxMs: 80, diskDelayMaxMs: 5 };
  const joiner = cluster.define(2);
  await cluster.start(2, 'join');
  await cluster.whilePumping(cluster.nodeOf(1).addMember(joiner.member, forever), 30_000);
  stop();
  assert.deepEqual(cluster.violations, []);
}

describe('a log that is cut all the time', () => {
  test('a member catches up though the log is cut every five entries', async () => {
    const cluster = new SimCluster(1, {
      snapshotEntries: 5,
      snapshotKeepEntries: 0,
      promotionLagEntries: 5,
      maxInflightMessages: 1,
      maxMessageBytes: 1_000,
    });
    await joins(cluster, new Uint8Array(10), 4);
  });

  test('a member receives a snapshot of many chunks though a new one falls due at every write', async () => {
    const cluster = new SimCluster(2, { snapshotEntries: 2, snapshotKeepEntries: 0 });
    await joins(cluster, new Uint8Array(64 * 1024).fill(120), 50);
    assert.ok(cluster.get(2).disk.snapshotState.length > 3 * 512 * 1024, 'several chunks');
  });
});

describe('what followers still need', () => {
  const limits = { maxInflightMessages: 1, maxInflightBytes: 0 };
  const follower = (fields: Partial<Progress>): Progress => ({
    ...newProgress({ match: 0, next: 1, isLearner: false, recentActive: true, ...limits }),
    ...fields,
  });
  const log = StableLog.empty();
  log.append(
    Array.from({ length: 100 }, (_, i) => ({
      term: 1,
      index: i + 1,
      kind: 'normal',
      data: new Uint8Array(10),
    })),
  );
  log.compact(20);
  const upTo = (progress: Progress, keptBytes?: number): number =>
    compactionIndex(log, [[2, progress]], 90, keptBytes);

  test('is kept while they answer and can be served from the log', () => {
    assert.equal(upTo(follower({ state: 'replicate', match: 60, next: 70 })), 60);
    assert.equal(upTo(follower({ state: 'probe', match: 0, next: 51 })), 50);
    assert.equal(upTo(follower({ state: 'snapshot', pendingSnapshot: 40, recentActive: false })), 40);
    assert.equal(upTo(follower({ state: 'replicate', match: 95, next: 96 })), 90);
  });

  test('is dropped when they are silent, need a snapshot anyway, or it is too much', () => {
    assert.equal(upTo(follower({ state: 'replicate', match: 60, recentActive: false })), 90);
    assert.equal(upTo(follower({ state: 'replicate', match: 10, next: 11 })), 90);
    assert.equal(upTo(follower({ state: 'replicate', match: 60, next: 70 }), 299), 90);
    assert.equal(upTo(follower({ state: 'replicate', match: 60, next: 70 }), 300), 60);
  });

  test('a snapshot is being sent when a follower waits for that very one', () => {
    const peers = [[2, follower({ state: 'snapshot', pendingSnapshot: 40 })]] as const;
    assert.equal(isBeingSent(peers, 40), true);
    assert.equal(isBeingSent(peers, 45), false);
    assert.equal(isBeingSent([[2, follower({ state: 'probe' })]], 0), false);
  });
});
