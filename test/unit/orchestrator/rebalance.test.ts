/** Rebalancing: ends, never goes back and forth, never lowers the number of running tasks. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { planners } from '../../../src/manager/forecast/planner-chain.ts';
import type { Action } from '../../../src/manager/state/actions.ts';
import type { Store } from '../../../src/manager/state/store.ts';
import { seededRandom } from '../../../src/base/random.ts';
import type { Task } from '../../../src/model/objects.ts';
import type { RebalanceConfig } from '../../../src/model/spec.ts';
import {
  applyAll,
  makeNode,
  makeService,
  makeStore,
  makeTask,
  makeTaskSpec,
  NOW_MS,
} from '../../support/planner-fixtures.ts';

const config: RebalanceConfig = { maxMoves: 1, margin: 2, cooldownMs: 60_000 };

interface Setting {
  /** Tasks on each node. */
  readonly tasks: readonly number[];
  readonly zones?: readonly string[];
  readonly rebalance?: RebalanceConfig | undefined;
}

function world({ tasks, zones, rebalance = config }: Setting): Store {
  const replicas = tasks.reduce((sum, count) => sum + count, 0);
  const task = makeTaskSpec({
    placement: { preferences: zones === undefined ? [] : [{ spread: 'node.labels.zone' }] },
  });
  let slot = 0;
  return makeStore({
    nodes: tasks.map((_, at) => makeNode(`n${at}`, { spec: { labels: { zone: zones?.[at] ?? '' } } })),
    services: [makeService('web', { spec: { mode: { kind: 'replicated', replicas }, task, rebalance } })],
    tasks: tasks.flatMap((count, at) =>
      Array.from({ length: count }, () =>
        makeTask(`t${++slot}`, {
          service: 'web',
          node: `n${at}`,
          slot,
          spec: task,
          status: { state: 'running' },
        }),
      ),
    ),
  });
}

const runningTasks = (store: Store): Task[] =>
  [...store.tasksOfService('web' as Task['serviceId'])].filter((task) => task.status.state === 'running');

function counts(store: Store): number[] {
  return [...store.all('node')]
    .toSorted((a, b) => (a.id < b.id ? -1 : 1))
    .map((node) => runningTasks(store).filter((task) => task.nodeId === node.id).length);
}

/** Plans and plays until nothing changes; returns the number of moves. `fate` is what a task asked to run becomes. */
function run(
  store: Store,
  from = NOW_MS + config.cooldownMs,
  fate: (task: Task) => 'running' | 'failed' = () => 'running',
): number {
  const random = seededRandom(7);
  const atLeast = runningTasks(store).length;
  const seen = new Set<string>();
  let nowMs = from;
  for (let turn = 0; turn < 2_000; turn++, nowMs++) {
    const actions = store.tentatively(nowMs, (apply) => {
      for (const planner of planners) {
        const plan = planner.plan(store, { nowMs, random });
        if (plan.actions.length > 0) assert.equal(apply(plan.actions), null);
      }
    });
    const reports: Action[] = [];
    if (actions.length > 0) applyAll(store, actions, nowMs);
    for (const task of store.all('task')) {
      if (task.movedFrom !== undefined) seen.add(task.id);
      if (task.nodeId === '' || ['new', 'pending', 'shutdown', 'failed'].includes(task.status.state))
        continue;
      const wanted: Task['status']['state'] = task.desiredState === 'running' ? fate(task) : 'shutdown';
      if (wanted === task.status.state) continue;
      const status: Task['status'] = { ...task.status, state: wanted, at: nowMs };
      reports.push({ kind: 'report-task', id: task.id, nodeId: task.nodeId, status });
    }
    if (reports.length > 0) applyAll(store, reports, nowMs);
    assert.ok(runningTasks(store).length >= atLeast, 'fewer tasks run than before');
    if (actions.length === 0 && reports.length === 0) return seen.size;
  }
  return assert.fail('rebalancing does not end');
}

describe('rebalancing', () => {
  it('evens out a service after a node returned', () => {
    const store = world({ tasks: [3, 3, 0] });
    assert.equal(run(store), 2);
    assert.deepEqual(counts(store), [2, 2, 2]);
  });

  it('does nothing where the service does not ask for it', () => {
    const store = makeStore({
      nodes: [makeNode('n0'), makeNode('n1')],
      services: [makeService('web', { spec: { mode: { kind: 'replicated', replicas: 2 } } })],
      tasks: [1, 2].map((slot) =>
        makeTask(`t${slot}`, { service: 'web', node: 'n0', slot, status: { state: 'running' } }),
      ),
    });
    assert.equal(run(store), 0);
  });

  it('leaves an imbalance below the margin alone', () => {
    const store = world({ tasks: [3, 1], rebalance: { ...config, margin: 3 } });
    assert.equal(run(store), 0);
  });

  it('waits until the node has been unchanged for the cooldown', () => {
    assert.equal(run(world({ tasks: [4, 0] }), NOW_MS + config.cooldownMs - 3_000), 0);
  });

  it('a task that fails at its new place is not tried again before the cooldown, and the old one stays', () => {
    const store = world({ tasks: [4, 0] });
    assert.equal(
      run(store, undefined, (task) => (task.movedFrom === undefined ? 'running' : 'failed')),
      1,
    );
    assert.deepEqual(counts(store), [4, 0]);
  });

  it('ends, with every difference below the margin, and never runs fewer tasks', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(5), { minLength: 2, maxLength: 6 }),
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 2, max: 4 }),
        (tasks, maxMoves, margin) => {
          const store = world({ tasks, rebalance: { ...config, maxMoves, margin } });
          const moves = run(store);
          const after = counts(store);
          assert.ok(Math.max(...after) - Math.min(...after) < margin, JSON.stringify({ tasks, after }));
          // Each move lowers the sum of squares by 2 at least.
          const squares = (list: readonly number[]): number => list.reduce((sum, n) => sum + n * n, 0);
          assert.ok(2 * moves <= squares(tasks) - squares(after));
        },
      ),
      { numRuns: 60 },
    );
  });

  it('evens out branches of a preference before nodes', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(4), fc.constantFrom('x', 'y')), { minLength: 2, maxLength: 6 }),
        (nodes) => {
          const zones = nodes.map(([, zone]) => zone);
          const store = world({
            tasks: nodes.map(([count]) => count),
            zones,
            rebalance: { ...config, maxMoves: 2 },
          });
          run(store);
          const after = counts(store);
          const sums = [...new Set(zones)].map((zone) =>
            after.reduce((sum, count, at) => sum + (zones[at] === zone ? count : 0), 0),
          );
          assert.ok(Math.max(...sums) - Math.min(...sums) < 2, JSON.stringify({ nodes, after }));
        },
      ),
      { numRuns: 40 },
    );
  });
});
