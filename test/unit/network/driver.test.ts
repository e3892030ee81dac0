import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { ManualClock } from '../../../src/base/clock.ts';
import { SwarmdError } from '../../../src/base/errors.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { defaultTaskSpec } from '../../../src/model/defaults.ts';
import type { Task } from '../../../src/model/objects.ts';
import type { AssignedNetwork } from '../../../src/model/wire.ts';
import { type CommandRunner, systemCommands } from '../../../src/network/commands.ts';
import { type OverlayOptions, OverlayNetworks } from '../../../src/network/driver.ts';
import type {
  EngineNetwork,
  EngineNetworks,
  EngineNetworkSpec,
} from '../../../src/network/engine-networks.ts';
import { detectRung } from '../../../src/network/rung.ts';
import { aTask } from '../../support/builders.ts';
import { endpoint, network, routing } from '../../support/routing.ts';
import { waitFor } from '../../support/wait.ts';

const signal = new AbortController().signal;

/** An engine in memory. */
class FakeEngine implements EngineNetworks {
  readonly networks = new Map<string, EngineNetwork>();
  readonly inUse = new Set<string>();
  readonly refuse = new Set<string>();
  down = false;
  calls = { create: 0, list: 0, remove: 0 };
  #busy = 0;

  async create(spec: EngineNetworkSpec): Promise<void> {
    this.calls.create++;
    await this.#turn();
    if (this.refuse.has(spec.name)) throw new SwarmdError('RUNTIME', `no room for ${spec.name}`);
    this.networks.set(spec.name, { ...spec, engineId: `id-${spec.name}` });
  }

  async list(): Promise<EngineNetwork[]> {
    this.calls.list++;
    await this.#turn();
    return [...this.networks.values()];
  }

  async remove(engineId: string): Promise<'removed' | 'in-use'> {
    this.calls.remove++;
    await this.#turn();
    const found = [...this.networks.values()].find((one) => one.engineId === engineId);
    if (found !== undefined && this.inUse.has(found.name)) return 'in-use';
    if (found !== undefined) this.networks.delete(found.name);
    return 'removed';
  }

  /** Calls must never overlap: passes are serialised. */
  async #turn(): Promise<void> {
    assert.equal(this.#busy, 0, 'two calls at a time');
    this.#busy++;
    await new Promise((resolve) => setImmediate(resolve));
    this.#busy--;
    if (this.down) throw new SwarmdError('UNAVAILABLE', 'the engine does not answer');
  }
}

/** A kernel that takes every command and shows nothing. */
interface FakeKernel {
  readonly lines: string[];
  /** Commands that match fail. */
  fail: RegExp | null;
  readonly run: CommandRunner;
}

function fakeCommands(): FakeKernel {
  const kernel: FakeKernel = {
    lines: [],
    fail: null,
    run: async (argv, { input }) => {
      const line = argv.join(' ');
      kernel.lines.push(input === undefined ? line : `${line}\n${input}`);
      const failed = kernel.fail?.test(line) === true;
      return { exitCode: failed ? 1 : 0, stdout: '', stderr: failed ? 'Operation not permitted' : '' };
    },
  };
  return kernel;
}

function start(
  t: TestContext,
  options: Partial<OverlayOptions> = {},
): {
  readonly networks: OverlayNetworks;
  readonly engine: FakeEngine;
  readonly kernel: FakeKernel;
  readonly clock: ManualClock;
} {
  const engine = new FakeEngine();
  const kernel = fakeCommands();
  const clock = new ManualClock();
  const networks = new OverlayNetworks(
    { nodeId: 'node-a', address: '192.0.2.1', rung: { rung: 'overlay', reason: '' }, ...options },
    { engine, commands: kernel.run, clock, logger: silentLogger },
  );
  t.after(() => networks.close());
  return { networks, engine, kernel, clock };
}

function taskOn(...attached: readonly (readonly [AssignedNetwork, string])[]): Task {
  return aTask('t1', 'svc-web', 'preparing', {
    spec: defaultTaskSpec,
    serviceAnnotations: { name: 'web', labels: {} },
    networks: attached.map(([{ id }, address]) => ({
      networkId: id,
      address: `${address}/24`,
      aliases: ['w'],
    })),
  });
}

const app = network('app', 4097, { peerList: [['192.0.2.2', '10.16.1.3/24']] });
const ingress = network('ingress', 4096, { ingress: true });
const both = new Map<string, AssignedNetwork>([
  [app.id, app],
  [ingress.id, ingress],
]);

test('prepare makes the networks of a task once and says how to attach it', async (t) => {
  const { networks, engine } = start(t);
  const task = taskOn([app, '10.16.1.5'], [ingress, '10.16.0.5']);
  const answers = await Promise.all(Array.from({ length: 20 }, () => networks.prepare(task, both, signal)));
  assert.deepEqual(answers[19], {
    attachments: [
      { engineNetwork: '0sw-ingress-net-ingr', address: '10.16.0.5', mac: '02:42:0a:10:00:05', aliases: [] },
      { engineNetwork: 'sw-app-net-app', address: '10.16.1.5', mac: '02:42:0a:10:01:05', aliases: [] },
    ],
    dnsServers: ['10.16.1.2', '10.16.0.2'],
    publishOnNode: false,
  });
  assert.equal(engine.calls.create, 2);
  const lists = engine.calls.list;
  await networks.prepare(task, both, signal);
  assert.equal(engine.calls.list, lists, 'nothing is asked again while all is well');
  assert.deepEqual(networks.networksOf('10.16.1.5'), [app.id, ingress.id]);
  assert.equal(networks.networksOf('10.16.1.6'), null);
});

test('host-ports rung: ports on the node, names by the engine', async (t) => {
  const { networks, kernel } = start(t, { rung: { rung: 'host-ports', reason: 'not root' } });
  const answer = await networks.prepare(taskOn([app, '10.16.1.5']), both, signal);
  assert.deepEqual(answer, {
    attachments: [
      {
        engineNetwork: 'sw-app-net-app',
        address: '10.16.1.5',
        mac: '02:42:0a:10:01:05',
        aliases: ['web', 'tasks.web', 'w', 'tasks.w'],
      },
    ],
    dnsServers: [],
    publishOnNode: true,
  });
  assert.deepEqual([...new Set(kernel.lines)], ['ip -j -4 route show'], 'the kernel is only looked at');
});

test('a task outside containers needs no network', async (t) => {
  const { networks, engine } = start(t);
  const task = { ...taskOn([app, '10.16.1.5']), spec: { ...defaultTaskSpec, runtime: 'process' as const } };
  assert.deepEqual(await networks.prepare(task, both, signal), {
    attachments: [],
    dnsServers: [],
    publishOnNode: false,
  });
  assert.equal(engine.calls.create, 0);
});

test('a network that cannot be made fails its own tasks only, with the reason', async (t) => {
  const { networks, engine, kernel } = start(t);
  engine.refuse.add('sw-app-net-app');
  await assert.rejects(networks.prepare(taskOn([app, '10.16.1.5']), both, signal), {
    message: /no room for sw-app/,
  });
  await networks.prepare(taskOn([ingress, '10.16.0.5']), both, signal);
  engine.refuse.clear();
  await networks.prepare(taskOn([app, '10.16.1.5']), both, signal);
  kernel.fail = /link add vx4098/;
  const back = network('back', 4098);
  await assert.rejects(networks.prepare(taskOn([back, '10.16.2.5']), new Map([[back.id, back]]), signal), {
    code: 'RUNTIME',
    message: /ip link add vx4098 .* failed: Operation not permitted/,
  });
});

test('a network the node does not know is UNAVAILABLE; an aborted wait is CANCELLED', async (t) => {
  const { networks } = start(t);
  await assert.rejects(networks.prepare(taskOn([app, '10.16.1.5']), new Map(), signal), {
    code: 'UNAVAILABLE',
  });
  const controller = new AbortController();
  const waiting = networks.prepare(taskOn([app, '10.16.1.5']), both, controller.signal);
  controller.abort();
  await assert.rejects(waiting, { code: 'CANCELLED' });
});

test('an engine that is away: told so, and mended when it is back', async (t) => {
  const { networks, engine } = start(t);
  engine.down = true;
  await assert.rejects(networks.prepare(taskOn([app, '10.16.1.5']), both, signal), { code: 'UNAVAILABLE' });
  assert.deepEqual(
    networks.status().map(({ state }) => state),
    ['failed'],
  );
  engine.down = false;
  await networks.reconcile();
  assert.deepEqual(networks.status(), [{ networkId: app.id, state: 'ready', error: '' }]);
});

test('updates keep the networks of the routing state, and let go of others when no container uses them', async (t) => {
  const { networks, engine, clock } = start(t, { checkMs: 1_000 });
  networks.update(routing({ networks: [app, ingress] }));
  await networks.reconcile();
  assert.deepEqual([...engine.networks.keys()], ['0sw-ingress-net-ingr', 'sw-app-net-app']);
  engine.inUse.add('sw-app-net-app');
  networks.update(routing({ networks: [ingress] }));
  await networks.reconcile();
  assert.equal(networks.status().find(({ networkId }) => networkId === app.id)?.state, 'leaving');
  engine.inUse.clear();
  clock.advance(1_000);
  await waitFor('the check to remove it', () => !engine.networks.has('sw-app-net-app'), { everyMs: 1 });
});

test('a network that a task was prepared for outlives a routing state without it', async (t) => {
  const { networks, engine, clock } = start(t, { preparedKeepMs: 5_000 });
  await networks.prepare(taskOn([app, '10.16.1.5']), both, signal);
  networks.update(routing({}));
  await networks.reconcile();
  assert.ok(engine.networks.has('sw-app-net-app'));
  clock.advance(5_000);
  await networks.reconcile();
  assert.ok(!engine.networks.has('sw-app-net-app'));
});

test('tasks that come and go elsewhere cost one batch of forwarding entries, no look at the engine', async (t) => {
  const { networks, engine, kernel } = start(t);
  const remote = endpoint('web', 2, {
    nodeId: 'node-b',
    nodeAddress: '192.0.2.2',
    on: [[app, '10.16.1.20']],
  });
  networks.update(routing({ networks: [app] }));
  await networks.reconcile();
  const lists = engine.calls.list;
  kernel.lines.length = 0;
  networks.update(routing({ networks: [app], endpoints: [remote] }));
  await waitFor('the entry', () => kernel.lines.length > 0, { everyMs: 1 });
  assert.deepEqual(kernel.lines, [
    'bridge -force -batch -\nfdb replace 02:42:0a:10:01:14 dev vx4097 dst 192.0.2.2 self static\n',
  ]);
  networks.update(routing({ networks: [app], endpoints: [remote] }));
  assert.equal(engine.calls.list, lists);
  assert.equal(kernel.lines.length, 1);
});

test('remove-all removes what is ours and names what is still in use', async (t) => {
  const { networks, engine } = start(t);
  const foreign: EngineNetwork = {
    name: 'sw-other',
    networkId: 'net-other',
    nodeId: 'node-b',
    bridge: 'sw9999',
    subnet: '10.99.0.0/24',
    gateway: '10.99.0.1',
    mtu: 1450,
    internal: false,
    engineId: 'id-other',
  };
  engine.networks.set(foreign.name, foreign);
  networks.update(routing({ networks: [app, ingress] }));
  await networks.reconcile();
  engine.inUse.add('sw-app-net-app');
  assert.deepEqual(await networks.removeAll(signal), ['sw-app-net-app']);
  engine.inUse.clear();
  assert.deepEqual(await networks.removeAll(signal), []);
  assert.deepEqual([...engine.networks.keys()], ['sw-other']);
});

test('after close nothing more is done', async (t) => {
  const { networks, engine, clock } = start(t, { checkMs: 10 });
  networks.update(routing({ networks: [app] }));
  await networks.close();
  const calls = { ...engine.calls };
  clock.advance(100);
  networks.update(routing({ networks: [ingress] }));
  await networks.reconcile();
  assert.deepEqual(engine.calls, calls);
});

test('rung: what is missing is named', async () => {
  const kernel = fakeCommands();
  const facts = { isRoot: true, hasEngine: true, vxlanPort: 4790 };
  const rung = (changes: Partial<typeof facts>): ReturnType<typeof detectRung> =>
    detectRung({ ...facts, ...changes }, kernel.run, signal);
  assert.deepEqual(await rung({}), { rung: 'overlay', reason: '' });
  assert.ok(kernel.lines.at(-1)?.startsWith('ip link del'), 'the probe is removed');
  assert.match((await rung({ hasEngine: false })).reason, /no container engine/);
  assert.match((await rung({ isRoot: false })).reason, /root/);
  kernel.fail = /link add/;
  assert.match((await rung({})).reason, /VXLAN device cannot be made: Operation not permitted/);
  const without: CommandRunner = () =>
    Promise.reject(new SwarmdError('NOT_FOUND', 'the command "ip" is not installed'));
  assert.deepEqual(await detectRung(facts, without, signal), {
    rung: 'host-ports',
    reason: 'the command "ip" is not installed',
  });
});

test('commands: output, exit code, input, absence, cancellation', async () => {
  const run = systemCommands();
  const echoed = await run(['cat'], { signal, input: 'text' });
  assert.deepEqual(echoed, { exitCode: 0, stdout: 'text', stderr: '' });
  assert.equal((await run(['sh', '-c', 'echo no >&2; exit 3'], { signal })).exitCode, 3);
  await assert.rejects(run(['no-such-command-here'], { signal }), { code: 'NOT_FOUND' });
  const controller = new AbortController();
  const waiting = run(['sleep', '60'], { signal: controller.signal });
  controller.abort();
  await assert.rejects(waiting, { code: 'CANCELLED' });
});
