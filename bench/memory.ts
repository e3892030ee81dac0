/**
 * What an idle one-node cluster holds in memory, and how soon the command line answers; beside them Docker's.
 *
 * `node bench/memory.ts [--runs 3] [--idle-seconds 30] [--services 0,100]`. Memory is VmRSS of /proc after the idle
 * time, and of it what is not mapped files. With root and a container engine everything runs on a host of its own;
 * without them swarmd alone is measured, with the process runtime. Removes all it makes.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type { Engine } from '../test/e2e/lib/engine.ts';
import type { ExecResult } from '../test/e2e/lib/processes.ts';
import { thisMachine } from '../test/support/needs.ts';
import {
  type BenchBed,
  canRunEngine,
  enginePid,
  forgetCompiledCode,
  openEngineBed,
  openPlainBed,
} from './lib/bed.ts';
import {
  memoryOf,
  msText,
  print,
  printHeading,
  printTable,
  processorSeconds,
  spreadOf,
  spreadText,
} from './lib/figures.ts';
import { storeIdleServices } from './lib/services.ts';
import { createSwarmService, initSwarm, leaveSwarm } from './lib/swarm-mode.ts';

interface Options {
  readonly runs: number;
  readonly idleMs: number;
  readonly serviceCounts: readonly number[];
}

/** One process after its idle time; `processor` is the share of one core it used meanwhile. */
interface Idle {
  readonly rss: number;
  readonly anonymous: number;
  readonly processor: number;
}

type Rows = string[][];

async function idle(pids: readonly number[], idleMs: number): Promise<Idle[]> {
  const before = pids.map(processorSeconds);
  await delay(idleMs);
  return pids.map((pid, i) => ({
    ...memoryOf(pid),
    processor: (processorSeconds(pid) - (before[i] ?? 0)) / (idleMs / 1_000),
  }));
}

function row(rows: Rows, name: string, samples: readonly Idle[]): void {
  const mebibytes = (key: 'rss' | 'anonymous'): string =>
    spreadText(spreadOf(samples.map((sample) => sample[key])), 'MiB', 2 ** 20);
  const processor = spreadText(spreadOf(samples.map((sample) => sample.processor * 100)), '%');
  rows.push([name, mebibytes('rss'), mebibytes('anonymous'), processor]);
}

async function measureSwarmd(bed: BenchBed, rows: Rows, options: Options): Promise<void> {
  for (const services of options.serviceCounts) {
    const samples: Idle[] = [];
    const restarted: Idle[] = [];
    for (let run = 0; run < options.runs; run++) {
      const daemon = bed.daemon(`memory-${services}-${run}`);
      await daemon.start('init', ...bed.initFlags);
      await storeIdleServices(daemon, services);
      samples.push(...(await idle([daemon.pid], options.idleMs)));
      if (services > 0) {
        await daemon.stop();
        await daemon.start('daemon');
        restarted.push(...(await idle([daemon.pid], options.idleMs)));
      }
      await daemon.stop();
    }
    row(rows, `swarmd, ${services} services`, samples);
    if (restarted.length > 0) row(rows, `swarmd, ${services} services, restarted`, restarted);
  }
}

async function measureEngine(engine: Engine, rows: Rows, options: Options): Promise<void> {
  const measure = async (name: string, prepare: () => Promise<void>): Promise<void> => {
    const samples: Idle[][] = [[], []];
    for (let run = 0; run < options.runs; run++) {
      await engine.stop();
      await engine.start();
      await prepare();
      const pids = [enginePid(engine, 'dockerd'), enginePid(engine, 'containerd')];
      for (const [i, sample] of (await idle(pids, options.idleMs)).entries()) samples[i]?.push(sample);
      if (name !== '') await leaveSwarm(engine);
    }
    row(rows, `dockerd${name}`, samples[0] ?? []);
    row(rows, `  its containerd${name}`, samples[1] ?? []);
  };
  await measure('', async () => {});
  for (const services of options.serviceCounts) {
    await measure(` in Swarm mode, ${services} services`, async () => {
      await initSwarm(engine);
      for (let i = 0; i < services; i++)
        await createSwarmService(engine, { name: `idle-${i}`, image: 'idle', replicas: 0 });
    });
  }
}

/** Runs a command `runs` times; milliseconds from its start to its end. */
async function timeCommand(runs: number, command: () => Promise<ExecResult>): Promise<string> {
  const samples: number[] = [];
  for (let run = 0; run < runs; run++) {
    const startedMs = performance.now();
    const { code, stderr } = await command();
    if (code !== 0) throw new Error(`a command failed with exit code ${code}: ${stderr}`);
    samples.push(performance.now() - startedMs);
  }
  return msText(spreadOf(samples));
}

async function measureCommands(bed: BenchBed, runs: number): Promise<void> {
  const daemon = bed.daemon('commands');
  await daemon.start('init', ...bed.initFlags);
  const rows: string[][] = [['command line', 'time']];
  const first = async (): Promise<ExecResult> => {
    forgetCompiledCode(bed);
    return await daemon.cli(['--version']);
  };
  rows.push(['swarmd --version, first start of this checkout', await timeCommand(runs, first)]);
  await daemon.cli(['service', 'ls']);
  rows.push(['swarmd --version', await timeCommand(runs, () => daemon.cli(['--version']))]);
  rows.push(['swarmd service ls', await timeCommand(runs, () => daemon.cli(['service', 'ls']))]);
  await daemon.stop();
  const { engine } = bed;
  if (engine !== null && thisMachine.hasCommand('docker')) {
    await initSwarm(engine);
    const docker = (...args: string[]): Promise<ExecResult> =>
      bed.place.exec(['docker', '--host', `unix://${engine.socketPath}`, ...args]);
    rows.push(['docker --version', await timeCommand(runs, () => docker('--version'))]);
    rows.push(['docker service ls', await timeCommand(runs, () => docker('service', 'ls'))]);
    await leaveSwarm(engine);
  }
  const bare = (): Promise<ExecResult> => bed.place.exec([process.execPath, '-e', '0']);
  rows.push(['node -e 0, which swarmd cannot go below', await timeCommand(runs, bare)]);
  printTable(rows);
}

async function main(options: Options): Promise<void> {
  printHeading(`memory: after ${options.idleMs / 1_000} s idle; medians (least..most)`);
  const withEngine = canRunEngine('swarmd is measured with the process runtime, and Docker is left out');
  const bed = withEngine ? await openEngineBed() : openPlainBed();
  try {
    const rows: Rows = [['', 'resident', 'of it not files', 'one core used']];
    await measureSwarmd(bed, rows, options);
    if (bed.engine !== null) await measureEngine(bed.engine, rows, options);
    printTable(rows);
    print();
    await measureCommands(bed, options.runs * 3);
    print();
  } finally {
    bed.close();
  }
}

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '3' },
    'idle-seconds': { type: 'string', default: '30' },
    services: { type: 'string', default: '0,100' },
  },
});
await main({
  runs: Number(values.runs),
  idleMs: Number(values['idle-seconds']) * 1_000,
  serviceCounts: values.services.split(',').map(Number),
});
