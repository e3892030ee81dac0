/** One contract, two storages: in memory (for tests and the simulator) and in LevelDB. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { EMPTY_CONFIG, type Entry, type Snapshot } from '../../../src/raft/core/types.ts';
import { LevelStorage } from '../../../src/raft/level-storage.ts';
import { MemoryDisk, MemoryStorage } from '../../../src/raft/memory-storage.ts';
import { type RaftStorage, readSnapshotState, SNAPSHOT_CHUNK_BYTES } from '../../../src/raft/storage.ts';

/** Something that keeps what storages opened on it write. */
interface Place {
  open(): Promise<RaftStorage>;
  remove(): Promise<void>;
}

const places: Record<string, () => Promise<Place>> = {
  memory: async () => {
    const disk = new MemoryDisk();
    return { open: async () => new MemoryStorage(disk), remove: async () => {} };
  },
  leveldb: async () => {
    const folder = await mkdtemp(join(tmpdir(), 'swarmd-raft-'));
    return {
      open: () => LevelStorage.open(join(folder, 'raft')),
      remove: () => rm(folder, { recursive: true, force: true }),
    };
  },
};

const entry = (index: number, term: number, text = `${term}/${index}`): Entry => ({
  index,
  term,
  kind: index % 7 === 0 ? 'config' : 'normal',
  data: new Uint8Array(new TextEncoder().encode(text)),
});
const entries = (from: number, to: number, term: number): Entry[] =>
  Array.from({ length: to - from + 1 }, (_, i) => entry(from + i, term));
const snapshotAt = (index: number, term: number): Snapshot => ({
  index,
  term,
  config: { ...EMPTY_CONFIG, voters: [1, 2 ** 47 + 5], learners: [9] },
  data: Uint8Array.of(1, 2, 3),
});
const hard = (term: number, vote: number, commit: number) => ({ term, vote, commit });

for (const [name, makePlace] of Object.entries(places)) {
  describe(`${name} storage`, () => {
    const withPlace = (title: string, run: (place: Place) => Promise<void>): void => {
      test(title, async () => {
        const place = await makePlace();
        try {
          await run(place);
        } finally {
          await place.remove();
        }
      });
    };
    /** Opens, loads, and closes after `run`. */
    const using = async <T>(place: Place, run: (storage: RaftStorage) => Promise<T>): Promise<T> => {
      const storage = await place.open();
      try {
        return await run(storage);
      } finally {
        await storage.close();
      }
    };
    const prepared = (place: Place, last: number): Promise<void> =>
      using(place, async (storage) => {
        await storage.load();
        await storage.initialise(7, { hardState: hard(1, 7, 1), entries: entries(1, last, 1) });
      });
    const loaded = (place: Place) => using(place, (storage) => storage.load());

    withPlace('is empty at first', async (place) => {
      const state = await loaded(place);
      assert.equal(state.memberId, null);
      assert.deepEqual(state.entries, []);
      assert.equal(state.snapshot, null);
    });

    withPlace('remembers owner, hard state and entries', async (place) => {
      await prepared(place, 20);
      const state = await loaded(place);
      assert.equal(state.memberId, 7);
      assert.deepEqual(state.hardState, hard(1, 7, 1));
      assert.deepEqual(state.entries, entries(1, 20, 1));
      assert.equal(state.compactedIndex, 0);
    });

    withPlace('replaces the tail from the first new entry on', async (place) => {
      await prepared(place, 10);
      await using(place, async (storage) => {
        await storage.load();
        await storage.append({ hardState: hard(3, 0, 4), entries: entries(5, 6, 3) });
        await storage.append({ hardState: null, entries: [entry(7, 3)] });
        await storage.append({ hardState: hard(4, 9, 6), entries: [] });
      });
      const state = await loaded(place);
      assert.deepEqual(state.entries, [...entries(1, 4, 1), ...entries(5, 7, 3)]);
      assert.deepEqual(state.hardState, hard(4, 9, 6));
    });

    withPlace('keeps a snapshot of several chunks, and cuts the log before it', async (place) => {
      await prepared(place, 30);
      const state = new Uint8Array(2.5 * SNAPSHOT_CHUNK_BYTES).map((_, i) => i % 251);
      await using(place, async (storage) => {
        await storage.load();
        await storage.saveSnapshot(snapshotAt(20, 1), state, { index: 15, term: 1 });
        await storage.append({ hardState: hard(1, 7, 30), entries: [entry(31, 1)] });
        assert.deepEqual(await storage.snapshotSize(20, 1), { chunks: 3, bytes: state.length });
        assert.equal(await storage.snapshotSize(20, 2), null);
        assert.equal(await storage.readSnapshotChunk(19, 1, 0), null);
      });
      await using(place, async (storage) => {
        const restored = await storage.load();
        assert.deepEqual(restored.snapshot, snapshotAt(20, 1));
        assert.equal(restored.compactedIndex, 15);
        assert.equal(restored.compactedTerm, 1);
        assert.deepEqual(restored.entries, entries(16, 31, 1));
        assert.deepEqual(await readSnapshotState(storage, 20, 1), state);
      });
    });

    withPlace('keeps the newer of two snapshots, and only that', async (place) => {
      await prepared(place, 30);
      await using(place, async (storage) => {
        await storage.load();
        await storage.saveSnapshot(snapshotAt(20, 1), Uint8Array.of(20), { index: 10, term: 1 });
        await storage.saveSnapshot(snapshotAt(15, 1), Uint8Array.of(15), { index: 14, term: 1 });
        await storage.saveSnapshot(snapshotAt(25, 1), new Uint8Array(0), { index: 20, term: 1 });
        assert.equal(await readSnapshotState(storage, 20, 1), null);
      });
      await using(place, async (storage) => {
        const state = await storage.load();
        assert.equal(state.snapshot?.index, 25);
        assert.deepEqual(state.entries, entries(21, 30, 1));
        assert.deepEqual(await readSnapshotState(storage, 25, 1), new Uint8Array(0));
      });
    });

    withPlace('is replaced whole by a received snapshot', async (place) => {
      await prepared(place, 30);
      await using(place, async (storage) => {
        await storage.load();
        await storage.installSnapshot(snapshotAt(25, 4), Uint8Array.of(1, 2), hard(5, 0, 25));
        await storage.append({ hardState: null, entries: entries(26, 27, 5) });
      });
      await using(place, async (storage) => {
        const state = await storage.load();
        assert.equal(state.compactedIndex, 25);
        assert.equal(state.compactedTerm, 4);
        assert.deepEqual(state.entries, entries(26, 27, 5));
        assert.deepEqual(state.hardState, hard(5, 0, 25));
        assert.deepEqual(await readSnapshotState(storage, 25, 4), Uint8Array.of(1, 2));
      });
    });

    withPlace('takes appends while a snapshot is being saved', async (place) => {
      await prepared(place, 10);
      await using(place, async (storage) => {
        await storage.load();
        const saving = storage.saveSnapshot(snapshotAt(10, 1), new Uint8Array(3_000_000), {
          index: 8,
          term: 1,
        });
        for (let index = 11; index <= 40; index++) {
          await storage.append({ hardState: null, entries: [entry(index, 2)] });
        }
        await saving;
      });
      const state = await loaded(place);
      assert.deepEqual(state.entries, [...entries(9, 10, 1), ...entries(11, 40, 2)]);
    });

    withPlace('is opened by one at a time', async (place) => {
      const storage = await place.open();
      await assert.rejects(place.open(), { code: 'LOCKED' });
      await storage.close();
      await (await place.open()).close();
    });
  });
}
