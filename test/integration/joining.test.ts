/** Nodes that join and leave, and every way in which a daemon must refuse to start. */
import assert from 'node:assert/strict';
import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Daemon } from '../e2e/lib/daemon.ts';
import type { ExecResult } from '../e2e/lib/processes.ts';
import { waitFor } from '../support/wait.ts';
import { addressOf, ANSWER, ask, LocalCluster, NODE_FLAGS, publishedPort } from './lib/cluster.ts';

/** A refusal: code 1, one `Error:` line that matches, no stack trace, and no daemon left. */
function assertRefused(result: ExecResult, text: RegExp): void {
  const shown = `${result.code}\n${result.stdout}${result.stderr}`;
  assert.equal(result.code, 1, shown);
  assert.match(result.stderr, text, shown);
  assert.match(result.stderr, /^Error: /m, shown);
  assert.doesNotMatch(result.stderr, /\n +at /, shown);
}

describe('a manager and a worker', () => {
  let cluster: LocalCluster;
  let manager: Daemon;
  let worker: Daemon;
  let tokens: { readonly worker: string; readonly manager: string };
  let address: string;

  before(async () => {
    cluster = new LocalCluster();
    // Long enough that a restarted worker is never taken for dead, however busy the machine is.
    manager = await cluster.init('m1', '--dispatcher-heartbeat', '20s');
    tokens = await manager.call('cluster.tokens', { rotate: null });
    address = await addressOf(manager);
    worker = await cluster.join('w1', manager, 'worker');
  });
  after(() => cluster.remove());

  /** The node leaves and is removed, so that nothing is scheduled to it until its heartbeats are missed. */
  async function leaveAndForget(daemon: Daemon): Promise<void> {
    const { nodeId } = await daemon.call('info', {});
    await daemon.run('leave');
    assert.equal(await daemon.ended(), 0);
    await manager.run('node', 'rm', '--force', nodeId);
    assert.doesNotMatch(await manager.run('node', 'ls'), new RegExp(nodeId));
  }

  test('the joined worker is listed as ready', async () => {
    await waitFor('two ready nodes', async () => {
      const nodes = await manager.call('node.list', {});
      return nodes.length === 2 && nodes.every((node) => node.status.state === 'ready');
    });
    const { nodeId } = await worker.call('info', {});
    assert.match(await manager.run('node', 'ls'), new RegExp(`${nodeId} +\\S+ +Ready +Active`));
    assert.match(await worker.run('info'), /worker/);
  });

  test('tasks spread over both nodes; the port that the first node holds is a warning on the second', async () => {
    const port = await publishedPort();
    const flags = ['--name', 'spread', '--replicas', '4', '-p', `${port}:80`, '-d'];
    await manager.run('service', 'create', '--runtime', 'process', ...flags, ...ANSWER);
    const tasks = await manager.waitForRunning('spread', 4);
    const perNode = Map.groupBy(tasks, (task) => task.nodeId);
    assert.deepEqual(
      [...perNode.values()].map((own) => own.length),
      [2, 2],
    );
    await waitFor('all four to answer', async () => {
      const slots = new Set<string>();
      for (let i = 0; i < 8; i++) slots.add((await ask(port)).env['SWARMD_SLOT'] ?? '');
      return slots.size === 4;
    });
    // Both daemons serve the port on this one machine: whichever came second says so, and both go on.
    const warning = new RegExp(
      `port tcp/${port} of service spread is in use on this node|${port}/tcp.*in use`,
    );
    await waitFor('the warning', () => warning.test(manager.log() + worker.log()));
    assert.equal(manager.running && worker.running, true);
    assert.match(
      await manager.run('node', 'ps', (await worker.call('info', {})).nodeId),
      /spread\.\d.*Running/,
    );
    assert.match(
      await manager.run('service', 'logs', 'spread'),
      /slot 1 answers[^]*slot 2 answers|slot 2 answers[^]*slot 1 answers/,
    );
  });

  test('a worker refuses commands about the cluster, and says where to go', async () => {
    const result = await worker.cli(['service', 'ls']);
    assertRefused(result, /not a swarm manager/);
  });

  test('a wrong, mangled or foreign token is refused', async () => {
    const wrongSecret = tokens.worker.replace(/.{5}$/, (end) => (end === '00000' ? '11111' : '00000'));
    const parts = tokens.worker.split('-');
    const wrongDigest = [...parts.slice(0, 2), '0'.repeat(50), parts[3]].join('-');
    const cases: [string, RegExp][] = [
      [wrongSecret, /token/i],
      [wrongDigest, /digest|another cluster|root certificate|does not match/i],
      ['SWMTKN-1-nonsense', /token/i],
      ['', /token/i],
    ];
    for (const [i, [token, text]] of cases.entries()) {
      const joiner = cluster.daemon(`refused-${i}`);
      assertRefused(await joiner.attempt('join', ...NODE_FLAGS, '--token', token, address), text);
      assert.equal(existsSync(join(joiner.dataDir, 'identity.json')), false);
    }
    assert.equal((await manager.call('node.list', {})).length, 2);
  });

  test('a rotated token: the old one is refused, the new one joins', async () => {
    const output = await manager.run('join-token', '--rotate', 'worker');
    const rotated = /swarmd join --token (\S+) (\S+)/.exec(output);
    assert.ok(rotated !== null && rotated[1] !== tokens.worker, output);
    const joiner = cluster.daemon('rotated');
    assertRefused(await joiner.attempt('join', ...NODE_FLAGS, '--token', tokens.worker, address), /token/i);
    tokens = await manager.call('cluster.tokens', { rotate: null });
    assert.equal(tokens.worker, rotated[1]);
    await joiner.start('join', ...NODE_FLAGS, '--token', tokens.worker, rotated[2] ?? '');
    await leaveAndForget(joiner);
  });

  test('a join to a dead address says that nobody answers there', async () => {
    const port = await publishedPort();
    const joiner = cluster.daemon('dead-address');
    const result = await joiner.attempt('join', ...NODE_FLAGS, '--token', tokens.worker, `127.0.0.1:${port}`);
    assertRefused(result, new RegExp(`127\\.0\\.0\\.1:${port}`));
    // The same folder joins once the address is right.
    await joiner.start('join', ...NODE_FLAGS, '--token', tokens.worker, address);
    await leaveAndForget(joiner);
  });

  test('a join to something that is no swarmd is refused in time', async () => {
    const server = createServer((socket) => socket.on('error', () => {}).end('SSH-2.0-OpenSSH_9.9\r\n'));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    try {
      const joiner = cluster.daemon('no-swarmd');
      assertRefused(
        await joiner.attempt('join', ...NODE_FLAGS, '--token', tokens.worker, `127.0.0.1:${port}`),
        new RegExp(`127\\.0\\.0\\.1:${port}`),
      );
    } finally {
      server.close();
    }
  });

  test('a folder that belongs to a cluster can be run only as what it is', async () => {
    const inUse = await Promise.all([worker.attempt('daemon'), worker.attempt('init', ...NODE_FLAGS)]);
    for (const result of inUse) assertRefused(result, /in use by another swarmd daemon \(pid \d+\)/);
    const before = worker.taskProcesses();
    assert.equal(before.length, 2);
    await worker.stop();
    const join = ['join', ...NODE_FLAGS, '--token', tokens.worker, address];
    const [init, joined, empty] = await Promise.all([
      worker.attempt('init', ...NODE_FLAGS),
      worker.attempt(...join),
      cluster.daemon('empty').attempt('daemon'),
    ]);
    // Two that start at the same moment may also meet in the lock.
    const member = /already part of a swarm.*swarmd leave|in use by another swarmd daemon/;
    assertRefused(init, member);
    assertRefused(joined, member);
    assert.match(init.stderr + joined.stderr, /already part of a swarm/);
    assertRefused(empty, /belongs to no cluster.*swarmd init.*swarmd join/);
    await worker.start('daemon');
    await manager.waitForRunning('spread', 4);
    assert.deepEqual(worker.taskProcesses(), before);
  });

  test('--detach: the command returns when the daemon answers, or tells why it does not', async () => {
    const daemon = cluster.daemon('detached');
    const made = await daemon.attempt('init', '--detach', ...NODE_FLAGS);
    assert.equal(made.code, 0, made.stdout + made.stderr);
    assert.match(made.stdout, /swarmd join --token SWMTKN-1-/);
    const pid = Number(/in the background \(process (\d+)\)/.exec(made.stdout)?.[1]);
    try {
      assert.match(await daemon.run('node', 'ls'), /Leader/);
      assertRefused(await daemon.attempt('daemon', '--detach'), /a daemon already runs|in use by another/);
      await daemon.run('leave', '--force');
      await waitFor('the daemon to end', () => !existsSync(`/proc/${pid}`));
    } finally {
      if (existsSync(`/proc/${pid}`)) process.kill(pid, 'SIGKILL');
    }
  });

  test('a folder with an unreadable identity is refused and kept', async () => {
    const broken = cluster.daemon('broken');
    cpSync(manager.dataDir, broken.dataDir, {
      recursive: true,
      filter: (path) => !/\.sock|\.pid/.test(path),
    });
    writeFileSync(join(broken.dataDir, 'identity.json'), '{"format":1,');
    assertRefused(await broken.attempt('daemon'), /identity in .* cannot be read/);
    assert.ok(existsSync(join(broken.dataDir, 'raft')));
  });

  test('an address that is taken or wrong is refused', async () => {
    const taken = ['--listen-addr', address, '--advertise-addr', '127.0.0.1'];
    const daemon = cluster.daemon('taken');
    assertRefused(await daemon.attempt('init', ...taken), new RegExp(`${address} is in use`));
    const cases: [string[], number][] = [
      [['init', '--listen-addr', '203.0.113.7:0', '--advertise-addr', '127.0.0.1'], 1],
      [['init', '--listen-addr', '127.0.0.1:port'], 125],
      [['init', '--no-such-flag'], 125],
      [['join', address], 1],
    ];
    for (const [args, code] of cases) {
      const result = await daemon.attempt(...args);
      const shown = `swarmd ${args.join(' ')}: ${result.code}\n${result.stdout}${result.stderr}`;
      assert.ok(result.code === code || result.code === 125, shown);
      assert.doesNotMatch(result.stderr, /\n +at /, shown);
    }
  });

  test('a worker of another cluster is refused where it does not belong', async () => {
    const other = await cluster.init('other');
    const otherAddress = await addressOf(other);
    await other.kill();
    // Another cluster's manager takes over the address that a worker knows.
    const stranger = cluster.daemon('stranger');
    cpSync(worker.dataDir, stranger.dataDir, {
      recursive: true,
      filter: (path) => !/\.sock|\.pid|tasks|worker/.test(path),
    });
    const path = join(stranger.dataDir, 'identity.json');
    const identity = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
    const listen = { host: '127.0.0.1', port: await publishedPort() };
    writeFileSync(path, JSON.stringify({ ...identity, managers: [otherAddress], listen }));
    await other.start('daemon');
    await stranger.start('daemon', '--socket', stranger.socketPath);
    await waitFor('the refusal', () => /WARN .*belongs to another cluster/.test(stranger.log()));
    assert.equal((await other.call('node.list', {})).length, 1);
    await stranger.kill();
    await other.kill();
  });

  test('drain and leave: the tasks run elsewhere, the folder is empty, and the node can be removed', async () => {
    const { nodeId } = await worker.call('info', {});
    await manager.run('node', 'update', '--availability', 'drain', nodeId);
    await manager.waitForTasks(
      'spread',
      (tasks) => tasks.length === 4 && tasks.every((task) => task.nodeId !== nodeId),
    );
    await leaveAndForget(worker);
    assert.deepEqual(worker.taskProcesses(), []);
    assert.deepEqual(readdirSync(worker.dataDir), []);
  });

  test('leave of the last manager: refused without --force; with it, tasks and files are gone', async () => {
    assertRefused(await manager.cli(['leave']), /--force/);
    await manager.run('leave', '--force');
    assert.equal(await manager.ended(), 0);
    assert.deepEqual(manager.taskProcesses(), []);
    assert.deepEqual(readdirSync(manager.dataDir), []);
  });
});
