/** The data folder: its lock, the identity in it; and the node's own addresses. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { SwarmdError } from '../../../src/base/errors.ts';
import { reservePort, resolveAdvertiseHost } from '../../../src/node/addresses.ts';
import {
  type Credentials,
  forgetIdentity,
  type Identity,
  readIdentity,
  writeIdentity,
} from '../../../src/node/identity.ts';
import { liveOwner, lockFolder } from '../../../src/node/lock.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'swarmd-node-'));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function outcome<T>(promise: Promise<T>): Promise<T | string> {
  return await promise.catch((error: unknown) => (error as SwarmdError).code);
}

describe('folder lock', () => {
  it('makes the folder for its owner only, and is released once', async () => {
    const dataDir = join(folder, 'deep', 'data');
    const lock = await lockFolder(dataDir);
    assert.equal((await stat(dataDir)).mode & 0o777, 0o700);
    await assert.rejects(lockFolder(dataDir), {
      code: 'LOCKED',
      message: /in use by another swarmd daemon \(pid \d+\); stop that one, or choose another folder/,
      details: { pid: process.pid },
    });
    await lock.release();
    const next = await lockFolder(dataDir);
    // The first holder's second release is not the next holder's.
    await lock.release();
    assert.equal(await liveOwner(join(dataDir, 'swarmd.pid')), process.pid);
    await next.release();
    assert.deepEqual(await readdir(dataDir), []);
  });

  it('takes over from a dead process, from a reused pid, and from half a file', async () => {
    const child = spawn(process.execPath, ['-e', '']);
    await once(child, 'exit');
    for (const content of [
      `${child.pid} 123\n`,
      `${process.pid} 1\n`,
      '',
      `${process.pid}\n`,
      'junk junk\n',
    ]) {
      await writeFile(join(folder, 'swarmd.pid'), content);
      const lock = await lockFolder(folder);
      assert.equal(await liveOwner(join(folder, 'swarmd.pid')), process.pid);
      await lock.release();
    }
  });

  it('of many that find a stale lock exactly one gets it', async () => {
    for (let round = 0; round < 5; round++) {
      await writeFile(join(folder, 'swarmd.pid'), '999999999 1\n');
      const results = await Promise.all(Array.from({ length: 12 }, () => outcome(lockFolder(folder))));
      const locks = results.filter((result) => typeof result !== 'string');
      assert.equal(locks.length, 1);
      assert.ok(results.every((result) => typeof result !== 'string' || result === 'LOCKED'));
      for (const lock of locks) await lock.release();
    }
  });

  it('of two processes that find a stale lock exactly one gets it', async () => {
    await writeFile(join(folder, 'swarmd.pid'), '999999999 1\n');
    const module = new URL('../../../src/node/lock.ts', import.meta.url).href;
    const script = `import { lockFolder } from ${JSON.stringify(module)};
      const got = await lockFolder(${JSON.stringify(folder)}).then(() => 'got', (error) => error.code);
      process.stdout.write(got);
      process.stdin.resume();`;
    const start = () => spawn(process.execPath, ['--input-type=module', '-e', script]);
    const children = [start(), start()];
    try {
      const said = await Promise.all(
        children.map(async (child) => String((await once(child.stdout, 'data'))[0])),
      );
      assert.deepEqual(said.sort(), ['LOCKED', 'got']);
    } finally {
      for (const child of children) {
        child.kill();
        await once(child, 'exit');
      }
    }
  });

  it('says what is wrong with a folder that cannot be used', async () => {
    const file = join(folder, 'file');
    await writeFile(file, '');
    await assert.rejects(lockFolder(file), { code: 'INVALID_ARGUMENT', message: /is not a folder/ });
    await assert.rejects(lockFolder(join(file, 'below')), { code: 'INVALID_ARGUMENT' });
  });
});

describe('identity', () => {
  const identity: Identity = {
    format: 1,
    nodeId: 'node',
    clusterId: 'cluster',
    role: 'manager',
    raftId: 7,
    listen: { host: '0.0.0.0', port: 2377 },
    advertise: { host: '10.0.0.1', port: 2377 },
    dataPathAddress: '10.0.0.1',
    managers: ['10.0.0.1:2377'],
  };
  const credentials: Credentials = { rootPem: 'root', certificatePem: 'certificate', keyPem: 'key' };

  it('comes back as it was written, the key for the owner only', async () => {
    assert.equal(await readIdentity(folder), null);
    assert.equal(await readIdentity(join(folder, 'missing')), null);
    await writeIdentity(folder, identity, credentials);
    assert.deepEqual(await readIdentity(folder), { identity, credentials });
    for (const name of ['node.key', 'identity.json'])
      assert.equal((await stat(join(folder, name))).mode & 0o777, 0o600, name);
    const renewed = { ...credentials, certificatePem: 'newer' };
    // A key that was readable by others, and what a crash left, do not stay.
    await chmod(join(folder, 'node.key'), 0o666);
    await writeFile(join(folder, 'node.key.new'), 'half', { mode: 0o666 });
    await writeIdentity(folder, identity, renewed);
    assert.deepEqual((await readIdentity(folder))?.credentials, renewed);
    assert.equal((await stat(join(folder, 'node.key'))).mode & 0o777, 0o600);
    assert.deepEqual((await readdir(folder)).sort(), ['ca.crt', 'identity.json', 'node.crt', 'node.key']);
    await forgetIdentity(folder);
    assert.deepEqual(await readdir(folder), []);
  });

  it('refuses what is damaged, saying what to do', async () => {
    const broken: unknown[] = [
      '{',
      'null',
      '[]',
      { ...identity, format: 2 },
      { ...identity, role: 'king' },
      { ...identity, managers: 'x' },
      { ...identity, advertise: { host: 'x' } },
      { ...identity, listen: null },
      { ...identity, raftId: '7' },
    ];
    for (const content of broken) {
      await writeIdentity(folder, identity, credentials);
      await writeFile(
        join(folder, 'identity.json'),
        typeof content === 'string' ? content : JSON.stringify(content),
      );
      await assert.rejects(readIdentity(folder), {
        code: 'CORRUPT',
        message: /restore the folder, or run "swarmd leave --force"/,
      });
    }
    await writeIdentity(folder, identity, credentials);
    await rm(join(folder, 'node.key'));
    await assert.rejects(readIdentity(folder), { code: 'CORRUPT', message: /node\.key/ });
    assert.equal((await readFile(join(folder, 'node.crt'), 'utf8')).length > 0, true);
  });
});

describe('addresses', () => {
  it('takes an address as given, and looks up an interface', () => {
    assert.equal(resolveAdvertiseHost('192.0.2.7', '0.0.0.0'), '192.0.2.7');
    assert.equal(resolveAdvertiseHost('node.example', ''), 'node.example');
    assert.equal(resolveAdvertiseHost('lo', '0.0.0.0'), '127.0.0.1');
    assert.equal(resolveAdvertiseHost('', '192.0.2.9'), '192.0.2.9');
  });

  it('finds one address of the machine, or asks which', () => {
    try {
      assert.match(resolveAdvertiseHost('', '0.0.0.0'), /^\d+\.\d+\.\d+\.\d+$/);
    } catch (error) {
      assert.ok(error instanceof SwarmdError && error.code === 'INVALID_ARGUMENT');
      assert.match(error.message, /several addresses.*--advertise-addr/);
    }
  });

  it('reserves a free port, and names the one that is taken', async () => {
    const port = await reservePort('127.0.0.1', 0);
    assert.ok(port > 0);
    const server = createServer();
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', () => resolve()));
    try {
      const address = server.address();
      assert.ok(typeof address === 'object' && address !== null);
      await assert.rejects(reservePort('127.0.0.1', address.port), {
        code: 'PORT_IN_USE',
        message: new RegExp(`127.0.0.1:${address.port} is in use; .*--listen-addr`),
      });
      await assert.rejects(reservePort('192.0.2.1', 0), { code: 'INVALID_ARGUMENT' });
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
  });
});
