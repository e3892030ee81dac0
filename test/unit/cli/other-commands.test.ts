import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { SwarmdError } from '../../../src/base/errors.ts';
import { TestCli } from '../../support/cli.ts';

function folder(t: TestContext, files: Readonly<Record<string, string>>): string {
  const path = mkdtempSync(join(tmpdir(), 'swarmd-cli-'));
  t.after(() => rmSync(path, { recursive: true }));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text);
  return path;
}

describe('stack deploy', () => {
  const FILE = 'services:\n  web:\n    image: nginx:1\n    ports: ["80:80"]\n  db:\n    image: redis\n';

  it('makes, then leaves, then changes and prunes', async (t) => {
    const cli = new TestCli();
    cli.cwd = folder(t, {
      'a.yml': FILE,
      'b.yml': FILE.replace('nginx:1', 'nginx:2').replace(/ {2}db:[^]*$/, ''),
    });
    const first = await cli.run('stack', 'deploy', '-c', 'a.yml', 'shop');
    assert.equal(first.exitCode, 0, first.stderr);
    assert.equal(
      first.stdout,
      'Creating network shop_default\nCreating service shop_db\nCreating service shop_web\n',
    );
    assert.equal(
      (await cli.run('stack', 'deploy', '-c', 'a.yml', 'shop')).stdout,
      'Service shop_db is up to date\nService shop_web is up to date\n',
    );
    const id = cli.api.service('shop_web').id;
    assert.equal(
      (await cli.run('stack', 'deploy', '--prune', '-c', 'b.yml', 'shop')).stdout,
      `Removing service shop_db\nUpdating service shop_web (id: ${id})\n`,
    );
  });

  it('reads standard input and waits for all services', async () => {
    const cli = new TestCli();
    cli.stdin = FILE;
    const { exitCode, stdout } = await cli.run('stack', 'deploy', '--detach=false', '-c', '-', 'shop');
    assert.equal(exitCode, 0);
    assert.match(stdout, /shop_db: running\n/);
    assert.match(stdout, /shop_web: running\n/);
  });

  it('gives up with the reason when a service does not settle', async () => {
    const cli = new TestCli();
    cli.stdin = FILE;
    cli.api.settle = (service) => {
      const status = {
        state: 'pending',
        at: 0,
        message: 'no suitable node (1 node not available)',
        error: '',
      } as const;
      cli.api.addTask(service, { status });
    };
    const { exitCode, stderr } = await cli.run(
      'stack',
      'deploy',
      '--detach=false',
      '--timeout',
      '5s',
      '-c',
      '-',
      'shop',
    );
    assert.equal(exitCode, 1);
    assert.match(stderr, /shop_web did not settle in 5 seconds: no suitable node/);
  });

  it('warns by file, line and key, and refuses with --strict', async (t) => {
    const cli = new TestCli();
    cli.cwd = folder(t, { 'a.yml': `${FILE}    build: .\n` });
    const lenient = await cli.run('stack', 'deploy', '-c', 'a.yml', 'shop');
    assert.equal(lenient.exitCode, 0);
    assert.match(lenient.stderr, /^warning: a\.yml:7: services\.db\.build: /);
    const strict = await cli.run('stack', 'deploy', '--strict', '-c', 'a.yml', 'shop');
    assert.equal(strict.exitCode, 1);
    assert.match(strict.stderr, /^Error: refused by --strict:\n {2}a\.yml:7: services\.db\.build/);
  });

  it('changes nothing when the file or what it needs is wrong', async (t) => {
    const cli = new TestCli();
    cli.cwd = folder(t, {
      'bad.yml': 'services:\n  web: {imge: x}',
      'ext.yml': `${FILE}networks: {default: {external: true, name: outer}}`,
    });
    const bad = await cli.run('stack', 'deploy', '-c', 'bad.yml', 's');
    assert.deepEqual(
      [bad.exitCode, bad.stderr],
      [1, 'Error: bad.yml:2: unknown key "services.web.imge". Did you mean "image"?\n'],
    );
    const missing = await cli.run('stack', 'deploy', '-c', 'none.yml', 's');
    assert.deepEqual([missing.exitCode, missing.stderr], [1, 'Error: there is no file none.yml\n']);
    const external = await cli.run('stack', 'deploy', '-c', 'ext.yml', 's');
    assert.equal(external.exitCode, 1);
    assert.match(external.stderr, /the external network "outer" does not exist; create it first/);
    assert.deepEqual(cli.api.services, []);
  });

  it('says that a file is missing', async () => {
    const { exitCode, stderr } = await new TestCli().run('stack', 'deploy', 'shop');
    assert.equal(exitCode, 1);
    assert.match(stderr, /at least one compose file with -c/);
  });
});

describe('stack ls, services, ps and rm', () => {
  it('list and remove what belongs to the stack', async () => {
    const cli = new TestCli();
    cli.stdin = 'services: {web: {image: x, configs: [c]}}\nconfigs: {c: {content: x}}';
    await cli.run('stack', 'deploy', '-c', '-', 'shop');
    assert.equal((await cli.run('stack', 'ls')).stdout, 'NAME   SERVICES\nshop   1\n');
    assert.match((await cli.run('stack', 'services', 'shop')).stdout, /shop_web/);
    assert.match((await cli.run('stack', 'ps', 'shop')).stdout, /shop_web\.1/);
    const removed = await cli.run('stack', 'rm', 'shop');
    assert.equal(
      removed.stdout,
      'Removing service shop_web\nRemoving config shop_c\nRemoving network shop_default\n',
    );
    assert.deepEqual([cli.api.services, cli.api.configs, cli.api.networks], [[], [], []]);
    const again = await cli.run('stack', 'rm', 'shop');
    assert.deepEqual([again.exitCode, again.stderr], [1, 'Error: there is no stack "shop"\n']);
  });
});

describe('node commands', () => {
  it('list, marking the asked one and the leader', async () => {
    const cli = new TestCli();
    cli.api.addNode('beta', { spec: { labels: {}, role: 'worker', availability: 'drain' } });
    const { stdout } = await cli.run('node', 'ls');
    const [header, alpha, beta] = stdout.split('\n');
    assert.match(header ?? '', /^ID +HOSTNAME +STATUS +AVAILABILITY +MANAGER STATUS +ENGINE VERSION$/);
    assert.match(alpha ?? '', /^\w{25} \* +alpha +Ready +Active +Leader +28\.2\.2$/);
    assert.match(beta ?? '', /^\w{25} +beta +Ready +Drain +Reachable +28\.2\.2$/);
  });

  it('change labels and availability', async () => {
    const cli = new TestCli();
    assert.equal(
      (await cli.run('node', 'update', '--availability', 'drain', '--label-add', 'zone=a', 'self')).exitCode,
      0,
    );
    assert.deepEqual(cli.api.nodes[0]?.spec, {
      labels: { zone: 'a' },
      role: 'manager',
      availability: 'drain',
    });
    assert.equal((await cli.run('node', 'update', '--label-rm', 'zone', 'alpha')).exitCode, 0);
    assert.deepEqual(cli.api.nodes[0]?.spec.labels, {});
    assert.equal((await cli.run('node', 'update', 'alpha')).exitCode, 1);
    assert.equal((await cli.run('node', 'update', '--role', 'worker', 'alpha')).exitCode, 125);
  });
});

describe('network, secret and config commands', () => {
  it('make, list, show and remove', async () => {
    const cli = new TestCli();
    assert.equal(
      (await cli.run('network', 'create', '--subnet', '10.9.0.0/24', '--attachable', 'front')).exitCode,
      0,
    );
    assert.match((await cli.run('network', 'ls')).stdout, /front +overlay +swarm/);
    cli.stdin = 'hidden';
    assert.equal((await cli.run('secret', 'create', '-l', 'a=b', 'key', '-')).exitCode, 0);
    assert.equal(Buffer.from(cli.api.secrets[0]?.spec.data ?? '', 'base64').toString(), 'hidden');
    const shown = await cli.run('secret', 'inspect', 'key');
    assert.ok(!shown.stdout.includes(cli.api.secrets[0]?.spec.data ?? 'hidden'), 'a secret was printed');
    assert.match((await cli.run('secret', 'ls')).stdout, /key +.* ago/);
    assert.equal((await cli.run('secret', 'rm', 'key')).stdout, 'key\n');
    assert.equal((await cli.run('network', 'rm', 'front', 'ghost')).exitCode, 1);
  });

  it('never say what is in a secret when creation fails', async () => {
    const cli = new TestCli();
    cli.stdin = 'hidden';
    cli.api.failures.set('secret.create', new SwarmdError('ALREADY_EXISTS', 'a secret "key" exists'));
    const { exitCode, stderr } = await cli.run('secret', 'create', 'key');
    assert.deepEqual([exitCode, stderr], [1, 'Error: a secret "key" exists\n']);
  });
});

describe('the program', () => {
  it('explains itself to a newcomer', async () => {
    const { exitCode, stdout } = await new TestCli().run('--help');
    assert.equal(exitCode, 0);
    for (const part of [
      'Start here:',
      'First steps:',
      'swarmd quickstart',
      'swarmd init',
      'swarmd stack deploy -c',
    ]) {
      assert.ok(stdout.includes(part), part);
    }
    assert.deepEqual(await new TestCli().run(), await new TestCli().run('--help'));
  });

  it('prints its version', async () => {
    assert.equal((await new TestCli().run('--version')).stdout, 'swarmd 0.0.0-test\n');
  });

  it('names the nearest command', async () => {
    const { exitCode, stderr } = await new TestCli().run('stak');
    assert.equal(exitCode, 1);
    assert.match(stderr, /unknown command 'stak'\. Did you mean stack\?/);
  });

  it('refuses too many arguments with 1', async () => {
    const { exitCode, stderr } = await new TestCli().run('service', 'ls', 'web');
    assert.equal(exitCode, 1);
    assert.match(stderr, /too many arguments/);
  });

  it('talks to the daemon that flag, environment or default name', async () => {
    const cli = new TestCli();
    await cli.run('service', 'ls');
    await cli.run('service', 'ls', '--data-dir', 'd');
    await cli.run('--data-dir', '/abs', 'service', 'ls');
    cli.env['SWARMD_HOST'] = 'tcp://from-env:1';
    await cli.run('service', 'ls');
    await cli.run('--host', 'unix:///x.sock', 'service', 'ls');
    await cli.run('service', 'create', '-d', '-H', 'unix:///y.sock', '--host', 'a:1.2.3.4', 'nginx');
    assert.deepEqual(cli.hosts, [
      'unix:///home/user/.local/share/swarmd/swarmd.sock',
      'unix:///nowhere/d/swarmd.sock',
      'unix:///abs/swarmd.sock',
      'tcp://from-env:1',
      'unix:///x.sock',
      'unix:///y.sock',
    ]);
  });

  it('adds what to do to errors people meet first', async () => {
    const cli = new TestCli();
    cli.api.failures.set('service.list', new SwarmdError('NO_LEADER', 'no leader is known'));
    const { exitCode, stderr } = await cli.run('service', 'ls');
    assert.equal(exitCode, 1);
    assert.match(stderr, /^Error: no leader is known\nMore than half of the managers must be reachable\./);
  });
});
