import assert from 'node:assert/strict';
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { SwarmdError } from '../../../src/base/errors.ts';
import type { NodeOptions, RunningNode, StartMode } from '../../../src/node/types.ts';
import { TestCli } from '../../support/cli.ts';
import { projectFolder } from '../../support/imports.ts';

interface Started {
  readonly options: NodeOptions;
  readonly mode: StartMode;
  stops: ({ readonly stopTasks?: boolean } | undefined)[];
}

/** A command line whose daemon ends as soon as it is asked to, or by itself when `endsAlone`. */
function withDaemon(endsAlone: boolean): { readonly cli: TestCli; readonly started: Started[] } {
  const cli = new TestCli();
  const started: Started[] = [];
  cli.startNode = async (options, mode) => {
    const record: Started = { options, mode, stops: [] };
    started.push(record);
    const ended = Promise.withResolvers<number>();
    if (endsAlone) ended.resolve(3);
    const node: RunningNode = {
      nodeId: 'n'.repeat(25),
      clusterId: 'c'.repeat(25),
      role: 'manager',
      socketPath: options.socketPath,
      advertised: '10.0.0.1:2377',
      ended: ended.promise,
      stop: async (how) => {
        record.stops.push(how);
        ended.resolve(0);
      },
    };
    return node;
  };
  return { cli, started };
}

function temporary(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'swarmd-cli-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

describe('init, join and daemon', () => {
  it('start a daemon from the flags and print how to join', async () => {
    const { cli, started } = withDaemon(true);
    const { exitCode, stdout } = await cli.run(
      'init',
      '--data-dir',
      'd',
      '--advertise-addr',
      '10.0.0.1',
      '--listen-addr',
      ':2400',
      '--label',
      'zone=a',
      '--engine-host',
      'none',
      '--task-history-limit',
      '2',
      '--default-addr-pool',
      '10.20.0.0/16',
    );
    assert.equal(exitCode, 3, 'the exit code of the daemon');
    assert.match(stdout, /swarmd join --token SWMTKN-1-root-worker 10\.0\.0\.1:2377/);
    assert.deepEqual(started[0]?.mode, { kind: 'init' });
    assert.deepEqual(started[0]?.options, {
      dataDir: '/nowhere/d',
      listen: { host: '0.0.0.0', port: 2400 },
      advertise: { host: '10.0.0.1', port: 0 },
      dataPathAddress: '',
      socketPath: '/nowhere/d/swarmd.sock',
      dns: null,
      engineHost: null,
      runtimes: ['process'],
      labels: { zone: 'a' },
      availability: 'active',
      clusterSpec: { defaultAddressPool: ['10.20.0.0/16'], taskHistoryLimit: 2 },
      logLevel: 'info',
      logFormat: 'text',
    });
  });

  it('take environment variables where there is no flag', async () => {
    const { cli, started } = withDaemon(true);
    Object.assign(cli.env, {
      SWARMD_DATA_DIR: '/data',
      SWARMD_LISTEN_ADDR: '[::1]:1',
      DOCKER_HOST: 'unix:///d.sock',
      SWARMD_LOG_FORMAT: 'json',
    });
    await cli.run('daemon', '--listen-addr', '127.0.0.1:2');
    const { options, mode } = started[0] as Started;
    assert.deepEqual(
      [options.dataDir, options.listen, options.engineHost, options.logFormat],
      ['/data', { host: '127.0.0.1', port: 2 }, 'unix:///d.sock', 'json'],
    );
    assert.deepEqual(mode, { kind: 'resume' });
  });

  it('go on with a cluster by force, with other addresses if asked, and without settings of a new one', async () => {
    const { cli, started } = withDaemon(true);
    const { stdout } = await cli.run('init', '--force-new-cluster', '--advertise-addr', '10.0.0.9');
    assert.match(stdout, /Cluster forced: this machine .* is its only manager now/);
    assert.match(stdout, /let it leave and join again/);
    assert.deepEqual(started[0]?.mode, { kind: 'force-new-cluster' });
    assert.deepEqual(started[0]?.options.move, { advertise: { host: '10.0.0.9', port: 0 } });
    const refused = await cli.run('init', '--force-new-cluster', '--task-history-limit', '9');
    assert.equal(refused.exitCode, 125);
    assert.match(refused.stderr, /--task-history-limit sets up a new cluster/);
    await cli.run('init', '--force-new-cluster=false');
    assert.deepEqual(started[1]?.mode, { kind: 'init' });
    assert.equal(started[1]?.options.move, undefined);
  });

  it('start a member at another address: what is not given stays', async () => {
    const { cli, started } = withDaemon(true);
    const flags = [
      '--listen-addr',
      '127.0.0.1:2',
      '--advertise-addr',
      '10.0.0.9:3',
      '--data-path-addr',
      '10.1.0.9',
    ];
    await cli.run('daemon', ...flags);
    await cli.run('daemon');
    assert.deepEqual(started[0]?.options.move, {
      listen: { host: '127.0.0.1', port: 2 },
      advertise: { host: '10.0.0.9', port: 3 },
      dataPathAddress: '10.1.0.9',
    });
    assert.deepEqual(started[1]?.options.move, {});
  });

  it('join where the token leads', async () => {
    const { cli, started } = withDaemon(true);
    await cli.run('join', '--token', 'T', 'manager.example:3000');
    await cli.run('join', '--token', 'T', '10.0.0.9');
    assert.deepEqual(
      started.map(({ mode }) => mode),
      [
        { kind: 'join', token: 'T', remote: { host: 'manager.example', port: 3000 } },
        { kind: 'join', token: 'T', remote: { host: '10.0.0.9', port: 2377 } },
      ],
    );
    assert.equal((await cli.run('join', '10.0.0.9')).exitCode, 1);
    assert.equal((await cli.run('init', '--listen-addr', 'x:99999')).exitCode, 125);
    assert.equal((await cli.run('init', '--autolock')).exitCode, 125);
  });

  it('stop the daemon in order at Ctrl-C, tasks left running', async () => {
    const { cli, started } = withDaemon(false);
    cli.onOutput = (text) => {
      if (text.includes('swarmd runs')) cli.interrupt.abort(new SwarmdError('CANCELLED', 'interrupted'));
    };
    const running = cli.run('daemon');
    assert.equal((await running).exitCode, 0);
    assert.deepEqual(started[0]?.stops, [{}]);
  });

  it('stop the daemon when what follows its start fails', async () => {
    const { cli, started } = withDaemon(false);
    cli.api.failures.set('cluster.tokens', new SwarmdError('INTERNAL', 'broken'));
    const { exitCode, stderr } = await cli.run('init');
    assert.equal(exitCode, 1);
    assert.match(stderr, /^Error: broken/);
    assert.equal(started[0]?.stops.length, 1);
  });
});

describe('--detach', () => {
  it('runs the same command without it, and waits for an answer', async (t) => {
    const cli = new TestCli();
    cli.cwd = temporary(t);
    const started: (readonly string[])[] = [];
    const refused = new SwarmdError('UNAVAILABLE', 'cannot connect');
    cli.api.failures.set('info', refused);
    cli.startBackground = (args) => {
      started.push(args);
      cli.api.failures.delete('info');
      return { pid: 4711, exitCode: () => null };
    };
    const { exitCode, stdout } = await cli.run(
      'init',
      '-d',
      '--data-dir',
      'd',
      '--listen-addr',
      '127.0.0.1:1',
      '--label',
      'a=b',
    );
    assert.equal(exitCode, 0);
    assert.deepEqual(started, [
      ['init', '--data-dir', join(cli.cwd, 'd'), '--listen-addr', '127.0.0.1:1', '--label', 'a=b'],
    ]);
    assert.match(stdout, /swarmd join --token/);
    assert.match(stdout, /in the background \(process 4711\)/);
  });

  it('shows the end of the log when the daemon ends instead', async (t) => {
    const cli = new TestCli();
    cli.cwd = temporary(t);
    cli.api.failures.set('info', new SwarmdError('UNAVAILABLE', 'cannot connect'));
    cli.startBackground = (_args, logFile) => {
      mkdirSync(join(cli.cwd, 'd'));
      writeFileSync(logFile, 'starting\nError: the port is in use\n');
      return { pid: 1, exitCode: () => 1 };
    };
    const { exitCode, stderr } = await cli.run('init', '-d', '--data-dir', 'd');
    assert.equal(exitCode, 1);
    assert.match(stderr, /ended with exit code 1; its last words:\nstarting\nError: the port is in use/);
  });

  it('refuses a folder in which a daemon answers', async () => {
    const { exitCode, stderr } = await new TestCli().run('daemon', '-d');
    assert.equal(exitCode, 1);
    assert.match(stderr, /a daemon already runs with the data folder/);
  });
});

describe('leave, info and join-token', () => {
  it('call the daemon', async () => {
    const cli = new TestCli();
    assert.equal((await cli.run('leave', '--force')).exitCode, 0);
    assert.deepEqual(cli.api.calls.at(-1), { method: 'node.leave', params: { force: true } });
    assert.match((await cli.run('info')).stdout, /^Role: +manager$/m);
    assert.equal((await cli.run('info', '-f', '{{.Role}}')).stdout, 'manager\n');
    assert.equal((await cli.run('join-token', '-q', 'worker')).stdout, 'SWMTKN-1-root-worker\n');
    assert.match(
      (await cli.run('join-token', '--rotate', 'manager')).stdout,
      /--token SWMTKN-1-root-newmanager /,
    );
    assert.equal((await cli.run('join-token', 'boss')).exitCode, 1);
  });
});

describe('quickstart', () => {
  function prepared(t: TestContext): { readonly cli: TestCli; readonly started: Started[] } {
    const { cli, started } = withDaemon(false);
    cli.cwd = temporary(t);
    cli.packageRoot = projectFolder;
    return { cli, started };
  }

  it('makes a cluster on loopback, deploys, and tells what to do next', async (t) => {
    const { cli, started } = prepared(t);
    const { exitCode, stdout, stderr } = await cli.run('quickstart', '--exit');
    assert.equal(exitCode, 0, stderr);
    assert.deepEqual(started[0]?.mode, { kind: 'init' });
    assert.deepEqual(started[0]?.options.listen, { host: '127.0.0.1', port: 0 });
    assert.deepEqual(started[0]?.stops, [{ stopTasks: true }]);
    assert.match(stdout, /Creating service hello_web\n/);
    assert.match(stdout, /Open http:\/\/127\.0\.0\.1:8080 /);
    assert.match(stdout, /npx swarmd --data-dir \.swarmd service ls/);
  });

  it('takes the next free port and says so', async (t) => {
    const { cli } = prepared(t);
    cli.takenPorts.add(8080).add(8081);
    const { stdout } = await cli.run('quickstart', '--exit');
    assert.match(stdout, /Port 8080 is taken by another program; using 8082 instead\./);
    assert.match(stdout, /Open http:\/\/127\.0\.0\.1:8082 /);
  });

  it('finds everything again, changes by hand included', async (t) => {
    const { cli, started } = prepared(t);
    cli.takenPorts.add(8080);
    await cli.run('quickstart', '--exit');
    await cli.run('service', 'scale', '-d', 'hello_web=5');
    mkdirSync(join(cli.cwd, '.swarmd'));
    writeFileSync(join(cli.cwd, '.swarmd', 'identity.json'), '{}');
    const { stdout } = await cli.run('quickstart', '--exit');
    assert.deepEqual(started[1]?.mode, { kind: 'resume' });
    assert.ok(!/Creating|Updating/.test(stdout), stdout);
    assert.match(stdout, /Open http:\/\/127\.0\.0\.1:8081 /);
    assert.deepEqual(cli.api.service('hello_web').spec.mode, { kind: 'replicated', replicas: 5 });
  });

  it('keeps running until Ctrl-C', async (t) => {
    const { cli, started } = prepared(t);
    cli.onOutput = (text) => {
      if (text.includes('Stop with Ctrl-C')) cli.interrupt.abort(new SwarmdError('CANCELLED', 'interrupted'));
    };
    const { exitCode, stdout } = await cli.run('quickstart');
    assert.equal(exitCode, 0);
    assert.match(stdout, /Stop with Ctrl-C/);
    assert.deepEqual(started[0]?.stops[0], { stopTasks: true });
  });
});
