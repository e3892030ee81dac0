/** What an operator does after losing managers: going on with one, moving one, replacing a wiped one. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import type { Daemon } from '../e2e/lib/daemon.ts';
import type { NodeId } from '../../src/model/ids.ts';
import { freePort } from '../support/free-port.ts';
import { waitFor } from '../support/wait.ts';
import { ANSWER, addressOf, LocalCluster, NODE_FLAGS } from './lib/cluster.ts';

type Three = [Daemon, Daemon, Daemon];

async function threeManagers(cluster: LocalCluster): Promise<Three> {
  const first = await cluster.init('m1');
  const second = await cluster.join('m2', first, 'manager');
  const managers: Three = [first, second, await cluster.join('m3', first, 'manager')];
  await membersKnown(managers, 3);
  return managers;
}

/** Every one of `managers` sees a leader and that many members. */
async function membersKnown(managers: readonly Daemon[], count: number): Promise<void> {
  await waitFor(`${count} members`, async () => {
    const infos = await Promise.all(managers.map((manager) => manager.call('info', {}, 2_000)));
    return infos.every(({ raft }) => raft?.members === count && raft.leaderNodeId !== null);
  });
}

async function create(manager: Daemon, name: string, replicas: number): Promise<void> {
  const flags = ['--name', name, '--replicas', String(replicas), '-d'];
  await manager.run('service', 'create', '--runtime', 'process', ...flags, ...ANSWER);
}

/** Waits for tasks that run and are wanted; those on nodes that are gone are told of, not counted. */
async function running(manager: Daemon, service: string, count: number): Promise<void> {
  await waitFor(`${count} tasks of ${service}`, async () => {
    const up = (await manager.tasks(service)).filter(
      ({ desiredState, status }) => desiredState === 'running' && status.state === 'running',
    );
    return up.length === count;
  });
}

async function idOf(manager: Daemon): Promise<NodeId> {
  return (await manager.call('info', {})).nodeId as NodeId;
}

describe('the majority of the managers is lost for good', () => {
  let cluster: LocalCluster;
  before(() => {
    cluster = new LocalCluster();
  });
  after(() => cluster.remove());

  test('the one that is left goes on as a cluster of its own, its tasks untouched', async () => {
    const [one, two, three] = await threeManagers(cluster);
    const worker = await cluster.join('w1', one, 'worker');
    await create(one, 'kept', 4);
    await one.waitForRunning('kept', 4);
    const tokens = await one.call('cluster.tokens', { rotate: null });
    const lost = [await idOf(one), await idOf(two)];
    await waitFor('the last word to reach the third', async () => {
      const infos = await Promise.all([one, two, three].map((manager) => manager.call('info', {})));
      return new Set(infos.map(({ raft }) => raft?.appliedIndex)).size === 1;
    });
    const before = [three.taskProcesses(), worker.taskProcesses()];
    assert.equal(before[0]?.length, 1);
    await Promise.all([one.kill(), two.kill()]);

    const refusal = await waitFor('the refusal', async () => {
      const { code, stderr } = await three.cli(['service', 'scale', '-d', 'kept=1']);
      return code === 1 ? stderr : undefined;
    });
    assert.match(refusal, /2 of 3 managers must be up/);
    const inUse = await three.attempt('init', '--force-new-cluster', '--engine-host', 'none');
    assert.match(inUse.stderr, /in use by another swarmd daemon|already runs/, 'not while its daemon runs');
    const wrong = await worker.attempt('init', '--force-new-cluster', '--engine-host', 'none');
    assert.equal(wrong.code, 1);
    const empty = await cluster
      .daemon('nobody')
      .attempt('init', '--force-new-cluster', '--engine-host', 'none');
    assert.match(empty.stderr, /belongs to no cluster/);

    await three.stop();
    await three.start('init', '--force-new-cluster', '--dns-addr', '127.0.0.1:0', '--engine-host', 'none');
    assert.match(three.log(), /Cluster forced: this machine .* is its only manager now/);
    await membersKnown([three], 1);
    const nodes = await waitFor('the lost managers to be down', async () => {
      const list = await three.call('node.list', {});
      return list.filter(({ status }) => status.state === 'down').length === 2 ? list : undefined;
    });
    for (const node of nodes) {
      assert.equal(node.status.state === 'down', lost.includes(node.id));
      assert.equal(node.manager !== undefined, node.id === (await idOf(three)));
    }
    assert.deepEqual(await three.call('cluster.tokens', { rotate: null }), tokens);
    assert.deepEqual(
      [three.taskProcesses().slice(0, 1), worker.taskProcesses().slice(0, 1)],
      [before[0], before[1]?.slice(0, 1)],
    );
    await three.run('service', 'scale', '-d', 'kept=5');
    await running(three, 'kept', 5);
    const now = new Set(three.taskProcesses().map(({ pid }) => pid));
    for (const { pid } of before[0] ?? []) assert.ok(now.has(pid), `task process ${pid} was kept`);

    const { raft } = await three.call('info', {});
    await two.start('daemon');
    await waitFor('what the returned one finds', async () => {
      const info = await two.call('info', {});
      return info.role === 'worker' || info.raft?.leaderNodeId === null;
    });
    const again = await three.call('info', {});
    assert.deepEqual([again.raft?.role, again.raft?.term, again.raft?.members], ['leader', raft?.term, 1]);
    await two.kill();
    const fourth = await cluster.join('m4', three, 'manager');
    await membersKnown([three, fourth], 2);
    await fourth.run('service', 'scale', '-d', 'kept=2');
    // The folder says by now what it is: nothing is forced again by an ordinary start.
    await three.kill();
    await three.start('daemon');
    await membersKnown([three, fourth], 2);
  });
});

describe('managers that come back', () => {
  let cluster: LocalCluster;
  let managers: Three;
  before(async () => {
    cluster = new LocalCluster();
    managers = await threeManagers(cluster);
    await create(managers[0], 'kept', 1);
  });
  after(() => cluster.remove());

  /** Starts a manager again at another port, which it then keeps. */
  async function startElsewhere(manager: Daemon): Promise<string> {
    const address = `127.0.0.1:${await freePort()}`;
    await manager.start('daemon', ...['--listen-addr', address, '--advertise-addr', address]);
    assert.equal(await addressOf(manager), address);
    return address;
  }

  /** The addresses of the managers in the state, as `manager` has it. */
  async function addresses(manager: Daemon): Promise<Map<string, string>> {
    const nodes = await manager.call('node.list', {});
    return new Map(nodes.map((node) => [node.id, node.manager?.address ?? '']));
  }

  async function known(where: ReadonlyMap<string, string>): Promise<void> {
    await waitFor(
      'the new addresses',
      async () => {
        for (const manager of managers) {
          const seen = await addresses(manager);
          if ([...where].some(([id, address]) => seen.get(id) !== address)) return false;
          const { managers: peers } = await manager.call('info', {});
          if (
            [...where].some(
              ([id, address]) => !peers.some((peer) => peer.nodeId === id && peer.address === address),
            )
          )
            return false;
        }
        return true;
      },
      { timeoutMs: 30_000 },
    );
    await membersKnown(managers, 3);
  }

  test('at another address, also as the leader, are found there by the others', async () => {
    for (const manager of [managers[2], managers[0]]) {
      const id = await idOf(manager);
      await manager.kill();
      const address = await startElsewhere(manager);
      await known(new Map([[id, address]]));
      await manager.run('service', 'scale', '-d', 'kept=2');
      // An ordinary start keeps it.
      await manager.kill();
      await manager.start('daemon');
      assert.equal(await addressOf(manager), address);
    }
  });

  test('two of three at once, so that there is no leader before they are found', async () => {
    const [one, two, three] = managers;
    const ids = [await idOf(two), await idOf(three)] as const;
    await Promise.all([two.kill(), three.kill()]);
    const where = new Map([
      [ids[0], await startElsewhere(two)],
      [ids[1], await startElsewhere(three)],
    ]);
    await known(where);
    await one.run('service', 'scale', '-d', 'kept=3');
  });

  test('with an empty folder join as somebody new; the old one is removed, unless that loses the quorum', async () => {
    const [one, two, three] = managers;
    const old = await idOf(three);
    await three.kill();
    await waitFor('the third to be down', async () => {
      const nodes = await one.call('node.list', {});
      return nodes.some(({ id, status }) => id === old && status.state === 'down');
    });
    // The leader cannot be removed; of the other two one is dead, and the living one is needed.
    const leaderId = (await one.call('info', {})).raft?.leaderNodeId;
    const living = leaderId === (await idOf(one)) ? two : one;
    const refused = await one.cli(['node', 'rm', '--force', await idOf(living)]);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /2 managers would remain and 2 of them must be up, but only 1 is/);
    rmSync(three.dataDir, { recursive: true });
    const tokens = await one.call('cluster.tokens', { rotate: null });
    await three.start('join', ...NODE_FLAGS, '--token', tokens.manager, await addressOf(one));
    const fresh = await idOf(three);
    assert.notEqual(fresh, old);
    await membersKnown(managers, 4);
    await one.run('node', 'rm', '--force', old);
    await membersKnown(managers, 3);
    const nodes = await three.call('node.list', {});
    assert.deepEqual(nodes.map(({ id }) => id).includes(old), false);
    await three.run('service', 'scale', '-d', 'kept=1');
  });
});

describe('a cluster that is restored from a snapshot', () => {
  let cluster: LocalCluster;
  before(() => {
    cluster = new LocalCluster();
  });
  after(() => cluster.remove());

  test('has its objects, and workers that find it at the old address keep their tasks', async () => {
    const manager = await cluster.init('m1', '--availability', 'drain');
    const worker = await cluster.join('w1', manager, 'worker');
    await create(manager, 'kept', 2);
    await manager.waitForRunning('kept', 2);
    const tokens = await manager.call('cluster.tokens', { rotate: null });
    const address = await addressOf(manager);
    const old = await idOf(manager);
    const file = `${cluster.place.folder}/backup`;
    await manager.run('snapshot', 'save', file);
    await manager.run('service', 'create', '--runtime', 'process', '--name', 'later', '-d', ...ANSWER);
    assert.match(await manager.run('snapshot', 'inspect', file), /1 service, 2 task/);
    const kept = (await manager.tasks('kept')).map(({ id }) => id as string);
    const ofKept = () => worker.taskProcesses().filter(({ taskId }) => kept.includes(taskId));
    const before = ofKept();
    assert.match((await manager.attempt('log', 'inspect')).stderr, /in use by another swarmd daemon/);
    await manager.kill();
    assert.match(
      (await manager.attempt('log', 'inspect', '--entries', '1..99')).stdout,
      /create service kept/,
    );
    rmSync(manager.dataDir, { recursive: true });

    const restored = cluster.daemon('m2');
    const flags = ['--listen-addr', address, '--advertise-addr', address, '--availability', 'drain'];
    const { code, stderr } = await restored.attempt('snapshot', 'restore', file, ...flags);
    assert.equal(code, 0, stderr);
    await restored.start('daemon', '--engine-host', 'none', '--dns-addr', '127.0.0.1:0');
    await waitFor('the worker to come back', async () => {
      const nodes = await restored.call('node.list', {});
      return nodes.some(({ id, status }) => id !== old && status.state === 'ready' && nodes.length === 3);
    });
    await restored.waitForRunning('kept', 2);
    assert.deepEqual(ofKept(), before);
    assert.deepEqual(await restored.call('cluster.tokens', { rotate: null }), tokens);
    const services = await restored.call('service.list', { stack: null });
    assert.deepEqual(
      services.map(({ spec }) => spec.name),
      ['kept'],
    );
    const nodes = await restored.call('node.list', {});
    assert.equal(nodes.find(({ id }) => id === old)?.status.state, 'down');
    await cluster.join('m3', restored, 'manager');
    await membersKnown([restored], 2);
  });
});
