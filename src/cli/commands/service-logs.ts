/** `service logs`: lines of all tasks of a service, or of one task. */
import type { ServiceLogRecord } from '../../model/api.ts';
import { parseDurationMs } from '../../stack/quantities.ts';
import { UsageError, fullName, type Run, type SwarmdCommand } from '../command.ts';
import type { Outside } from '../context.ts';
import { withApi, withConnectionFlags } from '../host.ts';
import { shortId } from '../output.ts';

interface LogFlags {
  readonly follow?: boolean;
  readonly tail: string;
  readonly timestamps?: boolean;
  readonly since?: string;
  readonly raw?: boolean;
  readonly details?: boolean;
  readonly trunc?: boolean;
  readonly resolve?: boolean;
  readonly taskIds?: boolean;
}

export function registerServiceLogs(parent: SwarmdCommand, run: Run): void {
  const command = parent
    .sub('logs', 'show the output of a service or task')
    .argument('<service|task>', 'name or id')
    .flag('-f, --follow', 'keep showing new lines')
    .value('-n, --tail <lines>', 'last lines of each task only', 'all')
    .flag('-t, --timestamps', 'with the time of each line')
    .value('--since <time>', 'lines after a time (2026-01-31T12:00:00Z) or duration (10m)')
    .flag('--raw', 'the lines only')
    .flag('--details', 'with the ids of node, service and task')
    .flag('--no-trunc', 'full ids')
    .flag('--no-resolve', 'ids instead of names')
    .flag('--no-task-ids', 'without task ids');
  withConnectionFlags(command).run(run, (args, self) => logs(run.outside, self, args[0] ?? ''));
}

async function logs(outside: Outside, command: SwarmdCommand, ref: string): Promise<number> {
  const flags = command.opts<LogFlags>();
  const params = {
    ref,
    follow: flags.follow === true,
    tail: parseTail(command, flags.tail),
    sinceMs: flags.since === undefined ? null : parseSince(command, flags.since, outside.clock.nowMs()),
  };
  return withApi(command, outside, async (api) => {
    let exitCode = 0;
    try {
      for await (const record of api.serviceLogs(params, { signal: outside.interrupt })) {
        if (record.kind === 'notice') exitCode = 1;
        const stream =
          record.kind === 'line' && record.stream === 'stdout'
            ? outside.terminal.stdout
            : outside.terminal.stderr;
        stream.write(`${formatLogRecord(record, flags)}\n`);
      }
    } catch (error) {
      // Ctrl-C is how a follow ends.
      if (!outside.interrupt.aborted) throw error;
    }
    return exitCode;
  });
}

/** One line as printed: `web.1.TASK@host | text`. */
export function formatLogRecord(record: ServiceLogRecord, flags: Omit<LogFlags, 'tail'>): string {
  const full = flags.trunc === false;
  if (record.kind === 'notice') {
    return `warning: no output of task ${shortId(record.taskId, full)} on node ${shortId(record.nodeId, full)}: ${record.message}`;
  }
  const time = flags.timestamps === true ? `${new Date(record.atMs).toISOString()} ` : '';
  const details =
    flags.details === true ? `node=${record.nodeId},task=${record.taskId},slot=${record.slot} ` : '';
  if (flags.raw === true) return `${time}${details}${record.line}`;
  const slot = record.slot > 0 ? String(record.slot) : shortId(record.nodeId, full);
  const task = flags.taskIds === false ? '' : `.${shortId(record.taskId, full)}`;
  const host = flags.resolve === false ? shortId(record.nodeId, full) : record.hostname;
  return `${time}${record.serviceName}.${slot}${task}@${host}    | ${details}${record.line}`;
}

function parseTail(command: SwarmdCommand, text: string): number | null {
  if (text === 'all') return null;
  if (!/^[0-9]{1,9}$/.test(text))
    throw new UsageError(`--tail takes a number of lines or "all", not "${text}"`, fullName(command));
  return Number(text);
}

function parseSince(command: SwarmdCommand, text: string, nowMs: number): number {
  const duration = parseDurationMs(text);
  if (duration.ok) return nowMs - duration.value;
  const at = /^[0-9]+(\.[0-9]+)?$/.test(text) ? Number(text) * 1000 : Date.parse(text);
  if (!Number.isNaN(at)) return at;
  throw new UsageError(
    `--since takes a duration such as 10m or a time such as 2026-01-31T12:00:00Z, not "${text}"`,
    fullName(command),
  );
}
