import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../../src/base/clock.ts';
import { SwarmdError } from '../../../src/base/errors.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { seededRandom } from '../../../src/base/random.ts';
import type { NodeId, SecretId, ServiceId } from '../../../src/model/ids.ts';
import type { NodeDescription, Task } from '../../../src/model/objects.ts';
import type { ManagerPeer, ServiceRecord } from '../../../src/model/wire.ts';
import type { RpcStream } from '../../../src/rpc/types.ts';
import { Agent } from '../../../src/worker/agent.ts';
import type { RoutingState } from '../../../src/worker/types.ts';
import { FakeManager } from '../../support/fake-manager.ts';
import { FakeRuntime, noTaskNetworks } from '../../support/fake-runtime.ts';
import { waitFor } from '../../support/wait.ts';
import { makeTask, nodeId, plainDescription } from '../../support/worker-fixtures.ts';

interface World {
  readonly dataDir: string;
  readonly runtime: FakeRuntime;
  readonly managers: FakeManager[];
  readonly routing: RoutingState[];
  readonly learned: (readonly ManagerPeer[])[];
  description: NodeDescription;
  agent: Agent;
  /** A new life of the worker on the same disk and runtime. */
  restart(): Promise<void>;
}

const leaderOf = (world: World): FakeManager => world.managers[0] as FakeManager;

async function makeWorld(
  t: TestContext,
  options: { managers?: number; initial?: string[]; prepare?: (world: World) => void } = {},
): Promise<World> {
  const dataDir = await mkdtemp(join(tmpdir(), 'swarmd-agent-'));
  const runtime = new FakeRuntime({ clock: systemClock() });
  const managers = Array.from({ length: options.managers ?? 1 }, (_, i) => new FakeManager(`m${i}:2377`));
  const makeAgent = (): Agent =>
    new Agent(
      {
        nodeId,
        dataDir,
        nodeAddress: '10.0.0.7',
        hostname: 'w1',
        initialManagers: options.initial ?? managers.map((manager) => manager.address),
      },
      {
        runtimes: [runtime],
        networks: noTaskNetworks,
        connect: (address, handlers, signal) => {
          const manager = managers.find((candidate) => candidate.address === address);
          if (manager === undefined) return Promise.reject(new SwarmdError('UNAVAILABLE', `no ${address}`));
          return manager.connect(handlers, signal);
        },
        clock: systemClock(),
        random: seededRandom(1),
        log: silentLogger,
        describe: () => Promise.resolve(world.description),
        onRouting: (state) => world.routing.push(state),
        onManagers: (peers) => world.learned.push(peers),
      },
    );
  const world: World = {
    dataDir,
    runtime,
    managers,
    routing: [],
    learned: [],
    description: plainDescription,
    agent: makeAgent(),
    restart: async () => {
      await world.agent.stop();
      await runtime.close();
      world.agent = makeAgent();
      await world.agent.start();
    },
  };
  options.prepare?.(world);
  t.after(async () => {
    runtime.unhang();
    await world.agent.stop();
    await rm(dataDir, { recursive: true, force: true });
  });
  await world.agent.start();
  return world;
}

function assigning(...tasks: Task[]): (manager: FakeManager) => void {
  return (manager) =>
    manager.assign(
      'complete',
      tasks.map((task) => ({ kind: 'task', id: task.id, value: task })),
    );
}

const ordered = ['accepted', 'preparing', 'ready', 'starting', 'running', 'complete', 'shutdown', 'failed'];

test('an assigned task is brought to running and its states are reported in order', async (t) => {
  const task = makeTask();
  const world = await makeWorld(t, { prepare: (w) => (leaderOf(w).onSession = assigning(task)) });
  await waitFor('running', () => leaderOf(world).status(task.id)?.state === 'running');
  const states = (leaderOf(world).reported.get(task.id) ?? []).map((status) => status.state);
  assert.deepEqual(
    states,
    states.toSorted((a, b) => ordered.indexOf(a) - ordered.indexOf(b)),
  );
  assert.deepEqual(world.runtime.held('running'), [task.id]);
});

test('a task that should wait is made but not started until it is told to run', async (t) => {
  const task = makeTask({ desiredState: 'ready' });
  const world = await makeWorld(t, { prepare: (w) => (leaderOf(w).onSession = assigning(task)) });
  await waitFor('ready', () => leaderOf(world).status(task.id)?.state === 'ready');
  assert.deepEqual(world.runtime.held('created'), [task.id]);
  const value: Task = { ...task, desiredState: 'running' };
  leaderOf(world).assign('incremental', [{ kind: 'task', id: task.id, value }]);
  await waitFor('running', () => leaderOf(world).status(task.id)?.state === 'running');
});

test('a shut down task is stopped, and removed when it leaves the assignments', async (t) => {
  const task = makeTask();
  const world = await makeWorld(t, { prepare: (w) => (leaderOf(w).onSession = assigning(task)) });
  const leader = leaderOf(world);
  await waitFor('running', () => leader.status(task.id)?.state === 'running');
  leader.assign('incremental', [{ kind: 'task', id: task.id, value: { ...task, desiredState: 'shutdown' } }]);
  await waitFor('shutdown', () => leader.status(task.id)?.state === 'shutdown');
  assert.deepEqual(world.runtime.held('exited'), [task.id]);
  leader.assign('incremental', [], [{ kind: 'task', id: task.id }]);
  await waitFor('removal', () => world.runtime.held().length === 0);
  assert.deepEqual(world.agent.tasks(), []);
});

test('tasks run on while the leader is away, and what happened meanwhile is reported afterwards', async (t) => {
  const [one, two] = [makeTask(), makeTask({ slot: 2 })];
  const world = await makeWorld(t, { prepare: (w) => (leaderOf(w).onSession = assigning(one, two)) });
  const leader = leaderOf(world);
  await waitFor('running', () => [one, two].every(({ id }) => leader.status(id)?.state === 'running'));
  leader.down = true;
  leader.endSession();
  await waitFor('disconnection', () => !world.agent.connected);
  world.runtime.exit(one.id, 9);
  await waitFor('local end', () => world.agent.tasks().some((local) => local.status.state === 'failed'));
  assert.deepEqual(world.runtime.held('running'), [two.id]);
  leader.down = false;
  await waitFor('the report', () => leader.status(one.id)?.state === 'failed');
  assert.equal(leader.status(one.id)?.error, 'task: non-zero exit (9)');
});

test('a restarted worker adopts what runs before any manager answers', async (t) => {
  const [kept, ended] = [makeTask(), makeTask({ slot: 2 })];
  const world = await makeWorld(t, { prepare: (w) => (leaderOf(w).onSession = assigning(kept, ended)) });
  const leader = leaderOf(world);
  await waitFor('running', () => [kept, ended].every(({ id }) => leader.status(id)?.state === 'running'));
  leader.down = true;
  await world.agent.stop();
  world.runtime.exit(ended.id, 1);
  await world.restart();
  await waitFor('adoption', () => world.agent.tasks().some((local) => local.status.state === 'failed'));
  const states = new Map(world.agent.tasks().map((local) => [local.id, local.status.state]));
  assert.deepEqual(
    states,
    new Map([
      [kept.id, 'running' as const],
      [ended.id, 'failed' as const],
    ]),
  );
  assert.equal(world.runtime.starts(kept.id), 1);
  leader.down = false;
  await waitFor('the report', () => leader.status(ended.id)?.state === 'failed');
});

test('strays stay until a complete set came, then go', async (t) => {
  const world = await makeWorld(t, { prepare: (w) => (leaderOf(w).down = true) });
  const stray = makeTask();
  const { signal } = new AbortController();
  await world.runtime.create(stray, { ...(await setupOf()), nodeAddress: '', hostname: '' }, signal);
  await world.runtime.start(stray.id, signal);
  await world.restart();
  await waitFor('the list', () => world.agent.tasks().length === 1);
  assert.deepEqual(world.runtime.held('running'), [stray.id]);
  leaderOf(world).down = false;
  await waitFor('removal', () => world.runtime.held().length === 0);
});

async function setupOf(): Promise<{
  networking: Awaited<ReturnType<typeof noTaskNetworks.prepare>>;
  secrets: Map<string, Uint8Array>;
  configs: Map<string, Uint8Array>;
}> {
  return { networking: await noTaskNetworks.prepare(), secrets: new Map(), configs: new Map() };
}

test('a follower sends the worker on to the leader; a dead leader is replaced by the next manager', async (t) => {
  const world = await makeWorld(t, {
    managers: 3,
    prepare: (w) => {
      for (const manager of w.managers) manager.notLeader = { leaderAddress: 'm2:2377' };
      (w.managers[2] as FakeManager).notLeader = null;
      for (const manager of w.managers) {
        manager.managers = w.managers.map(({ address }, i) => ({ nodeId: `n${i}` as NodeId, address }));
      }
    },
  });
  const [first, second, third] = world.managers as [FakeManager, FakeManager, FakeManager];
  await waitFor('a session', () => third.hasSession);
  third.down = true;
  third.endSession();
  second.notLeader = null;
  first.notLeader = { leaderAddress: null };
  await waitFor('a session with the new leader', () => second.hasSession);
  assert.equal(second.requests.at(-1)?.previousSession.startsWith('session-'), true);
  assert.deepEqual(world.learned.at(-1), second.managers);
  const remembered = JSON.parse(
    await readFile(join(world.dataDir, 'worker', 'managers.json'), 'utf8'),
  ) as unknown;
  assert.deepEqual(remembered, second.managers);
});

test('heartbeats keep coming, and a lost session is replaced', async (t) => {
  const world = await makeWorld(t);
  const leader = leaderOf(world);
  await waitFor('heartbeats', () => leader.heartbeats >= 3);
  leader.endSession(new SwarmdError('UNAVAILABLE', 'leadership ended'));
  await waitFor('a second session', () => leader.requests.length >= 2 && leader.hasSession);
});

test('a changed description opens a new session at once', async (t) => {
  const world = await makeWorld(t);
  await waitFor('a session', () => leaderOf(world).hasSession);
  world.description = { ...plainDescription, runtimes: ['process', 'docker'] };
  await waitFor('the news', () => leaderOf(world).requests.at(-1)?.description.runtimes.length === 2);
  await waitFor('a session', () => leaderOf(world).hasSession);
});

test('an incremental set out of order ends the session, and the next complete set mends it', async (t) => {
  const task = makeTask();
  const world = await makeWorld(t);
  const leader = leaderOf(world);
  await waitFor('a session', () => leader.hasSession);
  leader.onSession = assigning(task);
  leader.send({ kind: 'assignments', type: 'incremental', sequence: 7, more: false, put: [], remove: [] });
  await waitFor('running', () => leader.status(task.id)?.state === 'running');
  assert.equal(leader.requests.length, 2);
});

test('an engine that is gone fails nothing, and work goes on when it is back', async (t) => {
  const [running, waiting] = [makeTask(), makeTask({ slot: 2 })];
  const world = await makeWorld(t, { prepare: (w) => (leaderOf(w).onSession = assigning(running)) });
  const leader = leaderOf(world);
  await waitFor('running', () => leader.status(running.id)?.state === 'running');
  world.runtime.outage = true;
  leader.assign('incremental', [{ kind: 'task', id: waiting.id, value: waiting }]);
  await waitFor('the reason', () => leader.status(waiting.id)?.error === 'the engine does not answer');
  assert.equal(leader.status(waiting.id)?.state, 'preparing');
  assert.equal(leader.status(running.id)?.state, 'running');
  world.runtime.outage = false;
  await waitFor('running', () => leader.status(waiting.id)?.state === 'running');
  assert.equal(leader.status(waiting.id)?.error, '');
  assert.equal(leader.status(running.id)?.state, 'running');
});

test('reports that were not taken are sent again', async (t) => {
  const task = makeTask();
  const world = await makeWorld(t, {
    prepare: (w) => {
      leaderOf(w).refusesReports = true;
      leaderOf(w).onSession = assigning(task);
    },
  });
  await waitFor('running', () => world.runtime.held('running').length === 1);
  assert.equal(leaderOf(world).status(task.id), undefined);
  leaderOf(world).refusesReports = false;
  await waitFor('the report', () => leaderOf(world).status(task.id)?.state === 'running');
});

test('secrets are given to the task and never written to the worker folder', async (t) => {
  const id = 'abcdefghijklmnopqrstuvwxy' as SecretId;
  const file = { name: 'key', uid: '0', gid: '0', mode: 0o400 };
  const task = makeTask({ container: { secrets: [{ id, name: 'key', file }] } });
  const data = Buffer.from('hush hush').toString('base64');
  const world = await makeWorld(t, {
    prepare: (w) =>
      (leaderOf(w).onSession = (manager) =>
        manager.assign('complete', [
          { kind: 'task', id: task.id, value: task },
          { kind: 'secret', id, value: { name: 'key', data } },
        ])),
  });
  await waitFor('running', () => world.runtime.held('running').length === 1);
  assert.equal(Buffer.from(world.runtime.setup(task.id).secrets.get(id) ?? []).toString(), 'hush hush');
  await world.agent.stop();
  const stored = await readFile(join(world.dataDir, 'worker', 'tasks', `${task.id}.json`), 'utf8');
  assert.equal(stored.includes(data) || stored.includes('hush'), false);
});

test('routing is published, kept while disconnected, and restored from disk', async (t) => {
  const service: ServiceRecord = {
    id: 'sssssssssssssssssssssssss' as ServiceId,
    name: 'web',
    stack: '',
    mode: 'vip',
    ports: [],
    virtualIps: [],
  };
  const world = await makeWorld(t, {
    prepare: (w) =>
      (leaderOf(w).onSession = (manager) =>
        manager.assign('complete', [{ kind: 'service', id: service.id, value: service }])),
  });
  await waitFor('routing', () => world.routing.at(-1)?.services.get(service.id)?.name === 'web');
  leaderOf(world).down = true;
  leaderOf(world).endSession();
  await waitFor('the file', () =>
    readFile(join(world.dataDir, 'worker', 'routing.json'), 'utf8').then((text) => text.includes('web')),
  );
  world.routing.length = 0;
  await world.restart();
  assert.equal(world.routing[0]?.services.get(service.id)?.name, 'web');
});

test('leaving stops and removes every task and forgets the folder', async (t) => {
  const tasks = [makeTask(), makeTask({ slot: 2 })];
  const world = await makeWorld(t, { prepare: (w) => (leaderOf(w).onSession = assigning(...tasks)) });
  await waitFor('running', () => world.runtime.held('running').length === 2);
  assert.deepEqual(await world.agent.leave(AbortSignal.timeout(5_000)), []);
  assert.deepEqual(world.runtime.held(), []);
  await assert.rejects(readFile(join(world.dataDir, 'worker', 'managers.json')), { code: 'ENOENT' });
});

test('a hung call of a runtime does not hold up other tasks', async (t) => {
  const [stuck, free] = [makeTask(), makeTask({ slot: 2 })];
  const world = await makeWorld(t, { prepare: (w) => (leaderOf(w).onSession = assigning(stuck)) });
  const leader = leaderOf(world);
  await waitFor('running', () => leader.status(stuck.id)?.state === 'running');
  world.runtime.hang('stop');
  leader.assign('incremental', [
    { kind: 'task', id: stuck.id, value: { ...stuck, desiredState: 'shutdown' } },
  ]);
  await waitFor('the call', () => world.runtime.calls.some(({ call }) => call === 'stop'));
  leader.assign('incremental', [{ kind: 'task', id: free.id, value: free }]);
  await waitFor('running', () => leader.status(free.id)?.state === 'running');
});

test('logs are streamed to managers only', async (t) => {
  const task = makeTask({ container: { command: ['print', 'one', 'two'] } });
  const world = await makeWorld(t, { prepare: (w) => (leaderOf(w).onSession = assigning(task)) });
  await waitFor('running', () => leaderOf(world).status(task.id)?.state === 'running');
  const serve = leaderOf(world).handlers?.streams['worker.logs'];
  assert.ok(serve);
  const lines: unknown[] = [];
  const stream = { write: (record: { line: string }) => Promise.resolve(lines.push(record.line)) };
  const request = { taskId: task.id, follow: false, tail: null, sinceMs: null };
  const context = (role: string) =>
    ({ connection: { peer: { role } }, signal: new AbortController().signal }) as unknown as Parameters<
      typeof serve
    >[2];
  await serve(request, stream as unknown as RpcStream, context('manager'));
  assert.deepEqual(lines, ['one', 'two']);
  await assert.rejects(serve(request, stream as unknown as RpcStream, context('worker')), {
    code: 'PERMISSION_DENIED',
  });
});
