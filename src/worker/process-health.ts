/**
 * Runs the health checks of one process task.
 *
 * Data owned: the state of its checks in this life of the worker.
 * Invariant: after `stop` no check is begun, and the one under way is killed.
 */
import { spawn } from 'node:child_process';
import type { Clock, Timer } from '../base/clock.ts';
import { afterCheck, type HealthPlan, type HealthState, initialHealth } from './core/health.ts';
import type { ProcessRecord } from './process-folder.ts';
import { sendSignal } from './process-shim.ts';

/** Kept of what a check prints, bytes. */
const OUTPUT_BYTES_MAX = 4_096;

/** The checks of one task. */
export class HealthMonitor {
  readonly #plan: HealthPlan;
  readonly #record: ProcessRecord;
  readonly #clock: Clock;
  readonly #changed: () => void;
  #state: HealthState;
  #timer: Timer | null = null;
  #kill: (() => void) | null = null;
  #stopped = false;

  constructor(
    plan: HealthPlan,
    record: ProcessRecord,
    dependencies: { readonly clock: Clock; readonly startedAtMs: number; changed(): void },
  ) {
    this.#plan = plan;
    this.#record = record;
    this.#clock = dependencies.clock;
    this.#changed = () => dependencies.changed();
    const nowMs = dependencies.clock.nowMs();
    this.#state = initialHealth(plan, dependencies.startedAtMs, nowMs);
    this.#schedule();
  }

  get state(): HealthState {
    return this.#state;
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#kill?.();
  }

  #schedule(): void {
    if (this.#stopped) return;
    const delay = Math.max(1, this.#state.nextAtMs - this.#clock.nowMs());
    this.#timer = this.#clock.setTimer(delay, () => void this.#check());
  }

  async #check(): Promise<void> {
    const result = await this.#run();
    if (this.#stopped) return;
    const before = this.#state.health;
    this.#state = afterCheck(this.#plan, this.#state, result, this.#clock.nowMs());
    this.#schedule();
    if (this.#state.health !== before) this.#changed();
  }

  #run(): Promise<{ passed: boolean; output: string }> {
    const { command, timeoutMs } = this.#plan;
    const { env, cwd, uid, gid } = this.#record;
    const [file = '', ...args] = command.kind === 'argv' ? command.argv : ['/bin/sh', '-c', command.line];
    return new Promise((resolve) => {
      let output = '';
      let done = false;
      const child = spawn(file, args, {
        cwd,
        env: { ...env },
        detached: true,
        stdio: ['ignore', 'pipe', 'pipe'],
        ...(uid === null ? {} : { uid }),
        ...(gid === null ? {} : { gid }),
      });
      const finish = (passed: boolean, text: string): void => {
        if (done) return;
        done = true;
        timer.cancel();
        this.#kill = null;
        resolve({ passed, output: text.trim().split('\n').at(-1) ?? '' });
      };
      const kill = (): void => {
        if (child.pid !== undefined) sendSignal(-child.pid, 'SIGKILL');
        finish(false, 'the check was cut short');
      };
      const timer = this.#clock.setTimer(timeoutMs, () => {
        if (child.pid !== undefined) sendSignal(-child.pid, 'SIGKILL');
        finish(false, `the check did not end within ${timeoutMs} ms`);
      });
      this.#kill = kill;
      const keep = (chunk: Buffer): void => {
        if (output.length < OUTPUT_BYTES_MAX) output += chunk.toString('utf8', 0, OUTPUT_BYTES_MAX);
      };
      child.stdout.on('data', keep);
      child.stderr.on('data', keep);
      child.once('error', (error) => finish(false, error.message));
      child.once('exit', (code) =>
        finish(code === 0, output === '' ? `exit code ${code ?? 'by signal'}` : output),
      );
    });
  }
}
