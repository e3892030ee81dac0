/**
 * The voting application on two hosts with an engine each, by the commands a user gives, and what may go wrong.
 * @needs hosts
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { buildVotingImages } from '../../examples/voting/build-images.ts';
import { projectFolder } from '../support/imports.ts';
import { waitFor } from '../support/wait.ts';
import { Daemon, describeTask } from './lib/daemon.ts';
import { Engine } from './lib/engine.ts';
import { type Host, makeTestBed, type TestBed } from './lib/hosts.ts';

const COMPOSE = `${projectFolder}/examples/voting/compose.yml`;

interface Node {
  readonly host: Host;
  readonly engine: Engine;
  readonly daemon: Daemon;
}

let bed: TestBed;
let nodes: readonly [Node, Node];
let manager: Daemon;

function nodeOn(host: Host): Node {
  return { host, engine: new Engine(host), daemon: new Daemon(host, 'node') };
}

function flagsOf({ host, engine }: Node): string[] {
  return ['--advertise-addr', host.address, '--engine-host', `unix://${engine.socketPath}`];
}

before(async () => {
  bed = await makeTestBed({ hosts: 2 });
  const [one, two] = bed.hosts.map((host) => nodeOn(host)) as [Node, Node];
  nodes = [one, two];
  manager = one.daemon;
  await Promise.all(nodes.map(({ engine }) => engine.start()));
  await Promise.all(nodes.map(({ engine }) => buildVotingImages(engine.socketPath)));
  await manager.start('init', ...flagsOf(one));
  const token = (await manager.run('join-token', '-q', 'worker')).trim();
  await two.daemon.start('join', ...flagsOf(two), '--token', token, `${one.host.address}:2377`);
});
after(() => bed.remove());

interface Container {
  readonly Id: string;
  readonly State: string;
  readonly Labels: Readonly<Record<string, string>>;
}

/** The containers of tasks on a node, running ones only unless `all`. */
async function containersOf({ engine }: Node, all = false): Promise<Container[]> {
  const path = `/containers/json${all ? '?all=1' : ''}`;
  const found = await engine.callJson<Container[]>({ method: 'GET', path });
  return found.filter((container) => container.Labels['swarmd.task'] !== undefined);
}

async function allContainers(all = false): Promise<Container[]> {
  return (await Promise.all(nodes.map((node) => containersOf(node, all)))).flat();
}

/** Waits until each service of the stack runs as many tasks as given, and as many containers as all together. */
async function converged(counts: Readonly<Record<string, number>>, timeoutMs = 40_000): Promise<void> {
  for (const [service, count] of Object.entries(counts))
    await manager.waitForRunning(service, count, timeoutMs);
  const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
  await waitFor(
    `${total} containers`,
    async () => {
      const containers = await allContainers();
      assert.equal(containers.length, total, containers.map(({ Id, State }) => `${Id} ${State}`).join('\n'));
      return true;
    },
    { timeoutMs },
  );
}

const STACK = { voting_vote: 2, voting_redis: 1, voting_worker: 2, voting_db: 1, voting_result: 1 };

async function page(host: Host, port: number, path = '/', args: readonly string[] = []): Promise<string> {
  const { status, body } = await bed.client.fetch(`http://${host.address}:${port}${path}`, { args });
  assert.equal(status, 200, body);
  return body;
}

async function whoAnswers(host: Host, requests: number): Promise<Set<string>> {
  const answers = await Promise.all(Array.from({ length: requests }, () => page(host, 5000, '/whoami')));
  return new Set(answers);
}

async function votes(host: Host): Promise<Record<string, number>> {
  return (JSON.parse(await page(host, 5001)) as { votes: Record<string, number> }).votes;
}

async function castAndCount(): Promise<void> {
  const before = await waitFor('the counts', async () => (await votes(nodes[0].host))['a'] ?? 0, {
    timeoutMs: 20_000,
  });
  // A page that has lost its queue says so until it has found it again.
  for (const { host } of nodes) {
    await waitFor(`a vote on ${host.name}`, () => page(host, 5000, '/', ['-d', 'vote=a']));
  }
  for (const { host } of nodes) {
    await waitFor('the votes to be counted', async () => ((await votes(host))['a'] ?? 0) >= before + 2, {
      timeoutMs: 20_000,
    });
  }
}

test('the stack converges over both hosts', async () => {
  const output = await manager.run(
    'stack',
    'deploy',
    '-c',
    COMPOSE,
    '--detach=false',
    '--timeout',
    '60s',
    'voting',
  );
  assert.match(output, /voting_vote/);
  await converged(STACK);
  for (const node of nodes)
    assert.ok((await containersOf(node)).length > 0, `nothing runs on ${node.host.name}`);
  const { nodeId } = await manager.call('info', {});
  const db = await manager.waitForRunning('voting_db', 1);
  assert.equal(db[0]?.nodeId, nodeId);
});

test('a vote on either host is counted, and seen on either host', async () => {
  await castAndCount();
});

test('a request from a container reaches services by name, on its own host and on the other', async () => {
  for (const node of nodes) {
    const own = (await containersOf(node)).find(({ Labels }) =>
      (Labels['com.docker.swarm.service.name'] ?? '').endsWith('_vote'),
    );
    assert.ok(own !== undefined, `no vote container on ${node.host.name}`);
    for (const name of ['vote', 'tasks.vote', 'voting_vote']) {
      const { code, output } = await node.engine.execInContainer(own.Id, [
        ...['timeout', '5', 'wget', '-qO-', `http://${name}/whoami`],
      ]);
      assert.equal(code, 0, `${name} from ${node.host.name}: ${output}`);
    }
    const outside = await node.engine.execInContainer(own.Id, [
      'timeout',
      '5',
      'wget',
      '-qO-',
      'http://db:5432/',
    ]);
    assert.notEqual(outside.code, 0, 'vote is not on the network of db');
  }
});

test('scaled to 4, every task answers on either host', async () => {
  await manager.run('service', 'scale', '-d', 'voting_vote=4');
  await converged({ ...STACK, voting_vote: 4 });
  for (const { host } of nodes) {
    await waitFor(`four to answer on ${host.name}`, async () => (await whoAnswers(host, 8)).size === 4);
  }
});

test('a rolling update and its rollback lose no request', async () => {
  const urls = nodes.map(({ host }) => `http://${host.address}:5000/version`);
  const hammer = bed.client.spawn(
    [process.execPath, `${projectFolder}/test/e2e/lib/hammer.ts`, '4', ...urls],
    'hammer',
  );
  try {
    await manager.run('service', 'update', '--image', 'voting/vote:2', 'voting_vote');
    for (const { host } of nodes) assert.match(await page(host, 5000, '/version'), /2/);
    await manager.run('service', 'rollback', 'voting_vote');
    await converged({ ...STACK, voting_vote: 4 });
    for (const { host } of nodes) assert.match(await page(host, 5000, '/version'), /1/);
  } finally {
    await hammer.stop(15_000);
  }
  const seen = JSON.parse(hammer.output().trim().split('\n').at(-1) ?? '') as {
    bodies: Record<string, number>;
    failures: Record<string, number>;
  };
  const answered = Object.values(seen.bodies).reduce((sum, count) => sum + count, 0);
  assert.deepEqual(seen.failures, {}, `of ${answered} answers`);
  assert.equal(Object.keys(seen.bodies).length, 2, JSON.stringify(seen.bodies));
});

test('kill -9 of both daemons: the containers are adopted, not restarted', async () => {
  const before = (await allContainers()).map(({ Id }) => Id).toSorted();
  await Promise.all(nodes.map(({ daemon }) => daemon.kill()));
  assert.deepEqual((await allContainers()).map(({ Id }) => Id).toSorted(), before);
  await Promise.all(nodes.map(({ daemon }) => daemon.start('daemon', ...engineFlags(daemon))));
  await converged({ ...STACK, voting_vote: 4 });
  await castAndCount();
  assert.deepEqual((await allContainers()).map(({ Id }) => Id).toSorted(), before);
});

function engineFlags(daemon: Daemon): string[] {
  const node = nodes.find((one) => one.daemon === daemon) as Node;
  return ['--engine-host', `unix://${node.engine.socketPath}`];
}

test('an engine that is killed and comes back: everything runs again', async () => {
  const [, two] = nodes;
  await two.engine.kill();
  await waitFor('the daemon to notice', () => /does not answer|engine/i.test(two.daemon.log()));
  assert.ok(two.daemon.running);
  await two.engine.start();
  await converged({ ...STACK, voting_vote: 4 });
  await castAndCount();
});

const CUT = `table inet cut {
  chain i { type filter hook input priority -300; iifname "eth0" drop; }
  chain o { type filter hook output priority -300; oifname "eth0" drop; }
  chain f { type filter hook forward priority -300; iifname "eth0" drop; oifname "eth0" drop; }
}`;

test('a host that is cut off: its tasks are replaced, names forget it, and nothing is double when it is back', async () => {
  const [one, two] = nodes;
  const { nodeId } = await two.daemon.call('info', {});
  await two.host.run(['nft', '-f', '-'], { input: CUT });
  const cutMs = performance.now();
  // What ran there can no longer be told about, so only what runs elsewhere counts.
  const elsewhere = await waitFor(
    'replacements',
    async () => {
      const tasks = await manager.tasks('voting_vote');
      const up = tasks.filter(({ status, nodeId: at }) => status.state === 'running' && at !== nodeId);
      assert.equal(up.length, 4, tasks.map(describeTask).join('\n'));
      return up;
    },
    { timeoutMs: 30_000 },
  );
  const replacedMs = performance.now() - cutMs;
  assert.ok(replacedMs < 20_000, `replaced after ${Math.round(replacedMs)} ms`);
  const wanted = elsewhere
    .map((task) => task.networks.map(({ address }) => address.split('/')[0] as string))
    .flat();
  const asker = (await containersOf(one)).find(({ Labels }) =>
    (Labels['com.docker.swarm.service.name'] ?? '').endsWith('_vote'),
  ) as Container;
  await waitFor('names to forget it', async () => {
    const { output } = await one.engine.execInContainer(asker.Id, ['timeout', '3', 'nslookup', 'tasks.vote']);
    const found = [...output.matchAll(/^Address[^:]*: *(10\.\S+)$/gm)].map((match) => match[1] as string);
    assert.equal(found.length, 4, output);
    for (const address of found)
      assert.ok(wanted.includes(address), `${address} of ${wanted.join(' ')}\n${output}`);
    return true;
  });
  for (let i = 0; i < 8; i++) await page(one.host, 5000, '/whoami');
  await castOn(one);

  await two.host.run(['nft', 'delete', 'table', 'inet', 'cut']);
  await waitFor(
    'the node to be back',
    async () => {
      const back = await manager.call('node.inspect', { ref: nodeId });
      return back.status.state === 'ready';
    },
    { timeoutMs: 20_000 },
  );
  await converged({ ...STACK, voting_vote: 4 });
  for (const { host } of nodes) await waitFor(`an answer on ${host.name}`, () => page(host, 5000, '/whoami'));
});

async function castOn({ host }: Node): Promise<void> {
  await waitFor('a vote', () => page(host, 5000, '/', ['-d', 'vote=b']), { timeoutMs: 20_000 });
  await waitFor('its count', async () => ((await votes(host))['b'] ?? 0) > 0, { timeoutMs: 20_000 });
}

test('an image that nobody has is told as the reason', async () => {
  await manager.run(
    'service',
    'create',
    '-d',
    '--name',
    'typo',
    '--restart-delay',
    '1s',
    'nowhere/no-such-image:9',
  );
  const ps = await waitFor(
    'the reason',
    async () => {
      const text = await manager.run('service', 'ps', '--no-trunc', 'typo');
      return /Rejected/.test(text) ? text : undefined;
    },
    { timeoutMs: 30_000 },
  );
  assert.match(ps, /no-such-image/);
  await manager.run('service', 'rm', 'typo');
});

test('a published port in use: by a service it is refused, by a program the node warns and serves it later', async () => {
  const refused = await manager.cli([
    'service',
    'create',
    '-d',
    '--name',
    'second',
    '-p',
    '5000:80',
    'voting/vote:1',
  ]);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /5000.*voting_vote/);
  const [one, two] = nodes;
  const listener = two.host.spawn(['busybox', 'httpd', '-f', '-p', '5600'], 'listener');
  await waitFor('the listener', async () => (await two.host.run(['ss', '-ltn'])).includes(':5600'));
  const create = [
    'service',
    'create',
    '-d',
    '--name',
    'late',
    '-p',
    '5600:80',
    '--replicas',
    '2',
    'voting/vote:1',
  ];
  await manager.run(...create);
  await manager.waitForRunning('late', 2);
  await waitFor('the other host to serve it', () => page(one.host, 5600, '/whoami'));
  await waitFor('the warning', () =>
    /5600 of service late is in use on this node|published port cannot be taken.*5600/.test(two.daemon.log()),
  );
  await listener.stop();
  await waitFor('this host to serve it, too', () => page(two.host, 5600, '/whoami'));
  await manager.run('service', 'rm', 'late');
});

test('a stack that is removed and at once deployed again runs: nothing of the old one is in the way', async () => {
  await manager.run('stack', 'rm', 'voting');
  await manager.run('stack', 'deploy', '-c', COMPOSE, 'voting');
  await converged(STACK);
  for (const { host } of nodes) await waitFor(`an answer on ${host.name}`, () => page(host, 5000, '/whoami'));
});

test('stack rm leaves no container, network or device', async () => {
  await manager.run('stack', 'rm', 'voting');
  await waitFor('no container', async () => (await allContainers(true)).length === 0, { timeoutMs: 30_000 });
  const left = await waitFor(
    'no network',
    async () => {
      const found: string[] = [];
      for (const { engine, host } of nodes) {
        const networks = await engine.callJson<{ Name: string; Labels: Record<string, string> | null }[]>({
          method: 'GET',
          path: '/networks',
        });
        found.push(
          ...networks
            .filter(({ Labels }) => Labels?.['swarmd.network'] !== undefined)
            .map(({ Name }) => Name),
        );
        const devices = await host.run(['ip', '-br', 'link']);
        found.push(...(devices.match(/^(sw|vx)\d+/gm) ?? []));
      }
      assert.deepEqual(found, []);
      return found;
    },
    { timeoutMs: 20_000 },
  );
  assert.deepEqual(left, []);
  assert.deepEqual(await manager.call('network.list', { stack: 'voting' }), []);
});
