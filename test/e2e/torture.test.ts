/**
 * A short torture run that does every fault once. Longer ones: `npm run torture`.
 * @needs hosts
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { execCommand } from './lib/processes.ts';
import { projectFolder } from '../support/imports.ts';

test('every fault once: histories are linearizable, managers come back or are replaced', async () => {
  const argv = [
    process.execPath,
    'test/torture/run.ts',
    '--each',
    '--hosts',
    '--seconds',
    '1',
    '--seed',
    '5',
  ];
  const { code, stdout, stderr } = await execCommand(argv, { cwd: projectFolder, timeoutMs: 300_000 });
  assert.equal(code, 0, `${argv.join(' ')}\n${stdout}${stderr}`);
  const notices = stdout.split('\n').filter((line) => line.startsWith('NOTICE'));
  if (notices.length > 0) process.stdout.write(`${notices.join('\n')}\n`);
  assert.match(stdout, /'full-disk: ended with 1, came back': 1/);
});
