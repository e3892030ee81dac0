/**
 * Daemons on this machine for one test file: loopback, free ports, one folder, all removed at the end.
 *
 * Owns the folder and the daemons made through it; nothing else is ever ended or removed.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Daemon, plainPlace, type Place } from '../../e2e/lib/daemon.ts';
import { freePort } from '../../support/free-port.ts';
import { projectFolder } from '../../support/imports.ts';

/** The first port that process tasks may be given: published ports of tests stay below. */
const TASK_PORT_FIRST = 20_000;

/** Where daemons of tests listen: loopback, any free port, no engine, no fixed DNS port. */
export const NODE_FLAGS: readonly string[] = [
  ...['--listen-addr', '127.0.0.1:0', '--advertise-addr', '127.0.0.1'],
  ...['--dns-addr', '127.0.0.1:0', '--engine-host', 'none'],
];

/** The command of test services, {@link file://./answer.ts}. */
export const ANSWER: readonly string[] = [
  process.execPath,
  '--disable-warning=ExperimentalWarning',
  join(projectFolder, 'test/integration/lib/answer.ts'),
];

/** What a request to a test service gives. */
export interface Answer {
  readonly pid: number;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

function exitOnSignal(): void {
  process.exit(143);
}

/** The daemons of one test file. */
export class LocalCluster {
  readonly place: Place;
  readonly #daemons: Daemon[] = [];
  readonly #atExit = (): void => this.remove();

  constructor() {
    this.place = plainPlace(mkdtempSync(join(tmpdir(), 'swarmd-it-')));
    process.on('exit', this.#atExit);
    // The test runner ends a file that takes too long by SIGTERM, which alone would skip what is done at the exit.
    process.once('SIGTERM', exitOnSignal);
  }

  /** A daemon that is not started yet; `env` is added to its environment. */
  daemon(name: string, env: Readonly<Record<string, string>> = {}): Daemon {
    const daemon = new Daemon(this.place, name, { env });
    this.#daemons.push(daemon);
    return daemon;
  }

  /** A new cluster of one manager. */
  async init(name = 'm1', ...flags: readonly string[]): Promise<Daemon> {
    const daemon = this.daemon(name);
    await daemon.start('init', ...NODE_FLAGS, ...flags);
    return daemon;
  }

  /** A node joined through `manager`. */
  async join(name: string, manager: Daemon, role: 'worker' | 'manager'): Promise<Daemon> {
    const daemon = this.daemon(name);
    const tokens = await manager.call('cluster.tokens', { rotate: null });
    await daemon.start('join', ...NODE_FLAGS, '--token', tokens[role], await addressOf(manager));
    return daemon;
  }

  /** Ends every daemon and task and removes the files. */
  remove(): void {
    process.off('exit', this.#atExit);
    // First all daemons: one that lives could start what another's end calls for.
    for (const daemon of this.#daemons) daemon.signal('SIGKILL');
    for (const daemon of this.#daemons) daemon.destroy();
    rmSync(this.place.folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  }
}

/** host:port other nodes reach the daemon at. */
export async function addressOf(daemon: Daemon): Promise<string> {
  return (await daemon.call('info', {})).advertiseAddress;
}

/** A port to publish a service on. */
export async function publishedPort(): Promise<number> {
  for (;;) {
    const port = await freePort();
    if (port < TASK_PORT_FIRST) return port;
  }
}

/** Asks a test service on a connection of its own. */
export function ask(port: number, path = '/', timeoutMs = 6_000): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const options = { port, path, host: '127.0.0.1', agent: false, signal: AbortSignal.timeout(timeoutMs) };
    get(options, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      response.on('error', reject);
      response.on('end', () => resolve(JSON.parse(text) as Answer));
    }).on('error', reject);
  });
}
