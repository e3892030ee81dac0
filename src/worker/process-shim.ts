/**
 * The tiny supervisor of one process task, and what /proc says of it.
 *
 * A task is a session of its own, led by a /bin/sh that runs the command and writes its exit code to a file it was
 * given as descriptor 3. The shell costs under 1 MB, needs no daemon, and outlives ours. Output goes straight to
 * append-only files, so nothing breaks when the daemon is gone.
 *
 * Invariants: the command does not begin before its pid is on disk (the shell waits for a line on its input, and
 * ends when there is none); a pid is believed only together with its start time and the boot it belongs to.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { systemErrorCode } from '../base/errors.ts';

/**
 * Handled signals are reset to their default in the command, which ignored ones would not be; the shell itself
 * survives them and stays to write the exit code. What the shell itself would say of a command that died by a
 * signal does not belong into the command's output: it goes nowhere, and the command is in a subshell of its own,
 * because a shell may apply a plain command's redirections to itself.
 */
const SHIM = `
trap : HUP INT QUIT TERM USR1 USR2 ALRM VTALRM PROF
read -r go || exit 125
unset go
exec 4>&2 2>/dev/null
(exec "$@" </dev/null 2>&4 3>&- 4>&-)
code=$?
echo "$code" >&3
exit "$code"
`;

/** Which process, of which boot of the machine. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: clock ticks since boot. */
  readonly startTicks: number;
  readonly bootId: string;
}

export interface ShimOptions {
  /** argv[0] is an absolute path, so that the shell takes it for no builtin. */
  readonly argv: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly uid: number | null;
  readonly gid: number | null;
  readonly stdoutFd: number;
  readonly stderrFd: number;
  readonly exitFd: number;
}

/** A shell that waits for `release` to run the command. */
export interface WaitingShim {
  readonly child: ChildProcess;
  readonly identity: ProcessIdentity;
  /** Lets the command run. */
  release(): Promise<void>;
}

/** Starts the supervisor; rejects with the system's error when it cannot be started. */
export async function startShim(options: ShimOptions): Promise<WaitingShim> {
  const child = spawn('/bin/sh', ['-c', SHIM, 'swarmd-task', ...options.argv], {
    cwd: options.cwd,
    env: { ...options.env },
    detached: true,
    stdio: ['pipe', options.stdoutFd, options.stderrFd, options.exitFd],
    ...(options.uid === null ? {} : { uid: options.uid }),
    ...(options.gid === null ? {} : { gid: options.gid }),
  });
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', reject);
  });
  child.on('error', () => {});
  child.stdin?.on('error', () => {});
  const pid = child.pid as number;
  const stat = await readStat(pid);
  if (stat === null) throw new Error('the supervisor ended at once');
  const identity = { pid, startTicks: stat.startTicks, bootId: await readBootId() };
  return {
    child,
    identity,
    release: () =>
      new Promise((resolve) => {
        child.unref();
        if (child.stdin === null) resolve();
        else child.stdin.end('go\n', resolve);
      }),
  };
}

/** What /proc/PID/stat says; null when there is no such process. */
export interface ProcessStat {
  readonly pid: number;
  readonly state: string;
  readonly group: number;
  readonly session: number;
  readonly startTicks: number;
}

/** Reads the line of /proc/PID/stat. The command name in it may hold blanks and parentheses. */
export function parseStat(text: string): ProcessStat | null {
  const close = text.lastIndexOf(')');
  const fields = text
    .slice(close + 2)
    .trim()
    .split(' ');
  const pid = Number.parseInt(text, 10);
  const [state, , group, session] = fields;
  const startTicks = fields[19];
  if (close < 0 || state === undefined || startTicks === undefined || !Number.isInteger(pid)) return null;
  return { pid, state, group: Number(group), session: Number(session), startTicks: Number(startTicks) };
}

export async function readStat(pid: number): Promise<ProcessStat | null> {
  try {
    return parseStat(await readFile(`/proc/${pid}/stat`, 'utf8'));
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === 'ENOENT' || code === 'ESRCH') return null;
    throw error;
  }
}

let bootId: string | null = null;

/** Identity of this boot of the machine. */
export async function readBootId(): Promise<string> {
  bootId ??= (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
  return bootId;
}

/** Whether that very process still runs (a zombie does not). */
export async function isAlive(identity: ProcessIdentity): Promise<boolean> {
  if (identity.bootId !== (await readBootId())) return false;
  const stat = await readStat(identity.pid);
  return stat !== null && stat.startTicks === identity.startTicks && stat.state !== 'Z' && stat.state !== 'X';
}

/** Every living process by session. */
type SessionTable = ReadonlyMap<number, readonly ProcessStat[]>;

async function readSessions(): Promise<SessionTable> {
  const sessions = new Map<number, ProcessStat[]>();
  for (const name of await readdir('/proc')) {
    const pid = Number(name);
    const stat = Number.isInteger(pid) ? await readStat(pid) : null;
    if (stat === null || stat.state === 'Z' || stat.state === 'X') continue;
    const members = sessions.get(stat.session);
    if (members === undefined) sessions.set(stat.session, [stat]);
    else members.push(stat);
  }
  return sessions;
}

let reading: Promise<SessionTable> | null = null;
let waiting: Promise<SessionTable> | null = null;

/** One look at all processes serves everybody who asked before it began: many tasks often stop at once. */
function sessionTable(): Promise<SessionTable> {
  if (waiting !== null) return waiting;
  const begin = (): Promise<SessionTable> => {
    waiting = null;
    const table = readSessions().finally(() => {
      if (reading === table) reading = null;
    });
    reading = table;
    return table;
  };
  if (reading === null) return begin();
  waiting = reading.then(begin, begin);
  return waiting;
}

/** Living members of the session of a task, its leader (the supervisor) left out. */
export async function sessionMembers(identity: ProcessIdentity): Promise<number[]> {
  if (identity.bootId !== (await readBootId())) return [];
  const members = (await sessionTable()).get(identity.pid) ?? [];
  // A session outlives its leader; a later one with the same number begins later than this task did.
  const own = members.filter((stat) => stat.pid !== identity.pid && stat.startTicks >= identity.startTicks);
  return own.map((stat) => stat.pid);
}

/** Sends a signal; a process that is gone is no error. */
export function sendSignal(pid: number, signal: NodeJS.Signals | number): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    // Gone, or turned into another user's program: neither can be helped here.
    const code = systemErrorCode(error);
    if (code !== 'ESRCH' && code !== 'EPERM') throw error;
  }
}
