/**
 * The test bed itself: hosts are apart, engines run in them, and nothing is left behind.
 * @needs hosts
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { Engine } from './lib/engine.ts';
import { makeLocalBed, makeTestBed, type TestBed } from './lib/hosts.ts';
import {
  BUSYBOX_IMAGE,
  makeBusyboxImage,
  makeDerivedImage,
  makeNodeTestImage,
  NODE_IMAGE,
} from './lib/images.ts';
import { waitFor } from '../support/wait.ts';

function namespacesOfThisProcess(): string[] {
  return existsSync('/run/netns')
    ? readdirSync('/run/netns').filter((name) => name.startsWith(`sb${process.pid}-`))
    : [];
}

describe('two hosts with an engine each', () => {
  let bed: TestBed;
  let engines: Engine[];

  before(async () => {
    bed = await makeTestBed({ hosts: 2 });
    engines = bed.hosts.map((host) => new Engine(host));
    await Promise.all(engines.map((engine) => engine.start()));
    await Promise.all(engines.map((engine) => makeBusyboxImage(engine)));
  });
  after(() => {
    bed.remove();
    assert.equal(existsSync(bed.folder), false);
    assert.deepEqual(namespacesOfThisProcess(), []);
  });

  test('each host has its own name, address and network devices', async () => {
    const names = await Promise.all(bed.hosts.map((host) => host.run(['hostname'])));
    assert.deepEqual(names, ['h1\n', 'h2\n']);
    const devices = await bed.hosts[0]?.run(['ls', '/sys/class/net']);
    assert.match(devices ?? '', /eth0/);
    assert.equal((await bed.client.exec(['false'])).code, 1);
  });

  test('a container of each host reaches the other host, and the client reaches both', async () => {
    for (const [i, engine] of engines.entries()) {
      const id = await engine.runContainer({
        Image: BUSYBOX_IMAGE,
        Cmd: ['sh', '-c', 'mkdir /www && hostname > /www/index.html && exec httpd -f -p 80 -h /www'],
        Hostname: `c${i + 1}`,
        StopSignal: 'SIGKILL',
        ExposedPorts: { '80/tcp': {} },
        HostConfig: { PortBindings: { '80/tcp': [{ HostPort: '8080' }] } },
      });
      await waitFor(`container ${id}`, async () => await bed.client.fetch(`http://10.77.0.${i + 1}:8080/`));
    }
    for (const [i, host] of bed.hosts.entries()) {
      assert.deepEqual(await bed.client.fetch(`http://${host.address}:8080/`), {
        status: 200,
        body: `c${i + 1}\n`,
      });
      const engine = engines[i] as Engine;
      const [container] = await engine.callJson<{ Id: string }[]>({
        method: 'GET',
        path: '/containers/json',
      });
      const url = `http://${bed.hosts[1 - i]?.address}:8080/`;
      const inside = await engine.execInContainer(container?.Id ?? '', ['timeout', '3', 'wget', '-qO-', url]);
      assert.deepEqual(inside, { code: 0, output: `c${2 - i}\n` });
    }
  });

  test('an engine that is killed starts again with its images', async () => {
    const engine = engines[0] as Engine;
    await engine.kill();
    assert.equal(engine.running, false);
    await engine.start();
    const images = await engine.callJson<{ RepoTags: string[] }[]>({ method: 'GET', path: '/images/json' });
    assert.ok(images.some((image) => image.RepoTags.includes(BUSYBOX_IMAGE)));
  });

  test('an image with Node and files of its own runs them', async () => {
    const engine = engines[1] as Engine;
    await makeNodeTestImage(engine);
    const text = 'require("node:dns"); console.log(`node ${process.versions.node} ${process.env.GREETING}`);';
    await makeDerivedImage(
      engine,
      NODE_IMAGE,
      'swarmd-test/hello:2',
      [{ kind: 'text', path: 'app.js', text }],
      {
        command: ['/bin/node', '/app.js'],
        environment: { GREETING: 'hello there' },
      },
    );
    const id = await engine.runContainer({ Image: 'swarmd-test/hello:2', Tty: true });
    await engine.call({ method: 'POST', path: `/containers/${id}/wait` });
    const output = await engine.call({ method: 'GET', path: `/containers/${id}/logs?stdout=1&stderr=1` });
    assert.equal(output.trim(), `node ${process.versions.node} hello there`);
  });
});

test('an engine on the network of the machine is reached at its containers, and leaves no device', async () => {
  const bridges = (): string =>
    execFileSync('ip', ['-br', 'link', 'show', 'type', 'bridge'], { encoding: 'utf8' });
  const before = bridges();
  const bed = await makeLocalBed();
  try {
    const engine = new Engine(bed.hosts[0] as TestBed['hosts'][number]);
    await engine.start();
    await makeBusyboxImage(engine);
    const id = await engine.runContainer({
      Image: BUSYBOX_IMAGE,
      Cmd: ['httpd', '-f', '-p', '80', '-h', '/etc'],
    });
    const { NetworkSettings: network } = await engine.callJson<{ NetworkSettings: { IPAddress: string } }>({
      method: 'GET',
      path: `/containers/${id}/json`,
    });
    const answer = await waitFor(
      'the container',
      async () => await fetch(`http://${network.IPAddress}/group`),
    );
    assert.equal(await answer.text(), 'root:x:0:\n');
    await engine.removeContainers();
    await engine.stop();
    assert.equal(bridges(), before);
  } finally {
    bed.remove();
  }
  assert.equal(existsSync(bed.folder), false);
});

test('what a dead test process left behind is removed by the next one', async () => {
  const script = `
    import { makeTestBed } from '${new URL('./lib/hosts.ts', import.meta.url).pathname}';
    const bed = await makeTestBed({ hosts: 1 });
    bed.hosts[0].spawn(['sleep', '1000'], 'sleeper');
    process.stdout.write(bed.folder);
    process.kill(process.pid, 'SIGKILL');`;
  const dead = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
  assert.equal(dead.signal, 'SIGKILL', dead.stderr);
  assert.ok(existsSync(dead.stdout), 'the dead process left its folder');
  const bed = await makeTestBed({ hosts: 1 });
  try {
    assert.equal(existsSync(dead.stdout), false);
    assert.deepEqual(
      readdirSync('/run/netns').filter((name) => name.startsWith(`sb${dead.pid}-`)),
      [],
    );
  } finally {
    bed.remove();
  }
});
