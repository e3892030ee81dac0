import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SwarmdError } from '../../../src/base/errors.ts';
import type { ServiceSpec } from '../../../src/model/spec.ts';
import { TestCli } from '../../support/cli.ts';

/** A command line with a service `web` of three tasks behind it. */
async function withWeb(): Promise<TestCli> {
  const cli = new TestCli();
  const { exitCode } = await cli.run(
    'service',
    'create',
    '-d',
    '--name',
    'web',
    '--replicas',
    '3',
    '-p',
    '8080:80',
    'nginx:1',
  );
  assert.equal(exitCode, 0);
  return cli;
}

function specOf(cli: TestCli, name = 'web'): ServiceSpec {
  return cli.api.service(name).spec;
}

describe('service create', () => {
  it('prints the id, waits and tells how it went', async () => {
    const cli = new TestCli();
    const { exitCode, stdout } = await cli.run(
      'service',
      'create',
      '--name',
      'web',
      '--replicas',
      '2',
      'nginx',
      'sleep',
      '--flag',
    );
    const service = cli.api.service('web');
    assert.equal(exitCode, 0);
    assert.match(stdout, new RegExp(`^${service.id}\noverall progress: 2 out of 2 tasks\n`));
    assert.match(stdout, /verify: service web converged\n$/);
    assert.deepEqual(service.spec.task.container.args, ['sleep', '--flag']);
  });

  it('says nothing but the id when detached', async () => {
    const cli = new TestCli();
    cli.api.settle = () => {};
    const { stdout } = await cli.run('service', 'create', '--detach', '--name', 'web', 'nginx');
    assert.equal(stdout, `${cli.api.service('web').id}\n`);
  });

  it('asks for rebalancing, and update changes it and turns it off', async () => {
    const cli = await withWeb();
    const rebalance = async (value: string) => {
      const { exitCode } = await cli.run('service', 'update', '-d', '--rebalance', value, 'web');
      return exitCode === 0 ? specOf(cli).rebalance : exitCode;
    };
    assert.deepEqual(await rebalance('on'), { maxMoves: 1, margin: 2, cooldownMs: 60_000 });
    assert.deepEqual(await rebalance('max-moves=3,cooldown=2m'), {
      maxMoves: 3,
      margin: 2,
      cooldownMs: 120_000,
    });
    assert.equal(await rebalance('margin=1'), 125);
    assert.equal(await rebalance('sometimes'), 125);
    assert.equal(await rebalance('off'), undefined);
  });

  it('runs processes: all words are the command', async () => {
    const cli = new TestCli();
    await cli.run('service', 'create', '--name', 'p', '--runtime', 'process', 'node', '-e', '1');
    const { runtime, container } = specOf(cli, 'p').task;
    assert.equal(runtime, 'process');
    assert.deepEqual([container.image, container.args], ['', ['node', '-e', '1']]);
  });

  it('passes --detach=false of the command to run on', async () => {
    const cli = new TestCli();
    await cli.run('service', 'create', '--tty=true', '-d=1', '--name', 'p', 'nginx', 'x', '--tty=false');
    assert.deepEqual(specOf(cli, 'p').task.container.args, ['x', '--tty=false']);
    assert.equal(specOf(cli, 'p').task.container.tty, true);
    await cli.run('service', 'create', '-t=false', '--read-only=0', '--name', 'q', 'nginx');
    const { tty, readOnly } = specOf(cli, 'q').task.container;
    assert.deepEqual([tty, readOnly], [false, false]);
  });

  it('refuses bad flags with 125, by name, and points to the help', async () => {
    const cli = new TestCli();
    for (const [args, message] of [
      [['--nonsense', 'x'], /unknown option '--nonsense'/],
      [['--isolation', 'hyperv', 'x'], /the flag --isolation is not supported by swarmd yet/],
      [['--replicas', '-1', 'x'], /--replicas takes a whole number/],
      [['--mount', 'target=', 'x'], /--mount: .* needs target=PATH/],
      [['--limit-memory', 'lots', 'x'], /--limit-memory: "lots" is not a size/],
      [['--update-order', 'sideways', 'x'], /--update-order takes one of stop-first, start-first/],
      [['-p', '127.0.0.1:80:80', 'x'], /--publish: .* names an address/],
      [['--tty=maybe', 'x'], /"maybe" is not true or false, for the flag --tty/],
      [['--replicas'], /argument missing/],
    ] as const) {
      const { exitCode, stderr } = await cli.run('service', 'create', ...args);
      assert.equal(exitCode, 125, stderr);
      assert.match(stderr, message);
    }
    assert.deepEqual(cli.api.services, []);
  });

  it('exits with 1 when an argument is missing', async () => {
    const { exitCode, stderr } = await new TestCli().run('service', 'create');
    assert.equal(exitCode, 1);
    assert.match(stderr, /^Error: an image is missing\nSee 'swarmd service create --help'\.\n$/);
  });

  it('names the nearest network when there is none of the name', async () => {
    const cli = new TestCli();
    await cli.run('network', 'create', 'front');
    const { exitCode, stderr } = await cli.run('service', 'create', '--network', 'fromt', 'x');
    assert.equal(exitCode, 1);
    assert.match(stderr, /the network "fromt" does not exist\. Did you mean "front"\?/);
  });
});

describe('service ls, ps and inspect', () => {
  it('show docker’s columns', async () => {
    const cli = await withWeb();
    const id = cli.api.service('web').id.slice(0, 12);
    assert.equal(
      (await cli.run('service', 'ls')).stdout,
      `ID             NAME   MODE         REPLICAS   IMAGE     PORTS\n${id}   web    replicated   3/3        nginx:1   *:8080->80/tcp\n`,
    );
    const ps = await cli.run('service', 'ps', 'web');
    assert.match(ps.stdout, /^ID +NAME +IMAGE +NODE +DESIRED STATE +CURRENT STATE +ERROR +PORTS\n/);
    assert.equal(ps.stdout.trimEnd().split('\n').length, 4);
  });

  it('print what --format and -q ask for', async () => {
    const cli = await withWeb();
    assert.equal(
      (await cli.run('service', 'ls', '-q')).stdout,
      `${cli.api.service('web').id.slice(0, 12)}\n`,
    );
    assert.equal(
      (await cli.run('service', 'ls', '--format', '{{.Name}}: {{.Replicas}}')).stdout,
      'web: 3/3\n',
    );
    assert.equal(
      (await cli.run('service', 'ls', '--format', 'table {{.Name}}\t{{.Mode}}')).stdout,
      'NAME   MODE\nweb    replicated\n',
    );
    const json = JSON.parse((await cli.run('service', 'ls', '--format', 'json')).stdout) as Record<
      string,
      string
    >;
    assert.deepEqual(Object.keys(json), ['ID', 'Name', 'Mode', 'Replicas', 'Image', 'Ports']);
    const { exitCode, stderr } = await cli.run('service', 'ls', '--format', '{{.Nme}}');
    assert.equal(exitCode, 1);
    assert.match(stderr, /there is no field "Nme"; known: ID, Name/);
  });

  it('filter, and refuse filters that are not there', async () => {
    const cli = await withWeb();
    await cli.run('service', 'create', '-d', '--name', 'api', '--label', 'tier=back', 'x');
    const names = async (...args: readonly string[]): Promise<string> =>
      (await cli.run('service', 'ls', '--format', '{{.Name}}', ...args)).stdout;
    assert.equal(await names('-f', 'label=tier=back'), 'api\n');
    assert.equal(await names('--filter', 'name=w'), 'web\n');
    assert.equal(await names('--filter', 'mode=global'), '');
    const bad = await cli.run('service', 'ls', '--filter', 'colour=red');
    assert.equal(bad.exitCode, 125);
    assert.match(bad.stderr, /"colour" is not a filter here; known: id, label, mode, name/);
  });

  it('indent the history of a slot', async () => {
    const cli = await withWeb();
    const web = cli.api.service('web');
    cli.api.addTask(web, {
      slot: 2,
      desiredState: 'shutdown',
      status: { state: 'failed', at: cli.api.nowMs, message: '', error: 'task: non-zero exit (1)' },
      meta: { version: 1, createdAt: 1, updatedAt: 1 },
    });
    const names = (await cli.run('service', 'ps', '--format', '{{.Name}}|{{.Error}}', 'web')).stdout;
    assert.equal(names, 'web.1|\nweb.2|\n \\_ web.2|"task: non-zero exit (1)"\nweb.3|\n');
  });

  it('inspect as JSON, by template with docker’s names, and for people', async () => {
    const cli = await withWeb();
    const objects = JSON.parse((await cli.run('service', 'inspect', 'web')).stdout) as {
      spec: ServiceSpec;
    }[];
    assert.equal(objects[0]?.spec.name, 'web');
    const template = '{{.Spec.Name}} {{.Spec.TaskTemplate.ContainerSpec.Image}}';
    assert.equal((await cli.run('service', 'inspect', '-f', template, 'web')).stdout, 'web nginx:1\n');
    assert.match(
      (await cli.run('service', 'inspect', '--pretty', 'web')).stdout,
      /^Mode: +replicated, 3 replicas$/m,
    );
  });

  it('name the nearest service, do the rest, and exit with 1', async () => {
    const cli = await withWeb();
    const { exitCode, stdout, stderr } = await cli.run(
      'service',
      'inspect',
      '--format',
      '{{.Spec.Name}}',
      'wob',
      'web',
    );
    assert.deepEqual([exitCode, stdout], [1, 'web\n']);
    assert.match(stderr, /there is no service "wob"\. Did you mean "web"\?/);
  });
});

describe('service update, rollback, scale and rm', () => {
  it('change what the flags say and nothing else', async () => {
    const cli = await withWeb();
    const before = specOf(cli);
    const { exitCode } = await cli.run(
      'service',
      'update',
      '--env-add',
      'A=1',
      '--publish-rm',
      '80',
      '--limit-memory',
      '64m',
      'web',
    );
    assert.equal(exitCode, 0);
    const { task } = before;
    assert.deepEqual(specOf(cli), {
      ...before,
      endpoint: { ...before.endpoint, ports: [] },
      task: {
        ...task,
        container: { ...task.container, env: ['A=1'] },
        resources: { limits: { memoryBytes: 64 * 1024 * 1024 } },
      },
    });
  });

  it('send the version that was read', async () => {
    const cli = await withWeb();
    const { version } = cli.api.service('web').meta;
    await cli.run('service', 'update', '-d', '--force', 'web');
    const sent = cli.api.calls.filter(({ method }) => method === 'service.update')[0]?.params as {
      version: number;
    };
    assert.equal(sent.version, version);
    cli.api.failures.set('service.update', new SwarmdError('CONFLICT', 'update out of sequence'));
    const { exitCode, stderr } = await cli.run('service', 'update', '-d', '--force', 'web');
    assert.equal(exitCode, 1);
    assert.match(stderr, /^Error: update out of sequence\n/);
  });

  it('roll back, also by --rollback', async () => {
    const cli = await withWeb();
    await cli.run('service', 'update', '-d', '--image', 'nginx:2', 'web');
    assert.equal((await cli.run('service', 'rollback', 'web')).exitCode, 0);
    assert.equal(specOf(cli).task.container.image, 'nginx:1');
    assert.equal((await cli.run('service', 'update', '--rollback', '--detach', 'web')).exitCode, 0);
    assert.equal(specOf(cli).task.container.image, 'nginx:2');
  });

  it('scale several, a line each', async () => {
    const cli = await withWeb();
    await cli.run('service', 'create', '-d', '--name', 'api', 'x');
    const { exitCode, stdout } = await cli.run('service', 'scale', '-d', 'web=5', 'api=0');
    assert.deepEqual([exitCode, stdout], [0, 'web scaled to 5\napi scaled to 0\n']);
    assert.deepEqual(specOf(cli).mode, { kind: 'replicated', replicas: 5 });
    const bad = await cli.run('service', 'scale', 'web=many');
    assert.equal(bad.exitCode, 1);
    assert.match(bad.stderr, /"web=many" is not SERVICE=REPLICAS/);
  });

  it('refuse to scale a global service', async () => {
    const cli = new TestCli();
    await cli.run('service', 'create', '-d', '--mode', 'global', '--name', 'agent', 'x');
    const { exitCode, stderr } = await cli.run('service', 'scale', 'agent=2');
    assert.equal(exitCode, 1);
    assert.match(stderr, /one task on each node and cannot be scaled/);
  });

  it('remove what is there and tell what is not', async () => {
    const cli = await withWeb();
    const { exitCode, stdout, stderr } = await cli.run('service', 'rm', 'web', 'ghost');
    assert.deepEqual([exitCode, stdout], [1, 'web\n']);
    assert.match(stderr, /there is no service "ghost"/);
    assert.deepEqual(cli.api.services, []);
  });
});

describe('service logs', () => {
  const line = {
    kind: 'line',
    taskId: 't'.repeat(25),
    serviceName: 'web',
    slot: 1,
    nodeId: 'n'.repeat(25),
    hostname: 'alpha',
    stream: 'stdout',
    atMs: Date.UTC(2026, 0, 31, 12),
    line: 'hello',
  } as const;

  it('prefix each line with its task, on its own stream', async () => {
    const cli = new TestCli();
    cli.api.logRecords = [line, { ...line, stream: 'stderr', line: 'oops' }];
    const { exitCode, stdout, stderr } = await cli.run('service', 'logs', 'web');
    assert.deepEqual(
      [exitCode, stdout, stderr],
      [0, 'web.1.tttttttttttt@alpha    | hello\n', 'web.1.tttttttttttt@alpha    | oops\n'],
    );
  });

  it('print raw lines, times and full ids when asked', async () => {
    const cli = new TestCli();
    cli.api.logRecords = [line];
    assert.equal(
      (await cli.run('service', 'logs', '--raw', '-t', 'web')).stdout,
      '2026-01-31T12:00:00.000Z hello\n',
    );
    assert.match((await cli.run('service', 'logs', '--no-trunc', 'web')).stdout, /^web\.1\.t{25}@alpha/);
    assert.match((await cli.run('service', 'logs', '--no-task-ids', 'web')).stdout, /^web\.1@alpha/);
  });

  it('report a node that cannot be read and print the rest', async () => {
    const cli = new TestCli();
    cli.api.logRecords = [
      { kind: 'notice', taskId: 'x'.repeat(25), nodeId: 'y'.repeat(25), message: 'unreachable' },
      line,
    ];
    const { exitCode, stdout, stderr } = await cli.run('service', 'logs', 'web');
    assert.equal(exitCode, 1);
    assert.match(stdout, /hello/);
    assert.match(stderr, /^warning: no output of task xxxxxxxxxxxx on node yyyyyyyyyyyy: unreachable\n$/);
  });

  it('refuse a time that is none', async () => {
    assert.equal(
      (await new TestCli().run('service', 'logs', '--since', 'yesterdayish', 'web')).exitCode,
      125,
    );
    assert.equal((await new TestCli().run('service', 'logs', '--tail', 'some', 'web')).exitCode, 125);
  });
});
