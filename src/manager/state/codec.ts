/**
 * Bytes of batches and checkpoints, in MessagePack.
 *
 * Invariant: every encoding stands alone (no shared record structures that live in memory only), so that an
 * entry can be read by any later process.
 */
import { Packr, Unpackr } from 'msgpackr';
import { errorMessage } from '../../base/errors.ts';
import { ok, refuse, type Result } from '../../base/result.ts';
import { tableNames } from '../../model/objects.ts';
import type { Action, Batch } from './actions.ts';
import { isOutcomeKey } from './outcomes.ts';
import type { StoreContents } from './store.ts';

const packr = new Packr({ useRecords: false });
const unpackr = new Unpackr({ useRecords: false, int64AsType: 'number' });

/** Format of a checkpoint; a reader refuses another. */
const CHECKPOINT_FORMAT = 1;

export function encodeBatch(batch: Batch): Uint8Array {
  return packr.pack(batch);
}

/** Decodes an entry; a refusal says why it is none. */
export function decodeBatch(data: Uint8Array): Result<Batch> {
  try {
    const value: unknown = unpackr.unpack(data);
    if (isBatch(value)) return ok(value);
    return refuse('the entry is not a batch of actions');
  } catch (error) {
    return refuse(`the entry cannot be decoded: ${errorMessage(error)}`);
  }
}

const actionKinds: ReadonlySet<unknown> = new Set<Action['kind']>([
  'create',
  'update',
  'delete',
  'patch-task',
  'report-task',
]);

function isBatch(value: unknown): value is Batch {
  if (typeof value !== 'object' || value === null) return false;
  if (!('at' in value) || typeof value.at !== 'number') return false;
  if ('once' in value && value.once !== undefined && !isOutcomeKey(value.once)) return false;
  if (!('actions' in value) || !Array.isArray(value.actions)) return false;
  return value.actions.every((action: unknown) => {
    if (typeof action !== 'object' || action === null || !('kind' in action)) return false;
    return actionKinds.has(action.kind);
  });
}

export function encodeCheckpoint(contents: StoreContents): Uint8Array {
  return packr.pack({ format: CHECKPOINT_FORMAT, ...contents });
}

/** Decodes a checkpoint; a refusal says why it is none. */
export function decodeCheckpoint(data: Uint8Array): Result<StoreContents> {
  try {
    const value = unpackr.unpack(data) as Partial<StoreContents> & { format?: unknown };
    if (value.format !== CHECKPOINT_FORMAT)
      return refuse(`checkpoint format ${String(value.format)} is not known`);
    const tables = value.tables;
    if (typeof value.index !== 'number' || tables === undefined)
      return refuse('the checkpoint has no index or tables');
    if (!tableNames.every((table) => Array.isArray(tables[table])))
      return refuse('the checkpoint lacks a table');
    const outcomes = value.outcomes ?? [];
    if (!Array.isArray(outcomes)) return refuse('the checkpoint has no list of outcomes');
    return ok({ index: value.index, tables, outcomes });
  } catch (error) {
    return refuse(`the checkpoint cannot be decoded: ${errorMessage(error)}`);
  }
}
