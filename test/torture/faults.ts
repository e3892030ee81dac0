/** The faults of a torture run: what is done to the cluster, and what must come of it. */
import { setTimeout as pause } from 'node:timers/promises';
import { type Random, randomBelow } from '../../src/base/random.ts';
import type { Daemon } from '../e2e/lib/daemon.ts';
import { type Cluster, cutOff } from './cluster.ts';

/** What a fault works with. */
export interface Scene {
  readonly cluster: Cluster;
  readonly random: Random;
  /** The daemon that the fault is done to. */
  readonly index: number;
  readonly daemon: Daemon;
  /** How long it lasts, in milliseconds. */
  readonly lengthMs: number;
  /** Says, once, that the fault is done to `victims` from now on. */
  begin(name: string, victims: readonly number[]): void;
  /** Counts what came of it. */
  count(what: string): void;
}

/** A fault that heals what it did before it resolves; it rejects when what must come of it does not. */
export interface Fault {
  readonly name: string;
  run(scene: Scene): Promise<void>;
}

/** The process ends at once. */
export const killing: Fault = {
  name: 'kill',
  async run({ daemon, index, lengthMs, begin }) {
    begin('kill', [index]);
    await daemon.kill();
    await pause(lengthMs);
    await daemon.start('daemon');
  },
};

/** The process stands still. */
export const stopping: Fault = {
  name: 'stop',
  async run({ daemon, index, lengthMs, begin }) {
    begin('stop', [index]);
    process.kill(daemon.pid, 'SIGSTOP');
    await pause(lengthMs);
    process.kill(daemon.pid, 'SIGCONT');
  },
};

/** The process is asked to end. */
export const terminating: Fault = {
  name: 'term',
  async run({ daemon, index, lengthMs, begin }) {
    begin('term', [index]);
    const code = await daemon.stop();
    if (code !== 0) throw new Error(`${daemon.name} was asked to end: exit code ${code}\n${daemon.log()}`);
    await pause(lengthMs);
    await daemon.start('daemon');
  },
};

/** The host reaches nobody. Needs hosts. */
export const partitioning: Fault = {
  name: 'partition',
  async run({ cluster, index, lengthMs, begin }) {
    begin('partition', [index]);
    if (cluster.bed !== null) await cutOff(cluster.bed, index, () => pause(lengthMs));
  },
};

/** One of `choices`. */
export function oneOf<T>(random: Random, choices: readonly T[]): T {
  return choices[randomBelow(random, choices.length)] as T;
}
