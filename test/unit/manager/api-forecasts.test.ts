/** The API's forecasts and explanations: validated as the change itself, and nothing is proposed. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type LeaderMethod, runMethod } from '../../../src/manager/api/methods.ts';
import type { ApiParams, ApiResult } from '../../../src/model/api.ts';
import { aNode, aServiceSpec } from '../../support/builders.ts';
import { apiContext, MemoryLog } from '../../support/manager-fixtures.ts';

const soon = AbortSignal.timeout(30_000);

function setUp() {
  const log = new MemoryLog();
  const context = apiContext(log);
  const call = <M extends LeaderMethod>(method: M, params: ApiParams<M>): Promise<ApiResult<M>> =>
    runMethod(context, method, params, soon) as Promise<ApiResult<M>>;
  const raw = (method: LeaderMethod, params: unknown) => runMethod(context, method, params, soon);
  return { log, context, call, raw };
}

describe('forecasts over the API', () => {
  it('a dry run of a create shows its tasks and leaves the state as it was', async () => {
    const { log, context, call } = setUp();
    await log.propose([{ kind: 'create', table: 'node', object: aNode('one') }], soon);
    const digest = log.store.digest();
    const { moves } = await call('service.forecast', { service: null, spec: aServiceSpec('web') });
    assert.deepEqual(
      moves.map(({ kind, name }) => [kind, name]),
      [['create', 'web.1']],
    );
    assert.equal(log.store.digest(), digest);
    assert.equal(context.view.byName('service', 'web'), undefined);
  });

  it('what the change would be refused for, the dry run is refused for', async () => {
    const { call } = setUp();
    await call('service.create', { spec: aServiceSpec('web') });
    await assert.rejects(call('service.forecast', { service: null, spec: aServiceSpec('web') }), {
      code: 'ALREADY_EXISTS',
    });
    await assert.rejects(call('service.forecast', { service: 'web', spec: aServiceSpec('other') }), {
      code: 'FAILED_PRECONDITION',
    });
  });

  it('refuses parameters of the wrong shape', async () => {
    const { raw, call } = setUp();
    for (const params of [
      { lose: 'one', drain: [] },
      { lose: [1], drain: [] },
      { lose: [], drain: [] },
    ]) {
      await assert.rejects(raw('node.forecast', params), { code: 'INVALID_ARGUMENT' });
    }
    await assert.rejects(call('node.forecast', { lose: ['nobody'], drain: [] }), { code: 'NOT_FOUND' });
    await assert.rejects(call('task.explain', { ref: 'nothing' }), { code: 'NOT_FOUND' });
  });

  it('explains a service', async () => {
    const { log, call } = setUp();
    await log.propose([{ kind: 'create', table: 'node', object: aNode('one') }], soon);
    await call('service.create', { spec: aServiceSpec('web') });
    const { nodes, tasks } = await call('service.explain', { ref: 'web' });
    assert.equal(nodes.length, 1);
    assert.deepEqual(tasks, []);
  });
});
