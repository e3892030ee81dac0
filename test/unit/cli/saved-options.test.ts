import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, it } from 'node:test';
import { readSavedOptions, saveOptions } from '../../../src/cli/saved-options.ts';
import type { NodeOptions } from '../../../src/node/types.ts';

const folder = mkdtempSync(join(tmpdir(), 'swarmd-saved-'));
after(() => rmSync(folder, { recursive: true }));

const options = {
  dataDir: folder,
  engineHost: null,
  dns: null,
  socketPath: '/run/s.sock',
} as unknown as NodeOptions;

it('what a daemon was started with is read back', () => {
  saveOptions(options);
  assert.deepEqual(readSavedOptions(folder), {
    engineHost: 'none',
    dnsAddress: 'none',
    socket: '/run/s.sock',
  });
  saveOptions({ ...options, engineHost: 'unix:///e.sock', dns: { host: '127.0.0.1', port: 5353 } });
  assert.deepEqual(readSavedOptions(folder), {
    engineHost: 'unix:///e.sock',
    dnsAddress: '127.0.0.1:5353',
    socket: '/run/s.sock',
  });
});

it('a missing or damaged file counts as nothing saved', () => {
  assert.deepEqual(readSavedOptions(join(folder, 'none')), {});
  writeFileSync(join(folder, 'daemon.json'), '{"engineHost": 7, "socket"');
  assert.deepEqual(readSavedOptions(folder), {});
  writeFileSync(join(folder, 'daemon.json'), '{"engineHost": 7, "socket": "/x"}');
  assert.deepEqual(readSavedOptions(folder), { socket: '/x' });
});
