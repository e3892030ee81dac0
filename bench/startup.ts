/**
 * How soon a node is there: `swarmd init` on an empty folder until its API answers and its node is ready, and
 * `swarmd daemon` on a folder with services in it; beside them Docker's Swarm mode on an engine of its own.
 *
 * `node bench/startup.ts [--runs 5] [--services 0,100,1000]`. With root and a container engine (dockerd and what
 * test/support/needs.ts lists) everything runs on a host of its own (network namespace); without them swarmd alone is
 * measured, with the process runtime. Removes all it makes.
 */
import { parseArgs } from 'node:util';
import type { Daemon } from '../test/e2e/lib/daemon.ts';
import type { Engine } from '../test/e2e/lib/engine.ts';
import { waitFor } from '../test/support/wait.ts';
import { type BenchBed, canRunEngine, forgetCompiledCode, openEngineBed, openPlainBed } from './lib/bed.ts';
import { msText, print, printHeading, printTable, spreadOf } from './lib/figures.ts';
import { storeIdleServices } from './lib/services.ts';
import { createSwarmService, initSwarm, leaveSwarm, waitForReadyNode } from './lib/swarm-mode.ts';

/** Milliseconds from the start of the process. */
interface Start {
  readonly answers: number;
  readonly ready: number;
}

type Rows = [string, string, string][];

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startedMs = performance.now();
  await work();
  return performance.now() - startedMs;
}

/** Starts a daemon with `args`. */
async function measureStart(daemon: Daemon, args: readonly string[]): Promise<Start> {
  const startedMs = performance.now();
  await daemon.start(...args);
  const answers = performance.now() - startedMs;
  await waitFor(
    'the node to be ready',
    async () => (await daemon.call('node.list', {}))[0]?.status.state === 'ready',
    { everyMs: 10, timeoutMs: 30_000 },
  );
  return { answers, ready: performance.now() - startedMs };
}

function row(rows: Rows, name: string, starts: readonly Start[]): void {
  const text = (key: keyof Start): string => msText(spreadOf(starts.map((start) => start[key])));
  rows.push([name, text('answers'), text('ready')]);
}

async function measureInit(bed: BenchBed, rows: Rows, runs: number): Promise<void> {
  const first: Start[] = [];
  const later: Start[] = [];
  const detached: number[] = [];
  for (let run = 0; run < runs; run++) {
    for (const starts of [first, later]) {
      if (starts === first) forgetCompiledCode(bed);
      const daemon = bed.daemon(`init-${run}-${starts === first ? 'first' : 'later'}`);
      starts.push(await measureStart(daemon, ['init', ...bed.initFlags]));
      await daemon.stop();
    }
    const background = bed.daemon(`detached-${run}`);
    const args = ['init', '--detach', ...bed.initFlags];
    detached.push(
      await timed(async () => {
        const { code, stderr } = await background.attempt(...args);
        if (code !== 0) throw new Error(`swarmd init --detach: exit code ${code}\n${stderr}`);
      }),
    );
    await background.run('leave', '--force');
  }
  row(rows, 'swarmd init, first start of this checkout', first);
  row(rows, 'swarmd init, later', later);
  rows.push(['swarmd init --detach, until the command returns', msText(spreadOf(detached)), '']);
}

async function measureRestart(bed: BenchBed, rows: Rows, runs: number, services: number): Promise<void> {
  const daemon = bed.daemon(`restart-${services}`);
  await daemon.start('init', ...bed.initFlags);
  await storeIdleServices(daemon, services);
  const stopped: Start[] = [];
  const killed: Start[] = [];
  for (let run = 0; run < runs; run++) {
    await daemon.stop();
    stopped.push(await measureStart(daemon, ['daemon']));
    await daemon.kill();
    killed.push(await measureStart(daemon, ['daemon']));
  }
  await daemon.stop();
  row(rows, `swarmd daemon after SIGTERM, ${services} services`, stopped);
  row(rows, `swarmd daemon after SIGKILL, ${services} services`, killed);
}

/** The engine's own start is part of the way for Docker; for swarmd it is not needed to be a manager. */
async function measureSwarmMode(
  engine: Engine,
  rows: Rows,
  runs: number,
  serviceCounts: readonly number[],
): Promise<void> {
  const engineStarts: number[] = [];
  const inits: number[] = [];
  for (let run = 0; run < runs; run++) {
    await engine.stop();
    engineStarts.push(await timed(() => engine.start()));
    inits.push(await timed(() => initSwarm(engine)));
    await leaveSwarm(engine);
  }
  rows.push(['dockerd alone', msText(spreadOf(engineStarts)), '']);
  rows.push(['docker swarm init (dockerd runs already)', '', msText(spreadOf(inits))]);
  const sums = engineStarts.map((ms, i) => ms + (inits[i] ?? 0));
  rows.push(['dockerd and docker swarm init', '', msText(spreadOf(sums))]);
  for (const services of serviceCounts) {
    await initSwarm(engine);
    for (let i = 0; i < services; i++)
      await createSwarmService(engine, { name: `idle-${i}`, image: 'idle', replicas: 0 });
    const starts: Start[] = [];
    for (let run = 0; run < runs; run++) {
      await engine.stop();
      const startedMs = performance.now();
      await engine.start();
      const answers = performance.now() - startedMs;
      await waitForReadyNode(engine);
      starts.push({ answers, ready: performance.now() - startedMs });
    }
    row(rows, `dockerd in Swarm mode again, ${services} services`, starts);
    await leaveSwarm(engine);
  }
}

async function main(runs: number, serviceCounts: readonly number[]): Promise<void> {
  printHeading('startup: from the start of the process; medians (least..most)');
  const withEngine = canRunEngine('swarmd is measured with the process runtime, and Docker is left out');
  const bed = withEngine ? await openEngineBed() : openPlainBed();
  try {
    const rows: Rows = [['', 'API answers', 'node ready']];
    await measureInit(bed, rows, runs);
    for (const services of serviceCounts) await measureRestart(bed, rows, runs, services);
    if (bed.engine !== null) await measureSwarmMode(bed.engine, rows, runs, serviceCounts);
    printTable(rows);
    print();
  } finally {
    bed.close();
  }
}

const { values } = parseArgs({
  options: { runs: { type: 'string', default: '5' }, services: { type: 'string', default: '0,100,1000' } },
});
await main(Number(values.runs), values.services.split(',').map(Number));
