/** Compose files from the command line: a good one, bad ones, and the quickstart. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Daemon } from '../e2e/lib/daemon.ts';
import { projectFolder } from '../support/imports.ts';
import { waitFor } from '../support/wait.ts';
import { LocalCluster, publishedPort } from './lib/cluster.ts';

const HELLO = join(projectFolder, 'examples/hello/compose.yml');

async function text(port: number): Promise<string> {
  const answer = await fetch(`http://127.0.0.1:${port}/`, { signal: AbortSignal.timeout(6_000) });
  return await answer.text();
}

async function answersFromAll(port: number): Promise<void> {
  await waitFor('each of three slots to answer', async () => {
    const slots = new Set<string>();
    for (let i = 0; i < 6; i++) slots.add(/slot (\d)/.exec(await text(port))?.[1] ?? '');
    return slots.size === 3;
  });
}

describe('stacks', () => {
  let cluster: LocalCluster;
  let manager: Daemon;
  let file: string;
  let port: number;

  before(async () => {
    cluster = new LocalCluster();
    manager = await cluster.init();
    port = await publishedPort();
    file = join(cluster.place.folder, 'hello.yml');
    // The example as it is, but for a port that nobody else has.
    writeFileSync(file, readFileSync(HELLO, 'utf8').replace('8080:80', `${port}:80`));
  });
  after(() => cluster.remove());

  test('examples/hello deploys, is listed, and answers from each replica', async () => {
    const output = await manager.run('stack', 'deploy', '-c', file, '--detach=false', 'hello');
    assert.match(output, /hello_web/);
    assert.match(await manager.run('stack', 'ls'), /hello +1/);
    assert.match(
      await manager.run('stack', 'services', 'hello'),
      new RegExp(`hello_web +replicated +3/3 .*:${port}->80`),
    );
    assert.equal(
      (await manager.run('stack', 'ps', 'hello')).match(/hello_web\.\d .*Running +Running/g)?.length,
      3,
    );
    await answersFromAll(port);
  });

  test('deployed again without a change, nothing is touched; with a change, it rolls', async () => {
    const before = (await manager.waitForRunning('hello_web', 3)).map((task) => task.id);
    await manager.run('stack', 'deploy', '-c', file, '--detach=false', 'hello');
    assert.deepEqual(
      (await manager.waitForRunning('hello_web', 3)).map((task) => task.id),
      before,
    );
    const changed = readFileSync(file, 'utf8')
      .replace('GREETING: Hello', 'GREETING: Servus')
      .replace('monitor: 2s', 'monitor: 100ms');
    writeFileSync(file, changed);
    await manager.run('stack', 'deploy', '-c', file, '--detach=false', 'hello');
    for (let i = 0; i < 3; i++) assert.match(await text(port), /^Servus/);
  });

  test('a malformed file is refused with its line and key, and changes nothing', async () => {
    const cases: [string, RegExp][] = [
      ['services:\n  web:\n    image: a\n    prots: ["80:80"]\n', /:4.*prots.*ports/s],
      ['services:\n  web:\n    image: a\n    ports: ["80:eighty"]\n', /:4.*ports/s],
      ['services:\n  web:\n    image: [a\n', /:[345]/],
      ['services:\n  web:\n    image: a\n    deploy:\n      replicas: many\n', /:5.*replicas/s],
      ['services:\n  web:\n    image: a\n    networks: [back]\n', /:4.*back/s],
      ['services:\n  web:\n    deploy: {}\n', /:[23].*image/s],
      ['service:\n  web:\n    image: a\n', /:1.*service/s],
      ['services:\n  web:\n    image: a\n  web:\n    image: b\n', /:4.*web/s],
      ['', /services|empty/],
    ];
    const before = await manager.call('service.list', { stack: null });
    for (const [content, wanted] of cases) {
      const bad = join(cluster.place.folder, 'bad.yml');
      writeFileSync(bad, content);
      const { code, stderr, stdout } = await manager.cli(['stack', 'deploy', '-c', bad, 'bad']);
      const shown = `${content}\n${code}\n${stdout}${stderr}`;
      assert.equal(code, 1, shown);
      assert.match(stderr, wanted, shown);
      assert.ok(content === '' || stderr.includes('bad.yml:'), shown);
      assert.doesNotMatch(stderr, /\n +at /, shown);
    }
    assert.deepEqual(await manager.call('service.list', { stack: null }), before);
    const missing = await manager.cli(['stack', 'deploy', '-c', '/nowhere/compose.yml', 'bad']);
    assert.equal(missing.code, 1);
    assert.match(missing.stderr, /\/nowhere\/compose\.yml/);
  });

  test('stack rm removes everything, once', async () => {
    assert.match(await manager.run('stack', 'rm', 'hello'), /hello_web/);
    await waitFor('no process', () => manager.taskProcesses().length === 0);
    assert.doesNotMatch(await manager.run('stack', 'ls'), /hello/);
    const again = await manager.cli(['stack', 'rm', 'hello']);
    assert.match(again.stdout + again.stderr, /hello/);
  });
});

describe('the quickstart', () => {
  let cluster: LocalCluster;
  before(() => {
    cluster = new LocalCluster();
  });
  after(() => cluster.remove());

  test('shows an address that answers; Ctrl-C stops it; a second start finds the same', async () => {
    // No engine answers there, as on a machine without one.
    const node = cluster.daemon('quick', { DOCKER_HOST: 'unix:///nowhere/docker.sock' });
    let former: { clusterId: string; services: readonly string[]; port: number } | null = null;
    for (let round = 0; round < 2; round++) {
      const output = (): string => node.log().split('Everything runs.').at(-1) ?? '';
      const before = node.log().length;
      await node.start('quickstart');
      await waitFor('the address', () => /Everything runs\.[^]*npx swarmd/.test(node.log().slice(before)), {
        timeoutMs: 20_000,
      });
      const port = Number(/http:\/\/127\.0\.0\.1:(\d+)/.exec(output())?.[1]);
      await answersFromAll(port);
      const { clusterId } = await node.call('info', {});
      const services = (await node.call('service.list', { stack: 'hello' })).map(({ id }) => id);
      if (former !== null) assert.deepEqual({ clusterId, services, port }, former);
      former = { clusterId, services, port };
      node.signal('SIGINT');
      assert.equal(await node.ended(), 0, node.log());
      assert.deepEqual(node.taskProcesses(), []);
      await assert.rejects(text(port));
    }
  });

  test('the commands it proposes work as they are', async () => {
    const node = cluster.daemon('proposed', { SWARMD_ENGINE_HOST: 'none' });
    await node.start('quickstart');
    try {
      await waitFor('the commands', () => /npx swarmd .* --help/.test(node.log()), { timeoutMs: 20_000 });
      const proposed = [...node.log().matchAll(/^ +npx swarmd (.+)$/gm)].map((match) =>
        (match[1] ?? '').split(' '),
      );
      assert.ok(proposed.length >= 5);
      for (const args of proposed) {
        const { code, stdout, stderr } = await node.place.exec(
          [process.execPath, join(projectFolder, 'bin/swarmd.ts'), ...args],
          { timeoutMs: 60_000 },
        );
        assert.equal(code, 0, `${args.join(' ')}\n${stdout}${stderr}`);
      }
    } finally {
      await node.kill();
    }
  });
});
