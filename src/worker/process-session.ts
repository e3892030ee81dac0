/** Ending the session of a process task, whatever it holds. */
import { type Clock, sleep } from '../base/clock.ts';
import { SwarmdError } from '../base/errors.ts';
import { isAlive, type ProcessIdentity, sendSignal, sessionMembers } from './process-shim.ts';

/** After SIGKILL the members have this long to end before the supervisor goes too, and it as long again. */
export const KILL_WAIT_MS = 5_000;
/** How often the end of a process is looked for while it is waited for. */
export const STOP_POLL_MS = 20;

/** Ends the whole session by SIGKILL, the supervisor last so that it can note the exit code. */
export async function killSession(run: ProcessIdentity, clock: Clock, signal: AbortSignal): Promise<void> {
  const deadline = clock.monotonicMs() + KILL_WAIT_MS;
  for (;;) {
    const members = await killMembers(run);
    const supervisor = await isAlive(run);
    if (members === 0 && !supervisor) return;
    const now = clock.monotonicMs();
    if (now >= deadline && supervisor && members === 0) sendSignal(run.pid, 'SIGKILL');
    if (now >= deadline + KILL_WAIT_MS) {
      throw new SwarmdError('TIMEOUT', `the session of process ${run.pid} does not end after SIGKILL`);
    }
    await sleep(clock, STOP_POLL_MS, signal);
  }
}

/** Sends SIGKILL to everything in the session but its supervisor; answers with how many there were. */
export async function killMembers(run: ProcessIdentity): Promise<number> {
  const members = await sessionMembers(run);
  for (const pid of members) sendSignal(pid, 'SIGKILL');
  return members.length;
}
