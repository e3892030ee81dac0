/**
 * Looking at a log while no member runs on it: what is there, and whether it passes its checks.
 *
 * Unlike opening a member, this goes on after damage, names it, and changes no record (the database may replay its
 * own journal, as every opening of it does).
 */
import { configChangeOf, decodeConfigChange } from './core/config-codec.ts';
import type { ConfigChange } from './core/membership.ts';
import type { Entry, HardState } from './core/types.ts';
import { committedGroup } from './forced-start.ts';
import { chunksOf, entriesFrom, entryIndexOf, HARD_STATE_KEY, META_KEY, SNAPSHOT_KEY } from './keys.ts';
import { type LogRecords, openRecords } from './level-database.ts';
import { type Contact, parseContacts } from './members.ts';
import { lossSince, readWitness } from './log-witness.ts';
import {
  decodeChunkRecord,
  decodeEntry,
  decodeHardState,
  decodeMeta,
  decodeSnapshotRecord,
  type SnapshotRecord,
  type WitnessRecord,
} from './records.ts';
import type { RaftMember } from './types.ts';

/** An entry as it is listed. */
export interface InspectedEntry {
  readonly index: number;
  /** False when it fails its checksum: nothing else of it is known then. */
  readonly crcOk: boolean;
  readonly term: number;
  readonly kind: 'normal' | 'config' | 'empty' | 'damaged';
  readonly bytes: number;
  /** Of a `normal` entry. */
  readonly data: Uint8Array | null;
  /** Of a `config` entry. */
  readonly change: { readonly steps: ConfigChange['steps']; readonly contacts: readonly Contact[] } | null;
}

/** What a log holds. */
export interface LogInspection {
  /** Null when the log has no readable owner. */
  readonly memberId: number | null;
  readonly hardState: HardState | null;
  /** The group as of the last entry known to be committed. */
  readonly members: readonly RaftMember[];
  readonly expelled: readonly number[];
  readonly snapshot: {
    readonly index: number;
    readonly term: number;
    readonly bytes: number;
    readonly chunks: number;
  } | null;
  /** Of the entries held; 0 and 0 when there are none. */
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly counts: Readonly<Record<InspectedEntry['kind'], number>>;
  readonly bytes: number;
  /** What fails a check, in words; empty for a log in order. */
  readonly damage: readonly string[];
}

/** Reads the log in `folder`; `onEntry` hears of every entry in order. Rejects when the folder cannot be opened. */
export async function inspectLog(
  folder: string,
  onEntry: (entry: InspectedEntry) => void,
): Promise<LogInspection> {
  const records = await openRecords(folder);
  try {
    return await inspect(records, readWitness(folder), onEntry);
  } finally {
    await records.close();
  }
}

async function inspect(
  records: LogRecords,
  witness: WitnessRecord | null,
  onEntry: (entry: InspectedEntry) => void,
): Promise<LogInspection> {
  const damage: string[] = [];
  const memberId = decoded(await records.get(META_KEY), decodeMeta, 'owner', damage)?.memberId ?? null;
  const stored = decoded(await records.get(HARD_STATE_KEY), decodeHardState, 'term and vote', damage);
  const loss = lossSince(witness, stored ?? { writes: 0, lastIndex: 0 });
  if (loss !== null) damage.push(`of the log ${loss}`);
  const snapshot = await readSnapshot(records, damage);
  const held = await readEntries(records, snapshot, stored?.lastIndex ?? null, onEntry, damage);
  const hardState = stored?.hardState ?? null;
  const lastIndex = held.last === 0 ? (snapshot?.compactedIndex ?? 0) : held.last;
  if (hardState !== null && hardState.commit > lastIndex)
    damage.push(`committed entry ${hardState.commit} is missing`);
  const group = committedGroup({
    snapshot: snapshot?.snapshot ?? null,
    hardState: hardState ?? { term: 0, vote: 0, commit: held.last },
    entries: held.config,
  });
  return {
    memberId,
    hardState,
    members: group.list,
    expelled: group.expelled,
    snapshot:
      snapshot === null
        ? null
        : {
            index: snapshot.snapshot.index,
            term: snapshot.snapshot.term,
            bytes: snapshot.bytes,
            chunks: snapshot.chunks,
          },
    firstIndex: held.first,
    lastIndex: held.last,
    counts: held.counts,
    bytes: held.bytes,
    damage,
  };
}

function decoded<T>(
  bytes: Uint8Array | null,
  decode: (bytes: Uint8Array) => T | null,
  what: string,
  damage: string[],
): T | null {
  if (bytes === null) {
    damage.push(`the record of ${what} is missing`);
    return null;
  }
  const value = decode(bytes);
  if (value === null) damage.push(`the record of ${what} fails its checksum`);
  return value;
}

async function readSnapshot(records: LogRecords, damage: string[]): Promise<SnapshotRecord | null> {
  const bytes = await records.get(SNAPSHOT_KEY);
  const record = bytes === null ? null : decoded(bytes, decodeSnapshotRecord, 'the snapshot', damage);
  if (record === null) return null;
  let chunk = 0;
  for await (const [, value] of records.range(chunksOf(record.id))) {
    if (decodeChunkRecord(chunk, value) === null)
      damage.push(`chunk ${chunk} of the snapshot fails its checksum`);
    chunk++;
  }
  if (chunk !== record.chunks) damage.push(`the snapshot has ${chunk} of ${record.chunks} chunks`);
  return record;
}

interface Held {
  first: number;
  last: number;
  bytes: number;
  readonly counts: Record<InspectedEntry['kind'], number>;
  readonly config: Entry[];
}

async function readEntries(
  records: LogRecords,
  snapshot: SnapshotRecord | null,
  lastIndex: number | null,
  onEntry: (entry: InspectedEntry) => void,
  damage: string[],
): Promise<Held> {
  const held: Held = {
    first: 0,
    last: 0,
    bytes: 0,
    counts: { normal: 0, config: 0, empty: 0, damaged: 0 },
    config: [],
  };
  const begin = (snapshot?.compactedIndex ?? 0) + 1;
  /** Of the entry before; null where that one is not known. */
  let term: number | null = snapshot?.compactedTerm ?? 0;
  let expected = begin;
  for await (const [key, value] of records.range(entriesFrom(begin))) {
    const index = entryIndexOf(key);
    if (index === null) {
      damage.push('a key of the log is damaged');
      continue;
    }
    // Left by a write that was cut short, and removed at the next start.
    if (lastIndex !== null && index > lastIndex) break;
    if (index !== expected) {
      damage.push(`entries ${expected} to ${index - 1} are missing`);
      term = null;
    }
    expected = index + 1;
    const stored = decodeEntry(index, value);
    const entry = stored?.entry ?? null;
    const shown = inspectedEntry(index, value, entry);
    if (entry === null) damage.push(`entry ${index} fails its checksum`);
    else if (entry.term < (term ?? 0)) damage.push(`entry ${index} is of an older term than the one before`);
    else if (term !== null && stored?.previousTerm !== term)
      damage.push(`entry ${index - 1} is not the one that entry ${index} was written after`);
    else if (entry.kind === 'config' && decodeConfigChange(entry.data) === null)
      damage.push(`entry ${index} holds no readable change of the group`);
    else if (entry.kind === 'config') held.config.push(entry);
    term = entry?.term ?? null;
    if (held.first === 0) held.first = index;
    held.last = index;
    held.bytes += shown.bytes;
    held.counts[shown.kind]++;
    onEntry(shown);
  }
  if (lastIndex !== null && expected <= lastIndex)
    damage.push(`entries ${expected} to ${lastIndex} are missing`);
  return held;
}

function inspectedEntry(index: number, value: Uint8Array, entry: Entry | null): InspectedEntry {
  if (entry === null) {
    return { index, crcOk: false, term: 0, kind: 'damaged', bytes: value.length, data: null, change: null };
  }
  const { term, data } = entry;
  const common = { index, crcOk: true, term, bytes: data.length };
  if (entry.kind === 'normal')
    return { ...common, kind: data.length === 0 ? 'empty' : 'normal', data, change: null };
  if (decodeConfigChange(data) === null) return { ...common, kind: 'config', data: null, change: null };
  const { steps, context } = configChangeOf(data);
  return { ...common, kind: 'config', data: null, change: { steps, contacts: parseContacts(context) ?? [] } };
}
