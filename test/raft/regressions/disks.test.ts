/** Named regressions of disks: hanging ones, and logs that a crash left half written. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { Level } from 'level';
import { EMPTY_CONFIG, type Entry, type Snapshot } from '../../../src/raft/core/types.ts';
import { entryKey } from '../../../src/raft/keys.ts';
import { LevelStorage } from '../../../src/raft/level-storage.ts';
import { readSnapshotState, SNAPSHOT_CHUNK_BYTES } from '../../../src/raft/storage.ts';
import { SimCluster } from '../cluster.ts';
import { bytes, entry, group } from '../network.ts';

const never = new AbortController().signal;
const hardState = { term: 1, vote: 7, commit: 3 };
const entriesTo = (last: number): Entry[] => Array.from({ length: last }, (_, i) => entry(1, i + 1, `${i}`));
const snapshotAt = (index: number): Snapshot => ({
  index,
  term: 1,
  config: EMPTY_CONFIG,
  data: new Uint8Array(0),
});

async function inFolder(run: (folder: string) => Promise<void>): Promise<void> {
  const parent = await mkdtemp(join(tmpdir(), 'swarmd-regression-'));
  try {
    await run(join(parent, 'raft'));
  } finally {
    await rm(parent, { recursive: true, force: true });
  }
}

async function opened<T>(folder: string, run: (storage: LevelStorage) => Promise<T>): Promise<T> {
  const storage = await LevelStorage.open(folder);
  try {
    return await run(storage);
  } finally {
    await storage.close();
  }
}

async function cluster3(seed: number): Promise<{ cluster: SimCluster; leader: number }> {
  const cluster = new SimCluster(seed);
  await cluster.form([1, 2, 3]);
  const isReady = (id: number): boolean =>
    cluster
      .nodeOf(id)
      .status()
      .members.filter((each) => each.voter).length === 3;
  await cluster.until(() => [1, 2, 3].every(isReady), 'all know the group');
  return { cluster, leader: cluster.leader() ?? 0 };
}

describe('regressions: disks that hang', () => {
  test('hashicorp-503: a leader whose disk hangs kept its office by heartbeats, and the group stood still', async () => {
    const { cluster, leader } = await cluster3(1);
    cluster.beforeStep = (id) => (id === leader ? new Promise(() => {}) : undefined);
    const lost = cluster.nodeOf(leader).propose(bytes('x'), never);
    await cluster.until(
      () => cluster.leader() !== null && cluster.leader() !== leader,
      'another leads',
      5_000,
    );
    const outcome = await cluster.whilePumping(
      cluster.nodeOf(cluster.leader() ?? 0).propose(bytes('y'), never),
    );
    assert.equal(outcome.kind, 'committed');
    assert.equal((await lost).kind, 'unknown', 'whoever waits is told');
  });

  test('hashicorp-666: a leader whose disk stalled for a while never gave way, nor caught up when it was back', async () => {
    const { cluster, leader } = await cluster3(2);
    const gate = Promise.withResolvers<void>();
    cluster.beforeStep = (id) => (id === leader ? gate.promise : undefined);
    void cluster.nodeOf(leader).propose(bytes('x'), never);
    await cluster.until(
      () => cluster.leader() !== null && cluster.leader() !== leader,
      'another leads',
      5_000,
    );
    await cluster.whilePumping(cluster.nodeOf(cluster.leader() ?? 0).propose(bytes('y'), never));
    gate.resolve();
    await cluster.until(() => cluster.get(leader).machine.seen.has('y'), 'the old leader follows');
    assert.deepEqual(cluster.violations, []);
    await cluster.stop();
  });

  test('hashicorp-612: entries to a follower stopped for good after a stall, while its heartbeats were answered', () => {
    for (const options of [{}, { maxInflightMessages: 2 }]) {
      const network = group(3, options);
      network.passes = (sent) => !(sent.type === 'append' && sent.to === 3);
      for (let i = 0; i < 20; i++) network.propose(1, `${i}`);
      network.tick(1, 2);
      network.heal();
      network.tick(1, 3);
      assert.equal(network.texts(3).length, 20, JSON.stringify(options));
    }
  });
});

describe('regressions: half-written logs', () => {
  test('redisraft-43: after a crash the log began behind the end of the snapshot, and nobody noticed', async () => {
    await inFolder(async (folder) => {
      await opened(folder, async (storage) => {
        await storage.load();
        await storage.initialise(7, { hardState, entries: entriesTo(8) });
        await storage.saveSnapshot(snapshotAt(4), bytes('state'), { index: 4, term: 1 });
      });
      const state = await opened(folder, (storage) => storage.load());
      assert.equal(state.compactedIndex, 4);
      assert.deepEqual(
        state.entries.map((each) => each.index),
        [5, 6, 7, 8],
      );
      const db = new Level<Uint8Array, Uint8Array>(folder, { keyEncoding: 'view', valueEncoding: 'view' });
      await db.open();
      await db.del(entryKey(5));
      await db.close();
      await assert.rejects(
        opened(folder, (storage) => storage.load()),
        { code: 'CORRUPT', message: /entry 5 is missing/ },
      );
    });
  });

  test('redisraft-654: a crash while a snapshot was written left only half of one, and the member did not start', async () => {
    await inFolder(async (folder) => {
      const half = 5 * SNAPSHOT_CHUNK_BYTES;
      const state = new Uint8Array(2 * half).fill(2);
      const failing = Object.assign(state, {
        subarray: (begin: number, end: number): Uint8Array => {
          if (begin >= half) throw new Error('the power is gone');
          return state.slice(begin, end);
        },
      });
      await opened(folder, async (storage) => {
        await storage.load();
        await storage.initialise(7, { hardState, entries: entriesTo(8) });
        await storage.saveSnapshot(snapshotAt(2), bytes('the old state'), { index: 1, term: 1 });
        await assert.rejects(
          storage.saveSnapshot(snapshotAt(3), failing, { index: 2, term: 1 }),
          /the power is gone/,
        );
      });
      await opened(folder, async (storage) => {
        const stored = await storage.load();
        assert.equal(stored.snapshot?.index, 2);
        assert.deepEqual(await readSnapshotState(storage, 2, 1), bytes('the old state'));
        assert.equal(stored.entries.at(-1)?.index, 8);
        await storage.saveSnapshot(snapshotAt(3), bytes('the new state'), { index: 2, term: 1 });
        assert.deepEqual(await readSnapshotState(storage, 3, 1), bytes('the new state'));
      });
    });
  });
});
