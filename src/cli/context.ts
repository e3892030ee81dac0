/**
 * What a command works with. Everything outside the program (terminal, environment, clock, daemon) is injected, so
 * that every command runs in a test against a fake.
 */
import type { Clock } from '../base/clock.ts';
import type { ApiClient } from '../model/api.ts';
import type { NodeOptions, RunningNode, StartMode } from '../node/types.ts';

/** Where a command prints. */
export interface Terminal {
  readonly stdout: { write(text: string): unknown };
  readonly stderr: { write(text: string): unknown };
  /** Whether stdout is a terminal, so that lines may be redrawn. */
  readonly isTty: boolean;
  readonly columns: number;
  readonly color: boolean;
}

export type ApiConnection = ApiClient & { close(): void };

/** A daemon started in the background. */
export interface BackgroundDaemon {
  readonly pid: number;
  /** The exit code once it has ended, null while it runs. */
  exitCode(): number | null;
}

/** The outside world of the command line. */
export interface Outside {
  readonly terminal: Terminal;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly home: string;
  readonly isRoot: boolean;
  readonly clock: Clock;
  readonly version: string;
  /** Folder of the package: package.json, examples. */
  readonly packageRoot: string;
  /** Aborts at SIGINT or SIGTERM. */
  readonly interrupt: AbortSignal;
  connect(host: string): ApiConnection;
  startNode(options: NodeOptions, mode: StartMode): Promise<RunningNode>;
  /** Runs this program again in a session of its own, its output appended to `logFile`. */
  startBackground(args: readonly string[], logFile: string): BackgroundDaemon;
  readStdin(): Promise<Uint8Array>;
  /** Whether a TCP port of this machine can be listened on. */
  isPortFree(port: number): Promise<boolean>;
  /** Whether something accepts connections on a TCP port of this machine. */
  isPortOpen(port: number): Promise<boolean>;
}
