/** What an operator does after losing managers: going on with one, moving one, replacing a wiped one. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Daemon } from '../e2e/lib/daemon.ts';
import { waitFor } from '../support/wait.ts';
import { ANSWER, LocalCluster } from './lib/cluster.ts';

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

async function idOf(manager: Daemon): Promise<string> {
  return (await manager.call('info', {})).nodeId;
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
    const now = new Set([...three.taskProcesses(), ...worker.taskProcesses()].map(({ pid }) => pid));
    for (const { pid } of before.flat()) assert.ok(now.has(pid), `task process ${pid} was kept`);

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
