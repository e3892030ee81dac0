/**
 * The data plane on two hosts with an engine each: overlay, names, published ports, and what must not disturb them.
 *
 * @needs hosts
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { callEngine, callEngineJson } from '../../examples/voting/lib/engine-api.ts';
import { defaultTaskSpec } from '../../src/model/defaults.ts';
import type { EndpointRecord } from '../../src/model/wire.ts';
import type { TaskNetworking } from '../../src/worker/types.ts';
import { projectFolder } from '../support/imports.ts';
import { endpoint, network, service } from '../support/routing.ts';
import { waitFor } from '../support/wait.ts';
import { Engine } from './lib/engine.ts';
import { type Host, makeTestBed, type TestBed } from './lib/hosts.ts';
import { BUSYBOX_IMAGE, makeBusyboxImage } from './lib/images.ts';

const PUBLISHED = 8080;
const BIG_BYTES = 8 * 1024 * 1024;

interface AgentStatus {
  readonly rung: { readonly rung: string; readonly reason: string };
  readonly networks: readonly {
    readonly networkId: string;
    readonly state: string;
    readonly error: string;
  }[];
  readonly dns: readonly { readonly networkId: string | null; readonly state: string }[];
  readonly ingress: readonly { readonly port: number; readonly state: string; readonly backends: number }[];
}

/** A host with its engine and the data plane under test. */
interface Node {
  readonly host: Host;
  readonly engine: Engine;
  readonly agent: string;
  /** Last octet of its gateway on every network. */
  readonly gateway: number;
}

let bed: TestBed;
const nodes: Node[] = [];

function nodeAt(index: number): Node {
  return nodes[index] as Node;
}

function networksOf(node: Node, names: readonly string[]): ReturnType<typeof network>[] {
  return names.map((name) => {
    const vni = name === 'ingress' ? 4096 : 4097;
    const prefix = `10.16.${vni - 4096}`;
    return network(name, vni, {
      ingress: name === 'ingress',
      gateway: `${prefix}.${node.gateway}/24`,
      peerList: nodes
        .filter((other) => other !== node)
        .map((other) => [other.host.address, `${prefix}.${other.gateway}`] as const),
    });
  });
}

async function update(
  endpoints: readonly EndpointRecord[],
  names: readonly string[] = ['app', 'ingress'],
): Promise<void> {
  const services = [service('shop_web', { stack: 'shop', tcp: [[PUBLISHED, 80]] })];
  for (const node of nodes) {
    const json = { networks: networksOf(node, names), services, endpoints };
    await callEngine(node.agent, { method: 'POST', path: '/update', json });
  }
}

async function status(node: Node): Promise<AgentStatus> {
  return await callEngineJson<AgentStatus>(node.agent, { method: 'GET', path: '/status' });
}

/** The endpoint record of task `slot` on `node`. */
function webTask(node: Node, slot: number): EndpointRecord {
  const [app, ingress] = networksOf(node, ['app', 'ingress']);
  return endpoint('shop_web', slot, {
    nodeId: node.host.name,
    nodeAddress: node.host.address,
    on: [
      [app as ReturnType<typeof network>, `10.16.1.${10 + slot}`, ['web']],
      [ingress as ReturnType<typeof network>, `10.16.0.${10 + slot}`],
    ],
  });
}

/** Makes the container of a task as a worker would, and returns its id. */
async function runTask(node: Node, record: EndpointRecord): Promise<string> {
  const task = {
    id: record.taskId,
    serviceAnnotations: { name: 'shop_web', labels: {} },
    spec: defaultTaskSpec,
    networks: record.networks,
  };
  const plan = await callEngineJson<TaskNetworking>(node.agent, {
    method: 'POST',
    path: '/prepare',
    json: task,
  });
  const [first, ...others] = plan.attachments;
  assert.ok(first !== undefined);
  const serve = `mkdir /www; echo ${record.taskId} > /www/index.html;
    head -c ${BIG_BYTES} /dev/zero > /www/big; exec httpd -f -p 80 -h /www`;
  const at = (address: string): unknown => ({ IPAMConfig: { IPv4Address: address } });
  const { Id: id } = await node.engine.callJson<{ Id: string }>({
    method: 'POST',
    path: `/containers/create?name=${record.taskId}`,
    json: {
      Image: BUSYBOX_IMAGE,
      Cmd: ['/bin/sh', '-c', serve],
      HostConfig: { NetworkMode: first.engineNetwork, Dns: plan.dnsServers, Init: true },
      NetworkingConfig: { EndpointsConfig: { [first.engineNetwork]: at(first.address) } },
    },
  });
  for (const other of others) {
    const json = { Container: id, EndpointConfig: at(other.address) };
    await node.engine.call({ method: 'POST', path: `/networks/${other.engineNetwork}/connect`, json });
  }
  await node.engine.call({ method: 'POST', path: `/containers/${id}/start` });
  return id;
}

async function inTask(node: Node, task: EndpointRecord, ...argv: string[]): Promise<string> {
  const { code, output } = await node.engine.execInContainer(task.taskId, argv);
  assert.equal(code, 0, `${argv.join(' ')}: ${output}`);
  return output;
}

/** What the task answers over `url` from inside another one. */
async function get(node: Node, task: EndpointRecord, url: string): Promise<string> {
  return (await inTask(node, task, 'timeout', '5', 'wget', '-q', '-O', '-', url)).trim();
}

/** Both tasks reach each other by address and name. */
async function assertReach(one: EndpointRecord, two: EndpointRecord): Promise<void> {
  const [a, b] = [nodeAt(0), nodeAt(1)];
  await waitFor('the tasks to reach each other', async () => {
    assert.equal(await get(a, one, 'http://10.16.1.12/'), two.taskId);
    return true;
  });
  assert.equal(await get(b, two, 'http://10.16.1.11/'), one.taskId);
  assert.equal(await get(a, one, 'http://web.2/'), two.taskId);
  assert.equal(await get(b, two, 'http://shop_web.1/'), one.taskId);
}

before(async () => {
  bed = await makeTestBed({ hosts: 2 });
  await Promise.all(
    bed.hosts.map(async (host, index) => {
      const engine = new Engine(host, ['--live-restore']);
      await engine.start();
      await makeBusyboxImage(engine);
      const agent = join(host.folder, 'agent.sock');
      const program = join(projectFolder, 'test/support/network-agent.ts');
      host.spawn([process.execPath, program, agent, engine.socketPath, host.name, host.address], 'agent');
      nodes[index] = { host, engine, agent, gateway: index + 2 };
    }),
  );
  for (const node of nodes) await waitFor('the agent', () => status(node));
});

after(() => bed.remove());

test('two hosts: overlay, names, published ports', async (t) => {
  const [a, b] = [nodeAt(0), nodeAt(1)];
  const [one, two] = [webTask(a, 1), webTask(b, 2)];
  const both = [one, two];

  await t.test('both are on the overlay rung and build their networks', async () => {
    await update([]);
    for (const node of nodes) {
      const ready = await waitFor('networks and name servers', async () => {
        const now = await status(node);
        assert.deepEqual(now.rung, { rung: 'overlay', reason: '' });
        assert.deepEqual(
          now.networks.map(({ state }) => state),
          ['ready', 'ready'],
        );
        assert.deepEqual(
          now.dns.map(({ state }) => state),
          ['listening', 'listening', 'listening'],
        );
        return now;
      });
      assert.ok(ready.ingress.some(({ port, state }) => port === PUBLISHED && state === 'listening'));
    }
  });

  await t.test('tasks reach each other across hosts, also where forwarding is dropped', async () => {
    await runTask(a, one);
    await runTask(b, two);
    await update(both);
    await assertReach(one, two);
    for (const policy of ['1', '0', '1']) {
      for (const { host } of nodes) {
        await host.run(['iptables', '-P', 'FORWARD', 'DROP']);
        await host.run(['sysctl', '-qw', `net.bridge.bridge-nf-call-iptables=${policy}`]);
      }
      await assertReach(one, two);
    }
  });

  await t.test('names: service, alias, tasks., unknown, IPv6', async () => {
    for (const name of ['web', 'shop_web', 'tasks.web']) {
      const output = await inTask(a, one, 'nslookup', name);
      for (const address of ['10.16.1.11', '10.16.1.12'])
        assert.match(output, new RegExp(address.replaceAll('.', '\\.')));
    }
    const { code } = await a.engine.execInContainer(one.taskId, ['nslookup', 'tasks.nobody']);
    assert.notEqual(code, 0);
  });

  await t.test('large packets pass, and large answers arrive whole', async () => {
    // 1,450 bytes in all: the largest packet of the overlay.
    await inTask(a, one, 'ping', '-c', '1', '-W', '2', '-s', '1422', '10.16.1.12');
    const size = await inTask(a, one, 'sh', '-c', 'timeout 20 wget -q -O - http://10.16.1.12/big | wc -c');
    assert.equal(size.trim(), String(BIG_BYTES));
  });

  await t.test('a published port answers on every node, from each task in turn', async () => {
    for (const { host } of nodes) {
      const bodies: string[] = [];
      for (let i = 0; i < 4; i++) {
        bodies.push((await bed.client.fetch(`http://${host.address}:${PUBLISHED}/`)).body.trim());
      }
      assert.equal(bodies.filter((body) => body === one.taskId).length, 2, bodies.join());
      assert.equal(bodies.filter((body) => body === two.taskId).length, 2, bodies.join());
      const big = await bed.client.run([
        'curl',
        '-sS',
        '-m',
        '20',
        `http://${host.address}:${PUBLISHED}/big`,
        '-o',
        '/dev/null',
        '-w',
        '%{size_download}',
      ]);
      assert.equal(big, String(BIG_BYTES));
    }
  });

  await t.test('a task that is no endpoint any more has no name and gets no connections', async () => {
    await update([one]);
    const output = await inTask(b, two, 'nslookup', 'web');
    assert.doesNotMatch(output, /10\.16\.1\.12/);
    for (let i = 0; i < 3; i++) {
      const { body } = await bed.client.fetch(`http://${b.host.address}:${PUBLISHED}/`);
      assert.equal(body.trim(), one.taskId);
    }
    await update(both);
  });

  await t.test('a killed engine and a hand that undoes things are mended', async () => {
    await b.engine.kill();
    await assertPublished();
    await b.engine.start();
    await b.host.run(['iptables', '-F', 'SWARMD-FORWARD']);
    await b.host.run(['ip', 'link', 'del', 'vx4097']);
    await a.host.run(['bridge', 'fdb', 'flush', 'dev', 'vx4097']);
    await waitFor('the overlay to be mended', async () => {
      const rules = await b.host.run(['iptables', '-S', 'FORWARD']);
      return rules.split('\n')[1] === '-A FORWARD -j SWARMD-FORWARD';
    });
    await assertReach(one, two);
  });

  await t.test('a network that is no longer wanted stays while a container uses it', async () => {
    await update([], ['ingress']);
    const names = async (): Promise<string> => await a.host.run(['ip', '-br', 'link']);
    await waitFor('the removal to be refused', async () => {
      const { networks } = await status(a);
      return networks.some(({ state, error }) => state === 'leaving' && /used by a container/.test(error));
    });
    assert.match(await names(), /sw4097/);
    assert.equal(await get(a, one, 'http://10.16.1.12/'), two.taskId);
    for (const node of nodes) await node.engine.removeContainers();
    await waitFor('the network to go', async () => !/sw4097|vx4097/.test(await names()), {
      timeoutMs: 90_000,
    });
    assert.match(await names(), /sw4096/);
  });

  await t.test('remove-all leaves nothing behind', async () => {
    for (const node of nodes) {
      const left = await callEngineJson<string[]>(node.agent, { method: 'POST', path: '/remove-all' });
      assert.deepEqual(left, []);
      assert.doesNotMatch(await node.host.run(['ip', '-br', 'link']), /sw40|vx40/);
      assert.doesNotMatch(await node.host.run(['iptables', '-S']), /SWARMD/);
    }
  });

  async function assertPublished(): Promise<void> {
    const { status: code } = await bed.client.fetch(`http://${a.host.address}:${PUBLISHED}/`);
    assert.equal(code, 200);
  }
});
