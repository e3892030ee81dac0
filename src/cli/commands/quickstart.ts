/**
 * `quickstart` (npm start): a cluster of one in a folder, a sample stack on it, and what to try next.
 *
 * Invariants: it listens on loopback only, resumes what it finds, and leaves nothing running after Ctrl-C: the
 * stack's tasks stop with it, while the services stay in the state and come back at the next start.
 */
import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { join, relative, resolve } from 'node:path';
import type { ServiceView } from '../../model/api.ts';
import type { ServiceSpec } from '../../model/spec.ts';
import type { NodeOptions, RunningNode } from '../../node/types.ts';
import type { StackPlan } from '../../stack/load-stack.ts';
import { helpGroups, type Run, type SwarmdCommand } from '../command.ts';
import type { ApiConnection, Outside } from '../context.ts';
import { untilEnded } from '../daemon-run.ts';
import { deployStack } from '../deploy.ts';
import { printLine } from '../output.ts';
import { readStack } from '../stack-files.ts';
import { reportOutcome, waitForService } from '../wait.ts';

const STACK = 'hello';
const PORTS_TRIED = 100;

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
  const engine =
    outside.env['SWARMD_ENGINE_HOST'] ?? outside.env['DOCKER_HOST'] ?? 'unix:///var/run/docker.sock';
  return {
    dataDir,
    listen: { host: '127.0.0.1', port: 0 },
    advertise: { host: '127.0.0.1', port: 0 },
    dataPathAddress: '',
    socketPath: join(dataDir, 'swarmd.sock'),
    dns: null,
    engineHost: engine === 'none' ? null : engine,
    runtimes: engine === 'none' ? ['process'] : ['docker', 'process'],
    labels: {},
    availability: 'active',
    logLevel,
    logFormat: 'text',
  };
}

async function deployAndShow(
  outside: Outside,
  api: ApiConnection,
  node: RunningNode,
  dataDir: string,
): Promise<number> {
  const signal = outside.interrupt;
  const file = join(outside.packageRoot, 'examples', 'hello', 'compose.yml');
  const existing = await api.call('service.list', { stack: STACK }, { signal });
  const plan = await withFreePorts(outside, await readStack(outside, STACK, [file]), existing);
  await deployStack(outside, api, plan, { prune: true, quiet: false });
  for (const { name } of plan.services) {
    printLine(outside, `Waiting for ${name} …`);
    const wait = { quiet: false, strict: true, verify: false, timeoutMs: 120_000 };
    const outcome = await waitForService(outside, api, name, wait);
    if (outcome.kind !== 'converged')
      return reportOutcome(outside, outcome, true, `swarmd stack ps ${STACK}`);
  }
  const shownDir = relative(outside.cwd, dataDir);
  printNext(outside, plan, node, shownDir === '' || shownDir.startsWith('..') ? dataDir : shownDir);
  return 0;
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
      const published = kept ?? (await freePort(port.publishedPort));
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
async function freePort(first: number): Promise<number> {
  for (let port = first; port < first + PORTS_TRIED && port <= 65_535; port++)
    if (await isFree(port)) return port;
  return first;
}

function isFree(port: number): Promise<boolean> {
  return new Promise((done) => {
    const server = createServer();
    server.once('error', () => done(false));
    server.listen(port, '0.0.0.0', () => server.close(() => done(true)));
  });
}

function printNext(outside: Outside, plan: StackPlan, node: RunningNode, dataDir: string): void {
  const say = (line: string): void => printLine(outside, line);
  const swarmd = `npx swarmd --data-dir ${dataDir}`;
  const [service] = plan.services;
  const port = service?.endpoint.ports[0]?.publishedPort;
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
