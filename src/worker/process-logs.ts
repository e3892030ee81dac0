/**
 * Output of process tasks: raw append-only files written by the task itself, and when their bytes came.
 *
 * A task writes straight to `stdout.log` and `stderr.log`, so nothing stands between it and the disk, and no daemon
 * is needed. The daemon notes in `<file>.times` how long the file was at which time; a line has the time of the
 * first note that covers its start. What is written while no daemon looks gets the file's last change as its time.
 * Over the size bound the file is copied to `.1` and cut to nothing (the task goes on appending at the start);
 * what is written between the copy's last look and the cut, some microseconds, is lost.
 *
 * Invariants: notes only grow, in offset and in time; one writer (the recorder) a task.
 */
import { type FSWatcher, watch } from 'node:fs';
import { appendFile, copyFile, open, readFile, rename, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../base/clock.ts';
import { systemErrorCode } from '../base/errors.ts';
import type { LogRecord } from '../model/wire.ts';

export type LogStream = LogRecord['stream'];
export const logStreams: readonly LogStream[] = ['stdout', 'stderr'];

/** One file of a stream at most; two are kept. */
export const PROCESS_LOG_BYTES_MAX = 10 * 1024 * 1024;
/** A longer line comes in pieces. */
export const LOG_LINE_BYTES_MAX = 16 * 1024;

/** From `offset` (exclusive) of the last note to this one, bytes came at `atMs`. */
export interface TimeNote {
  readonly offset: number;
  readonly atMs: number;
}

export function logPath(folder: string, stream: LogStream): string {
  return join(folder, `${stream}.log`);
}

export function parseNotes(text: string): TimeNote[] {
  const notes: TimeNote[] = [];
  for (const line of text.split('\n')) {
    const [offset, atMs] = line.split(' ').map(Number);
    if (offset !== undefined && atMs !== undefined && Number.isFinite(offset + atMs))
      notes.push({ offset, atMs });
  }
  return notes;
}

/** When the byte at `position` came; `fallbackMs` for bytes no note covers. */
export function timeAt(notes: readonly TimeNote[], position: number, fallbackMs: number): number {
  let low = 0;
  let high = notes.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((notes[middle] as TimeNote).offset > position) high = middle;
    else low = middle + 1;
  }
  return notes[low]?.atMs ?? fallbackMs;
}

/** A piece of a stream cut into lines, and how many bytes of it were used. */
export function cutLines(
  content: Buffer,
  atEnd: boolean,
): { readonly lines: { readonly start: number; readonly text: string }[]; readonly used: number } {
  const lines: { start: number; text: string }[] = [];
  let start = 0;
  while (start < content.length) {
    const newline = content.indexOf(10, start);
    const length = (newline < 0 ? content.length : newline) - start;
    if (length > LOG_LINE_BYTES_MAX) {
      lines.push({ start, text: content.toString('utf8', start, start + LOG_LINE_BYTES_MAX) });
      start += LOG_LINE_BYTES_MAX;
      continue;
    }
    if (newline < 0 && !atEnd) break;
    lines.push({ start, text: content.toString('utf8', start, start + length) });
    start += length + (newline < 0 ? 0 : 1);
  }
  return { lines, used: Math.min(start, content.length) };
}

interface StreamState {
  size: number;
  /** Counts the cuts, for readers that follow. */
  generation: number;
}

/** Notes when output comes, and keeps the files bounded. */
export class LogRecorder {
  readonly #folder: string;
  readonly #clock: Clock;
  readonly #bytesMax: number;
  readonly #streams: Record<LogStream, StreamState> = {
    stdout: { size: 0, generation: 0 },
    stderr: { size: 0, generation: 0 },
  };
  readonly #listeners = new Set<() => void>();
  #watcher: FSWatcher | null = null;
  #work: Promise<void> = Promise.resolve();
  #queued = false;
  #first = true;
  ended = false;

  constructor(folder: string, clock: Clock, bytesMax = PROCESS_LOG_BYTES_MAX) {
    this.#folder = folder;
    this.#clock = clock;
    this.#bytesMax = bytesMax;
    try {
      this.#watcher = watch(folder, (_, name) => {
        if (name?.endsWith('.log') === true) void this.look();
      });
      this.#watcher.on('error', () => this.#watcher?.close());
    } catch {
      // No watches left on this host: the owner's regular looks remain, and times are as coarse as those.
    }
  }

  generation(stream: LogStream): number {
    return this.#streams[stream].generation;
  }

  /** Calls back when there may be more to read. Returns how to stop that. */
  onGrowth(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Looks at both files now; looks never overlap, and those asked for meanwhile are one. */
  look(): Promise<void> {
    if (this.#queued) return this.#work;
    this.#queued = true;
    this.#work = this.#work.then(async () => {
      this.#queued = false;
      try {
        for (const stream of logStreams) await this.#lookAt(stream);
        this.#first = false;
      } catch {
        // The folder went away (the task was removed) or the disk is full: the output itself is the task's own
        // writing, only the times of its lines get coarser until the next look.
      }
      for (const listener of this.#listeners) listener();
    });
    return this.#work;
  }

  /** The task ended: a last look, then no more. */
  async end(): Promise<void> {
    await this.look();
    this.ended = true;
    this.#watcher?.close();
    for (const listener of this.#listeners) listener();
  }

  /** Leaves the files alone from now on, without a last look. */
  close(): void {
    this.#watcher?.close();
  }

  async #lookAt(stream: LogStream): Promise<void> {
    const path = logPath(this.#folder, stream);
    const state = this.#streams[stream];
    const { size, mtimeMs } = await stat(path);
    if (this.#first) state.size = parseNotes(await readIfThere(`${path}.times`)).at(-1)?.offset ?? 0;
    if (size > state.size) {
      // At the first look nobody knows when the bytes came, only when the last of them did.
      const atMs = this.#first ? Math.floor(mtimeMs) : this.#clock.nowMs();
      await appendFile(`${path}.times`, `${size} ${atMs}\n`);
    }
    state.size = size;
    if (size > this.#bytesMax) await this.#cut(stream, path);
  }

  async #cut(stream: LogStream, path: string): Promise<void> {
    await copyFile(path, `${path}.1.new`);
    const source = await open(path, 'r');
    const copy = await open(`${path}.1.new`, 'a');
    try {
      let copied = (await copy.stat()).size;
      for (;;) {
        const { size } = await source.stat();
        if (size <= copied) break;
        const rest = Buffer.alloc(size - copied);
        const { bytesRead } = await source.read(rest, 0, rest.length, copied);
        await copy.appendFile(rest.subarray(0, bytesRead));
        copied += bytesRead;
      }
      await truncate(path, 0);
      await appendFile(`${path}.times`, `${copied} ${this.#clock.nowMs()}\n`);
    } finally {
      await source.close();
      await copy.close();
    }
    await rename(`${path}.1.new`, `${path}.1`);
    await rename(`${path}.times`, `${path}.1.times`);
    this.#streams[stream].size = 0;
    this.#streams[stream].generation += 1;
  }
}

async function readIfThere(path: string): Promise<string> {
  return (await readBytes(path, 0)).toString('utf8');
}

async function readBytes(path: string, from: number): Promise<Buffer> {
  try {
    if (from === 0) return await readFile(path);
    const file = await open(path, 'r');
    try {
      const { size } = await file.stat();
      const buffer = Buffer.alloc(Math.max(0, size - from));
      const { bytesRead } = await file.read(buffer, 0, buffer.length, from);
      return buffer.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return Buffer.alloc(0);
    throw error;
  }
}

/** Where a reader stands in a stream. */
interface Cursor {
  readonly stream: LogStream;
  position: number;
  generation: number;
}

async function recordsFrom(
  path: string,
  stream: LogStream,
  from: number,
  atEnd: boolean,
  fallbackMs: number,
): Promise<{ records: LogRecord[]; used: number }> {
  const content = await readBytes(path, from);
  if (content.length === 0) return { records: [], used: 0 };
  const notes = parseNotes(await readIfThere(`${path}.times`));
  const { lines, used } = cutLines(content, atEnd);
  const records = lines.map(({ start, text }) => ({
    stream,
    atMs: timeAt(notes, from + start, fallbackMs),
    line: text,
  }));
  return { records, used };
}

/** Everything new in a stream since the cursor, which moves on. */
async function advanceCursor(
  folder: string,
  cursor: Cursor,
  recorder: LogRecorder | null,
  atEnd: boolean,
  nowMs: number,
): Promise<LogRecord[]> {
  const path = logPath(folder, cursor.stream);
  const records: LogRecord[] = [];
  const generation = recorder?.generation(cursor.stream) ?? cursor.generation;
  if (generation !== cursor.generation) {
    const from = generation === cursor.generation + 1 ? cursor.position : 0;
    records.push(...(await recordsFrom(`${path}.1`, cursor.stream, from, true, nowMs)).records);
    cursor.generation = generation;
    cursor.position = 0;
  }
  const more = await recordsFrom(path, cursor.stream, cursor.position, atEnd, nowMs);
  cursor.position += more.used;
  return [...records, ...more.records];
}

/**
 * Lines of a task from its folder, both streams merged by time, oldest first. With `follow` it goes on until the
 * recorder has ended (or the signal aborts); without a recorder there is nothing to wait for.
 */
export async function* readLogs(
  folder: string,
  recorder: LogRecorder | null,
  request: { readonly follow: boolean; readonly tail: number | null; readonly sinceMs: number | null },
  context: { readonly clock: Clock; readonly signal: AbortSignal },
): AsyncGenerator<LogRecord> {
  const { clock, signal } = context;
  const cursors: Cursor[] = [];
  let first: LogRecord[] = [];
  const follows = request.follow && recorder !== null && !recorder.ended;
  await recorder?.look();
  for (const stream of logStreams) {
    const old = `${logPath(folder, stream)}.1`;
    const cursor: Cursor = { stream, position: 0, generation: recorder?.generation(stream) ?? 0 };
    first.push(...(await recordsFrom(old, stream, 0, true, clock.nowMs())).records);
    first.push(...(await advanceCursor(folder, cursor, recorder, !follows, clock.nowMs())));
    cursors.push(cursor);
  }
  first = first.filter((record) => request.sinceMs === null || record.atMs >= request.sinceMs);
  first.sort((a, b) => a.atMs - b.atMs);
  yield* request.tail === null ? first : first.slice(Math.max(0, first.length - request.tail));
  if (!follows) return;
  for (;;) {
    const wait = nextGrowth(recorder, clock, signal);
    // Read once more after the end was seen: the last output came before it.
    const ended = recorder.ended;
    const records: LogRecord[] = [];
    for (const cursor of cursors) {
      records.push(...(await advanceCursor(folder, cursor, recorder, ended, clock.nowMs())));
    }
    records.sort((a, b) => a.atMs - b.atMs);
    yield* records.filter((record) => request.sinceMs === null || record.atMs >= request.sinceMs);
    if (ended || signal.aborted) {
      wait.cancel();
      return;
    }
    await wait.done;
  }
}

/** A growth, a second, or the abort, whichever comes first. Armed at the call, so that nothing is missed. */
function nextGrowth(
  recorder: LogRecorder,
  clock: Clock,
  signal: AbortSignal,
): { readonly done: Promise<void>; cancel(): void } {
  let finish = (): void => {};
  const done = new Promise<void>((resolve) => {
    const release = recorder.onGrowth(() => finish());
    const timer = clock.setTimer(1_000, () => finish());
    const onAbort = (): void => finish();
    signal.addEventListener('abort', onAbort, { once: true });
    finish = () => {
      release();
      timer.cancel();
      signal.removeEventListener('abort', onAbort);
      resolve();
    };
  });
  return { done, cancel: () => finish() };
}
