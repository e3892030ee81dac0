/**
 * A data folder on a disk that fills up: the daemon says so and ends, and nothing acknowledged is lost.
 * @needs root
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Daemon, plainPlace } from './lib/daemon.ts';
import { execChecked, execCommand } from './lib/processes.ts';

const FLAGS = ['--listen-addr', '127.0.0.1:0', '--advertise-addr', '127.0.0.1', '--engine-host', 'none'];
const DISK_BYTES = 8 * 1024 * 1024;

let folder: string;
let disk: string;
let daemon: Daemon;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'swarmd-disk-'));
  disk = join(folder, 'node');
  mkdirSync(disk);
  await execChecked(['mount', '-t', 'tmpfs', '-o', `size=${DISK_BYTES}`, 'tmpfs', disk]);
  daemon = new Daemon(plainPlace(folder), 'node');
});
after(async () => {
  daemon.destroy();
  await daemon.ended();
  await execCommand(['umount', disk]);
  rmSync(folder, { recursive: true, force: true });
});

/** Fills what is left of the disk. */
function fill(name: string): string {
  const path = join(disk, name);
  try {
    for (let size = 1024 * 1024; size >= 1; size = Math.floor(size / 2)) {
      try {
        for (;;) writeFileSync(path, Buffer.alloc(size), { flag: 'a' });
      } catch {
        // Smaller pieces may still fit.
      }
    }
  } catch {
    // Full.
  }
  return path;
}

test('a full disk: a clear error and exit code 1; with space again, everything acknowledged is there', async () => {
  const ballast = fill('ballast');
  const refused = await daemon.attempt('init', ...FLAGS);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /no space is left for the data folder .*free some/);
  rmSync(ballast);

  await daemon.start('init', ...FLAGS);
  const { code } = await daemon.cli([
    'service',
    'create',
    '--runtime',
    'process',
    '--name',
    'first',
    '--replicas',
    '0',
    '-d',
    'true',
  ]);
  assert.equal(code, 0);
  const { spec } = await daemon.call('service.inspect', { ref: 'first' });
  const acknowledged = ['first'];
  const second = fill('ballast');
  let failure = '';
  for (let i = 0; i < 5_000 && failure === ''; i++) {
    try {
      await daemon.call('service.create', { spec: { ...spec, name: `s${i}` } });
      acknowledged.push(`s${i}`);
    } catch (error) {
      failure = (error as Error).message;
    }
  }
  assert.notEqual(failure, '', `${acknowledged.length} services on a full disk`);
  assert.equal(await daemon.ended(), 1);
  assert.match(daemon.log(), /ERROR .*is full; free space there/);

  const still = await daemon.attempt('daemon');
  assert.equal(still.code, 1);
  assert.match(still.stderr, /Error: .*(no space is left|is full).*free/);
  rmSync(second);
  await daemon.start('daemon');
  const names = new Set(
    (await daemon.call('service.list', { stack: null })).map((service) => service.spec.name),
  );
  assert.deepEqual(
    acknowledged.filter((name) => !names.has(name)),
    [],
  );
  await daemon.run(
    'service',
    'create',
    '--runtime',
    'process',
    '--name',
    'last',
    '--replicas',
    '0',
    '-d',
    'true',
  );
  assert.equal(await daemon.stop(), 0);
});
