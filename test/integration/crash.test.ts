/** kill -9 of the daemon at random moments: what was acknowledged is there, and what ran goes on running. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { systemErrorCode } from '../../src/base/errors.ts';
import type { Daemon, TaskProcess } from '../e2e/lib/daemon.ts';
import { waitFor } from '../support/wait.ts';
import { ANSWER, ask, LocalCluster, publishedPort } from './lib/cluster.ts';

const KILLS = 6;
/** Creations run at a time against the daemon. */
const WRITERS = 4;

describe('a daemon that is killed', () => {
  let cluster: LocalCluster;
  let manager: Daemon;

  before(async () => {
    cluster = new LocalCluster();
    manager = await cluster.init();
  });
  after(() => cluster.remove());

  test('every acknowledged service is there after each kill, and every running task is adopted', async () => {
    const port = await publishedPort();
    const flags = ['--name', 'kept', '--replicas', '2', '-p', `${port}:80`, '-d', '--restart-delay', '100ms'];
    await manager.run('service', 'create', '--runtime', 'process', ...flags, ...ANSWER);
    const kept = await manager.waitForRunning('kept', 2);
    const processes = manager.taskProcesses();
    const { spec } = await manager.call('service.inspect', { ref: 'kept' });
    const acknowledged = new Set<string>();
    let created = 0;
    for (let round = 0; round < KILLS; round++) {
      const stop = new AbortController();
      const writers = Array.from({ length: WRITERS }, async () => {
        while (!stop.signal.aborted) {
          const name = `s${created++}`;
          const mode = { kind: 'replicated' as const, replicas: 0 };
          const endpoint = { ...spec.endpoint, ports: [] };
          try {
            await manager.call('service.create', { spec: { ...spec, name, mode, endpoint } });
            acknowledged.add(name);
          } catch (error) {
            // Not acknowledged: it may be there or not.
            if (!stop.signal.aborted && manager.running) throw error;
          }
        }
      });
      const all = Promise.all(writers);
      all.catch(() => {});
      // Not a wait for anything: the moment of the crash is what varies.
      await delay(20 + Math.random() * 200);
      stop.abort();
      await manager.kill();
      await all;
      await manager.start('daemon');
      const names = new Set(
        (await manager.call('service.list', { stack: null })).map(({ spec: one }) => one.name),
      );
      const lost = [...acknowledged].filter((name) => !names.has(name));
      assert.deepEqual(lost, [], `round ${round}: acknowledged and gone`);
      assert.deepEqual(
        (await manager.waitForRunning('kept', 2)).map((task) => task.id),
        kept.map((task) => task.id),
      );
      assert.deepEqual(manager.taskProcesses(), processes);
    }
    assert.ok(acknowledged.size > KILLS, `only ${acknowledged.size} services were made`);
    const slots = new Set<string>();
    await waitFor('the port', async () => {
      slots.add((await ask(port)).env['SWARMD_SLOT'] ?? '');
      return slots.size === 2;
    });
  });

  test('a task that ended while the daemon was away is seen and replaced', async () => {
    const before = manager.taskProcesses();
    const victim = before[0] as TaskProcess;
    await manager.kill();
    process.kill(-victim.pid, 'SIGKILL');
    await waitFor('its end', () => manager.taskProcesses().length === 1);
    await manager.start('daemon');
    await manager.waitForTasks(
      'kept',
      (tasks) => tasks.length === 2 && tasks.every(({ id }) => id !== victim.taskId),
    );
    const now = manager.taskProcesses();
    assert.deepEqual(
      now.filter(({ taskId }) => taskId === before[1]?.taskId),
      before.slice(1),
    );
    assert.match(await manager.run('service', 'ps', 'kept'), /\\_ kept\.\d .*Failed/);
  });

  test('a daemon that ends in order leaves its tasks, too', async () => {
    const before = manager.taskProcesses();
    assert.equal(await manager.stop(), 0);
    assert.deepEqual(manager.taskProcesses(), before);
    await manager.start('daemon');
    await manager.waitForRunning('kept', 2);
    assert.deepEqual(manager.taskProcesses(), before);
  });

  test('a kill while tasks are being made, stopped and replaced leaves neither doubles nor strays', async () => {
    await manager.run(
      'service',
      'update',
      '-d',
      '--update-parallelism',
      '0',
      '--update-monitor',
      '0s',
      'kept',
    );
    for (const [i, replicas] of [8, 1, 6].entries()) {
      await manager.run('service', 'scale', '-d', `kept=${replicas}`);
      await manager.run('service', 'update', '-d', '--env-add', `ROUND=${i}`, 'kept');
      await delay(Math.random() * 150);
      await manager.kill();
      await manager.start('daemon');
      const running = await manager.waitForTasks(
        'kept',
        (tasks) =>
          tasks.length === replicas && tasks.every(({ spec }) => spec.container.env.includes(`ROUND=${i}`)),
      );
      const ids = running.map(({ id }) => id as string).toSorted();
      await waitFor('no process without a task', () => {
        const now = manager.taskProcesses().map(({ taskId }) => taskId);
        assert.deepEqual(now.toSorted(), ids);
        return true;
      });
      for (const { pid } of manager.taskProcesses())
        assert.doesNotThrow(() => process.kill(pid, 0), systemErrorCode);
    }
  });
});
