/** Runs the command line in this process, against the fake API. */
import { ManualClock } from '../../src/base/clock.ts';
import { main } from '../../src/cli/main.ts';
import type { Outside } from '../../src/cli/context.ts';
import { FakeApi } from './fake-api.ts';

export interface CliResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command line with a fake cluster behind it. */
export class TestCli {
  readonly api = new FakeApi();
  readonly env: Record<string, string | undefined> = {};
  readonly hosts: string[] = [];
  stdin = '';
  cwd = '/nowhere';
  isTty = false;
  packageRoot = '/nowhere';
  startNode: Outside['startNode'] = () => Promise.reject(new Error('no daemon in this test'));
  startBackground: Outside['startBackground'] = () => {
    throw new Error('no daemon in this test');
  };
  readonly takenPorts = new Set<number>();
  /** Sees what is printed on stdout as it is. */
  onOutput: (text: string) => void = () => {};
  readonly interrupt = new AbortController();

  /** Runs `swarmd ...args`. Time passes by itself: every timer fires at once. */
  async run(...args: readonly string[]): Promise<CliResult> {
    let stdout = '';
    let stderr = '';
    const outside: Outside = {
      terminal: {
        stdout: {
          write: (text) => {
            stdout += text;
            this.onOutput(text);
          },
        },
        stderr: { write: (text) => (stderr += text) },
        isTty: this.isTty,
        columns: 100,
        color: false,
      },
      env: this.env,
      cwd: this.cwd,
      home: '/home/user',
      isRoot: false,
      clock: new HastyClock(this.api.nowMs + 60_000),
      version: '0.0.0-test',
      packageRoot: this.packageRoot,
      interrupt: this.interrupt.signal,
      connect: (host) => {
        this.hosts.push(host);
        return this.api;
      },
      startNode: this.startNode,
      startBackground: this.startBackground,
      readStdin: async () => Buffer.from(this.stdin),
      isPortFree: async (port) => !this.takenPorts.has(port),
      isPortOpen: async () => true,
    };
    const exitCode = await main(['node', 'swarmd', ...args], outside);
    return { exitCode, stdout, stderr };
  }
}

/** A clock on which waiting takes no time: a timer moves it to its end. */
class HastyClock extends ManualClock {
  override setTimer(delayMs: number, callback: () => void): { cancel(): void } {
    const timer = super.setTimer(delayMs, callback);
    setImmediate(() => this.advance(delayMs));
    return timer;
  }
}
