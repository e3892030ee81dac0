/** Three managers and a worker: the leader is killed, and nothing that matters stops. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Daemon } from '../e2e/lib/daemon.ts';
import { waitFor } from '../support/wait.ts';
import { ANSWER, LocalCluster } from './lib/cluster.ts';

describe('three managers and a worker', () => {
  let cluster: LocalCluster;
  let managers: Daemon[];
  let worker: Daemon;

  before(async () => {
    cluster = new LocalCluster();
    const first = await cluster.init('m1', '--availability', 'drain');
    managers = [first];
    for (const name of ['m2', 'm3']) managers.push(await cluster.join(name, first, 'manager'));
    // Through a manager that does not lead.
    worker = await cluster.join('w1', managers[1] as Daemon, 'worker');
    for (const manager of managers) {
      const { nodeId } = await manager.call('info', {});
      await first.run('node', 'update', '--availability', 'drain', nodeId);
    }
  });
  after(() => cluster.remove());

  async function leader(among: readonly Daemon[]): Promise<Daemon> {
    return await waitFor('a leader', async () => {
      for (const manager of among) {
        const { raft, nodeId } = await manager.call('info', {}, 2_000);
        if (raft?.leaderNodeId === nodeId) return manager;
      }
      return undefined;
    });
  }

  async function create(manager: Daemon, name: string, replicas: number): Promise<void> {
    const flags = ['--name', name, '--replicas', String(replicas), '-d'];
    await manager.run('service', 'create', '--runtime', 'process', ...flags, ...ANSWER);
  }

  test('all three take part, and any of them takes commands', async () => {
    await waitFor('three members', async () => {
      const infos = await Promise.all(managers.map((manager) => manager.call('info', {})));
      return infos.every(({ raft }) => raft?.members === 3);
    });
    await create(managers[2] as Daemon, 'kept', 3);
    await (managers[1] as Daemon).waitForRunning('kept', 3);
    const list = await (managers[1] as Daemon).run('node', 'ls');
    assert.equal(list.match(/ Leader/g)?.length, 1, list);
    assert.equal(list.match(/ Reachable/g)?.length, 2, list);
    assert.match(await (managers[2] as Daemon).run('service', 'logs', 'kept'), /slot 3 answers/);
  });

  test('kill -9 of the leader: writes go on, the worker finds the new one, its tasks are not touched', async () => {
    const before = worker.taskProcesses();
    const killed = await leader(managers);
    await killed.kill();
    const killedMs = performance.now();
    const rest = managers.filter((manager) => manager !== killed);
    await waitFor('a write', async () => {
      const { code, stderr } = await (rest[0] as Daemon).cli([
        ...['service', 'create', '--runtime', 'process', '--name', 'after', '-d'],
        ...ANSWER,
      ]);
      if (code !== 0 && !stderr.includes('after')) throw new Error(stderr);
      return true;
    });
    const writeMs = performance.now() - killedMs;
    assert.ok(writeMs < 8_000, `a write took ${Math.round(writeMs)} ms`);
    for (const manager of rest) await manager.waitForRunning('after', 1);
    await (rest[1] as Daemon).waitForRunning('kept', 3);
    const now = worker.taskProcesses().filter(({ taskId }) => before.some((one) => one.taskId === taskId));
    assert.deepEqual(now, before);
    const list = await (rest[0] as Daemon).run('node', 'ls');
    assert.equal(list.match(/ Leader/g)?.length, 1, list);
    await waitFor('the killed manager to be seen', async () =>
      /Unreachable/.test(await (rest[0] as Daemon).run('node', 'ls')),
    );

    await killed.start('daemon');
    await waitFor('the restarted manager to catch up', async () => {
      const [mine, theirs] = await Promise.all([
        killed.call('info', {}),
        (rest[0] as Daemon).call('info', {}),
      ]);
      return mine.raft?.appliedIndex === theirs.raft?.appliedIndex && mine.raft?.leaderNodeId !== null;
    });
    assert.match(await killed.run('service', 'ls'), /after +replicated +1\/1/);
  });

  test('one of three alone says that it has no leader, and how many it takes', async () => {
    const [one, two, three] = managers as [Daemon, Daemon, Daemon];
    const before = worker.taskProcesses();
    await Promise.all([two.kill(), three.kill()]);
    const alone = await waitFor('the refusal', async () => {
      const result = await one.cli([
        'service',
        'create',
        '--runtime',
        'process',
        '--name',
        'never',
        '-d',
        'true',
      ]);
      return result.code === 1 ? result : undefined;
    });
    assert.match(alone.stderr, /no leader|leader/i);
    await Promise.all([two.start('daemon'), three.start('daemon')]);
    await waitFor('a write', async () => (await two.cli(['service', 'scale', '-d', 'kept=4'])).code === 0);
    await three.waitForRunning('kept', 4);
    const now = worker.taskProcesses().filter(({ taskId }) => before.some((task) => task.taskId === taskId));
    assert.deepEqual(now, before);
  });

  test('a manager leaves: the group has two, and takes writes', async () => {
    const going = managers[2] as Daemon;
    await going.run('leave', '--force');
    assert.equal(await going.ended(), 0);
    const [one, two] = managers as [Daemon, Daemon];
    await waitFor('two members', async () => {
      const infos = await Promise.all([one, two].map((manager) => manager.call('info', {})));
      return infos.every(({ raft }) => raft?.members === 2);
    });
    await two.run('service', 'scale', '-d', 'kept=1');
    await one.waitForRunning('kept', 1);
  });
});
