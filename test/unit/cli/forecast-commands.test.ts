import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { aServiceSpec } from '../../support/builders.ts';
import { TestCli } from '../../support/cli.ts';

function withForecast(): TestCli {
  const cli = new TestCli();
  cli.api.addService(aServiceSpec('web'));
  cli.api.forecast = {
    moves: [
      { kind: 'move', service: 'web', name: 'web.1', from: 'one', to: 'two', reason: '' },
      { kind: 'pending', service: 'web', name: 'web.2', from: 'one', to: '', reason: 'no suitable node' },
    ],
    shortages: [{ service: 'web', wanted: 2, running: 1 }],
    settled: true,
    quorum: { managers: 3, left: 1, needed: 2, lost: true },
  };
  return cli;
}

/** Methods that change something, as called so far. */
function changes(cli: TestCli): string[] {
  return cli.api.calls.map(({ method }) => method).filter((name) => /\.(create|update|remove)$/.test(name));
}

describe('dry runs and whatif', () => {
  it('whatif shows moves, shortages and the quorum', async () => {
    const cli = withForecast();
    const { exitCode, stdout } = await cli.run('whatif', '--lose', 'one', 'three', '--drain', 'two');
    assert.equal(exitCode, 0);
    assert.deepEqual(cli.api.calls.at(-1)?.params, { lose: ['one', 'three'], drain: ['two'] });
    assert.equal(
      stdout,
      [
        'ACTION    TASK    FROM   TO    REASON',
        'move      web.1   one    two',
        'pending   web.2   one          no suitable node',
        'service web would run 1 of 2 tasks',
        '1 of 3 managers would be left, 2 are needed: the quorum would be lost: running tasks go on, but nothing could be changed or replaced',
        'nothing was changed',
        '',
      ].join('\n'),
    );
  });

  it('whatif gives everything as JSON', async () => {
    const cli = withForecast();
    const { stdout } = await cli.run('whatif', '--lose', 'one', '--format', 'json');
    assert.deepEqual(JSON.parse(stdout), cli.api.forecast);
  });

  it('whatif needs a node', async () => {
    const { exitCode, stderr } = await withForecast().run('whatif');
    assert.equal(exitCode, 1);
    assert.match(stderr, /--lose or --drain/);
  });

  for (const args of [
    ['service', 'create', '--dry-run', '--name', 'other', 'nginx'],
    ['service', 'update', '--dry-run', '--image', 'nginx:2', 'web'],
    ['service', 'scale', '--dry-run', 'web=4'],
    ['node', 'update', '--dry-run', '--availability', 'drain', 'self'],
  ]) {
    it(`${args.slice(0, 3).join(' ')} changes nothing`, async () => {
      const cli = withForecast();
      const { exitCode, stdout } = await cli.run(...args);
      assert.equal(exitCode, 0);
      assert.match(stdout, /pending +web\.2 +one +no suitable node/);
      assert.deepEqual(changes(cli), []);
    });
  }
});

describe('explain', () => {
  it('shows the task with help, and every node with its verdict', async () => {
    const cli = withForecast();
    cli.api.explained = { ...cli.api.explained, help: ['add a node'] };
    const node = { serviceTasks: 1, allTasks: 2, failures: 0, avoided: false, branches: [] };
    cli.api.explainedNodes = [
      { ...node, nodeId: 'n1', hostname: 'one', rank: 1, refusals: [] },
      {
        ...node,
        nodeId: 'n2',
        hostname: 'two',
        rank: null,
        refusals: [{ filter: 'ready', reason: 'is down', help: 'bring it back' }],
      },
    ];
    for (const args of [
      ['service', 'explain', 'web'],
      ['task', 'explain', 'web.1'],
    ]) {
      const { exitCode, stdout } = await cli.run(...args);
      assert.equal(exitCode, 0);
      assert.match(stdout, /web\.1 .*pending +no suitable node\n {2}help: add a node\n/);
      assert.match(stdout, /could run on 1 of 2 nodes, in this order:\n/);
      assert.match(stdout, /\n1 +one +1 +2 +0 +fits\n- +two .*ready: is down\n/);
      const json = await cli.run(...args, '--format', 'json');
      assert.equal((JSON.parse(json.stdout) as { nodes: unknown[] }).nodes.length, 2);
    }
  });
});
