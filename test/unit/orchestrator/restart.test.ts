/** Restart supervision: conditions, delays, attempts, windows, and starts that wait for the task before. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planReplicated } from '../../../src/manager/orchestrator/replicated.ts';
import { mayRestart, planDelayedStarts } from '../../../src/manager/orchestrator/restart.ts';
import type { Task } from '../../../src/model/objects.ts';
import { defaultRestartPolicy } from '../../../src/model/defaults.ts';
import type { RestartPolicy } from '../../../src/model/spec.ts';
import type { TaskState } from '../../../src/model/task-state.ts';
import { FakeCluster } from '../../support/fake-cluster.ts';
import {
  applyAll,
  makeNode,
  makeService,
  makeStore,
  makeTask,
  makeTaskSpec,
  NOW_MS,
  planContext,
} from '../../support/planner-fixtures.ts';

function policy(overrides: Partial<RestartPolicy>): RestartPolicy {
  return { ...defaultRestartPolicy, ...overrides };
}

function clusterWith(restart: Partial<RestartPolicy>, options: { nodes?: number; replicas?: number } = {}) {
  const cluster = new FakeCluster({ nodes: options.nodes ?? 2 });
  const task = makeTaskSpec({ restart: policy(restart) });
  cluster.create({ task, mode: { kind: 'replicated', replicas: options.replicas ?? 1 } });
  cluster.settle();
  return cluster;
}

/** The one wanted task, made to end in `state`. */
function end(cluster: FakeCluster, state: TaskState): void {
  const [task] = cluster.active();
  assert.ok(task !== undefined, 'a task to end');
  cluster.report(task, state);
}

const verdicts: readonly [RestartPolicy['condition'], TaskState, boolean][] = [
  ['any', 'complete', true],
  ['any', 'failed', true],
  ['any', 'rejected', true],
  ['on-failure', 'complete', false],
  ['on-failure', 'failed', true],
  ['on-failure', 'rejected', true],
  ['on-failure', 'orphaned', true],
  ['none', 'complete', false],
  ['none', 'failed', false],
];

for (const [condition, state, expected] of verdicts) {
  test(`condition ${condition}: a task that ended as ${state} ${expected ? 'is' : 'is not'} replaced`, () => {
    const task = makeTask('t', { spec: makeTaskSpec({ restart: policy({ condition }) }), status: { state } });
    assert.equal(mayRestart(task, 'ended'), expected);
  });
}

test('a task moves off a drained or lost node whatever its attempts, unless it may start only once', () => {
  const exhausted = { count: 3, times: [] };
  const spec = makeTaskSpec({ restart: policy({ maxAttempts: 3 }) });
  const task = makeTask('t', { spec, restarts: exhausted, status: { state: 'running' } });
  assert.equal(mayRestart(task, 'node-drained'), true);
  assert.equal(mayRestart(task, 'node-lost'), true);
  const once = makeTask('t', { spec: makeTaskSpec({ restart: policy({ condition: 'none' }) }) });
  assert.equal(mayRestart(once, 'node-lost'), false);
});

test('a replacement waits for the delay, counted from the death, and starts when it is over', () => {
  const cluster = clusterWith({ delayMs: 5_000 });
  end(cluster, 'failed');
  const diedAt = cluster.nowMs;
  assert.equal(cluster.settle(), diedAt + 5_000);
  const [waiting] = cluster.active();
  assert.equal(waiting?.desiredState, 'ready');
  assert.equal(waiting?.delayedStart?.notBefore, diedAt + 5_000);
  assert.equal(waiting?.slot, 1);
  cluster.advance(4_999);
  assert.equal(cluster.up().length, 0);
  cluster.advance(1);
  assert.equal(cluster.up().length, 1);
});

test('without a delay the replacement is wanted running at once', () => {
  const cluster = clusterWith({ delayMs: 0 });
  end(cluster, 'failed');
  cluster.turn();
  assert.equal(cluster.active()[0]?.desiredState, 'running');
});

for (const skewMs of [-3_600_000, 3_600_000]) {
  test(`a worker clock that is off by ${skewMs} ms changes no delay and no attempt`, () => {
    const cluster = clusterWith({ delayMs: 5_000, maxAttempts: 2, windowMs: 60_000 });
    for (const id of ['n1', 'n2']) cluster.skewMs.set(id, skewMs);
    for (let attempt = 0; attempt < 2; attempt++) {
      end(cluster, 'failed');
      cluster.advance(4_999);
      assert.equal(cluster.up().length, 0);
      cluster.advance(1);
      assert.equal(cluster.up().length, 1);
    }
    end(cluster, 'failed');
    cluster.advance(600_000);
    assert.equal(cluster.active().length, 0);
  });
}

test('a task that died on a drained or lost node is replaced without delay', () => {
  for (const change of ['drain', 'down'] as const) {
    const cluster = clusterWith({ delayMs: 60_000 });
    const [task] = cluster.active();
    assert.ok(task !== undefined);
    cluster.report(task, 'failed');
    cluster.setNode(
      task.nodeId,
      change === 'down' ? 'down' : 'ready',
      change === 'drain' ? 'drain' : 'active',
    );
    cluster.settle();
    assert.equal(cluster.up().length, 1, change);
  }
});

test('attempts are counted beyond the history that the reaper keeps, and the slot stays finished', () => {
  const cluster = clusterWith({ delayMs: 0, maxAttempts: 9 });
  let ends = 0;
  while (cluster.active().length > 0) {
    end(cluster, 'failed');
    ends++;
    cluster.advance(1_000);
    assert.ok(ends <= 10, 'at most the first start and nine restarts');
    assert.ok(cluster.tasks().length <= 5);
  }
  assert.equal(ends, 10);
  cluster.advance(3_600_000);
  assert.equal(cluster.active().length, 0);
  assert.equal(cluster.tasks().filter((task) => task.finished).length, 1);
});

test('a new leader counts on from the state alone', () => {
  const cluster = clusterWith({ delayMs: 1_000, maxAttempts: 3 });
  for (let attempt = 0; attempt < 3; attempt++) {
    end(cluster, 'failed');
    cluster.settle();
    cluster.failOver();
    cluster.advance(1_000);
    assert.equal(cluster.up().length, 1);
  }
  end(cluster, 'failed');
  cluster.failOver();
  cluster.advance(100_000);
  assert.equal(cluster.active().length, 0);
});

test('with a window only the restarts inside it count', () => {
  const cluster = clusterWith({ delayMs: 0, maxAttempts: 2, windowMs: 10_000 });
  for (let round = 0; round < 5; round++) {
    end(cluster, 'failed');
    cluster.advance(6_000);
    assert.equal(cluster.up().length, 1, `round ${round}`);
  }
  end(cluster, 'failed');
  cluster.settle();
  end(cluster, 'failed');
  cluster.settle();
  assert.equal(cluster.active().length, 0, 'the third death within 10 s is the last');
});

test('a new spec version begins a new count and revives a finished slot', () => {
  const cluster = clusterWith({ delayMs: 0, maxAttempts: 1 });
  end(cluster, 'failed');
  cluster.settle();
  end(cluster, 'failed');
  cluster.advance(60_000);
  assert.equal(cluster.active().length, 0);
  cluster.updateImage('next');
  cluster.settle();
  assert.equal(cluster.up().length, 1);
  assert.equal(cluster.up()[0]?.restarts, undefined);
  end(cluster, 'failed');
  cluster.settle();
  assert.equal(cluster.up().length, 1, 'one restart is allowed again');
});

test('restarts under another spec version do not count for the replacement', () => {
  const cluster = clusterWith({ delayMs: 0, maxAttempts: 2 });
  end(cluster, 'failed');
  cluster.settle();
  cluster.update((spec) => ({ ...spec, labels: { changed: 'yes' } }));
  for (let restart = 0; restart < 2; restart++) {
    end(cluster, 'failed');
    cluster.settle();
    assert.equal(cluster.up().length, 1);
  }
  end(cluster, 'failed');
  cluster.settle();
  assert.equal(cluster.active().length, 0);
});

test('a completed task of an on-failure service keeps its slot: scaling up adds beside it', () => {
  const cluster = clusterWith({ condition: 'on-failure', delayMs: 0 });
  end(cluster, 'complete');
  cluster.advance(60_000);
  assert.equal(cluster.active().length, 0);
  cluster.scale(2);
  cluster.advance(60_000);
  assert.deepEqual(
    cluster.up().map((task) => task.slot),
    [2],
  );
});

test('of two wanted tasks in a slot that both died, only the newer is replaced', () => {
  const status = { state: 'failed' } as const;
  const store = makeStore({ nodes: [makeNode('a')], services: [makeService('svc')] });
  applyAll(
    store,
    [{ kind: 'create', table: 'task', object: makeTask('old', { node: 'a', status }) }],
    NOW_MS - 9,
  );
  applyAll(
    store,
    [{ kind: 'create', table: 'task', object: makeTask('new', { node: 'a', status }) }],
    NOW_MS - 5,
  );
  const { actions } = planReplicated(store, planContext());
  assert.equal(actions.filter((one) => one.kind === 'create').length, 1);
  assert.deepEqual(
    actions.flatMap((one) => (one.kind === 'patch-task' ? [one.id as string] : [])).toSorted(),
    ['new', 'old'],
  );
});

interface StartCase {
  readonly title: string;
  readonly before: Partial<Parameters<typeof makeTask>[1]> | null;
  readonly node?: Parameters<typeof makeNode>[1];
  readonly ageMs: number;
  readonly notBeforeMs: number;
  readonly starts: boolean;
  readonly wakeMs: number | null;
}

const shutdown = { desiredState: 'shutdown', node: 'a' } as const;
const starts: readonly StartCase[] = [
  { title: 'the delay is not over', before: null, ageMs: 10, notBeforeMs: 50, starts: false, wakeMs: 40 },
  { title: 'the delay is over', before: null, ageMs: 50, notBeforeMs: 50, starts: true, wakeMs: null },
  {
    title: 'the old task still runs',
    before: { ...shutdown, status: { state: 'running' } },
    ageMs: 1_000,
    notBeforeMs: 0,
    starts: false,
    wakeMs: 59_000,
  },
  {
    title: 'the old task runs for more than a minute',
    before: { ...shutdown, status: { state: 'running' } },
    ageMs: 60_000,
    notBeforeMs: 0,
    starts: true,
    wakeMs: null,
  },
  {
    title: 'the old task is dead',
    before: { ...shutdown, status: { state: 'shutdown' } },
    ageMs: 0,
    notBeforeMs: 0,
    starts: true,
    wakeMs: null,
  },
  {
    title: 'the old task was never given to a worker',
    before: { desiredState: 'shutdown', status: { state: 'pending' } },
    ageMs: 0,
    notBeforeMs: 0,
    starts: true,
    wakeMs: null,
  },
  {
    title: 'the node of the old task is down',
    before: { ...shutdown, status: { state: 'running' } },
    node: { state: 'down' },
    ageMs: 0,
    notBeforeMs: 0,
    starts: true,
    wakeMs: null,
  },
];

for (const { title, before, node, ageMs, notBeforeMs, starts: expected, wakeMs } of starts) {
  test(`a delayed start when ${title}: ${expected ? 'starts' : 'waits'}`, () => {
    const tasks: Task[] = before === null ? [] : [makeTask('old', before)];
    const store = makeStore({ nodes: [makeNode('a', node)], services: [makeService('svc')], tasks });
    const delayedStart = { notBefore: NOW_MS + notBeforeMs, afterTask: makeTask('old').id };
    const object = makeTask('new', { desiredState: 'ready', delayedStart });
    applyAll(store, [{ kind: 'create', table: 'task', object }]);
    const plan = planDelayedStarts(store, planContext(NOW_MS + ageMs));
    assert.equal(plan.actions.length, expected ? 1 : 0);
    assert.equal(plan.wakeAt, wakeMs === null ? null : NOW_MS + ageMs + wakeMs);
    applyAll(store, plan.actions, NOW_MS + ageMs);
    assert.deepEqual(planDelayedStarts(store, planContext(NOW_MS + ageMs)).actions, []);
  });
}

test('a task that cannot be prepared is tried once a delay, not at full speed', () => {
  const cluster = clusterWith({ delayMs: 5_000 });
  let made = 0;
  const seen = new Set(cluster.tasks().map((task) => task.id));
  cluster.afterApply = () => {
    for (const task of cluster.tasks()) {
      if (seen.has(task.id)) continue;
      seen.add(task.id);
      made++;
    }
  };
  cluster.fate = () => 'rejected';
  end(cluster, 'failed');
  cluster.advance(60_000);
  assert.ok(made >= 11 && made <= 14, `${made} tasks in 60 s`);
  cluster.fate = () => 'run';
  cluster.advance(10_000);
  assert.equal(cluster.up().length, 1);
});

test('the replacement of a task that never started waits for the one that still runs', () => {
  const cluster = clusterWith({ delayMs: 0 });
  const [running] = cluster.up();
  assert.ok(running !== undefined);
  cluster.stopsAtOnce = false;
  cluster.setNode(running.nodeId, 'ready', 'drain');
  cluster.settle();
  const [waiting] = cluster.active();
  assert.equal(waiting?.delayedStart?.afterTask, running.id);
  cluster.report(waiting, 'rejected');
  cluster.settle();
  assert.equal(cluster.active()[0]?.delayedStart?.afterTask, running.id);
  assert.equal(cluster.active()[0]?.desiredState, 'ready');
  cluster.finishStopping();
  cluster.settle();
  assert.equal(cluster.up().length, 1);
});

test('a leader whose clock is far behind does not make a delayed start wait for it', () => {
  const cluster = clusterWith({ delayMs: 5_000 });
  end(cluster, 'failed');
  cluster.settle();
  cluster.failOver(-3_600_000);
  cluster.settle();
  assert.equal(cluster.up().length, 1);
});
