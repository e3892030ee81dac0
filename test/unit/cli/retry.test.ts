/** Changes made again after an unknown outcome: once, with the same key. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { ManualClock } from '../../../src/base/clock.ts';
import { type ErrorCode, SwarmdError } from '../../../src/base/errors.ts';
import type { ApiConnection } from '../../../src/cli/context.ts';
import { RETRY_WAIT_MS, retryChanges } from '../../../src/cli/retry.ts';

function setUp(...failures: readonly (ErrorCode | null)[]) {
  const calls: { method: string; params: unknown; atMs: number }[] = [];
  const clock = new ManualClock();
  const left = [...failures];
  const api = {
    call: (method: string, params: unknown) => {
      calls.push({ method, params, atMs: clock.monotonicMs() });
      const code = left.shift() ?? null;
      return code === null ? Promise.resolve('done') : Promise.reject(new SwarmdError(code, code));
    },
    serviceLogs: () => assert.fail('no logs'),
    close: () => {},
  } as unknown as ApiConnection;
  let keys = 0;
  const retrying = retryChanges(api, { clock, newKey: () => `key${++keys}` });
  const { signal } = new AbortController();
  const remove = async (): Promise<unknown> => {
    const result = retrying.call('service.remove', { ref: 'web' }, { signal });
    result.catch(() => {});
    for (let i = 0; i < 5; i++) await Promise.resolve();
    clock.advance(RETRY_WAIT_MS);
    return await result;
  };
  return { calls, retrying, remove, signal };
}

it('a change has a key, and is made again with it when its outcome is unknown or there is no leader', async () => {
  for (const code of ['OUTCOME_UNKNOWN', 'NO_LEADER'] as const) {
    const { calls, remove } = setUp(code);
    assert.equal(await remove(), 'done');
    assert.deepEqual(
      calls.map(({ params }) => params),
      [
        { ref: 'web', once: 'key1' },
        { ref: 'web', once: 'key1' },
      ],
    );
    assert.ok((calls[1]?.atMs ?? 0) - (calls[0]?.atMs ?? 0) >= RETRY_WAIT_MS);
  }
});

it('once only, and not after other failures', async () => {
  const twice = setUp('OUTCOME_UNKNOWN', 'OUTCOME_UNKNOWN');
  await assert.rejects(twice.remove(), { code: 'OUTCOME_UNKNOWN' });
  assert.equal(twice.calls.length, 2);
  const other = setUp('CONFLICT');
  await assert.rejects(other.remove(), { code: 'CONFLICT' });
  assert.equal(other.calls.length, 1);
});

it('reading and keys of the caller are left alone; every change has its own key', async () => {
  const { calls, retrying, signal } = setUp();
  await retrying.call('service.list', { stack: null }, { signal });
  await retrying.call('service.remove', { ref: 'a', once: 'mine' }, { signal });
  await retrying.call('service.remove', { ref: 'b' }, { signal });
  await retrying.call('service.remove', { ref: 'c' }, { signal });
  assert.deepEqual(
    calls.map(({ params }) => (params as { once?: string }).once),
    [undefined, 'mine', 'key1', 'key2'],
  );
});
