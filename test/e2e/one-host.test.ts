/**
 * One host with an engine: how containers are stopped, watched, followed and kept.
 * @needs hosts
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { waitFor } from '../support/wait.ts';
import { Daemon } from './lib/daemon.ts';
import { Engine } from './lib/engine.ts';
import { type Host, makeTestBed, type TestBed } from './lib/hosts.ts';
import { BUSYBOX_IMAGE, makeBusyboxImage } from './lib/images.ts';

let bed: TestBed;
let host: Host;
let engine: Engine;
let daemon: Daemon;

before(async () => {
  bed = await makeTestBed({ hosts: 1 });
  host = bed.hosts[0] as Host;
  engine = new Engine(host);
  daemon = new Daemon(host, 'node');
  await engine.start();
  await makeBusyboxImage(engine);
  await daemon.start(
    'init',
    '--advertise-addr',
    host.address,
    '--engine-host',
    `unix://${engine.socketPath}`,
  );
});
after(() => bed.remove());

const QUICK = ['--restart-delay', '200ms', '--update-monitor', '300ms', '--rollback-monitor', '300ms', '-d'];

async function create(name: string, flags: readonly string[], script: string): Promise<void> {
  const command = ['sh', '-c', script];
  await daemon.run('service', 'create', '--name', name, ...QUICK, ...flags, BUSYBOX_IMAGE, ...command);
}

async function containerOf(service: string): Promise<string> {
  const [task] = await daemon.waitForRunning(service, 1);
  return task?.status.container?.containerId ?? '';
}

/** Waits until the engine holds no container, running or not. */
async function noContainers(): Promise<void> {
  await waitFor('no container', async () => {
    const path = '/containers/json?all=1';
    const left = await engine.callJson<{ Names: string[]; Status: string }[]>({ method: 'GET', path });
    assert.deepEqual(
      left.map(({ Names, Status }) => `${Names.join()} ${Status}`),
      [],
    );
    return true;
  });
}

test('the stop signal comes first; SIGKILL only after the grace time', async () => {
  await create(
    'polite',
    ['--stop-grace-period', '20s'],
    'trap "exit 3" TERM; while :; do sleep 1 & wait $!; done',
  );
  await create('stubborn', ['--stop-grace-period', '1s'], 'trap "" TERM; while :; do sleep 1; done');
  const before = [await containerOf('polite'), await containerOf('stubborn')];
  await daemon.run('service', 'update', '-d', '--force', 'polite');
  await daemon.run('service', 'update', '-d', '--force', 'stubborn');
  const startedMs = performance.now();
  const codes = await waitFor(
    'both to end',
    async () => {
      const tasks = [...(await daemon.tasks('polite')), ...(await daemon.tasks('stubborn'))];
      const ended = before.map(
        (id) => tasks.find(({ status }) => status.container?.containerId === id)?.status,
      );
      return ended.every((status) => status?.state === 'shutdown')
        ? ended.map((status) => status?.container?.exitCode)
        : undefined;
    },
    { timeoutMs: 15_000 },
  );
  // 128 + 9: killed.
  assert.deepEqual(codes, [3, 137]);
  assert.ok(
    performance.now() - startedMs < 10_000,
    'the polite one was not waited for to the end of its grace',
  );
  await daemon.run('service', 'rm', 'polite', 'stubborn');
});

test('a new version takes over only when its health check says so; one that never gets there is rolled back', async () => {
  const checks = ['--health-interval', '300ms', '--health-retries', '20'];
  const health = ['--health-cmd', 'test -e /tmp/ready', ...checks];
  const update = ['--update-order', 'start-first', '--update-failure-action', 'rollback'];
  const flags = ['-p', '8080:80', ...health, ...update, '-e', 'BODY=one'];
  const serve =
    'mkdir /www; echo $BODY > /www/index.html; httpd -p 80 -h /www; sleep $WAIT; touch /tmp/ready; sleep 1000';
  await create('web', [...flags, '-e', 'WAIT=0', '--stop-signal', 'KILL'], serve);
  await daemon.waitForRunning('web', 1);
  const body = async (): Promise<string> =>
    (await bed.client.fetch(`http://${host.address}:8080/`)).body.trim();
  await waitFor('the port', async () => (await body()) === 'one');

  // The new one serves at once, but is not healthy for two seconds: until then the old one answers.
  await daemon.run('service', 'update', '-d', '--env-add', 'BODY=two', '--env-add', 'WAIT=2', 'web');
  await waitFor('the new container to be up', async () => {
    const containers = await engine.callJson<unknown[]>({ method: 'GET', path: '/containers/json' });
    return containers.length === 2;
  });
  assert.equal(await body(), 'one');
  await waitFor('the new version', async () => (await body()) === 'two', { timeoutMs: 20_000 });
  await daemon.waitForRunning('web', 1);

  const { code, stdout, stderr } = await daemon.cli(
    ['service', 'update', '--strict', '--env-add', 'BODY=three', '--env-add', 'WAIT=1000', 'web'],
    { timeoutMs: 60_000 },
  );
  assert.equal(code, 1, stdout + stderr);
  assert.match(stdout + stderr, /roll(ed)? ?back/i);
  await daemon.waitForRunning('web', 1);
  assert.equal(await body(), 'two');
  assert.match(await daemon.run('service', 'ps', '--no-trunc', 'web'), /unhealthy/);
  await daemon.run('service', 'rm', 'web');
});

test('logs are followed over a replacement, stdout and stderr apart', async () => {
  await create(
    'talker',
    ['--stop-signal', 'KILL'],
    'i=0; while :; do echo "line $i"; echo "err $i" >&2; i=$((i+1)); sleep 0.2; done',
  );
  await daemon.waitForRunning('talker', 1);
  const follow = daemon.follow(['service', 'logs', '-f', 'talker'], 'follow');
  try {
    await waitFor(
      'lines',
      () => /talker\.1\..*\| line 3/.test(follow.output()) && /err 3/.test(follow.output()),
    );
    const before = await containerOf('talker');
    await daemon.run('service', 'update', '-d', '--force', 'talker');
    await waitFor('another task', async () => (await containerOf('talker')) !== before);
    await waitFor('its lines', () => follow.output().split('| line 0').length === 3);
  } finally {
    await follow.stop();
  }
  const { stdout, stderr } = await daemon.cli(['service', 'logs', '--raw', '--tail', '2', 'talker']);
  assert.match(stdout, /^line \d+\n/);
  assert.doesNotMatch(stdout, /err/);
  assert.match(stderr, /^err \d+$/m);
  await daemon.run('service', 'rm', 'talker');
});

test('a volume is kept over a new version, a crash of the daemon and a restart of the engine', async () => {
  const file = join(host.folder, 'volume.yml');
  const compose = (version: number): string =>
    [
      'services:',
      '  keeper:',
      `    image: ${BUSYBOX_IMAGE}`,
      `    command: ["sh", "-c", "echo v${version} >> /data/log; exec httpd -f -p 80 -h /data"]`,
      '    ports: ["8081:80"]',
      '    stop_signal: KILL',
      '    volumes: ["data:/data"]',
      '    deploy: { restart_policy: { delay: 200ms }, update_config: { monitor: 300ms } }',
      'volumes:',
      '  data: {}',
    ].join('\n');
  const log = async (): Promise<string> => {
    const { body } = await bed.client.fetch(`http://${host.address}:8081/log`);
    return body.trim().split('\n').join(' ');
  };
  for (const version of [1, 2]) {
    writeFileSync(file, compose(version));
    await daemon.run('stack', 'deploy', '-c', file, '--detach=false', 'vol');
  }
  await waitFor('both lines', async () => (await log()) === 'v1 v2');
  const before = await containerOf('vol_keeper');
  await daemon.kill();
  await daemon.start('daemon', '--engine-host', `unix://${engine.socketPath}`);
  assert.equal(await containerOf('vol_keeper'), before);
  await waitFor('the same lines', async () => (await log()) === 'v1 v2');
  await engine.stop();
  await engine.start();
  await waitFor('one more line', async () => (await log()) === 'v1 v2 v2', { timeoutMs: 30_000 });
  await daemon.run('stack', 'rm', 'vol');
  await noContainers();
});

test('leave --force takes every container and network along, and nothing else', async () => {
  const own = await engine.runContainer({ Image: BUSYBOX_IMAGE }, 'not-ours');
  await create('last', ['--replicas', '2', '--stop-signal', 'KILL'], 'sleep 1000');
  await daemon.waitForRunning('last', 2);
  await daemon.run('leave', '--force');
  assert.equal(await daemon.ended(), 0);
  const left = await engine.callJson<{ Id: string }[]>({ method: 'GET', path: '/containers/json?all=1' });
  assert.deepEqual(
    left.map(({ Id }) => Id),
    [own],
  );
  const links = await host.run(['ip', '-br', 'link']);
  assert.doesNotMatch(links, /^(sw|vx)\d/m);
});
