/**
 * Damage to the files of a log, of any kind and anywhere: the member starts with exactly what it acknowledged, or it
 * does not start. The database checks less than that by itself.
 */
import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { SwarmdError } from '../../../src/base/errors.ts';
import { EMPTY_CONFIG, type Entry } from '../../../src/raft/core/types.ts';
import { LevelStorage } from '../../../src/raft/level-storage.ts';
import { inspectLog } from '../../../src/raft/log-inspection.ts';
import { crc32c, tableDamage } from '../../../src/raft/table-check.ts';
import { readSnapshotState, type StoredState } from '../../../src/raft/storage.ts';

const CASES = 60;
const SNAPSHOT = { index: 20, term: 1, config: EMPTY_CONFIG, data: new Uint8Array(0) };

const run = (from: number, to: number, term: number): Entry[] =>
  Array.from({ length: to - from + 1 }, (_, i) => ({
    index: from + i,
    term,
    kind: 'normal',
    data: new Uint8Array(1500).fill(from + i + term),
  }));
const hard = (term: number, commit: number) => ({ term, vote: term + 1, commit });

/** Everything a member reads when it starts. */
async function read(folder: string): Promise<{ state: StoredState; snapshot: Uint8Array | null }> {
  const storage = await LevelStorage.open(folder);
  try {
    const state = await storage.load();
    return { state, snapshot: await readSnapshotState(storage, SNAPSHOT.index, SNAPSHOT.term) };
  } finally {
    await storage.close();
  }
}

async function opened(folder: string, work: (storage: LevelStorage) => Promise<void>): Promise<void> {
  const storage = await LevelStorage.open(folder);
  await storage.load();
  await work(storage);
  await storage.close();
}

/** Entries in the journal and in tables, some of them replaced, votes between them. */
async function write(folder: string): Promise<void> {
  await opened(folder, async (storage) => {
    await storage.initialise(7, { hardState: hard(1, 0), entries: run(1, 30, 1) });
    await storage.saveSnapshot(SNAPSHOT, new Uint8Array(20_000).fill(5), { index: 10, term: 1 });
    await storage.append({ hardState: hard(2, 25), entries: [] });
    await storage.append({ hardState: hard(3, 25), entries: run(29, 32, 3) });
  });
  await opened(folder, async (storage) => {
    for (let index = 33; index < 60; index++)
      await storage.append({ hardState: hard(3, index - 1), entries: run(index, index, 3) });
    await storage.append({ hardState: hard(4, 58), entries: run(59, 61, 4) });
    await storage.append({ hardState: hard(5, 58), entries: [] });
    for (let index = 60; index < 70; index++)
      await storage.append({ hardState: hard(6, 58), entries: run(index, index, 6) });
  });
}

test('CRC-32C is that of its definition', () => {
  const text = new TextEncoder().encode('123456789');
  assert.equal(crc32c(text), 0xe3069283);
  assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa);
});

describe('a damaged file', () => {
  let parent: string;
  let whole: string;
  let expected: Awaited<ReturnType<typeof read>>;
  let files: string[];
  let copies = 0;

  before(async () => {
    parent = mkdtempSync(join(tmpdir(), 'swarmd-damage-'));
    whole = join(parent, 'whole');
    await write(whole);
    const copy = join(parent, 'expected');
    cpSync(whole, copy, { recursive: true });
    expected = await read(copy);
    files = readdirSync(whole).filter((name) => /^(CURRENT|MANIFEST-.*|.*\.(ldb|log))$/.test(name));
  });
  after(() => rmSync(parent, { recursive: true }));

  /** What comes of a copy of the log that `harm` changed: the whole state, or a refusal; nothing else. */
  async function outcome(harm: (folder: string) => void): Promise<'whole' | 'refused'> {
    const folder = join(parent, `copy-${copies++}`);
    cpSync(whole, folder, { recursive: true });
    harm(folder);
    try {
      assert.deepEqual(await read(folder), expected);
      return 'whole';
    } catch (error) {
      if (!(error instanceof SwarmdError)) throw error;
      assert.equal(error.code, 'CORRUPT', error.message);
      // It stays refused: nothing that the first attempt did makes it look whole.
      await assert.rejects(read(folder), { code: 'CORRUPT' });
      return 'refused';
    } finally {
      rmSync(folder, { recursive: true });
    }
  }
  const position = fc.double({ min: 0, max: 0.999999, noNaN: true });
  const named = (file: number): string => files[file % files.length] ?? '';

  test('with a bit flipped is noticed, or did not matter', async () => {
    const property = fc.asyncProperty(fc.nat(), position, fc.nat(7), async (chosen, at, bit) => {
      const file = named(chosen);
      await outcome((folder) => {
        const bytes = readFileSync(join(folder, file));
        const offset = Math.floor(at * bytes.length);
        bytes[offset] = (bytes[offset] ?? 0) ^ (1 << bit);
        writeFileSync(join(folder, file), bytes);
      });
    });
    await fc.assert(property, { numRuns: CASES });
  });

  test('with its end cut off is refused', async () => {
    const property = fc.asyncProperty(fc.nat(), position, async (chosen, at) => {
      const file = named(chosen);
      const cut = (folder: string): void => {
        const { length } = readFileSync(join(folder, file));
        truncateSync(join(folder, file), Math.floor(at * length));
      };
      assert.equal(await outcome(cut), 'refused', file);
    });
    await fc.assert(property, { numRuns: CASES });
  });

  test('with a page of zeros is noticed, or did not matter', async () => {
    const property = fc.asyncProperty(fc.nat(), fc.nat(30), async (chosen, page) => {
      const file = named(chosen);
      await outcome((folder) => {
        const bytes = readFileSync(join(folder, file));
        const from = (page * 4096) % bytes.length;
        bytes.fill(0, from, Math.min(bytes.length, from + 4096));
        writeFileSync(join(folder, file), bytes);
      });
    });
    await fc.assert(property, { numRuns: CASES });
  });

  test('that is missing is refused, and the inspector names what is gone', async () => {
    for (const file of files) {
      assert.equal(await outcome((folder) => rmSync(join(folder, file))), 'refused', file);
    }
    const folder = join(parent, 'inspected');
    cpSync(whole, folder, { recursive: true });
    for (const file of files.filter((name) => name.endsWith('.log'))) rmSync(join(folder, file));
    const { damage } = await inspectLog(folder, () => {});
    assert.match(damage.join('\n'), /its end is missing/);
  });

  test('of tables alone is found by their checksums, wherever it is', async () => {
    const [name = ''] = files.filter((file) => file.endsWith('.ldb'));
    const table = readFileSync(join(whole, name));
    assert.equal(tableDamage(table), null);
    const property = fc.property(position, fc.nat(7), (at, bit) => {
      // Before the padding of the footer, which holds nothing.
      const offset = Math.floor(at * (table.length - 48));
      const copy = Buffer.from(table);
      copy[offset] = (copy[offset] ?? 0) ^ (1 << bit);
      assert.notEqual(tableDamage(copy), null, `byte ${offset}`);
    });
    fc.assert(property, { numRuns: CASES });
  });

  test('that is the root is missed before anything else is touched', async () => {
    const folder = join(parent, 'rootless');
    await opened(folder, (storage) =>
      storage.initialise(7, { hardState: hard(1, 0), entries: run(1, 3, 1) }),
    );
    rmSync(join(folder, 'CURRENT'));
    const left = readdirSync(folder);
    for (let start = 0; start < 2; start++) {
      await assert.rejects(read(folder), { code: 'CORRUPT', message: /the file CURRENT is missing/ });
      await assert.rejects(
        inspectLog(folder, () => {}),
        { code: 'CORRUPT' },
      );
      assert.deepEqual(readdirSync(folder), left);
    }
  });

  test('after the last acknowledged write is a torn tail: it is cut', async () => {
    const [log = ''] = files.filter((name) => name.endsWith('.log'));
    for (const tail of [Buffer.alloc(3, 7), Buffer.alloc(900, 7), Buffer.alloc(70_000)]) {
      const append = (folder: string): void => writeFileSync(join(folder, log), tail, { flag: 'a' });
      assert.equal(await outcome(append), 'whole');
    }
  });

  test('of the witness alone proves nothing', async () => {
    assert.equal(await outcome((folder) => rmSync(join(folder, 'witness'))), 'whole');
    assert.equal(await outcome((folder) => writeFileSync(join(folder, 'witness'), 'x')), 'whole');
  });
});
