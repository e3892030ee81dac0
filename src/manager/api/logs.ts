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

/** Streams records until all tasks are read (or for ever with `follow`); ends when `signal` aborts. */
export async function* serviceLogs(
  sources: LogSources,
  params: ServiceLogsParams,
  signal: AbortSignal,
): AsyncGenerator<ServiceLogRecord> {
  const { view } = sources;
  const selects = selectTasks(view, params.ref);
  const merged: ServiceLogRecord[] = [];
  const opened = new Set<TaskId>();
  const done = new AbortController();
  const stop = AbortSignal.any([signal, done.signal]);
  let open = 0;
  let wakeReader: () => void = () => {};
  let wakeWriters: (() => void)[] = [];
  const push = async (record: ServiceLogRecord): Promise<void> => {
    while (merged.length >= MERGED_RECORDS_MAX && !stop.aborted) {
      await new Promise<void>((resolve) => wakeWriters.push(resolve));
    }
    merged.push(record);
    wakeReader();
  };
  const openNew = (): void => {
    for (const task of view.all('task')) {
      if (opened.has(task.id) || !selects(task) || compareTaskStates(task.status.state, 'preparing') < 0)
        continue;
      opened.add(task.id);
      open += 1;
      void pump(sources, task, params, push, stop).finally(() => {
        open -= 1;
        wakeReader();
      });
    }
  };
  const unsubscribe = sources.subscribe(openNew);
  const onAbort = (): void => {
    wakeReader();
    for (const wake of wakeWriters.splice(0)) wake();
  };
  stop.addEventListener('abort', onAbort, { once: true });
  try {
    openNew();
    for (;;) {
      const records = merged.splice(0);
      for (const wake of wakeWriters.splice(0)) wake();
      wakeWriters = [];
      yield* records;
      if (merged.length > 0) continue;
      if (stop.aborted || (open === 0 && !params.follow)) return;
      await new Promise<void>((resolve) => (wakeReader = resolve));
    }
  } finally {
    unsubscribe();
    done.abort();
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

async function pump(
  sources: LogSources,
  task: Task,
  params: ServiceLogsParams,
  push: (record: ServiceLogRecord) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const { id: taskId, nodeId, slot } = task;
  const hostname = nodeId === '' ? '' : (sources.view.get('node', nodeId)?.description.hostname ?? nodeId);
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
        await push({
          kind: 'line',
          taskId,
          serviceName: task.serviceAnnotations.name,
          slot,
          nodeId,
          hostname,
          ...record,
        });
        if (signal.aborted) return;
      }
    }
  } catch (error) {
    if (!signal.aborted)
      await notice(`the logs of task ${taskId} on node ${hostname} ended: ${errorMessage(error)}`);
  }
}
