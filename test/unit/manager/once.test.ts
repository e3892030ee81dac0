/** Changes with a key: applied at most once, on every replica alike, over restarts and unknown outcomes. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { SwarmdError } from '../../../src/base/errors.ts';
import { type LeaderMethod, runMethod } from '../../../src/manager/api/methods.ts';
import type { Action, Batch } from '../../../src/manager/state/actions.ts';
import {
  decodeBatch,
  decodeCheckpoint,
  encodeBatch,
  encodeCheckpoint,
} from '../../../src/manager/state/codec.ts';
import { OUTCOME_LIFE_MS, OUTCOMES_MAX } from '../../../src/manager/state/outcomes.ts';
import { Store } from '../../../src/manager/state/store.ts';
import type { ApiParams, ApiResult } from '../../../src/model/api.ts';
import type { NetworkId } from '../../../src/model/ids.ts';
import type { Network } from '../../../src/model/objects.ts';
import { aServiceSpec } from '../../support/builders.ts';
import { apiContext, MemoryLog } from '../../support/manager-fixtures.ts';

const META = { version: 0, createdAt: 0, updatedAt: 0 };

function aNetwork(id: string, name: string): Network {
  const flags = { internal: false, attachable: false, ingress: false, driverOptions: {} };
  const spec = { name, labels: {}, driver: 'overlay', ...flags } as Network['spec'];
  return { id: id as NetworkId, meta: META, spec, subnet: '', vni: 0 };
}
const create = (id: string, name = id): Action => ({
  kind: 'create',
  table: 'network',
  object: aNetwork(id, name),
});
const key = (n: number): string => `key-number-${String(n).padStart(8, '0')}`;

function restored(store: Store): Store {
  const contents = decodeCheckpoint(encodeCheckpoint(store.contents()));
  assert.ok(contents.ok);
  const fresh = new Store();
  fresh.load(contents.value);
  return fresh;
}

describe('batches with a key', () => {
  it('change the state once; the second time they tell what the first did', () => {
    const store = new Store();
    const batch: Batch = { at: 5, actions: [create('a')], once: key(1) };
    assert.deepEqual(store.apply(3, batch).result, { ok: true, index: 3 });
    const { result, changes } = store.apply(7, { ...batch, actions: [create('b')] });
    const before = { id: key(1), index: 3, at: 5, table: 'network', objectId: 'a' };
    assert.deepEqual([result, changes], [{ ok: true, index: 3, before }, []]);
    assert.equal(store.index, 7);
    assert.equal(store.get('network', 'b'), undefined);
    assert.deepEqual(store.outcome(key(1)), before);
  });

  it('that were refused may be made again', () => {
    const store = new Store();
    store.apply(1, { at: 1, actions: [create('a', 'taken')] });
    assert.equal(store.apply(2, { at: 1, actions: [create('b', 'taken')], once: key(1) }).result.ok, false);
    assert.equal(store.outcome(key(1)), undefined);
    assert.deepEqual(store.apply(3, { at: 1, actions: [create('b')], once: key(1) }).result, {
      ok: true,
      index: 3,
    });
  });

  it('are forgotten after their time, and the oldest first when there are too many', () => {
    const store = new Store();
    for (let n = 1; n <= OUTCOMES_MAX + 2; n++)
      store.apply(n, { at: n, actions: [create(`n${n}`)], once: key(n) });
    assert.equal(store.outcome(key(2)), undefined);
    assert.notEqual(store.outcome(key(3)), undefined);
    assert.equal(store.contents().outcomes?.length, OUTCOMES_MAX);
    const later = OUTCOMES_MAX + OUTCOME_LIFE_MS;
    store.apply(OUTCOMES_MAX + 3, { at: later, actions: [create('late')], once: key(0) });
    assert.deepEqual(
      store.contents().outcomes?.map(({ id }) => id),
      [key(OUTCOMES_MAX + 1), key(OUTCOMES_MAX + 2), key(0)],
    );
  });

  it('are read only with a key of the right form, and without any from older logs and checkpoints', () => {
    const batch = { at: 1, actions: [create('a')] };
    assert.equal(decodeBatch(encodeBatch(batch)).ok, true);
    assert.equal(decodeBatch(encodeBatch({ ...batch, once: key(1) })).ok, true);
    for (const once of ['short', 'x'.repeat(65), 'with blanks in the key', 7])
      assert.equal(decodeBatch(encodeBatch({ ...batch, once } as unknown as Batch)).ok, false);
    const { outcomes: _none, ...older } = new Store().contents();
    assert.equal(decodeCheckpoint(encodeCheckpoint(older)).ok, true);
  });

  it('act the same on every replica, also on one that starts from a checkpoint in the middle', () => {
    const step = fc.record({
      key: fc.option(fc.nat(6), { nil: null }),
      object: fc.nat(40),
      name: fc.nat(15),
      remove: fc.boolean(),
      elapsedMs: fc.oneof(fc.nat(1_000), fc.constant(OUTCOME_LIFE_MS / 2), fc.constant(-5_000)),
      checkpoint: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const one = new Store();
        let two = new Store();
        const model = new Map<string, { at: number; index: number }>();
        let at = 10_000;
        let newest = 0;
        for (const [i, each] of steps.entries()) {
          at += each.elapsedMs;
          if (each.key !== null) newest = Math.max(newest, at);
          const id = `n${each.object}`;
          const action: Action = each.remove
            ? { kind: 'delete', table: 'network', id, expect: null }
            : create(id, `name${each.name}`);
          const once = each.key === null ? {} : { once: key(each.key) };
          const batch: Batch = { at, actions: [action], ...once };
          const digest = one.digest();
          const first = one.apply(i + 1, batch);
          const second = two.apply(i + 1, batch);
          assert.deepEqual(first.result, second.result);
          if (first.result.ok && first.result.before !== undefined) {
            assert.equal(first.changes.length, 0);
            const known = model.get(key(each.key ?? -1));
            assert.equal(known?.index, first.result.index, 'it tells of the change that was made');
          } else if (first.result.ok && each.key !== null) {
            const known = model.get(key(each.key));
            const young = known !== undefined && known.at > newest - OUTCOME_LIFE_MS;
            assert.equal(young, false, 'a change that is remembered is not made again');
            model.set(key(each.key), { at, index: i + 1 });
          } else if (!first.result.ok && each.key === null) {
            assert.equal(one.digest(), digest, 'a refusal leaves no trace');
          }
          if (each.checkpoint) two = restored(two);
          assert.equal(one.digest(), two.digest());
        }
      }),
      { numRuns: 200 },
    );
  });
});

describe('API calls with a key', () => {
  const soon = AbortSignal.timeout(30_000);
  function setUp() {
    const log = new MemoryLog();
    const context = apiContext(log);
    const call = <M extends LeaderMethod>(method: M, params: ApiParams<M>): Promise<ApiResult<M>> =>
      runMethod(context, method, params, soon) as Promise<ApiResult<M>>;
    return { log, call };
  }

  it('that are made again answer as the first one', async () => {
    const { log, call } = setUp();
    const spec = aServiceSpec('web');
    const made = await call('service.create', { spec, once: key(1) });
    const again = await call('service.create', { spec, once: key(1) });
    assert.deepEqual(again, made);
    await assert.rejects(call('service.create', { spec }), { code: 'ALREADY_EXISTS' });
    const { version } = made.meta;
    const updated = await call('service.update', { ref: made.id, version, spec, once: key(2) });
    assert.deepEqual(await call('service.update', { ref: made.id, version, spec, once: key(2) }), updated);
    await call('service.remove', { ref: made.id, once: key(3) });
    assert.equal(await call('service.remove', { ref: made.id, once: key(3) }), null);
    assert.equal(log.batches.length, 3);
  });

  it('are found applied by another leader that first heard of them while it was checking', async () => {
    const { log, call } = setUp();
    const spec = aServiceSpec('web');
    // The first call's entry, whose outcome was unknown, is applied just before the second one's.
    log.before = async (actions) => {
      log.before = () => Promise.resolve();
      log.apply(
        actions.map((action) =>
          action.kind === 'create'
            ? ({ ...action, object: { ...action.object, id: 'f'.repeat(25) } } as Action)
            : action,
        ),
        key(1),
      );
    };
    const made = await call('service.create', { spec, once: key(1) });
    assert.equal(made.id, 'f'.repeat(25));
    assert.equal(log.store.count('service'), 1);
  });

  it('apply at the second try when the first never did', async () => {
    const { log, call } = setUp();
    const spec = aServiceSpec('web');
    log.answers.push({ kind: 'unknown', reason: 'leadership was lost' });
    await assert.rejects(call('service.create', { spec, once: key(1) }), { code: 'OUTCOME_UNKNOWN' });
    const made = await call('service.create', { spec, once: key(1) });
    assert.equal(log.store.get('service', made.id)?.spec.name, spec.name);
  });

  it('are refused with a key of another form, or of another kind of change', async () => {
    const { call } = setUp();
    const spec = aServiceSpec('web');
    await assert.rejects(call('service.create', { spec, once: 'short' }), { code: 'INVALID_ARGUMENT' });
    await assert.rejects(
      runMethod(apiContext(new MemoryLog()), 'service.list', { stack: null, once: key(1) }, soon),
      {
        code: 'INVALID_ARGUMENT',
      },
    );
    await call('service.create', { spec, once: key(1) });
    const network = aNetwork('x', 'net').spec;
    await assert.rejects(call('network.create', { spec: network, once: key(1) }), (error: unknown) => {
      assert.ok(error instanceof SwarmdError);
      assert.match(error.message, /was used for a change of a service/);
      return true;
    });
  });
});
