/** Programs that a test starts: commands awaited to their end, and processes kept until the test stops them. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { once } from 'node:events';

/** What a finished command gave. `code` is null when a signal ended it. */
export interface ExecResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** How to run a command: a bound (default 30 s), text for its input, variables added to the environment. */
export interface ExecOptions {
  readonly timeoutMs?: number;
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

/** Runs a command to its end. A failing command is a result; one that cannot start or takes too long rejects. */
export async function execCommand(argv: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
  const timeoutMs = options.timeoutMs ?? 30_000;
  const child = spawn(argv[0] as string, argv.slice(1), {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
  });
  const output: Record<'stdout' | 'stderr', string> = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text;
    });
  }
  // A command may end without reading its input.
  child.stdin.on('error', () => {});
  child.stdin.end(options.input ?? '');
  const startedMs = performance.now();
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  if (signal === 'SIGKILL' && performance.now() - startedMs >= timeoutMs) {
    throw new Error(`${argv.join(' ')}: not done after ${timeoutMs} ms\n${output.stdout}${output.stderr}`);
  }
  return { code, ...output };
}

/** Runs a command that must succeed and returns its standard output. */
export async function execChecked(argv: readonly string[], options: ExecOptions = {}): Promise<string> {
  const result = await execCommand(argv, options);
  if (result.code !== 0) {
    throw new Error(`${argv.join(' ')}: exit code ${result.code}\n${result.stdout}${result.stderr}`);
  }
  return result.stdout;
}

/** A process started for a test; its output goes to a file. */
export class TestProcess {
  readonly child: ChildProcess;
  readonly logPath: string;
  /** Resolves when the process has ended. */
  readonly ended: Promise<{ readonly code: number | null; readonly signal: string | null }>;

  /** Starts `argv`; when the tests' own process dies, the kernel ends it with SIGTERM. */
  constructor(argv: readonly string[], logPath: string, options: Pick<ExecOptions, 'env' | 'cwd'> = {}) {
    this.logPath = logPath;
    const log = openSync(logPath, 'a');
    this.child = spawn('setpriv', ['--pdeathsig', 'TERM', '--', ...argv], {
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
      stdio: ['ignore', log, log],
    });
    closeSync(log);
    this.ended = new Promise((resolve) => {
      this.child.on('error', () => resolve({ code: null, signal: null }));
      this.child.on('exit', (code, signal) => resolve({ code, signal }));
    });
  }

  /** The process id of the program itself. */
  get pid(): number {
    if (this.child.pid === undefined) throw new Error(`${this.child.spawnargs.join(' ')} did not start`);
    return this.child.pid;
  }

  get running(): boolean {
    return this.child.pid !== undefined && this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Everything the process has written so far. */
  output(): string {
    return readFileSync(this.logPath, 'utf8');
  }

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /** Ends the process with SIGTERM, or SIGKILL after `graceMs`, and waits for its end. */
  async stop(graceMs = 10_000): Promise<void> {
    if (!this.running) return;
    this.kill('SIGTERM');
    const timer = setTimeout(() => this.kill('SIGKILL'), graceMs);
    await this.ended;
    clearTimeout(timer);
  }
}
