/** What only a real disk does: torn tails, damage, full disks, foreign locks. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, test } from 'node:test';
import { promisify } from 'node:util';
import { Level } from 'level';
import { SwarmdError } from '../../../src/base/errors.ts';
import { EMPTY_CONFIG, type Entry } from '../../../src/raft/core/types.ts';
import { chunkKey, entryKey, HARD_STATE_KEY, META_KEY, SNAPSHOT_KEY } from '../../../src/raft/keys.ts';
import { LevelStorage } from '../../../src/raft/level-storage.ts';
import { readSnapshotState } from '../../../src/raft/storage.ts';
import { openError, storageError } from '../../../src/raft/storage-error.ts';

const entry = (index: number, term = 1): Entry => ({
  index,
  term,
  kind: 'normal',
  data: new Uint8Array(100).fill(index),
});
const entries = (from: number, to: number): Entry[] =>
  Array.from({ length: to - from + 1 }, (_, i) => entry(from + i));
const hardState = { term: 1, vote: 7, commit: 3 };

async function inFolder(run: (folder: string) => Promise<void>): Promise<void> {
  const parent = await mkdtemp(join(tmpdir(), 'swarmd-level-'));
  try {
    await run(join(parent, 'raft'));
  } finally {
    await rm(parent, { recursive: true, force: true });
  }
}

async function written(
  folder: string,
  run: (storage: LevelStorage) => Promise<void> = async () => {},
): Promise<void> {
  const storage = await LevelStorage.open(folder);
  await storage.load();
  await storage.initialise(7, { hardState, entries: entries(1, 5) });
  await run(storage);
  await storage.close();
}

/** Changes the database behind the storage's back. */
async function tamper(
  folder: string,
  run: (db: Level<Uint8Array, Uint8Array>) => Promise<void>,
): Promise<void> {
  const db = new Level<Uint8Array, Uint8Array>(folder, { keyEncoding: 'view', valueEncoding: 'view' });
  await db.open();
  await run(db);
  await db.close();
}

async function flip(db: Level<Uint8Array, Uint8Array>, key: Uint8Array, at: number): Promise<void> {
  const value = new Uint8Array((await db.get(key)) as Uint8Array);
  value[at] = (value[at] ?? 0) ^ 1;
  await db.put(key, value);
}

async function refusal(folder: string): Promise<SwarmdError> {
  const storage = await LevelStorage.open(folder);
  try {
    await storage.load();
  } catch (error) {
    assert.ok(error instanceof SwarmdError);
    return error;
  } finally {
    await storage.close();
  }
  throw new Error('the damaged log was accepted');
}

/** Writes a second batch, which cuts the journal by `bytes` afterwards. */
async function writtenAndCut(folder: string, bytes: number, isAcknowledged: boolean): Promise<void> {
  let before = new Uint8Array();
  await written(folder, async (storage) => {
    before = await readFile(join(folder, 'witness'));
    await storage.append({ hardState: { ...hardState, term: 2, vote: 9 }, entries: entries(6, 8) });
  });
  if (!isAcknowledged) await writeFile(join(folder, 'witness'), before);
  const [log = ''] = (await readdir(folder)).filter((name) => name.endsWith('.log'));
  const { size } = await stat(join(folder, log));
  await truncate(join(folder, log), size - bytes);
}

describe('a torn tail', () => {
  for (const bytes of [1, 100, 300]) {
    test(`is cut (${bytes} bytes lost): the batch that was being written vanishes whole`, async () => {
      await inFolder(async (folder) => {
        await writtenAndCut(folder, bytes, false);
        const storage = await LevelStorage.open(folder);
        const state = await storage.load();
        await storage.close();
        assert.deepEqual(state.entries, entries(1, 5));
        assert.deepEqual(state.hardState, hardState);
      });
    });

    test(`of a batch that was acknowledged (${bytes} bytes lost) is damage, at every start`, async () => {
      await inFolder(async (folder) => {
        await writtenAndCut(folder, bytes, true);
        for (let start = 0; start < 2; start++) {
          const error = await refusal(folder);
          assert.equal(error.code, 'CORRUPT');
          assert.match(error.message, /its end is missing: it ends with .* entry 5, .* entry 8\./);
        }
      });
    });
  }

  test('entries beyond the last acknowledged one are cut', async () => {
    await inFolder(async (folder) => {
      await written(folder);
      await tamper(folder, (db) => db.put(entryKey(6), Uint8Array.of(1, 2, 3)));
      const storage = await LevelStorage.open(folder);
      assert.equal((await storage.load()).entries.length, 5);
      await storage.close();
      await tamper(folder, async (db) => assert.equal(await db.get(entryKey(6)), undefined));
    });
  });
});

describe('damage', () => {
  const cases: Record<string, { harm: (db: Level<Uint8Array, Uint8Array>) => Promise<void>; says: RegExp }> =
    {
      'a bit flipped in an entry': {
        harm: (db) => flip(db, entryKey(3), 30),
        says: /entry 3 fails its checksum/,
      },
      'a bit flipped in the last entry': { harm: (db) => flip(db, entryKey(5), 30), says: /entry 5 fails/ },
      'a missing entry': { harm: (db) => db.del(entryKey(2)), says: /entry 2 is missing/ },
      'a missing last entry': { harm: (db) => db.del(entryKey(5)), says: /entry 5 is missing/ },
      'an entry under another key': {
        harm: async (db) => db.put(entryKey(4), (await db.get(entryKey(3))) as Uint8Array),
        says: /entry 4 fails its checksum/,
      },
      'a damaged hard state': { harm: (db) => flip(db, HARD_STATE_KEY, 12), says: /term and vote/ },
      'a lost hard state': { harm: (db) => db.del(HARD_STATE_KEY), says: /term and vote/ },
      'a lost owner': { harm: (db) => db.del(META_KEY), says: /owner is missing/ },
      'a damaged owner': { harm: (db) => flip(db, META_KEY, 6), says: /owner is damaged/ },
    };
  for (const [title, { harm, says }] of Object.entries(cases)) {
    test(`${title} keeps the member from starting, and the message says what to do`, async () => {
      await inFolder(async (folder) => {
        await written(folder);
        await tamper(folder, harm);
        const error = await refusal(folder);
        assert.equal(error.code, 'CORRUPT');
        assert.match(error.message, says);
        assert.match(error.message, /join again/);
        assert.ok(error.message.includes(folder));
      });
    });
  }

  test('an entry that a later write had replaced is noticed when it is back', async () => {
    await inFolder(async (folder) => {
      await written(folder);
      let replaced: Uint8Array = new Uint8Array();
      await tamper(folder, async (db) => {
        replaced = (await db.get(entryKey(5))) as Uint8Array;
      });
      const storage = await LevelStorage.open(folder);
      await storage.load();
      await storage.append({ hardState: { ...hardState, term: 2 }, entries: [entry(5, 2)] });
      await storage.append({ hardState: { ...hardState, term: 2 }, entries: [entry(6, 2)] });
      await storage.close();
      await tamper(folder, (db) => db.put(entryKey(5), replaced));
      assert.match((await refusal(folder)).message, /entry 5 is not the one that entry 6 was written after/);
    });
  });

  test('a damaged snapshot is noticed when it is read', async () => {
    await inFolder(async (folder) => {
      const snapshot = { index: 4, term: 1, config: EMPTY_CONFIG, data: new Uint8Array(0) };
      await written(folder, (storage) =>
        storage.saveSnapshot(snapshot, new Uint8Array(10), { index: 2, term: 1 }),
      );
      await tamper(folder, (db) => flip(db, chunkKey(1, 0), 8));
      const storage = await LevelStorage.open(folder);
      await storage.load();
      await assert.rejects(readSnapshotState(storage, 4, 1), { code: 'CORRUPT' });
      await storage.close();
      await tamper(folder, (db) => flip(db, SNAPSHOT_KEY, 8));
      assert.equal((await refusal(folder)).code, 'CORRUPT');
    });
  });

  test('leftovers of a crash are not damage: they are removed', async () => {
    await inFolder(async (folder) => {
      const snapshot = { index: 4, term: 1, config: EMPTY_CONFIG, data: new Uint8Array(0) };
      await written(folder, (storage) =>
        storage.saveSnapshot(snapshot, new Uint8Array(10), { index: 2, term: 1 }),
      );
      await tamper(folder, async (db) => {
        await db.put(entryKey(1), Uint8Array.of(1));
        await db.put(chunkKey(5, 0), Uint8Array.of(1));
      });
      const storage = await LevelStorage.open(folder);
      assert.deepEqual((await storage.load()).entries, entries(3, 5));
      await storage.close();
      await tamper(folder, async (db) => {
        assert.equal(await db.get(entryKey(1)), undefined);
        assert.equal(await db.get(chunkKey(5, 0)), undefined);
        assert.notEqual(await db.get(chunkKey(1, 0)), undefined);
      });
    });
  });
});

describe('the folder', () => {
  test('is locked against a second process', async () => {
    await inFolder(async (folder) => {
      const storage = await LevelStorage.open(folder);
      const source = resolve(import.meta.dirname, '../../../src/raft/level-storage.ts');
      const program = `import { LevelStorage } from ${JSON.stringify(source)};
        LevelStorage.open(${JSON.stringify(folder)}).catch((error) => console.log(error.code, error.message));`;
      const args = ['--input-type=module-typescript', '-e', program];
      const { stdout } = await promisify(execFile)(process.execPath, args);
      assert.match(stdout, /^LOCKED .*in use by another process/);
      assert.ok(stdout.includes(folder));
      await storage.close();
    });
  });

  test('that cannot be made is reported by name', async () => {
    await inFolder(async (folder) => {
      await writeFile(folder, 'a file, not a folder');
      await assert.rejects(LevelStorage.open(folder), (error: SwarmdError) => error.message.includes(folder));
    });
  });

  test('after a failed write nothing is written any more', async () => {
    await inFolder(async (folder) => {
      const storage = await LevelStorage.open(folder);
      await storage.load();
      await storage.close();
      await assert.rejects(storage.initialise(7, { hardState, entries: [] }), { code: 'UNAVAILABLE' });
      await assert.rejects(storage.append({ hardState, entries: [] }), { code: 'UNAVAILABLE' });
    });
  });
});

describe('errors of the disk', () => {
  const cause = (message: string, code: string): Error => Object.assign(new Error(message), { code });

  test('a full disk is RESOURCE_EXHAUSTED', () => {
    const error = storageError(
      '/x',
      'write',
      cause('IO error: /x/3.log: No space left on device', 'LEVEL_IO_ERROR'),
    );
    assert.equal(error.code, 'RESOURCE_EXHAUSTED');
    assert.match(error.message, /\/x is full; free space/);
    assert.equal(storageError('/x', 'write', cause('write', 'ENOSPC')).code, 'RESOURCE_EXHAUSTED');
  });

  test('others name the folder and what to do', () => {
    const failed = storageError('/x', 'write', cause('IO error: Input/output error', 'LEVEL_IO_ERROR'));
    assert.equal(failed.code, 'UNAVAILABLE');
    assert.match(failed.message, /\/x cannot be written.*check the disk/);
    assert.equal(
      storageError('/x', 'read', cause('Corruption: bad block', 'LEVEL_CORRUPTION')).code,
      'CORRUPT',
    );
    const denied = new Error('not open', { cause: cause('EACCES: permission denied, mkdir', 'EACCES') });
    assert.equal(openError('/x', denied).code, 'PERMISSION_DENIED');
    const locked = new Error('not open', { cause: cause('IO error: lock', 'LEVEL_LOCKED') });
    assert.equal(openError('/x', locked).code, 'LOCKED');
  });
});
