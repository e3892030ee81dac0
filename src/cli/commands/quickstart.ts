/**
 * `quickstart` (npm start): a cluster of one in a folder, a sample stack on it, and what to try next.
 *
 * Invariants: it listens on loopback only, resumes what it finds, and leaves nothing running after Ctrl-C: the
 * stack's tasks stop with it, while the services stay in the state and come back at the next start.
 */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { sleep } from '../../base/clock.ts';
import type { ServiceView } from '../../model/api.ts';
import type { ServiceSpec } from '../../model/spec.ts';
import type { NodeOptions, RunningNode } from '../../node/types.ts';
import type { StackPlan } from '../../stack/load-stack.ts';
import { helpGroups, type Run, type SwarmdCommand } from '../command.ts';
import type { ApiConnection, Outside } from '../context.ts';
import { engineHostFrom } from '../daemon-flags.ts';
import { untilEnded } from '../daemon-run.ts';
import { deployStack } from '../deploy.ts';
import { printError, printLine } from '../output.ts';
import { readStack } from '../stack-files.ts';
import { reportOutcome, waitForService } from '../wait.ts';

const STACK = 'hello';
/** Digest of the file a service was made from. */
const FILE_LABEL = 'swarmd.quickstart.file';
const PORTS_TRIED = 100;
/** Times given to the tasks to run, and to the published port to open. */
const READY_MS = 120_000;
const OPEN_MS = 10_000;
const POLL_MS = 50;

export function registerQuickstart(program: SwarmdCommand, run: Run): void {
  const command = program
    .sub('quickstart', 'a cluster of one with a sample stack, to look around in')
    .value('--data-dir <folder>', 'where to keep it', '.swarmd')
    .flag('--exit', 'end once everything runs (stops it again)')
    .value('--log-level <level>', 'how much is logged', 'warn')
    .helpGroup(helpGroups.start) as SwarmdCommand;
  command.run(run, (_args, self) => quickstart(run.outside, self));
}

interface QuickstartFlags {
  readonly dataDir: string;
  readonly exit?: boolean;
  readonly logLevel: NodeOptions['logLevel'];
}

async function quickstart(outside: Outside, command: SwarmdCommand): Promise<number> {
  const flags = command.opts<QuickstartFlags>();
  const dataDir = resolve(outside.cwd, flags.dataDir);
  const isNew = !existsSync(join(dataDir, 'identity.json'));
  printLine(
    outside,
    isNew ? `Making a cluster of one in ${dataDir} …` : `Starting the cluster in ${dataDir} again …`,
  );
  const node = await outside.startNode(optionsOf(outside, dataDir, flags.logLevel), {
    kind: isNew ? 'init' : 'resume',
  });
  const api = outside.connect(`unix://${node.socketPath}`);
  let exitCode = 1;
  try {
    exitCode = await deployAndShow(outside, api, node, dataDir);
    if (exitCode === 0 && flags.exit !== true && !outside.interrupt.aborted) {
      printLine(outside, '\nStop with Ctrl-C. The next start finds everything again.');
      exitCode = await untilEnded(outside, node, { stopTasks: true });
    }
  } finally {
    api.close();
    await node.stop({ stopTasks: true });
  }
  return exitCode;
}

function optionsOf(outside: Outside, dataDir: string, logLevel: NodeOptions['logLevel']): NodeOptions {
  const engineHost = engineThatIsThere(outside);
  return {
    dataDir,
    listen: { host: '127.0.0.1', port: 0 },
    advertise: { host: '127.0.0.1', port: 0 },
    dataPathAddress: '',
    socketPath: join(dataDir, 'swarmd.sock'),
    dns: null,
    engineHost,
    runtimes: engineHost === null ? ['process'] : ['docker', 'process'],
    labels: {},
    availability: 'active',
    logLevel,
    logFormat: 'text',
  };
}

/** The sample runs without an engine, so one that is not installed is not worth a warning. */
function engineThatIsThere(outside: Outside): string | null {
  const host = engineHostFrom(undefined, outside);
  const socket = host?.startsWith('unix://') === true ? host.slice('unix://'.length) : null;
  return socket !== null && !existsSync(socket) ? null : host;
}

async function deployAndShow(
  outside: Outside,
  api: ApiConnection,
  node: RunningNode,
  dataDir: string,
): Promise<number> {
  const signal = outside.interrupt;
  const file = join(outside.packageRoot, 'examples', 'hello', 'compose.yml');
  const plan = withLabel(await readStack(outside, STACK, [file]), digestOf(file));
  const existing = await api.call('service.list', { stack: STACK }, { signal });
  // What was scaled or changed by hand stays so, as long as the file is the one it was made from.
  if (!isDeployed(plan, existing)) {
    await deployStack(outside, api, await withFreePorts(outside, plan, existing), {
      prune: true,
      quiet: false,
    });
  }
  const services = await api.call('service.list', { stack: STACK }, { signal });
  for (const { id, spec } of services) {
    printLine(outside, `Waiting for ${spec.name} …`);
    const wait = { quiet: false, strict: true, verify: false, timeoutMs: READY_MS };
    const outcome = await waitForService(outside, api, id, wait);
    if (outcome.kind !== 'converged')
      return reportOutcome(outside, outcome, true, `swarmd stack ps ${STACK}`);
  }
  // Read again: a new service is given its ports a moment after it was made.
  const ready = await api.call('service.list', { stack: STACK }, { signal });
  const port = ready.flatMap((service) => service.endpoint.ports)[0]?.publishedPort;
  if (port !== undefined) await untilOpen(outside, port);
  const shownDir = relative(outside.cwd, dataDir);
  printNext(outside, port, node, shownDir === '' || shownDir.startsWith('..') ? dataDir : shownDir);
  return 0;
}

function digestOf(file: string): string {
  return createHash('sha256').update(readFileSync(file)).digest('hex');
}

function withLabel(plan: StackPlan, digest: string): StackPlan {
  const services = plan.services.map((spec) => ({
    ...spec,
    labels: { ...spec.labels, [FILE_LABEL]: digest },
  }));
  return { ...plan, services };
}

function isDeployed(plan: StackPlan, existing: readonly ServiceView[]): boolean {
  return plan.services.every((spec) => {
    const found = existing.find((service) => service.spec.name === spec.name);
    return found !== undefined && found.spec.labels[FILE_LABEL] === spec.labels[FILE_LABEL];
  });
}

/** Waits until the published port takes connections: the tasks run a moment before the way to them is open. */
async function untilOpen(outside: Outside, port: number): Promise<void> {
  const deadline = outside.clock.monotonicMs() + OPEN_MS;
  while (!(await outside.isPortOpen(port))) {
    if (outside.clock.monotonicMs() > deadline) {
      printError(outside, `warning: nothing answers on port ${port} yet; is another program using it?`);
      return;
    }
    await sleep(outside.clock, POLL_MS, outside.interrupt);
  }
}

/** The plan with each published port that another program holds replaced by the next free one. */
async function withFreePorts(
  outside: Outside,
  plan: StackPlan,
  existing: readonly ServiceView[],
): Promise<StackPlan> {
  const services: ServiceSpec[] = [];
  for (const spec of plan.services) {
    const before = existing.find((service) => service.spec.name === spec.name);
    const ports = [];
    for (const [i, port] of spec.endpoint.ports.entries()) {
      // A port that this cluster publishes already is taken by itself.
      const kept = before?.spec.endpoint.ports[i]?.publishedPort;
      const published = kept ?? (await freePort(outside, port.publishedPort));
      if (published !== port.publishedPort && kept === undefined) {
        printLine(
          outside,
          `Port ${port.publishedPort} is taken by another program; using ${published} instead.`,
        );
      }
      ports.push({ ...port, publishedPort: published });
    }
    services.push({ ...spec, endpoint: { ...spec.endpoint, ports } });
  }
  return { ...plan, services };
}

/** `first` or the next port that can be listened on. */
async function freePort(outside: Outside, first: number): Promise<number> {
  for (let port = first; port < first + PORTS_TRIED && port <= 65_535; port++) {
    if (await outside.isPortFree(port)) return port;
  }
  return first;
}

function printNext(outside: Outside, port: number | undefined, node: RunningNode, dataDir: string): void {
  const say = (line: string): void => printLine(outside, line);
  const swarmd = `npx swarmd --data-dir ${dataDir}`;
  say('');
  say('Everything runs.');
  if (port !== undefined)
    say(`\n  Open http://127.0.0.1:${port} (again and again: every task answers in turn)\n`);
  say('Try in another terminal, in this folder:');
  say(`  ${swarmd} service ls`);
  say(`  ${swarmd} stack ps ${STACK}`);
  say(`  ${swarmd} service scale ${STACK}_web=5`);
  say(`  ${swarmd} service update --env-add GREETING=Hi ${STACK}_web`);
  say(`  ${swarmd} service logs ${STACK}_web`);
  say(`  ${swarmd} --help`);
  say(`\nThe node is ${node.nodeId}, its files are in ${dataDir}.`);
}
