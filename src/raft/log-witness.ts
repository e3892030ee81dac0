/**
 * A witness beside the database: how far the log had been written when this member last said so to anybody.
 *
 * The database cannot tell a tail that was lost later from a write that a crash cut short: it drops both in silence.
 * The first may hold votes and entries that this member acknowledged, the second never does. So every write is
 * numbered, and its number goes into this file after it is durable and before anybody hears of it. A log that ends
 * before its witness has lost what was acknowledged.
 *
 * Data owned: the file `witness` in the folder of the database, which ignores it.
 * Invariants: the witness never runs ahead of the durable log. It is not synced: it survives the end of the process,
 * and lags behind after a loss of power, by what the system had not written back. One that is missing or unreadable
 * proves nothing.
 */
import { closeSync, constants, fdatasyncSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { assert } from '../base/assert.ts';
import { systemErrorCode } from '../base/errors.ts';
import { decodeWitness, encodeWitness, type WitnessRecord } from './records.ts';

const NAME = 'witness';

/** Reads the witness of the log in `folder`; null when there is none to be believed. */
export function readWitness(folder: string): WitnessRecord | null {
  try {
    return decodeWitness(readFileSync(join(folder, NAME)));
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return null;
    throw error;
  }
}

/** What the log, at its `writes`-th write and ending at `lastIndex`, has lost of what is witnessed; null for nothing. */
export function lossSince(
  witness: WitnessRecord | null,
  log: { readonly writes: number; readonly lastIndex: number },
): string | null {
  const lost = (witness?.writes ?? 0) - log.writes;
  if (witness === null || lost <= 0) return null;
  return (
    `its end is missing: it ends with write ${log.writes} and entry ${log.lastIndex}, but was written up to ` +
    `write ${witness.writes} and entry ${witness.lastIndex}`
  );
}

/** The witness of a log that is being written. */
export class LogWitness {
  readonly #fd: number;
  #isOpen = true;

  /** Opens (and creates) the witness of the log in `folder`. Throws the system's error. */
  constructor(folder: string) {
    this.#fd = openSync(join(folder, NAME), constants.O_RDWR | constants.O_CREAT, 0o600);
  }

  /** Notes a write that is durable. Throws the system's error. */
  note(record: WitnessRecord): void {
    assert(this.#isOpen, 'a log is written only while it is open');
    writeSync(this.#fd, encodeWitness(record), 0, undefined, 0);
  }

  /** Syncs and closes; safe to call twice. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    try {
      fdatasyncSync(this.#fd);
    } finally {
      closeSync(this.#fd);
    }
  }
}
