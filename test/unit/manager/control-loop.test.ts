import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ManualClock } from '../../../src/base/clock.ts';
import { seededRandom } from '../../../src/base/random.ts';
import { ControlLoop } from '../../../src/manager/control-loop.ts';
import type { NamedPlanner } from '../../../src/manager/forecast/planner-chain.ts';
import { type Action, BATCH_ACTIONS_MAX } from '../../../src/manager/state/actions.ts';
import { encodeBatch } from '../../../src/manager/state/codec.ts';
import { emptyPlan, type Plan, type Planner } from '../../../src/manager/state/planner.ts';
import { aNode, aTask } from '../../support/builders.ts';
import { type LogLine, MemoryLog, recordingLogger } from '../../support/manager-fixtures.ts';
import { waitFor } from '../../support/wait.ts';

const quick = { timeoutMs: 2_000, everyMs: 1 };

function planOf(actions: readonly Action[], wakeAt: number | null = null): Plan {
  return { actions, wakeAt, notes: [] };
}

const createNode = (id: string): Action => ({ kind: 'create', table: 'node', object: aNode(id) });
const createTask = (id: string): Action => ({ kind: 'create', table: 'task', object: aTask(id, 's', 'new') });

/** A planner that makes the actions once. */
function once(make: () => readonly Action[]): Planner {
  let done = false;
  return () => {
    if (done) return emptyPlan;
    done = true;
    return planOf(make());
  };
}

function setUp(planners: readonly Planner[], log = new MemoryLog()) {
  const clock = new ManualClock();
  const lines: LogLine[] = [];
  const named: NamedPlanner[] = planners.map((plan, i) => ({ name: `p${i + 1}`, plan }));
  const loop = new ControlLoop({
    store: log.store,
    proposer: log,
    planners: named,
    clock,
    random: seededRandom(1),
    log: recordingLogger(lines),
  });
  return { loop, log, clock, lines };
}

/** Lets everything that is ready run. */
async function settle(): Promise<void> {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
}

describe('control loop', () => {
  it('plans many wake-ups of one event-loop turn together', async () => {
    let turns = 0;
    const { loop } = setUp([
      () => {
        turns += 1;
        return emptyPlan;
      },
    ]);
    loop.start();
    loop.start();
    for (let i = 0; i < 50; i++) loop.wake();
    await settle();
    assert.equal(turns, 1);
    loop.wake();
    loop.wake();
    await settle();
    assert.equal(turns, 2);
    await loop.stop();
  });

  it('lets a planner see what those before it planned, and proposes the net effect as one batch', async () => {
    const seen: boolean[] = [];
    const { loop, log } = setUp([
      once(() => [createNode('n1')]),
      (view) => {
        seen.push(view.get('node', 'n1') !== undefined);
        return emptyPlan;
      },
    ]);
    loop.start();
    await settle();
    await loop.stop();
    assert.equal(seen[0], true);
    assert.equal(log.batches.length, 1);
    assert.notEqual(log.store.get('node', 'n1'), undefined);
  });

  it('splits a large plan by number and by bytes, keeping its order', async () => {
    const many = Array.from({ length: 2 * BATCH_ACTIONS_MAX + 1 }, (_, i) => createTask(`t${i}`));
    const { loop, log } = setUp([once(() => many)]);
    loop.start();
    await settle();
    await loop.stop();
    assert.deepEqual(
      log.batches.map((batch) => batch.length),
      [BATCH_ACTIONS_MAX, BATCH_ACTIONS_MAX, 1],
    );
    const large = Array.from({ length: 8 }, (_, i): Action => {
      const status = { state: 'ready', message: 'x'.repeat(300_000), address: '' } as const;
      return { kind: 'create', table: 'node', object: aNode(`n${i}`, { status }) };
    });
    const second = setUp([once(() => large)]);
    second.loop.start();
    await settle();
    await second.loop.stop();
    assert.ok(second.log.batches.length > 1);
    for (const actions of second.log.batches) assert.ok(encodeBatch({ at: 0, actions }).length < 1_100_000);
    assert.equal(second.log.store.count('node'), 8);
  });

  it('plans again at once after a refusal, and stops the rest of the refused plan', async () => {
    const log = new MemoryLog();
    log.answers.push({ kind: 'refused', refusal: { kind: 'missing', table: 'node', id: 'n1' } });
    const actions = Array.from({ length: BATCH_ACTIONS_MAX + 1 }, (_, i) => createTask(`t${i}`));
    let turns = 0;
    const { loop } = setUp(
      [
        (view) => {
          turns += 1;
          return view.get('task', 't0') === undefined ? planOf(actions) : emptyPlan;
        },
      ],
      log,
    );
    loop.start();
    await waitFor('the second plan', () => log.store.count('task') === actions.length, quick);
    await loop.stop();
    assert.equal(log.batches.length, 2, 'the second batch of the refused plan was not proposed');
    assert.ok(turns >= 2);
  });

  it('slows down when every plan is refused', async () => {
    const log = new MemoryLog();
    const refused = { kind: 'refused', refusal: { kind: 'missing', table: 'node', id: 'n' } } as const;
    for (let i = 0; i < 100; i++) log.answers.push(refused);
    const { loop, clock, lines } = setUp([() => planOf([createNode('n1')])], log);
    loop.start();
    await waitFor('the warning', () => lines.some((line) => line.level === 'warn'), quick);
    await settle();
    assert.equal(log.answers.length, 90);
    clock.advance(1_000);
    await waitFor('the next plans', () => log.answers.length === 80, quick);
    await loop.stop();
  });

  for (const kind of ['not-leader', 'unavailable', 'unknown'] as const) {
    it(`tries again later when the proposal ends as ${kind}`, async () => {
      const log = new MemoryLog();
      log.answers.push({ kind, reason: 'for now' } as never);
      const { loop, clock } = setUp(
        [(view) => (view.get('node', 'n1') === undefined ? planOf([createNode('n1')]) : emptyPlan)],
        log,
      );
      loop.start();
      await settle();
      assert.equal(log.store.count('node'), 0);
      clock.advance(100);
      await waitFor('the retry', () => log.store.count('node') === 1, quick);
      await loop.stop();
    });
  }

  it('says when a plan is too large for the log, and does not spin', async () => {
    const log = new MemoryLog();
    for (let i = 0; i < 10; i++) log.answers.push({ kind: 'too-large', bytes: 9_999_999 });
    const { loop, lines } = setUp([() => planOf([createNode('n1')])], log);
    loop.start();
    await settle();
    await loop.stop();
    assert.equal(log.answers.length, 9);
    assert.deepEqual(
      lines.map((line) => [line.level, line.message, line.fields['bytes']]),
      [['error', 'plan too large for the log', 9_999_999]],
    );
  });

  it('plans again at the earliest wake-up time asked for', async () => {
    const times: number[] = [];
    const { loop, clock } = setUp([
      (_view, { nowMs }) => planOf([], nowMs < 500 ? 500 : null),
      (_view, { nowMs }) => {
        times.push(nowMs);
        return planOf([], nowMs < 300 ? 300 : null);
      },
    ]);
    loop.start();
    await settle();
    clock.advance(299);
    await settle();
    assert.deepEqual(times, [0]);
    clock.advance(1);
    await settle();
    clock.advance(200);
    await settle();
    clock.advance(10_000);
    await settle();
    await loop.stop();
    assert.deepEqual(times, [0, 300, 500]);
  });

  it('goes on with the other planners when one throws, and tries that one again', async () => {
    let failures = 0;
    const { loop, log, clock, lines } = setUp([
      () => {
        failures += 1;
        throw new Error('cannot cope');
      },
      once(() => [createNode('n1')]),
    ]);
    loop.start();
    await waitFor('the other plan', () => log.store.count('node') === 1, quick);
    await settle();
    const before = failures;
    clock.advance(1_000);
    await waitFor('another try', () => failures > before, quick);
    await loop.stop();
    const line = lines.find((one) => one.message === 'a planner failed');
    assert.deepEqual([line?.fields['planner'], line?.fields['error']], ['p1', 'cannot cope']);
  });

  it('stops while a proposal is under way, and plans nothing afterwards', async () => {
    const log = new MemoryLog();
    const { loop } = setUp([() => planOf([createNode('n1')])], log);
    let signalled = false;
    log.propose = (_actions, signal) =>
      new Promise((resolve) => {
        signal.addEventListener('abort', () => {
          signalled = true;
          resolve({ kind: 'unknown', reason: 'gave up' });
        });
      });
    loop.start();
    await settle();
    await loop.stop();
    assert.equal(signalled, true);
    loop.wake();
    await settle();
    assert.equal(log.batches.length, 0);
    await loop.stop();
  });

  it('stops before it started, and in the middle of a pause', async () => {
    const unstarted = setUp([() => emptyPlan]);
    await unstarted.loop.stop();
    const idle = setUp([() => emptyPlan]);
    idle.loop.start();
    await settle();
    await idle.loop.stop();
  });
});
