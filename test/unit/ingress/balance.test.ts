import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ManualClock } from '../../../src/base/clock.ts';
import { PortBackends } from '../../../src/ingress/backends.ts';
import {
  backendKey,
  chooseBackend,
  firstTurn,
  keepTurn,
  restBackend,
  type Turn,
  wakeBackend,
} from '../../../src/ingress/balance.ts';
import type { Backend } from '../../../src/ingress/table.ts';

function backends(count: number): Backend[] {
  return Array.from({ length: count }, (_, index) => ({
    taskId: `t${index}`,
    nodeId: 'n',
    host: '10.0.0.1',
    port: 1000 + index,
    local: false,
  }));
}

function chooseMany(turn: Turn, list: readonly Backend[], count: number, nowMs: number): string[] {
  let current = turn;
  return Array.from({ length: count }, () => {
    const result = chooseBackend(current, list, new Set(), nowMs);
    current = result.turn;
    return result.backend?.taskId ?? 'none';
  });
}

test('each backend answers in turn', () => {
  assert.deepEqual(chooseMany(firstTurn, backends(3), 7, 0), ['t0', 't1', 't2', 't0', 't1', 't2', 't0']);
});

test('a backend that failed is left out until its time is up', () => {
  const list = backends(3);
  const turn = restBackend(firstTurn, list[1] as Backend, 1_000);
  assert.deepEqual(chooseMany(turn, list, 4, 999), ['t0', 't2', 't0', 't2']);
  assert.deepEqual(chooseMany(turn, list, 3, 1_000), ['t0', 't1', 't2']);
  assert.deepEqual(chooseMany(wakeBackend(turn, list[1] as Backend), list, 3, 0), ['t0', 't1', 't2']);
});

test('when all failed the one whose failure is oldest is tried first', () => {
  const list = backends(3);
  let turn = restBackend(firstTurn, list[0] as Backend, 300);
  turn = restBackend(turn, list[1] as Backend, 100);
  turn = restBackend(turn, list[2] as Backend, 200);
  const tried = new Set<string>();
  const order: string[] = [];
  for (;;) {
    const { backend, turn: after } = chooseBackend(turn, list, tried, 50);
    if (backend === null) break;
    turn = after;
    tried.add(backendKey(backend));
    order.push(backend.taskId);
  }
  assert.deepEqual(order, ['t1', 't2', 't0']);
});

test('failures of backends that are gone are forgotten', () => {
  const list = backends(2);
  const turn = restBackend(firstTurn, list[1] as Backend, 1_000);
  assert.equal(keepTurn(turn, list.slice(0, 1)).restingUntilMs.size, 0);
  assert.equal(keepTurn(turn, list).restingUntilMs.size, 1);
});

test('one connection tries a backend that failed before; the others wait for what comes of it', () => {
  const clock = new ManualClock();
  const port = new PortBackends({ restMs: 1_000 }, { clock });
  const [one, two] = backends(2) as [Backend, Backend];
  port.set([one, two]);
  const next = (): string | undefined => port.choose(new Set())?.taskId;
  port.failed(one);
  assert.deepEqual([next(), next()], ['t1', 't1']);
  clock.advance(1_000);
  assert.deepEqual([next(), next(), next()], ['t0', 't1', 't1']);
  port.answered(one);
  assert.deepEqual([next(), next(), next()], ['t0', 't1', 't0']);
});

test('property: a connection tries every backend once, whatever has failed', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 12 }),
      fc.array(fc.nat({ max: 11 })),
      fc.nat(),
      (count, failed, next) => {
        const list = backends(count);
        let turn: Turn = { ...firstTurn, next };
        for (const [order, index] of failed.entries()) {
          const backend = list[index];
          if (backend !== undefined) turn = restBackend(turn, backend, 100 + order);
        }
        const tried = new Set<string>();
        for (let step = 0; step < count; step++) {
          const result = chooseBackend(turn, list, tried, 50);
          assert.ok(result.backend !== null);
          assert.ok(!tried.has(backendKey(result.backend)));
          tried.add(backendKey(result.backend));
          turn = result.turn;
        }
        assert.equal(chooseBackend(turn, list, tried, 50).backend, null);
      },
    ),
  );
});

test('property: without failures no backend is ahead of another by more than one', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 9 }),
      fc.integer({ min: 0, max: 100 }),
      fc.nat(),
      (count, picks, next) => {
        const counts = new Map<string, number>();
        for (const id of chooseMany({ ...firstTurn, next }, backends(count), picks, 0)) {
          counts.set(id, (counts.get(id) ?? 0) + 1);
        }
        const values = backends(count).map(({ taskId }) => counts.get(taskId) ?? 0);
        assert.ok(Math.max(...values) - Math.min(...values) <= 1);
      },
    ),
  );
});
