/**
 * What support looks at offline: a snapshot file and the log in a data folder, in words.
 *
 * Invariant: names, kinds and sizes only; never the content of a secret or config, a key or a token.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { SwarmdError } from '../base/errors.ts';
import type { Action } from '../manager/state/actions.ts';
import { decodeBatch, decodeCheckpoint } from '../manager/state/codec.ts';
import { type TableName, tableNames, type Tables } from '../model/objects.ts';
import { type InspectedEntry, inspectLog, type LogInspection } from '../raft/log-inspection.ts';
import { readIdentity } from './identity.ts';
import { lockFolder } from './lock.ts';
import { readSnapshotFile, type SnapshotHeader } from './snapshot-file.ts';

/** What `snapshot inspect` says. */
export interface SnapshotReport extends Omit<SnapshotHeader, 'format'> {
  readonly stateBytes: number;
  readonly checksum: string;
  readonly checksumOk: boolean;
  /** Objects a table; null when the state cannot be read. */
  readonly counts: Readonly<Record<TableName, number>> | null;
}

/** Reads a snapshot file. NOT_FOUND, PERMISSION_DENIED or CORRUPT (it is none); damage is in the report. */
export async function inspectSnapshot(path: string): Promise<SnapshotReport> {
  const { header, state, checksumOk, checksum } = await readSnapshotFile(path);
  const { format: _format, ...told } = header;
  const contents = checksumOk ? decodeCheckpoint(state) : null;
  const counts =
    contents?.ok === true
      ? (Object.fromEntries(
          tableNames.map((table) => [table, contents.value.tables[table].length]),
        ) as Record<TableName, number>)
      : null;
  return { ...told, stateBytes: state.length, checksum, checksumOk, counts };
}

/** One line a listed entry. */
export interface EntryLine {
  readonly index: number;
  readonly term: number;
  readonly kind: InspectedEntry['kind'];
  readonly bytes: number;
  readonly crcOk: boolean;
  readonly what: string;
}

/** What `log inspect` says. */
export interface LogReport extends LogInspection {
  readonly dataDir: string;
  readonly nodeId: string | null;
  readonly clusterId: string | null;
  /** Entries by the kind of their first action; config changes and empty ones are under {@link counts}. */
  readonly actions: Readonly<Record<string, number>>;
  readonly entries: readonly EntryLine[];
}

/** Entries listed at once; a longer range is refused. */
export const LOG_LINES_MAX = 10_000;

/**
 * Reads the log of a manager that does not run. LOCKED while its daemon does, NOT_FOUND where there is no log.
 * `range`: entries to list, both ends included.
 */
export async function inspectFolder(
  dataDir: string,
  range: { readonly from: number; readonly to: number } | null,
): Promise<LogReport> {
  if (range !== null && range.to - range.from >= LOG_LINES_MAX) {
    throw new SwarmdError(
      'INVALID_ARGUMENT',
      `at most ${LOG_LINES_MAX} entries are listed at once; give a shorter range`,
    );
  }
  const folder = join(dataDir, 'raft');
  const isThere = await stat(folder).then(
    (found) => found.isDirectory(),
    () => false,
  );
  if (!isThere) {
    throw new SwarmdError(
      'NOT_FOUND',
      `there is no raft log in ${dataDir}; name the folder of a manager with --data-dir`,
    );
  }
  const lock = await lockFolder(dataDir);
  try {
    const identity = (await readIdentity(dataDir).catch(() => null))?.identity;
    const actions: Record<string, number> = {};
    const entries: EntryLine[] = [];
    const log = await inspectLog(folder, (entry) => {
      const isListed = range !== null && entry.index >= range.from && entry.index <= range.to;
      const said = describeEntry(entry);
      if (said.first !== null) actions[said.first] = (actions[said.first] ?? 0) + 1;
      if (!isListed) return;
      const { index, term, kind, bytes, crcOk } = entry;
      entries.push({ index, term, kind, bytes, crcOk, what: said.what });
    });
    return {
      ...log,
      dataDir,
      nodeId: identity?.nodeId ?? null,
      clusterId: identity?.clusterId ?? null,
      actions,
      entries,
    };
  } finally {
    await lock.release();
  }
}

/** Actions named in one line. */
const ACTIONS_SHOWN = 5;

function describeEntry(entry: InspectedEntry): { readonly what: string; readonly first: string | null } {
  if (entry.kind === 'damaged') return { what: 'fails its checksum', first: null };
  if (entry.kind === 'empty') return { what: 'a new leader began its term', first: null };
  if (entry.kind === 'config') return { what: describeChange(entry), first: null };
  const batch = decodeBatch(entry.data ?? new Uint8Array());
  if (!batch.ok) return { what: `not readable: ${batch.reason}`, first: 'unreadable' };
  const { at, actions } = batch.value;
  const shown = actions.slice(0, ACTIONS_SHOWN).map(describeAction);
  const more = actions.length > ACTIONS_SHOWN ? [`and ${actions.length - ACTIONS_SHOWN} more`] : [];
  const [first] = actions;
  return {
    what: `${new Date(at).toISOString()} ${[...shown, ...more].join('; ')}`,
    first: first === undefined ? 'nothing' : 'table' in first ? `${first.kind} ${first.table}` : first.kind,
  };
}

function describeChange({ change }: InspectedEntry): string {
  if (change === null) return 'a change of the group that cannot be read';
  if (change.steps.length === 0) return 'the joint configuration is left';
  const steps = change.steps.map(({ kind, id }) => {
    const contact = change.contacts.find((one) => one.id === id);
    return contact === undefined ? `${kind} ${id}` : `${kind} ${id} (${contact.address})`;
  });
  const expelled = change.contacts.filter((contact) => contact.expelled === true).map(({ id }) => id);
  return [...steps, ...(expelled.length === 0 ? [] : [`expelled: ${expelled.join(', ')}`])].join('; ');
}

function describeAction(action: Action): string {
  switch (action.kind) {
    case 'create':
    case 'update':
      return `${action.kind} ${action.table} ${nameOf(action.table, action.object)}`;
    case 'delete':
      return `delete ${action.table} ${action.id}`;
    case 'patch-task':
      return `patch-task ${action.id} ${Object.keys(action.patch).join(',')}`;
    case 'report-task':
      return `report-task ${action.id} ${action.status.state}`;
  }
}

function nameOf<T extends TableName>(table: T, object: Tables[T]): string {
  switch (table) {
    case 'node':
      return `${object.id} (${(object as Tables['node']).description.hostname})`;
    case 'task': {
      const task = object as Tables['task'];
      return `${object.id} (${task.serviceAnnotations.name}.${task.slot})`;
    }
    case 'cluster':
      return object.id;
    default:
      return (object as Tables['service' | 'network' | 'secret' | 'config']).spec.name;
  }
}
