/** The real outside world: terminal, environment, signals, processes. The only file of the CLI that reads `process`. */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { homedir } from 'node:os';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../base/clock.ts';
import { SwarmdError } from '../base/errors.ts';
import { connectApi } from '../http/client.ts';
import { folderError } from '../node/folder-error.ts';
import { makeFolder } from '../node/make-folder.ts';
import type { BackgroundDaemon, Outside, Terminal } from './context.ts';
import { retryChanges } from './retry.ts';
import { BACKGROUND } from './daemon-run.ts';

const packageRoot = fileURLToPath(new URL('../..', import.meta.url));

/** The process's own surroundings. `close` takes the signal handlers away. */
export function realOutside(): { readonly outside: Outside; close(): void } {
  const interrupt = new AbortController();
  const onSignal = (): void => {
    // A second signal is for the impatient: the default handler ends the process.
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
    interrupt.abort(new SwarmdError('CANCELLED', 'interrupted'));
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  ignoreClosedPipe();
  const { version } = JSON.parse(readFileSync(`${packageRoot}/package.json`, 'utf8')) as { version: string };
  const outside: Outside = {
    terminal: realTerminal(),
    env: process.env,
    cwd: process.cwd(),
    home: homedir(),
    isRoot: process.getuid?.() === 0,
    clock: systemClock(),
    version,
    packageRoot,
    interrupt: interrupt.signal,
    connect: (host) => retryChanges(connectApi(host), { clock: systemClock(), newKey: randomUUID }),
    startNode: async (options, mode) => {
      // The daemon is most of the program: commands that only talk to one start faster without it.
      const { startNode } = await import('../node/start.ts');
      return startNode(options, mode);
    },
    startBackground,
    readStdin,
    isPortFree,
    isPortOpen,
  };
  return {
    outside,
    close: () => {
      process.off('SIGINT', onSignal);
      process.off('SIGTERM', onSignal);
    },
  };
}

/** `swarmd … | head` closes our output early; that is no failure. */
function ignoreClosedPipe(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
  });
}

function realTerminal(): Terminal {
  const isTty = process.stdout.isTTY;
  const noColor = process.env['NO_COLOR'];
  return {
    stdout: process.stdout,
    stderr: process.stderr,
    isTty,
    columns: process.stdout.columns || 110,
    color: isTty && (noColor === undefined || noColor === '') && process.env['TERM'] !== 'dumb',
  };
}

function openLog(path: string): number {
  try {
    makeFolder(dirname(path), 0o700);
    return openSync(path, 'a', 0o600);
  } catch (error) {
    throw folderError(dirname(path), error);
  }
}

function startBackground(args: readonly string[], logFile: string): BackgroundDaemon {
  const log = openLog(logFile);
  const child = spawn(process.execPath, [...process.execArgv, process.argv[1] as string, ...args], {
    detached: true,
    stdio: ['ignore', log, log],
    env: { ...process.env, [BACKGROUND]: '1' },
  });
  closeSync(log);
  let exitCode: number | null = null;
  child.on('exit', (code) => {
    exitCode = code ?? 1;
  });
  child.on('error', () => {
    exitCode = 127;
  });
  child.unref();
  return { pid: child.pid ?? 0, exitCode: () => exitCode };
}

async function readStdin(): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Uint8Array);
  return Buffer.concat(chunks);
}

function isPortFree(port: number): Promise<boolean> {
  return new Promise((done) => {
    const server = createServer();
    server.once('error', () => done(false));
    server.listen(port, '0.0.0.0', () => server.close(() => done(true)));
  });
}

function isPortOpen(port: number): Promise<boolean> {
  return new Promise((done) => {
    const socket = connect({ host: '127.0.0.1', port });
    socket.once('error', () => done(false));
    socket.once('connect', () => {
      socket.destroy();
      done(true);
    });
  });
}
