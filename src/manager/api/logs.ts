/**
 * Logs of a service: the lines of all its tasks, read from their nodes over the workers' connections.
 *
 * Invariants: at most `MERGED_RECORDS_MAX` records wait here (a source that is ahead waits); a node that cannot be
 * reached gives a notice, and the others go on; with `follow`, tasks made later are followed too.
 */
import { errorMessage, SwarmdError } from '../../base/errors.ts';
import type { ServiceLogRecord, ServiceLogsParams } from '../../model/api.ts';
import type { NodeId, TaskId } from '../../model/ids.ts';
import type { Task } from '../../model/objects.ts';
import { compareTaskStates } from '../../model/task-state.ts';
import type { LogRecord, LogRequest } from '../../model/wire.ts';
import type { RpcConnection } from '../../rpc/types.ts';
import type { ChangeListener } from '../state-machine.ts';
import type { StateView } from '../state/view.ts';
import { findService, findTask } from './lookup.ts';

export interface LogSources {
  readonly view: StateView;
  connectionOf(nodeId: NodeId): RpcConnection | null;
  subscribe(listener: ChangeListener): () => void;
}

const MERGED_RECORDS_MAX = 1_000;
/** Characters of a batch at which it is closed: far below what one message between nodes may hold. */
const BATCH_CHARACTERS = 256 * 1024;
/** What the fields of a record besides its text are taken to weigh. */
const RECORD_CHARACTERS = 200;

/** Streams batches of records until all tasks are read (or for ever with `follow`); ends when `signal` aborts. */
export async function* serviceLogs(
  sources: LogSources,
  params: ServiceLogsParams,
  signal: AbortSignal,
): AsyncGenerator<ServiceLogRecord[]> {
  const { view } = sources;
  const selects = selectTasks(view, params.ref);
  const stop = new AbortController();
  const onAbort = (): void => stop.abort();
  signal.addEventListener('abort', onAbort, { once: true });
  if (signal.aborted) onAbort();
  const merged = new MergedRecords(stop.signal);
  const opened = new Set<TaskId>();
  const open = (task: Task): void => {
    if (opened.has(task.id) || !selects(task) || task.nodeId === '') return;
    // Before its start a task has no output, and one that was rejected never gets there.
    if (compareTaskStates(task.status.state, 'starting') < 0 || task.status.state === 'rejected') return;
    opened.add(task.id);
    merged.add((push) => pump(sources, task, params, push, stop.signal));
  };
  const listener: ChangeListener = (changes) => {
    if (changes === null) for (const task of view.all('task')) open(task);
    else
      for (const change of changes) if (change.table === 'task' && change.after !== null) open(change.after);
  };
  const unsubscribe = params.follow ? sources.subscribe(listener) : () => {};
  try {
    listener(null);
    for (;;) {
      const records = await merged.take(params.follow);
      if (records.length === 0) return;
      yield records;
    }
  } finally {
    unsubscribe();
    signal.removeEventListener('abort', onAbort);
    stop.abort();
  }
}

type Push = (record: ServiceLogRecord) => Promise<void>;

/** Records of many sources for one reader. At most `MERGED_RECORDS_MAX` wait; a source that is ahead waits too. */
class MergedRecords {
  readonly #signal: AbortSignal;
  readonly #records: ServiceLogRecord[] = [];
  #open = 0;
  #wakeReader: () => void = () => {};
  #waitingSources: (() => void)[] = [];

  constructor(signal: AbortSignal) {
    this.#signal = signal;
    const onAbort = (): void => {
      this.#wakeReader();
      this.#wakeSources();
    };
    signal.addEventListener('abort', onAbort, { once: true });
  }

  /** Reads one more source; `run` must not reject. */
  add(run: (push: Push) => Promise<void>): void {
    this.#open += 1;
    void run((record) => this.#push(record)).finally(() => {
      this.#open -= 1;
      this.#wakeReader();
    });
  }

  /** What is there, at least one record; empty: aborted, or every source ended (with `forEver`, only aborted). */
  async take(forEver: boolean): Promise<ServiceLogRecord[]> {
    while (this.#records.length === 0) {
      if (this.#signal.aborted || (this.#open === 0 && !forEver)) return [];
      await new Promise<void>((resolve) => (this.#wakeReader = resolve));
    }
    if (this.#signal.aborted) return [];
    let count = 0;
    for (let characters = 0; count < this.#records.length && characters < BATCH_CHARACTERS; count++) {
      const record = this.#records[count] as ServiceLogRecord;
      characters += RECORD_CHARACTERS + (record.kind === 'line' ? record.line.length : record.message.length);
    }
    const records = this.#records.splice(0, count);
    this.#wakeSources();
    return records;
  }

  async #push(record: ServiceLogRecord): Promise<void> {
    while (this.#records.length >= MERGED_RECORDS_MAX && !this.#signal.aborted) {
      await new Promise<void>((resolve) => this.#waitingSources.push(resolve));
    }
    if (this.#signal.aborted) return;
    this.#records.push(record);
    this.#wakeReader();
  }

  #wakeSources(): void {
    const waiting = this.#waitingSources;
    this.#waitingSources = [];
    for (const wake of waiting) wake();
  }
}

/** A service's tasks, or one task. */
function selectTasks(view: StateView, ref: string): (task: Task) => boolean {
  try {
    const service = findService(view, ref);
    return (task) => task.serviceId === service.id;
  } catch (error) {
    if (!(error instanceof SwarmdError) || error.code !== 'NOT_FOUND') throw error;
    let task: Task;
    try {
      task = findTask(view, ref);
    } catch {
      throw error;
    }
    return (other) => other.id === task.id;
  }
}

/** Reads one task's lines from its node; what goes wrong becomes a notice. Never rejects. */
async function pump(
  sources: LogSources,
  task: Task,
  params: ServiceLogsParams,
  push: Push,
  signal: AbortSignal,
): Promise<void> {
  const { id: taskId, nodeId, slot } = task;
  const hostname = sources.view.get('node', nodeId)?.description.hostname ?? nodeId;
  const notice = (message: string): Promise<void> => push({ kind: 'notice', taskId, nodeId, message });
  const connection = nodeId === '' ? null : sources.connectionOf(nodeId);
  if (connection === null) {
    await notice(`the logs of task ${taskId} cannot be read: node ${hostname} is not connected`);
    return;
  }
  const request: LogRequest = { taskId, follow: params.follow, tail: params.tail, sinceMs: params.sinceMs };
  try {
    const stream = connection.openStream('worker.logs', request, { signal });
    stream.end();
    for await (const message of stream) {
      const records = (Array.isArray(message) ? message : [message]) as LogRecord[];
      for (const record of records) {
        const { stream: source, atMs, line } = record;
        const name = task.serviceAnnotations.name;
        await push({
          kind: 'line',
          taskId,
          serviceName: name,
          slot,
          nodeId,
          hostname,
          stream: source,
          atMs,
          line,
        });
        if (signal.aborted) return;
      }
    }
  } catch (error) {
    if (!signal.aborted)
      await notice(`the logs of task ${taskId} on node ${hostname} ended: ${errorMessage(error)}`);
  }
}
