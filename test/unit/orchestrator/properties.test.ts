/** Properties of the orchestrators and the updater over random states and random histories. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { planReplicated } from '../../../src/manager/orchestrator/replicated.ts';
import { dirtyCheck } from '../../../src/manager/update/dirty.ts';
import { defaultUpdateConfig } from '../../../src/model/defaults.ts';
import type { Task, UpdateStatus } from '../../../src/model/objects.ts';
import type { ServiceMode } from '../../../src/model/spec.ts';
import { isTerminalState, type DesiredState, type TaskState } from '../../../src/model/task-state.ts';
import { FakeCluster, orchestratorPlanners, slotsInChange, withImage } from '../../support/fake-cluster.ts';
import {
  applyAll,
  makeNode,
  makeService,
  makeStore,
  makeTask,
  NOW_MS,
  planContext,
} from '../../support/planner-fixtures.ts';

const nodeIds = ['n1', 'n2', 'n3'] as const;
const states: readonly TaskState[] = [
  'new',
  'pending',
  'assigned',
  'ready',
  'running',
  'complete',
  'shutdown',
  'failed',
  'rejected',
  'orphaned',
];
const desired: readonly DesiredState[] = ['ready', 'running', 'shutdown', 'remove'];

const service = makeService('svc');
const otherSpec = withImage(service.spec, 'other').task;

/** A task with anything in it, as a broken or half-applied history might leave behind. */
const anyTask = fc.record({
  slot: fc.integer({ min: 1, max: 4 }),
  node: fc.constantFrom('', 'gone', ...nodeIds),
  state: fc.constantFrom(...states),
  desiredState: fc.constantFrom(...desired),
  specVersion: fc.integer({ min: 1, max: 3 }),
  sameSpec: fc.boolean(),
  finished: fc.boolean(),
  marked: fc.boolean(),
  runningAt: fc.option(fc.integer({ min: NOW_MS - 10_000, max: NOW_MS + 10_000 }), { nil: undefined }),
  notBefore: fc.option(fc.integer({ min: NOW_MS - 10_000, max: NOW_MS + 10_000 }), { nil: undefined }),
});

type AnyTask = typeof anyTask extends fc.Arbitrary<infer T> ? T : never;

function taskOf(shape: AnyTask, index: number, isGlobal: boolean): Task {
  const { sameSpec, marked, runningAt, notBefore, state, finished, node, ...rest } = shape;
  const assigned = state === 'new' || state === 'pending' ? (isGlobal ? node : '') : node || 'n1';
  return makeTask(`t${index}`, {
    ...rest,
    slot: isGlobal ? 0 : rest.slot,
    node: assigned || (isGlobal ? 'n1' : ''),
    spec: sameSpec ? service.spec.task : otherSpec,
    status: { state },
    ...(finished && isTerminalState(state) && rest.desiredState === 'shutdown' ? { finished } : {}),
    ...(marked
      ? { update: { startedAt: NOW_MS - 5, ...(runningAt === undefined ? {} : { runningAt }) } }
      : {}),
    ...(notBefore === undefined ? {} : { delayedStart: { notBefore, afterTask: makeTask('t0').id } }),
  });
}

const anyStatus = fc.constantFrom<UpdateStatus['state'] | null>(
  null,
  'updating',
  'paused',
  'completed',
  'rollback_started',
);

const anyWorld = fc.record({
  tasks: fc.array(anyTask, { maxLength: 14 }),
  status: anyStatus,
  mode: fc.constantFrom<ServiceMode>(
    { kind: 'replicated', replicas: 3 },
    { kind: 'replicated', replicas: 0 },
    { kind: 'global' },
  ),
  nodes: fc.array(
    fc.record({
      state: fc.constantFrom('ready', 'down', 'unknown'),
      availability: fc.constantFrom('active', 'pause', 'drain'),
    }),
    { minLength: 3, maxLength: 3 },
  ),
  parallelism: fc.integer({ min: 0, max: 2 }),
  order: fc.constantFrom('stop-first', 'start-first'),
  failureAction: fc.constantFrom('pause', 'continue', 'rollback'),
  pendingDelete: fc.boolean(),
});

type AnyWorld = typeof anyWorld extends fc.Arbitrary<infer T> ? T : never;

function worldOf(world: AnyWorld) {
  const { mode, status, parallelism, order, failureAction } = world;
  const update = { ...defaultUpdateConfig, parallelism, order, failureAction } as const;
  const object = makeService('svc', {
    specVersion: 3,
    spec: { mode, update },
    previousSpec: { ...service.spec, mode, task: otherSpec },
    pendingDelete: world.pendingDelete,
    ...(status === null ? {} : { updateStatus: { state: status, startedAt: NOW_MS - 5, message: '' } }),
  });
  return {
    nodes: world.nodes.map(({ state, availability }, index) =>
      makeNode(nodeIds[index] as string, { state, spec: { availability } }),
    ),
    services: [object],
    tasks: world.tasks.map((shape, index) => taskOf(shape, index, mode.kind === 'global')),
  };
}

/** A state no history leads to may take a step to be put in order; after that there is nothing left to do. */
const STEPS_MAX = 2;

test('from any state every planner is total and comes to rest', () => {
  fc.assert(
    fc.property(anyWorld, (world) => {
      const store = makeStore(worldOf(world));
      const context = planContext();
      for (const plan of orchestratorPlanners) {
        for (let taken = 0; taken < STEPS_MAX; taken++) applyAll(store, plan(store, context).actions);
        assert.deepEqual(plan(store, context).actions, [], plan.name);
      }
    }),
    { numRuns: 300 },
  );
});

test('the same state, time and random numbers give the same plan', () => {
  fc.assert(
    fc.property(anyWorld, (world) => {
      const [one, two] = [makeStore(worldOf(world)), makeStore(worldOf(world))];
      for (const plan of orchestratorPlanners) {
        assert.deepEqual(plan(one, planContext()), plan(two, planContext()));
      }
    }),
    { numRuns: 100 },
  );
});

/** Heals nodes and programs, resumes what was paused, and waits. */
function heal(cluster: FakeCluster): void {
  for (const id of nodeIds) {
    if (cluster.store.get('node', id) === undefined) cluster.addNode(id);
    cluster.setNode(id, 'ready', 'active');
  }
  cluster.fate = () => 'run';
  cluster.stopsAtOnce = true;
  cluster.advance(120_000);
  cluster.update((spec) => spec);
  cluster.advance(600_000);
}

function assertConverged(cluster: FakeCluster, revived: boolean): void {
  const now = cluster.service();
  const { mode } = now.spec;
  const isDirty = dirtyCheck(cluster.store, now);
  const places = cluster.active().map((task) => (mode.kind === 'global' ? task.nodeId : String(task.slot)));
  assert.equal(new Set(places).size, places.length, 'one task a place');
  assert.equal(cluster.up().length, cluster.active().length, 'all that is wanted is up');
  // A task that ended for good leaves its start-first predecessor where it is.
  const ended = new Set(cluster.tasks().flatMap((task) => (task.finished === true ? [task.slot] : [])));
  const dirty = cluster.up().filter((task) => isDirty(task) && (revived || !ended.has(task.slot)));
  assert.deepEqual(dirty, [], 'all of the present spec');
  const wanted = mode.kind === 'replicated' ? mode.replicas : nodeIds.length;
  const finished = cluster.tasks().filter((task) => task.finished === true).length;
  assert.ok(
    places.length <= wanted && (places.length === wanted || (!revived && finished > 0)),
    'as many as wanted',
  );
  const running = cluster.tasks().filter((task) => task.status.state === 'running');
  assert.equal(running.length, places.length, 'nothing runs that is not wanted');
  assert.notEqual(now.updateStatus?.state, 'updating');
  assert.notEqual(now.updateStatus?.state, 'rollback_started');
}

test('from any state a healed cluster converges', () => {
  fc.assert(
    fc.property(anyWorld, (world) => {
      const cluster = new FakeCluster({ nodes: 0 });
      const { nodes, services, tasks } = worldOf({ ...world, pendingDelete: false });
      cluster.apply([
        ...nodes.map((object) => ({ kind: 'create', table: 'node', object }) as const),
        ...services.map((object) => ({ kind: 'create', table: 'service', object }) as const),
        ...tasks.map((object) => ({ kind: 'create', table: 'task', object }) as const),
      ]);
      heal(cluster);
      assertConverged(cluster, false);
    }),
    { numRuns: 100 },
  );
});

const step = fc.oneof(
  fc.record({ kind: fc.constant('scale' as const), replicas: fc.integer({ min: 0, max: 6 }) }),
  fc.record({ kind: fc.constant('image' as const), image: fc.constantFrom('a', 'b', 'bad') }),
  fc.record({ kind: fc.constant('rollback' as const) }),
  fc.record({
    kind: fc.constant('node' as const),
    id: fc.constantFrom(...nodeIds),
    state: fc.constantFrom('ready', 'down'),
    availability: fc.constantFrom('active', 'pause', 'drain'),
  }),
  fc.record({
    kind: fc.constant('end' as const),
    pick: fc.nat(20),
    state: fc.constantFrom('failed', 'complete'),
  }),
  fc.record({ kind: fc.constant('stopping' as const), atOnce: fc.boolean() }),
  fc.record({ kind: fc.constant('fail-over' as const), offsetMs: fc.integer({ min: -2_000, max: 2_000 }) }),
  fc.record({ kind: fc.constant('advance' as const), ms: fc.integer({ min: 0, max: 30_000 }) }),
  fc.record({ kind: fc.constant('turn' as const) }),
);

type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

function take(cluster: FakeCluster, one: Step): void {
  switch (one.kind) {
    case 'scale':
      if (cluster.service().spec.mode.kind === 'replicated') cluster.scale(one.replicas);
      return;
    case 'image':
      cluster.updateImage(one.image);
      return;
    case 'rollback':
      if (cluster.service().previousSpec !== undefined) cluster.rollback();
      return;
    case 'node':
      cluster.setNode(one.id, one.state, one.availability);
      return;
    case 'end': {
      const running = cluster.tasks().filter((task) => task.status.state === 'running');
      const task = running[one.pick % Math.max(1, running.length)];
      if (task !== undefined) cluster.report(task, one.state);
      return;
    }
    case 'stopping':
      cluster.stopsAtOnce = one.atOnce;
      return;
    case 'fail-over':
      cluster.failOver(one.offsetMs);
      return;
    case 'advance':
      cluster.advance(one.ms);
      return;
    case 'turn':
      cluster.turn();
      cluster.work();
  }
}

test('after any history of changes and faults a healed cluster converges, and no update runs wider than asked', () => {
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 14 }),
      anyWorld,
      fc.integer({ min: 1, max: 1000 }),
      (steps, world, seed) => {
        const { mode, parallelism, order, failureAction } = world;
        const cluster = new FakeCluster({ seed });
        const config = {
          ...defaultUpdateConfig,
          parallelism,
          order,
          failureAction,
          delayMs: seed % 3,
        } as const;
        cluster.create({ mode, update: config, rollback: { ...config, failureAction: 'pause' } });
        cluster.fate = (task) => (task.spec.container.image === 'bad' ? 'failed' : 'run');
        cluster.afterApply = () => {
          const { specVersion } = cluster.service();
          const made = cluster.tasks().filter((task) => task.specVersion === specVersion);
          assert.ok(parallelism === 0 || slotsInChange(made) <= parallelism);
        };
        for (const one of steps) take(cluster, one);
        heal(cluster);
        assertConverged(cluster, true);
      },
    ),
    { numRuns: 150 },
  );
});

test('while nothing fails, an update leaves all slots but `parallelism` up, start-first leaves all', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 8 }),
      fc.integer({ min: 1, max: 8 }),
      fc.constantFrom('stop-first', 'start-first'),
      fc.integer({ min: 0, max: 2_000 }),
      (replicas, parallelism, order, delayMs) => {
        const cluster = new FakeCluster();
        const update = { ...defaultUpdateConfig, parallelism, order, delayMs } as const;
        cluster.create({ mode: { kind: 'replicated', replicas }, update });
        cluster.settle();
        const least = order === 'start-first' ? replicas : Math.max(0, replicas - parallelism);
        cluster.afterApply = () => assert.ok(cluster.up().length >= least, `${cluster.up().length} up`);
        cluster.updateImage('next');
        cluster.advance(60_000);
        assert.equal(cluster.service().updateStatus?.state, 'completed');
        assert.ok(cluster.up().every((task) => task.spec.container.image === 'next'));
        assert.equal(cluster.up().length, replicas);
      },
    ),
    { numRuns: 60 },
  );
});

test('scaling down never leaves a node two tasks more than one that lost some', () => {
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom('n1', 'n2', 'n3', 'n4'), { minLength: 1, maxLength: 20 }),
      fc.nat(20),
      (placed, wanted) => {
        const replicas = Math.min(wanted, placed.length);
        const tasks = placed.map((node, index) =>
          makeTask(`t${index}`, { slot: index + 1, node, status: { state: 'running' } }),
        );
        const nodes = ['n1', 'n2', 'n3', 'n4'].map((id) => makeNode(id));
        const spec = { mode: { kind: 'replicated', replicas } } as const;
        const store = makeStore({ nodes, services: [makeService('svc', { spec })], tasks });
        applyAll(store, planReplicated(store, planContext()).actions);
        const left = (node: string): number =>
          [...store.all('task')].filter((task) => task.nodeId === node && task.desiredState === 'running')
            .length;
        const all = ['n1', 'n2', 'n3', 'n4'];
        assert.equal(
          all.reduce((sum, node) => sum + left(node), 0),
          replicas,
        );
        const losers = all.filter((node) => left(node) < placed.filter((one) => one === node).length);
        for (const loser of losers) for (const node of all) assert.ok(left(node) <= left(loser) + 1);
      },
    ),
    { numRuns: 200 },
  );
});
