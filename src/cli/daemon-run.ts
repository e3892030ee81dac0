/** Running a daemon: in this process until a signal, or in the background. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { sleep } from '../base/clock.ts';
import { SwarmdError } from '../base/errors.ts';
import type { NodeOptions, RunningNode, StartMode } from '../node/types.ts';
import { fullName, type SwarmdCommand } from './command.ts';
import type { ApiConnection, BackgroundDaemon, Outside } from './context.ts';
import { moveOf, nodeOptionsOf } from './daemon-flags.ts';
import { printLine } from './output.ts';
import { saveOptions } from './saved-options.ts';

/** Time a background daemon has to answer. */
const START_MS = 60_000;
const POLL_MS = 100;

/** Lines of the log shown when it does not. */
const LOG_LINES_SHOWN = 15;

/** Set in the environment of a daemon in the background. */
export const BACKGROUND = 'SWARMD_BACKGROUND';

/** Starts a daemon as the flags say and tells about it with `announce`; returns when it has ended or is detached. */
export async function runDaemon(
  outside: Outside,
  command: SwarmdCommand,
  mode: StartMode,
  announce: (api: ApiConnection, node: { nodeId: string; advertised: string }) => Promise<void>,
): Promise<number> {
  const isMember = mode.kind === 'resume' || mode.kind === 'force-new-cluster';
  const options = {
    ...nodeOptionsOf(command, outside),
    ...(isMember ? { move: moveOf(command, outside) } : {}),
  };
  if (command.opts<{ detach?: boolean }>().detach === true) {
    return runInBackground(outside, command, options, announce);
  }
  const node = await outside.startNode(options, mode);
  saveOptions(options);
  // The command that started this one in the background tells; what it tells (a token) is not for the log.
  if (outside.env[BACKGROUND] !== undefined) return untilEnded(outside, node);
  const api = outside.connect(`unix://${node.socketPath}`);
  try {
    await announce(api, node);
  } catch (error) {
    await node.stop();
    throw error;
  } finally {
    api.close();
  }
  printLine(
    outside,
    `swarmd runs. Stop it with Ctrl-C; its tasks keep running. Start it again with: ${again(options)}`,
  );
  return untilEnded(outside, node);
}

function again(options: NodeOptions): string {
  return `swarmd daemon --data-dir ${options.dataDir}`;
}

/** Waits for the daemon to end; a signal stops it in order. */
export async function untilEnded(
  outside: Outside,
  node: RunningNode,
  stopOptions: { readonly stopTasks?: boolean } = {},
): Promise<number> {
  const stop = (): void => {
    // What stop meets is told by `ended`.
    node.stop(stopOptions).catch(() => {});
  };
  if (outside.interrupt.aborted) stop();
  else outside.interrupt.addEventListener('abort', stop, { once: true });
  try {
    return await node.ended;
  } finally {
    outside.interrupt.removeEventListener('abort', stop);
  }
}

/** The command line of this command without --detach. */
function backgroundArgs(command: SwarmdCommand, options: NodeOptions): string[] {
  const args: string[] = [];
  for (const option of command.options) {
    const value: unknown = command.opts()[option.attributeName()];
    const name = option.long ?? '';
    if (name === '--detach' || name === '--no-detach' || name === '--data-dir') continue;
    if (typeof value === 'string') args.push(name, value);
    else if (Array.isArray(value)) for (const item of value as string[]) args.push(name, item);
    else if (value === true && !option.negate) args.push(name);
  }
  const words = fullName(command).split(' ').slice(1);
  return [...words, '--data-dir', options.dataDir, ...args, ...command.args];
}

async function runInBackground(
  outside: Outside,
  command: SwarmdCommand,
  options: NodeOptions,
  announce: (api: ApiConnection, node: { nodeId: string; advertised: string }) => Promise<void>,
): Promise<number> {
  const logFile = join(options.dataDir, 'swarmd.log');
  const api = outside.connect(`unix://${options.socketPath}`);
  try {
    if (await answers(outside, api)) {
      throw new SwarmdError('LOCKED', `a daemon already runs with the data folder ${options.dataDir}`);
    }
    const daemon = outside.startBackground(backgroundArgs(command, options), logFile);
    const info = await untilAnswer(outside, api, daemon, logFile);
    await announce(api, { nodeId: info.nodeId, advertised: info.advertiseAddress });
    printLine(outside, `swarmd runs in the background (process ${daemon.pid}); its log is ${logFile}`);
    return 0;
  } finally {
    api.close();
  }
}

async function answers(outside: Outside, api: ApiConnection): Promise<boolean> {
  try {
    await api.call('info', {}, { signal: outside.interrupt });
    return true;
  } catch (error) {
    if (error instanceof SwarmdError && error.code === 'UNAVAILABLE') return false;
    throw error;
  }
}

async function untilAnswer(
  outside: Outside,
  api: ApiConnection,
  daemon: BackgroundDaemon,
  logFile: string,
): Promise<{ nodeId: string; advertiseAddress: string }> {
  const deadline = outside.clock.monotonicMs() + START_MS;
  for (;;) {
    const ended = daemon.exitCode();
    if (ended !== null) {
      throw new SwarmdError(
        'UNAVAILABLE',
        `the daemon ended with exit code ${ended}; its last words:\n${lastLines(logFile)}`,
      );
    }
    try {
      return await api.call('info', {}, { signal: outside.interrupt });
    } catch (error) {
      outside.interrupt.throwIfAborted();
      if (!(error instanceof SwarmdError)) throw error;
    }
    if (outside.clock.monotonicMs() > deadline) {
      throw new SwarmdError(
        'TIMEOUT',
        `the daemon (process ${daemon.pid}) did not answer in ${START_MS / 1000} s; its last words:\n${lastLines(logFile)}`,
      );
    }
    await sleep(outside.clock, POLL_MS, outside.interrupt);
  }
}

function lastLines(logFile: string): string {
  try {
    const lines = readFileSync(logFile, 'utf8').trimEnd().split('\n');
    return lines.slice(-LOG_LINES_SHOWN).join('\n');
  } catch {
    return `(there is no log at ${logFile})`;
  }
}
