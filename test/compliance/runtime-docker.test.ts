/**
 * The runtime suite on a real container engine, and what only an engine does.
 * @needs engine
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import type { ConfigId } from '../../src/model/ids.ts';
import { DockerRuntime } from '../../src/worker/docker-runtime.ts';
import { Engine } from '../e2e/lib/engine.ts';
import { makeLocalBed, type TestBed } from '../e2e/lib/hosts.ts';
import { BUSYBOX_IMAGE, makeBusyboxImage } from '../e2e/lib/images.ts';
import { waitFor } from '../support/wait.ts';
import { makeTask, nodeId, plainSetup } from '../support/worker-fixtures.ts';
import { runtimeSuite, shellCommand } from './runtime-suite.ts';

let bed: TestBed;
let engine: Engine;

const signal = (): AbortSignal => AbortSignal.timeout(60_000);

function openRuntime(node: string = nodeId): DockerRuntime {
  return new DockerRuntime(
    { engineHost: `unix://${engine.socketPath}`, nodeId: node, clusterId: 'c1' },
    { clock: systemClock(), log: silentLogger },
  );
}

describe('docker', () => {
  before(async () => {
    bed = await makeLocalBed();
    engine = new Engine(bed.hosts[0] as TestBed['hosts'][number]);
    await engine.start();
    await makeBusyboxImage(engine);
  });
  after(async () => {
    await engine.removeContainers();
    await engine.stop();
    bed.remove();
  });

  let runtime: DockerRuntime;
  runtimeSuite('docker', {
    kind: 'docker',
    real: true,
    start: () => Promise.resolve((runtime = openRuntime())),
    reopen: async () => {
      await runtime.close();
      return (runtime = openRuntime());
    },
    stop: () => runtime.close(),
    container: (program) => ({ image: BUSYBOX_IMAGE, command: shellCommand(program) }),
  });
  engineTests();
});

function engineTests(): void {
  describe('what only an engine does', () => {
    let runtime: DockerRuntime;
    before(() => {
      runtime = openRuntime();
      runtime.onEvent(() => {});
    });
    after(async () => {
      for (const { taskId } of await runtime.list(signal())) await runtime.remove(taskId, signal());
      await runtime.close();
    });

    const shell = (script: string, container: object = {}) =>
      makeTask({
        spec: { runtime: 'docker' },
        container: { image: BUSYBOX_IMAGE, command: ['sh', '-c', script], ...container },
      });

    test('a container carries the labels and the name users know', async () => {
      const task = shell('sleep 60');
      await runtime.create(task, plainSetup, signal());
      const found = await engine.callJson<{ Names: string[]; Labels: Record<string, string> }[]>({
        method: 'GET',
        path: '/containers/json?all=1',
      });
      const container = found.find(({ Labels }) => Labels['swarmd.task'] === task.id);
      assert.deepEqual(container?.Names, [`/web.1.${task.id}`]);
      assert.equal(container?.Labels['com.docker.swarm.service.name'], 'web');
      assert.equal(container?.Labels['com.docker.swarm.node.id'], nodeId);
    });

    test('another node’s containers on the same engine are not listed', async () => {
      const task = shell('sleep 60');
      await runtime.create(task, plainSetup, signal());
      const other = openRuntime('othernode');
      assert.deepEqual(await other.list(signal()), []);
      await other.close();
    });

    test('static addresses on two networks', async () => {
      for (const [name, subnet] of [
        ['aa', '172.21.7.0/24'],
        ['bb', '172.21.8.0/24'],
      ]) {
        const json = { Name: name, Driver: 'bridge', IPAM: { Config: [{ Subnet: subnet }] } };
        await engine.call({ method: 'POST', path: '/networks/create', json });
      }
      const task = shell('ip -4 -o addr; echo end; sleep 60');
      const attachments = [
        { engineNetwork: 'aa', address: '172.21.7.77', aliases: [] },
        { engineNetwork: 'bb', address: '172.21.8.88', aliases: ['db'] },
      ];
      const networking = { ...plainSetup.networking, attachments, dnsServers: ['172.21.7.1'] };
      await runtime.create(task, { ...plainSetup, networking }, signal());
      await runtime.start(task.id, signal());
      const text = await waitFor('the addresses', async () => {
        let lines = '';
        const request = { taskId: task.id, follow: false, tail: null, sinceMs: null };
        for await (const record of runtime.logs(request, signal())) lines += `${record.line}\n`;
        return lines.includes('end') && lines;
      });
      assert.match(text, /172\.21\.7\.77/);
      assert.match(text, /172\.21\.8\.88/);
      await runtime.remove(task.id, signal());
      for (const name of ['aa', 'bb']) await engine.call({ method: 'DELETE', path: `/networks/${name}` });
    });

    test('files reach a container with a read-only root', async () => {
      const id = 'c'.repeat(25) as ConfigId;
      const file = { name: '/etc/app/app.conf', uid: '0', gid: '0', mode: 0o444 };
      const task = shell('cat /etc/app/app.conf', { readOnly: true, configs: [{ id, name: 'conf', file }] });
      const configs = new Map([[id as string, Buffer.from('shown\n')]]);
      await runtime.create(task, { ...plainSetup, configs }, signal());
      await runtime.start(task.id, signal());
      const state = await waitFor('the end', async () => {
        const seen = await runtime.inspect(task.id, signal());
        return seen?.phase === 'exited' && seen;
      });
      assert.equal(state.container.exitCode, 0);
    });

    test('a terminal’s output is read too', async () => {
      const task = shell('echo one; echo two', { tty: true });
      await runtime.create(task, plainSetup, signal());
      await runtime.start(task.id, signal());
      const lines: string[] = [];
      const request = { taskId: task.id, follow: true, tail: null, sinceMs: null };
      for await (const record of runtime.logs(request, signal())) lines.push(record.line);
      assert.deepEqual(lines, ['one', 'two']);
    });

    test('a port published on the node is told', async () => {
      const task = {
        ...shell('sleep 60'),
        endpointPorts: [
          {
            protocol: 'tcp' as const,
            targetPort: 80,
            publishedPort: 30_001,
            publishMode: 'ingress' as const,
          },
        ],
      };
      const networking = { ...plainSetup.networking, publishOnNode: true };
      await runtime.create(task, { ...plainSetup, networking }, signal());
      await runtime.start(task.id, signal());
      const ports = (await runtime.inspect(task.id, signal()))?.ports ?? [];
      assert.equal(ports[0]?.targetPort, 80);
      assert.ok((ports[0]?.hostPort ?? 0) > 0);
    });

    test('an image that cannot be had is told apart from one that may come', async () => {
      const task = makeTask({ spec: { runtime: 'docker' }, container: { image: '127.0.0.1:9/none:1' } });
      await assert.rejects(runtime.prepare(task, signal()), { code: 'UNAVAILABLE' });
    });

    test('the engine is described, and not while it is gone; its return is noticed', async () => {
      assert.equal((await runtime.describe(signal()))?.engineVersion?.startsWith('2'), true);
      const task = shell('sleep 60');
      await runtime.create(task, plainSetup, signal());
      await runtime.start(task.id, signal());
      const seen: string[] = [];
      runtime.onEvent((id) => seen.push(id));
      await engine.kill();
      await waitFor('its absence', async () => (await runtime.describe(signal())) === null);
      await assert.rejects(runtime.inspect(task.id, signal()), (error: { code: string; details: object }) => {
        assert.equal(error.code, 'UNAVAILABLE');
        assert.deepEqual({ ...error.details }, { waits: true, engine: `unix://${engine.socketPath}` });
        return true;
      });
      await engine.start();
      await waitFor('its return', async () => (await runtime.describe(signal())) !== null);
      await waitFor('the look', () => seen.includes(task.id));
      assert.equal((await runtime.inspect(task.id, signal()))?.phase, 'exited');
    });
  });
}
