/**
 * Where a benchmark runs: a host of its own (network namespace) with a container engine, or this machine without one.
 *
 * Owns the bed and everything started in it; `close` and the end of the process remove all of it.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Daemon, type Place, plainPlace } from '../../test/e2e/lib/daemon.ts';
import { Engine } from '../../test/e2e/lib/engine.ts';
import { makeTestBed } from '../../test/e2e/lib/hosts.ts';
import { makeBusyboxImage } from '../../test/e2e/lib/images.ts';
import { missingFor, thisMachine } from '../../test/support/needs.ts';
import { print } from './figures.ts';

/** A place to measure in. */
export interface BenchBed {
  readonly place: Place;
  /** Address of the place that other nodes would use. */
  readonly address: string;
  /** Null where this machine cannot run one. */
  readonly engine: Engine | null;
  /** A daemon that has not been started yet; `close` ends it. */
  daemon(name: string): Daemon;
  /** Flags of `swarmd init` for this place. */
  readonly initFlags: readonly string[];
  close(): void;
}

/** A place with an engine. */
export type EngineBed = BenchBed & { readonly engine: Engine };

/** Why there is no engine here, a line each; empty: there can be one. */
export function engineNeeds(): string[] {
  return missingFor('hosts', thisMachine);
}

/** Prints what is missing for an engine of one's own; false when something is. */
export function canRunEngine(consequence: string): boolean {
  const missing = engineNeeds();
  if (missing.length === 0) return true;
  print(`NEEDS root and a container engine that it can start itself: ${consequence}. Missing:`);
  for (const line of missing) print(`  - ${line}`);
  print();
  return false;
}

/** Ends the process through its exit handlers, which remove the bed. */
function endOnSignals(): void {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.once(signal, () => process.exit(130));
}

/** One host with an engine that has the busybox image. */
export async function openEngineBed(): Promise<EngineBed> {
  endOnSignals();
  const bed = await makeTestBed({ hosts: 1 });
  const [host] = bed.hosts;
  if (host === undefined) throw new Error('the test bed has no host');
  const engine = new Engine(host);
  const flags = ['--engine-host', `unix://${engine.socketPath}`];
  const daemons = daemonMaker(host, bed.folder);
  const close = (): void => {
    daemons.destroy();
    bed.remove();
  };
  try {
    await engine.start();
    await makeBusyboxImage(engine);
  } catch (error) {
    close();
    throw error;
  }
  const initFlags = initFlagsAt(host.address, flags);
  return { place: host, address: host.address, engine, daemon: daemons.make, initFlags, close };
}

/** This machine as it is, without an engine. */
export function openPlainBed(): BenchBed {
  endOnSignals();
  const folder = mkdtempSync(join(tmpdir(), 'swarmd-bench-'));
  const daemons = daemonMaker(plainPlace(folder), folder);
  const close = (): void => {
    process.off('exit', close);
    daemons.destroy();
    rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  };
  process.on('exit', close);
  const initFlags = [
    '--listen-addr',
    '127.0.0.1:0',
    '--advertise-addr',
    '127.0.0.1',
    '--engine-host',
    'none',
  ];
  return {
    place: plainPlace(folder),
    address: '127.0.0.1',
    engine: null,
    daemon: daemons.make,
    initFlags,
    close,
  };
}

function initFlagsAt(address: string, flags: readonly string[]): string[] {
  return ['--listen-addr', `${address}:12377`, '--advertise-addr', address, ...flags];
}

/** Daemons of one place, with a compile cache of their own so that the caller's does not count. */
function daemonMaker(place: Place, folder: string): { make: (name: string) => Daemon; destroy: () => void } {
  const daemons: Daemon[] = [];
  return {
    make: (name) => {
      const daemon = new Daemon(place, name, { env: { XDG_CACHE_HOME: join(folder, 'cache') } });
      daemons.push(daemon);
      return daemon;
    },
    destroy: () => {
      for (const daemon of daemons) daemon.destroy();
    },
  };
}

/** Removes the compiled code that daemons and commands of the bed keep between runs. */
export function forgetCompiledCode(bed: BenchBed): void {
  for (const folder of [bed.place.folder, join(bed.place.folder, '..')])
    rmSync(join(folder, 'cache'), { recursive: true, force: true });
}

/** Process id of the engine's daemon, or of its containerd. */
export function enginePid(engine: Engine, which: 'dockerd' | 'containerd'): number {
  const file = which === 'dockerd' ? 'engine/pid' : 'engine/exec/containerd/containerd.pid';
  return Number(readFileSync(join(engine.host.folder, file), 'utf8').trim());
}
