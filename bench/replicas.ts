/**
 * 60 replicas from the request to all running, and from the request to all gone, on one engine:
 * (a) what the engine itself can do, asked by this program directly, (b) swarmd, (c) Docker's own Swarm mode.
 *
 * `node bench/replicas.ts [--runs 3] [--replicas 60] [--only raw,swarmd,swarm] [--at-once 1,2,4]`. Needs root and a
 * container engine (dockerd and what test/support/needs.ts lists), which it starts on a host of its own (network
 * namespace). One image, on the machine already. Requests go to the APIs, so no command line's time is counted, and
 * "all running" is what the manager counts, looked at every 50 ms. Removes all it makes.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { connectApi } from '../src/http/client.ts';
import type { Daemon } from '../test/e2e/lib/daemon.ts';
import type { Engine } from '../test/e2e/lib/engine.ts';
import { BUSYBOX_IMAGE } from '../test/e2e/lib/images.ts';
import { canRunEngine, type EngineBed, enginePid, openEngineBed } from './lib/bed.ts';
import {
  msText,
  print,
  printHeading,
  printTable,
  processorSeconds,
  ratioText,
  type Spread,
  spreadOf,
  spreadText,
} from './lib/figures.ts';
import { type ContainerNetwork, createContainers, removeContainers } from './lib/raw-engine.ts';
import { benchServiceSpec } from './lib/services.ts';
import {
  createSwarmNetwork,
  createSwarmService,
  initSwarm,
  leaveSwarm,
  removeSwarmService,
  runningSwarmTasks,
} from './lib/swarm-mode.ts';

const LOOK_EVERY_MS = 50;
const TIMEOUT_MS = 120_000;

interface Options {
  readonly runs: number;
  readonly replicas: number;
  readonly atOnce: readonly number[];
}

/** One run. Milliseconds; `firstMs` until the first of them ran; processor seconds by whom. */
interface Run {
  readonly createMs: number;
  readonly removeMs: number;
  readonly firstMs?: number;
  readonly engineSeconds: number;
  readonly daemonSeconds?: number;
}

interface Result {
  readonly name: string;
  readonly create: Spread;
  readonly remove: Spread;
  readonly runs: readonly Run[];
}

/** The runs of everything that is compared, by name. */
class Results {
  readonly #runs = new Map<string, Run[]>();

  add(name: string, run: Run): void {
    this.#runs.set(name, [...(this.#runs.get(name) ?? []), run]);
    print(
      `   ${name}: running ${(run.createMs / 1_000).toFixed(1)} s, gone ${(run.removeMs / 1_000).toFixed(1)} s`,
    );
  }

  /** In the order of their first runs. */
  all(): Result[] {
    return [...this.#runs].map(([name, runs]) => ({
      name,
      create: spreadOf(runs.map((run) => run.createMs)),
      remove: spreadOf(runs.map((run) => run.removeMs)),
      runs,
    }));
  }
}

/** Looks until `holds`; milliseconds since `startedMs`. */
async function until(what: string, startedMs: number, holds: () => Promise<boolean>): Promise<number> {
  for (;;) {
    if (await holds()) return performance.now() - startedMs;
    if (performance.now() - startedMs > TIMEOUT_MS) throw new Error(`${what}: not within ${TIMEOUT_MS} ms`);
    await delay(LOOK_EVERY_MS);
  }
}

/** How many containers the engine has, running or not, with `label`. */
async function containersLeft(engine: Engine, label: string): Promise<number> {
  const filters = encodeURIComponent(JSON.stringify({ label: [label] }));
  const path = `/containers/json?all=1&filters=${filters}`;
  return (await engine.callJson<unknown[]>({ method: 'GET', path })).length;
}

/** Creates with `create` until `running` says all, then removes with `remove` until none is left. */
async function measureRun(
  engine: Engine,
  options: Options,
  label: string,
  steps: {
    readonly create: () => Promise<unknown>;
    readonly running: () => Promise<number>;
    readonly remove: () => Promise<unknown>;
    readonly daemonPid?: number;
  },
): Promise<Run> {
  const pid = enginePid(engine, 'dockerd');
  const engineBefore = processorSeconds(pid);
  const daemonBefore = steps.daemonPid === undefined ? 0 : processorSeconds(steps.daemonPid);
  const startedMs = performance.now();
  await steps.create();
  let firstMs: number | undefined;
  const createMs = await until('all replicas to run', startedMs, async () => {
    const running = await steps.running();
    if (running > 0) firstMs ??= performance.now() - startedMs;
    return running >= options.replicas;
  });
  const used = {
    engineSeconds: processorSeconds(pid) - engineBefore,
    ...(steps.daemonPid === undefined
      ? {}
      : { daemonSeconds: processorSeconds(steps.daemonPid) - daemonBefore }),
  };
  // What follows a start (watchers, reports) is not part of the removal.
  await delay(1_000);
  const removedMs = performance.now();
  await steps.remove();
  const removeMs = await until(
    'all replicas to be gone',
    removedMs,
    async () => (await containersLeft(engine, label)) === 0,
  );
  return { createMs, removeMs, ...(firstMs === undefined ? {} : { firstMs }), ...used };
}

async function measureRaw(
  engine: Engine,
  options: Options,
  network: ContainerNetwork,
  atOnce: number,
): Promise<Run> {
  const pid = enginePid(engine, 'dockerd');
  const before = processorSeconds(pid);
  const startedMs = performance.now();
  const ids = await createContainers(engine, { count: options.replicas, atOnce, network });
  const createMs = performance.now() - startedMs;
  const engineSeconds = processorSeconds(pid) - before;
  await delay(1_000);
  const removedMs = performance.now();
  await removeContainers(engine, ids, Math.max(...options.atOnce));
  return { createMs, engineSeconds, removeMs: performance.now() - removedMs };
}

/** The concurrency at which the engine is fastest, from one run each. */
async function bestConcurrency(engine: Engine, options: Options): Promise<number> {
  if (options.atOnce.length === 1) return options.atOnce[0] as number;
  const tried: (readonly [number, number])[] = [];
  for (const atOnce of options.atOnce) {
    const { createMs } = await measureRaw(engine, options, 'bridge', atOnce);
    tried.push([atOnce, createMs]);
    print(`   engine alone, network bridge, tried ${atOnce} at once: ${(createMs / 1_000).toFixed(1)} s`);
  }
  return tried.toSorted((a, b) => a[1] - b[1])[0]?.[0] ?? 1;
}

async function measureSwarmd(
  daemon: Daemon,
  engine: Engine,
  options: Options,
  overlay: boolean,
): Promise<Run> {
  const api = connectApi(`unix://${daemon.socketPath}`);
  const signal = AbortSignal.timeout(3 * TIMEOUT_MS);
  try {
    const spec = { name: 'bench', labels: {}, driver: 'overlay', internal: false } as const;
    const network = overlay
      ? await api.call(
          'network.create',
          { spec: { ...spec, attachable: false, ingress: false, driverOptions: {} } },
          { signal },
        )
      : null;
    const ref = overlay ? 'bench-overlay' : 'bench-plain';
    const service = benchServiceSpec({
      name: ref,
      image: BUSYBOX_IMAGE,
      replicas: options.replicas,
      ...(network === null ? {} : { network: network.id }),
    });
    return await measureRun(engine, options, 'swarmd.task', {
      daemonPid: daemon.pid,
      create: () => api.call('service.create', { spec: service }, { signal }),
      running: async () => (await api.call('service.inspect', { ref }, { signal })).taskCounts.running,
      remove: () => api.call('service.remove', { ref }, { signal }),
    });
  } finally {
    api.close();
  }
}

async function measureSwarmMode(engine: Engine, options: Options, overlay: boolean): Promise<Run> {
  const network = overlay ? { network: await createSwarmNetwork(engine, 'bench') } : {};
  const name = overlay ? 'bench-overlay' : 'bench-plain';
  let id = '';
  return await measureRun(engine, options, 'com.docker.swarm.task', {
    create: async () => {
      const service = { name, image: BUSYBOX_IMAGE, replicas: options.replicas, ...network };
      id = await createSwarmService(engine, service);
    },
    running: () => runningSwarmTasks(engine, id),
    remove: () => removeSwarmService(engine, id),
  });
}

function printResults(results: readonly Result[], replicas: number): void {
  const find = (start: string): Result | undefined => results.find((result) => result.name.startsWith(start));
  const rows: string[][] = [
    [`${replicas} replicas`, 'all running', 'a second', 'of the engine', 'of Swarm mode', 'all gone'],
  ];
  for (const result of results) {
    const overlay = result.name.includes('overlay') || result.name.includes('user bridge');
    const raw = find(`engine alone, network ${overlay ? 'user bridge' : 'bridge'}`);
    const swarm = find(`Docker Swarm mode, ${overlay ? 'overlay' : 'no'}`);
    rows.push([
      result.name,
      msText(result.create),
      ((replicas * 1_000) / result.create.median).toFixed(1),
      raw === undefined ? '' : `x ${ratioText(result.create, raw.create)}`,
      swarm === undefined ? '' : `x ${ratioText(result.create, swarm.create)}`,
      msText(result.remove),
    ]);
  }
  printTable(rows);
  print();
  const where: string[][] = [
    ['where the time goes', 'first running', 'dockerd processor', 'swarmd processor'],
  ];
  for (const { name, runs } of results) {
    const of = (key: 'firstMs' | 'engineSeconds' | 'daemonSeconds'): Spread | null => {
      const samples = runs.flatMap((run) => run[key] ?? []);
      return samples.length === 0 ? null : spreadOf(samples);
    };
    const [first, engine, daemon] = [of('firstMs'), of('engineSeconds'), of('daemonSeconds')];
    where.push([
      name,
      first === null ? '' : msText(first),
      engine === null ? '' : spreadText(engine, 's'),
      daemon === null ? '' : spreadText(daemon, 's'),
    ]);
  }
  printTable(where);
  print();
}

/** One round of everything, so that what the machine does meanwhile hits all sides. */
async function measureRound(
  bed: EngineBed,
  options: Options,
  only: readonly string[],
  round: { readonly index: number; readonly atOnce: number; readonly results: Results },
): Promise<void> {
  const { engine } = bed;
  const { index, atOnce, results } = round;
  for (const network of only.includes('raw') ? (['none', 'bridge', 'user bridge'] as const) : []) {
    const run = await measureRaw(engine, options, network, atOnce);
    results.add(`engine alone, network ${network}, ${atOnce} at once`, run);
  }
  if (only.includes('swarmd')) {
    const daemon = bed.daemon(`replicas-${index}`);
    await daemon.start('init', ...bed.initFlags);
    results.add('swarmd, no network', await measureSwarmd(daemon, engine, options, false));
    results.add('swarmd, overlay network', await measureSwarmd(daemon, engine, options, true));
    // Its networks would be in the way of Swarm mode's, which are cut from the same pool.
    await daemon.run('leave', '--force');
    await daemon.ended();
  }
  if (only.includes('swarm')) {
    await initSwarm(engine);
    results.add('Docker Swarm mode, no network', await measureSwarmMode(engine, options, false));
    results.add('Docker Swarm mode, overlay network', await measureSwarmMode(engine, options, true));
    await leaveSwarm(engine);
  }
}

async function main(options: Options, only: readonly string[]): Promise<void> {
  printHeading(`replicas: ${options.replicas} on one engine; medians (least..most)`);
  if (!canRunEngine('nothing can be measured without')) {
    process.exitCode = 1;
    return;
  }
  const bed = await openEngineBed();
  const results = new Results();
  try {
    const atOnce = only.includes('raw') ? await bestConcurrency(bed.engine, options) : 1;
    for (let index = 0; index < options.runs; index++)
      await measureRound(bed, options, only, { index, atOnce, results });
  } finally {
    bed.close();
  }
  print();
  printResults(results.all(), options.replicas);
}

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '3' },
    replicas: { type: 'string', default: '60' },
    'at-once': { type: 'string', default: '1,2,4' },
    only: { type: 'string', default: 'raw,swarmd,swarm' },
  },
});
await main(
  {
    runs: Number(values.runs),
    replicas: Number(values.replicas),
    atOnce: values['at-once'].split(',').map(Number),
  },
  values.only.split(','),
);
