/**
 * Opening the database that a raft log is kept in. The only file that knows the database library.
 *
 * Invariant: a folder whose files are not what the database's own records say is refused; nothing is made anew in it.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Level } from 'level';
import { damaged, openError } from './storage-error.ts';
import { damageInTables, listTables } from './table-check.ts';

type Database = Level<Uint8Array, Uint8Array>;
/** One part of a batch. */
export type Operation =
  | { type: 'put'; key: Uint8Array; value: Uint8Array }
  | { type: 'del'; key: Uint8Array };

/** What is read in pages; an empty page is the end. */
interface Pages<T> {
  nextv(count: number): Promise<T[]>;
  close(): Promise<void>;
}

/** The part of a database that a log is kept in. Keys come in order; a batch is written whole or not at all. */
export interface LogDatabase {
  get(key: Uint8Array): Promise<Uint8Array | undefined>;
  batch(operations: Operation[], options: object): Promise<void>;
  iterator(range: object): Pages<[Uint8Array, Uint8Array]>;
  keys(range: object): Pages<Uint8Array>;
  close(): Promise<void>;
}

/** Bytes of log gathered before they are sorted into a table, which competes with the log's own writes. */
const WRITE_BUFFER_BYTES = 8 * 1024 * 1024;
/** Bytes read ahead when many records are read. */
export const READ_AHEAD_BYTES = 4 * 1024 * 1024;

/** The records of a log as they stand, for who looks at it while no member runs. */
export interface LogRecords {
  get(key: Uint8Array): Promise<Uint8Array | null>;
  /** Records in a range of keys, in order. */
  range(range: {
    readonly gte: Uint8Array;
    readonly lt: Uint8Array;
  }): AsyncIterable<[Uint8Array, Uint8Array]>;
  close(): Promise<void>;
}

/**
 * Opens the database, and checks of its files what it does not check itself.
 * @throws SwarmdError LOCKED, CORRUPT, PERMISSION_DENIED, RESOURCE_EXHAUSTED or UNAVAILABLE
 */
export async function openDatabase(folder: string, createIfMissing: boolean): Promise<Database> {
  try {
    // First, because a database object opens itself in its own time.
    assertRoot(folder);
    const tables = listTables(folder);
    const db: Database = new Level(folder, {
      keyEncoding: 'view',
      valueEncoding: 'view',
      createIfMissing,
      compression: false,
      writeBufferSize: WRITE_BUFFER_BYTES,
    });
    await db.open();
    const damage = damageInTables(folder, tables);
    if (damage === null) return db;
    await db.close();
    throw damaged(folder, damage);
  } catch (error) {
    throw openError(folder, error);
  }
}

/** Without its root file the database would make a new one, and remove what is left of the old. */
function assertRoot(folder: string): void {
  if (!existsSync(folder) || existsSync(join(folder, 'CURRENT'))) return;
  // These are made after it; a crash in the middle of the very first opening leaves none of them.
  const left = readdirSync(folder).filter((name) => /^(.*\.(ldb|log)|witness)$/.test(name));
  if (left.length > 0) throw damaged(folder, `the file CURRENT is missing, beside ${left.join(', ')}`);
}

/** Opens the records of an existing folder. Rejects as {@link LevelStorage.open} does. */
export async function openRecords(folder: string): Promise<LogRecords> {
  const db = await openDatabase(folder, false);
  return {
    get: async (key) => ((await db.get(key)) as Uint8Array | undefined) ?? null,
    range: (range) => db.iterator({ ...range, highWaterMarkBytes: READ_AHEAD_BYTES } as object),
    close: () => db.close(),
  };
}
