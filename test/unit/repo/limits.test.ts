import assert from 'node:assert/strict';
import { it } from 'node:test';
import { limitsPage, limitsTable } from '../../support/limits-table.ts';

it('docs/LIMITS.md has every bound of the code with its value', async () => {
  const { now, wanted } = await limitsPage();
  assert.equal(now, wanted, 'run: node test/support/limits-table.ts');
});

it('the table sees the bounds', async () => {
  const table = (await limitsTable()).join('\n');
  for (const name of [
    'BATCH_ACTIONS_MAX` | 200',
    'REQUEST_BYTES_MAX` | 8388608 (8 Mi)',
    'defaultLimits.messageBytesMax`',
  ]) {
    assert.ok(table.includes(name), name);
  }
});
