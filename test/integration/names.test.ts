/** Names on the host's own DNS listener follow the tasks: service, stack and task names, over UDP and TCP. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Daemon } from '../e2e/lib/daemon.ts';
import { waitFor } from '../support/wait.ts';
import { ANSWER, LocalCluster, publishedPort } from './lib/cluster.ts';
import { askTcp, askUdp, TYPE_SRV } from './lib/dns-query.ts';

/** From a task's change in the state to the answer that shows it. */
const FOLLOW_MS = 1_000;

describe('names of a stack of processes', () => {
  let cluster: LocalCluster;
  let manager: Daemon;
  let dns: string;
  let port: number;

  before(async () => {
    cluster = new LocalCluster();
    manager = await cluster.init();
    dns = (await manager.call('info', {})).dnsAddress;
    port = await publishedPort();
    const file = join(cluster.place.folder, 'compose.yml');
    const lines = [
      'services:',
      '  web:',
      '    runtime: process',
      `    command: ${JSON.stringify(ANSWER)}`,
      `    ports: ["${port}:80"]`,
      '    deploy: { replicas: 2 }',
    ];
    writeFileSync(file, lines.join('\n'));
    await manager.run('stack', 'deploy', '-c', file, '--detach=false', 'shop');
  });
  after(() => cluster.remove());

  test('web, shop_web, tasks.web and each task have an address, over UDP and TCP', async () => {
    for (const name of ['web', 'shop_web', 'tasks.web', 'tasks.shop_web', 'web.1', 'WEB.2', 'web.']) {
      for (const askIt of [askUdp, askTcp]) {
        const { code, addresses } = await askIt(dns, name.replace(/\.$/, ''));
        assert.deepEqual([code, addresses], [0, ['127.0.0.1']], `${askIt.name} ${name}`);
      }
    }
    assert.equal((await askUdp(dns, 'web.3')).code, 3);
    assert.equal((await askTcp(dns, 'web.3')).code, 3);
  });

  test('answers follow scale within a second, down to none', async () => {
    const srv = '_80._tcp.web';
    assert.equal((await askUdp(dns, srv, TYPE_SRV)).ports.length, 2);
    for (const replicas of [4, 1, 3]) {
      await manager.run('service', 'scale', '-d', `shop_web=${replicas}`);
      const tasks = await manager.waitForRunning('shop_web', replicas);
      const ports = tasks.map((task) => task.status.ports?.[0]?.hostPort ?? 0).toSorted((a, b) => a - b);
      for (const askIt of [askUdp, askTcp]) {
        const shows = async (): Promise<true> => {
          assert.deepEqual((await askIt(dns, srv, TYPE_SRV)).ports, ports);
          return true;
        };
        await waitFor(`${replicas} ports by ${askIt.name}`, shows, { timeoutMs: FOLLOW_MS });
      }
    }
    await manager.run('service', 'scale', '-d', 'shop_web=0');
    await manager.waitForRunning('shop_web', 0);
    const empty = async (): Promise<true> => {
      assert.deepEqual(await askUdp(dns, 'web'), { code: 0, addresses: [], ports: [] });
      return true;
    };
    await waitFor('no address', empty, { timeoutMs: FOLLOW_MS });
  });

  test('names of a removed stack are unknown', async () => {
    await manager.run('stack', 'rm', 'shop');
    await waitFor(
      'the service to be gone',
      async () => (await manager.call('service.list', { stack: null })).length === 0,
    );
    const unknown = async (): Promise<boolean> => (await askUdp(dns, 'tasks.web')).code === 3;
    await waitFor('no such name', unknown, { timeoutMs: FOLLOW_MS });
  });
});
