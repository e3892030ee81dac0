/**
 * Torture of real daemons: managers are killed, stopped and cut off while clients change and read registers through
 * the API; the recorded histories must be linearizable, and nothing acknowledged may be lost.
 *
 * `npm run torture -- [--daemons 3] [--seconds 60] [--clients 6] [--seed N] [--hosts]`. With `--hosts` (root) each
 * daemon is a host of its own in a network namespace, and partitions are among the faults. Exits 1 when a history is
 * not linearizable; the histories are then left in the folder that is printed.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { SwarmdError } from '../../src/base/errors.ts';
import { randomBelow, seededRandom } from '../../src/base/random.ts';
import { connectApi } from '../../src/http/client.ts';
import { defaultServiceSpec, defaultTaskSpec } from '../../src/model/defaults.ts';
import type { ServiceSpec } from '../../src/model/spec.ts';
import { Daemon, type Place, plainPlace } from '../e2e/lib/daemon.ts';
import { makeTestBed, type TestBed } from '../e2e/lib/hosts.ts';
import {
  checkLinearizable,
  type Operation,
  type RegisterInput,
  type RegisterOutput,
  registerModel,
} from '../support/linearizability.ts';
import { waitFor } from '../support/wait.ts';

const { values: flags } = parseArgs({
  options: {
    daemons: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '60' },
    clients: { type: 'string', default: '6' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    hosts: { type: 'boolean', default: false },
  },
});
const daemonCount = Number(flags.daemons);
const seconds = Number(flags.seconds);
const random = seededRandom(Number(flags.seed));
const REGISTERS = 4;
/** Name of the label that is the register. */
const LABEL = 'torture.value';
const CALL_MS = 3_000;

type Recorded = Operation<RegisterInput, RegisterOutput>;

/** One history a register. */
const histories: Recorded[][] = Array.from({ length: REGISTERS }, () => []);
const counts = { reads: 0, changes: 0, conflicts: 0, unknown: 0, failed: 0 };

function spec(name: string, value: string): ServiceSpec {
  const container = { ...defaultTaskSpec.container, args: ['true'] };
  return {
    ...defaultServiceSpec,
    name,
    labels: { [LABEL]: value },
    mode: { kind: 'replicated', replicas: 0 },
    task: { ...defaultTaskSpec, runtime: 'process', container },
  };
}

/** Reads the register, or changes it from what was read: a compare-and-set by the service's version. */
async function operate(daemon: Daemon, register: number, change: string | null): Promise<void> {
  const api = connectApi(`unix://${daemon.socketPath}`);
  const history = histories[register] as Recorded[];
  const name = `register-${register}`;
  const readAt = performance.now();
  try {
    const service = await api.call(
      'service.inspect',
      { ref: name },
      { signal: AbortSignal.timeout(CALL_MS) },
    );
    const value = service.spec.labels[LABEL] ?? '';
    history.push({
      input: { kind: 'read' },
      output: { value },
      calledAt: readAt,
      returnedAt: performance.now(),
    });
    counts.reads += 1;
    if (change === null) return;
    const input: RegisterInput = { kind: 'cas', from: value, to: change };
    const calledAt = performance.now();
    try {
      const params = {
        ref: name,
        version: service.meta.version,
        spec: { ...service.spec, labels: { [LABEL]: change } },
      };
      await api.call('service.update', params, { signal: AbortSignal.timeout(CALL_MS) });
      history.push({ input, output: { done: true }, calledAt, returnedAt: performance.now() });
      counts.changes += 1;
    } catch (error) {
      // Another change came first: this one did not happen. Whatever else went wrong, it may have.
      if (error instanceof SwarmdError && error.code === 'CONFLICT') {
        counts.conflicts += 1;
        return;
      }
      history.push({ input, output: null, calledAt, returnedAt: Number.POSITIVE_INFINITY });
      counts.unknown += 1;
    }
  } catch {
    counts.failed += 1;
  } finally {
    api.close();
  }
}

interface Fault {
  readonly name: string;
  run(daemon: Daemon, index: number, lengthMs: number): Promise<void>;
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const killing: Fault = {
  name: 'kill -9',
  async run(daemon, _index, lengthMs) {
    await daemon.kill();
    await pause(lengthMs);
    await daemon.start('daemon');
  },
};

const stopping: Fault = {
  name: 'SIGSTOP',
  async run(daemon, _index, lengthMs) {
    process.kill(daemon.pid, 'SIGSTOP');
    await pause(lengthMs);
    process.kill(daemon.pid, 'SIGCONT');
  },
};

const terminating: Fault = {
  name: 'SIGTERM',
  async run(daemon, _index, lengthMs) {
    await daemon.stop();
    await pause(lengthMs);
    await daemon.start('daemon');
  },
};

const CUT = `table inet cut {
  chain in { type filter hook input priority -200; iifname != "lo" drop; }
  chain out { type filter hook output priority -200; oifname != "lo" drop; }
}
`;

function partitioning(bed: TestBed): Fault {
  return {
    name: 'partition',
    async run(_daemon, index, lengthMs) {
      const host = bed.hosts[index];
      if (host === undefined) return;
      await host.run(['nft', '-f', '-'], { input: CUT });
      await pause(lengthMs);
      await host.run(['nft', 'delete', 'table', 'inet', 'cut']);
    },
  };
}

async function form(places: readonly Place[], addresses: readonly string[]): Promise<Daemon[]> {
  const common = ['--engine-host', 'none', '--dns-addr', 'none'];
  const listen = (index: number): string[] => [
    ...['--listen-addr', `${addresses[index]}:${flags.hosts ? 2377 : 0}`],
    ...['--advertise-addr', addresses[index] ?? ''],
  ];
  const daemons = places.map((place, index) => new Daemon(place, `d${index}`));
  const [first] = daemons as [Daemon];
  await first.start('init', ...common, ...listen(0));
  const { manager } = await first.call('cluster.tokens', { rotate: null });
  const { advertiseAddress } = await first.call('info', {});
  for (const [index, daemon] of daemons.entries()) {
    if (index > 0)
      await daemon.start('join', ...common, ...listen(index), '--token', manager, advertiseAddress);
  }
  await waitFor('every manager to have a vote', async () => {
    const infos = await Promise.all(daemons.map((daemon) => daemon.call('info', {})));
    return infos.every(({ raft }) => raft?.members === daemonCount && raft.role !== 'learner');
  });
  return daemons;
}

async function faults(
  daemons: readonly Daemon[],
  kinds: readonly Fault[],
  until: number,
): Promise<Map<string, number>> {
  const done = new Map<string, number>();
  while (performance.now() < until) {
    await pause(500 + randomBelow(random, 2_500));
    const index = randomBelow(random, daemons.length);
    const kind = kinds[randomBelow(random, kinds.length)] as Fault;
    const lengthMs = 200 + randomBelow(random, 4_000);
    await kind.run(daemons[index] as Daemon, index, lengthMs);
    done.set(kind.name, (done.get(kind.name) ?? 0) + 1);
  }
  return done;
}

async function client(daemons: readonly Daemon[], id: number, until: number): Promise<void> {
  for (let n = 0; performance.now() < until; n++) {
    const daemon = daemons[randomBelow(random, daemons.length)] as Daemon;
    const change = randomBelow(random, 2) === 0 ? null : `${id}-${n}`;
    await operate(daemon, randomBelow(random, REGISTERS), change);
    await pause(randomBelow(random, 60));
  }
}

async function torture(bed: TestBed | null, folder: string): Promise<boolean> {
  const places: readonly Place[] =
    bed?.hosts ?? Array.from({ length: daemonCount }, () => plainPlace(folder));
  const daemons = await form(places, bed?.hosts.map((host) => host.address) ?? places.map(() => '127.0.0.1'));
  try {
    for (let register = 0; register < REGISTERS; register++) {
      await (daemons[0] as Daemon).call('service.create', { spec: spec(`register-${register}`, 'first') });
      const written = { input: { kind: 'write', value: 'first' }, output: { done: true } } as const;
      histories[register]?.push({ ...written, calledAt: 0, returnedAt: 0.1 });
    }
    const until = performance.now() + seconds * 1_000;
    const kinds = [killing, stopping, terminating, ...(bed === null ? [] : [partitioning(bed)])];
    const clients = Array.from({ length: Number(flags.clients) }, (_, id) => client(daemons, id, until));
    const [done] = await Promise.all([faults(daemons, kinds, until), ...clients]);
    await waitFor(
      'the healed cluster to answer',
      async () => (await (daemons[0] as Daemon).call('service.list', { stack: null })).length === REGISTERS,
      { timeoutMs: 60_000 },
    );
    for (let register = 0; register < REGISTERS; register++)
      await operate(daemons[0] as Daemon, register, null);
    console.log('faults:', Object.fromEntries(done), 'operations:', counts);
  } finally {
    for (const daemon of daemons) daemon.destroy();
  }
  return judge(folder);
}

function judge(folder: string): boolean {
  let good = true;
  for (const [register, history] of histories.entries()) {
    const verdict = checkLinearizable(registerModel, history);
    console.log(`register ${register}: ${history.length} operations, linearizable: ${verdict.linearizable}`);
    if (verdict.linearizable === true) continue;
    good = false;
    const file = join(folder, `history-${register}.json`);
    writeFileSync(file, JSON.stringify(history));
    console.log(`  history: ${file}`);
  }
  return good;
}

console.log(
  `seed ${flags.seed}, ${daemonCount} daemons, ${seconds} s${flags.hosts ? ', hosts in namespaces' : ''}`,
);
const folder = mkdtempSync(join(tmpdir(), 'swarmd-torture-'));
const bed = flags.hosts ? await makeTestBed({ hosts: daemonCount }) : null;
let good = false;
try {
  good = await torture(bed, folder);
} finally {
  bed?.remove();
  if (good) rmSync(folder, { recursive: true });
}
console.log(good ? 'all linearizable' : 'NOT linearizable, or the run failed');
process.exitCode = good ? 0 : 1;
