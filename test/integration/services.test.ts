/** Services on one daemon, by the commands a user gives: create, scale, update, roll back, drain, remove. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Daemon } from '../e2e/lib/daemon.ts';
import type { ExecResult } from '../e2e/lib/processes.ts';
import { waitFor } from '../support/wait.ts';
import { ANSWER, ask, LocalCluster, publishedPort } from './lib/cluster.ts';

const QUICK = [
  ...['--restart-delay', '100ms', '--stop-grace-period', '2s'],
  ...['--update-monitor', '300ms', '--rollback-monitor', '300ms'],
];

describe('one daemon', () => {
  let cluster: LocalCluster;
  let manager: Daemon;
  let port: number;

  before(async () => {
    cluster = new LocalCluster();
    manager = await cluster.init();
    port = await publishedPort();
  });
  after(() => cluster.remove());

  async function slotsThatAnswer(tries: number): Promise<Set<string>> {
    const slots = new Set<string>();
    for (let i = 0; i < tries; i++) slots.add((await ask(port)).env['SWARMD_SLOT'] ?? '');
    return slots;
  }

  test('info and node ls show the node it is', async () => {
    const info = await manager.run('info');
    const { nodeId } = await manager.call('info', {});
    assert.match(info, new RegExp(nodeId));
    const list = await manager.run('node', 'ls');
    assert.match(list, new RegExp(`${nodeId} \\*.*Ready +Active +Leader`));
    assert.equal((await manager.run('node', 'ls', '-q')).trim().length > 0, true);
  });

  test('a created service runs, and its published port leads to each replica in turn', async () => {
    const flags = ['--name', 'web', '--replicas', '3', '-p', `${port}:80`, '-e', 'VERSION=1', ...QUICK];
    const output = await manager.run('service', 'create', '--runtime', 'process', ...flags, ...ANSWER);
    assert.match(output, /overall progress: 3 out of 3 tasks/);
    assert.match(output, /converged/);
    // A task runs before its program listens; a backend that refuses is left out for a while.
    await waitFor('each to answer', async () => (await slotsThatAnswer(6)).size === 3);
    assert.deepEqual(await slotsThatAnswer(3), new Set(['1', '2', '3']));
    assert.match(await manager.run('service', 'ls'), /web +replicated +3\/3 .*\*:\d+->80\/tcp/);
    const twice = ['service', 'create', '--runtime', 'process', '--name', 'web', '-d', ...ANSWER];
    const { code, stderr } = await manager.cli(twice);
    assert.equal(code, 1);
    assert.match(stderr, /web/);
  });

  test('service ps shows every task with its state', async () => {
    const ps = await manager.run('service', 'ps', 'web');
    for (const slot of [1, 2, 3]) assert.match(ps, new RegExp(`web\\.${slot} .*Running +Running`));
    const json = (await manager.run('service', 'ps', '--format', 'json', 'web')).trim().split('\n');
    assert.equal(json.length, 3);
    for (const line of json)
      assert.equal((JSON.parse(line) as { DesiredState: string }).DesiredState, 'Running');
  });

  test('scale up and down: tasks that stay are not touched', async () => {
    const before = await manager.waitForRunning('web', 3);
    await manager.run('service', 'scale', '-d', 'web=5');
    const five = await manager.waitForRunning('web', 5);
    assert.deepEqual(
      five.slice(0, 3).map((task) => task.id),
      before.map((task) => task.id),
    );
    await waitFor('five slots to answer', async () => (await slotsThatAnswer(10)).size === 5);
    await manager.run('service', 'scale', '-d', 'web=2');
    const two = await manager.waitForRunning('web', 2);
    assert.deepEqual(
      two.map((task) => task.id),
      before.slice(0, 2).map((task) => task.id),
    );
    await waitFor('the others to be gone', () => manager.taskProcesses().length === 2);
    assert.deepEqual(await slotsThatAnswer(4), new Set(['1', '2']));
  });

  test('a rolling update replaces every task, and the port answers all the while', async () => {
    const seen = { answered: 0, lost: 0, versions: new Set<string>() };
    const stop = new AbortController();
    const hammer = (async () => {
      while (!stop.signal.aborted) {
        try {
          const answer = await ask(port);
          seen.versions.add(`${answer.env['VERSION']} ${answer.args.join(' ')}`);
          seen.answered++;
        } catch {
          seen.lost++;
        }
      }
    })();
    const args = [...ANSWER, 'one', 'two'].join(' ');
    const update = ['--env-add', 'VERSION=2', '--args', args, '--update-order', 'start-first'];
    try {
      assert.match(await manager.run('service', 'update', ...update, 'web'), /converged/);
    } finally {
      stop.abort();
      await hammer;
    }
    const { answered, lost, versions } = seen;
    assert.ok(answered > 20, `only ${answered} answers`);
    assert.equal(lost, 0, `${lost} of ${answered + lost} requests were lost`);
    assert.ok(versions.has('1 ') && versions.has('2 one two'), [...versions].join(', '));
    for (let i = 0; i < 4; i++) assert.equal((await ask(port)).env['VERSION'], '2');
    assert.match(await manager.run('service', 'inspect', '--pretty', 'web'), /completed/);
  });

  test('rollback brings the former version back', async () => {
    await manager.run('service', 'rollback', 'web');
    await waitFor('version 1', async () => {
      const answers = [await ask(port), await ask(port)];
      return answers.every(({ env, args }) => env['VERSION'] === '1' && args.length === 0);
    });
  });

  test('a task that ends is replaced after the delay', async () => {
    const [first] = await manager.waitForRunning('web', 2);
    await ask(port, '/exit/7').catch(() => {});
    await manager.waitForTasks(
      'web',
      (tasks) => tasks.length === 2 && tasks.some((task) => task.id !== first?.id),
    );
    const ps = await manager.run('service', 'ps', 'web');
    assert.match(ps, /\\_ web\.\d .*Failed .*exit.*7/i);
  });

  test('logs of all tasks, of the last lines, and as they come', async () => {
    const all = await manager.run('service', 'logs', 'web');
    assert.match(all, /web\.1\.\S+@\S+ +\| slot 1 answers, version 1/);
    assert.match(all, /web\.2\.\S+@\S+ +\| slot 2 answers/);
    const follow = manager.follow(['service', 'logs', '-f', '--tail', '1', 'web'], 'follow');
    try {
      await waitFor('lines of now', () => /slot \d answers/.test(follow.output()));
      await manager.run('service', 'scale', '-d', 'web=3');
      await waitFor('lines of a new task', () => follow.output().includes('slot 3 answers'));
    } finally {
      follow.kill('SIGINT');
    }
    assert.deepEqual(await follow.ended, { code: 0, signal: null });
  });

  test('a constraint no node meets is told as the reason', async () => {
    const flags = ['--name', 'nowhere', '--constraint', 'node.labels.disk==ssd', '-d'];
    await manager.run('service', 'create', '--runtime', 'process', ...flags, ...ANSWER);
    const ps = await waitFor('the reason', async () => {
      const text = await manager.run('service', 'ps', '--no-trunc', 'nowhere');
      return text.includes('no suitable node') ? text : undefined;
    });
    assert.match(ps, /Pending .*no suitable node \(.*constraint.* on 1 node/);
    const { nodeId } = await manager.call('info', {});
    await manager.run('node', 'update', '--label-add', 'disk=ssd', nodeId);
    await manager.waitForRunning('nowhere', 1);
    await manager.run('service', 'rm', 'nowhere');
  });

  test('a command that is not there is told as the reason', async () => {
    const flags = ['--name', 'typo', '--restart-condition', 'none', '-d'];
    await manager.run('service', 'create', '--runtime', 'process', ...flags, 'no-such-command');
    await waitFor('the reason', async () =>
      /Rejected .*no-such-command is not on this node/.test(
        await manager.run('service', 'ps', '--no-trunc', 'typo'),
      ),
    );
    await manager.run('service', 'rm', 'typo');
  });

  test('a port that another service publishes is refused', async () => {
    const flags = ['--name', 'second', '-p', `${port}:80`, '-d'];
    const { code, stderr } = await manager.cli([
      'service',
      'create',
      '--runtime',
      'process',
      ...flags,
      ...ANSWER,
    ]);
    assert.equal(code, 1);
    assert.match(stderr, new RegExp(`${port}.*web`));
  });

  test('what does not exist and what is misspelt: exit codes and messages', async () => {
    const cases: [string[], number, RegExp][] = [
      [['service', 'inspect', 'wep'], 1, /wep.*web/s],
      [['service', 'rm', 'nothing'], 1, /nothing/],
      [['service', 'ls', '--colour'], 125, /--colour.*--help/s],
      [['service', 'scale', 'web'], 1, /web/],
      [['service', 'scale', 'web=many'], 1, /many/],
      [['service', 'create'], 1, /image/],
      [['service', 'rm'], 1, /argument/],
      [['servic', 'ls'], 1, /service/],
      [['node', 'inspect', 'nobody'], 1, /nobody/],
      [['stack', 'ps', 'nostack'], 1, /nostack/],
    ];
    const results = await Promise.all(cases.map(([args]) => manager.cli(args)));
    for (const [i, [args, wanted, text]] of cases.entries()) {
      const { code, stderr, stdout } = results[i] as ExecResult;
      const shown = `swarmd ${args.join(' ')}: ${code}\n${stdout}${stderr}`;
      assert.equal(code, wanted, shown);
      assert.match(stderr, text, shown);
      assert.doesNotMatch(stderr, /\n +at /, shown);
    }
  });

  test('drain stops every task, active brings them back', async () => {
    const { nodeId } = await manager.call('info', {});
    await manager.run('node', 'update', '--availability', 'drain', nodeId);
    await manager.waitForRunning('web', 0);
    await waitFor('all processes to end', () => manager.taskProcesses().length === 0);
    await manager.run('node', 'update', '--availability', 'active', nodeId);
    await manager.waitForRunning('web', 3);
  });

  test('a removed service is gone: tasks, folders and port', async () => {
    assert.equal(await manager.run('service', 'rm', 'web'), 'web\n');
    await waitFor(
      'no service',
      async () => (await manager.call('service.list', { stack: null })).length === 0,
    );
    await waitFor('no process', () => manager.taskProcesses().length === 0);
    await waitFor('the port to be closed', async () => {
      await assert.rejects(ask(port), /ECONNREFUSED/);
      return true;
    });
    const tasks = await manager.call('task.list', { service: null, node: null, stack: null });
    assert.deepEqual(tasks, []);
  });

  test('SIGTERM ends the daemon with code 0, and nothing of it stays', async () => {
    assert.equal(await manager.stop(), 0);
    const { code, stderr } = await manager.cli(['node', 'ls']);
    assert.equal(code, 1);
    assert.match(stderr, /cannot connect to the swarmd daemon/);
  });
});
