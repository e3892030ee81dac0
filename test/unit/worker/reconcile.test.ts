import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { TaskId } from '../../../src/model/ids.ts';
import type { Task, TaskStatus } from '../../../src/model/objects.ts';
import { compareTaskStates, type DesiredState, isTerminalState } from '../../../src/model/task-state.ts';
import {
  DRAIN_MS,
  type Observation,
  type Operation,
  type OperationFailure,
  type WorkerEffect,
  type WorkerEvent,
  type WorkerState,
} from '../../../src/worker/core/local-task.ts';
import { initialWorkerState, reconcile } from '../../../src/worker/core/reconcile.ts';
import { makeTask } from '../../support/worker-fixtures.ts';

type Run = Extract<WorkerEffect, { kind: 'run' }>;

/** A runtime and a disk around the machine; tests decide when and how operations end. */
class Bench {
  state: WorkerState = initialWorkerState();
  nowMs = 1_000;
  wakeAt: number | null = null;
  readonly pending = new Map<TaskId, Run>();
  readonly held = new Map<TaskId, Observation>();
  readonly disk = new Map<TaskId, { task: Task; status: TaskStatus }>();
  readonly statuses = new Map<TaskId, TaskStatus[]>();
  readonly starts = new Map<TaskId, number>();
  readonly assigned = new Map<TaskId, Task>();
  readonly aborted = new Set<TaskId>();
  completeThisLife = false;

  feed(event: WorkerEvent): void {
    const step = reconcile(this.state, event, this.nowMs);
    this.state = step.state;
    this.wakeAt = step.wakeAt;
    for (const effect of step.effects) this.#take(effect);
  }

  #take(effect: WorkerEffect): void {
    switch (effect.kind) {
      case 'run':
        assert.equal(this.pending.has(effect.taskId), false, 'two operations of one task');
        if (effect.operation === 'remove') {
          assert.equal(this.assigned.has(effect.taskId), false, 'an assigned task is removed');
          assert.equal(this.completeThisLife, true, 'removed before a complete set');
        }
        this.pending.set(effect.taskId, effect);
        return;
      case 'abort':
        assert.equal(this.pending.has(effect.taskId), true, 'nothing to abort');
        this.aborted.add(effect.taskId);
        return;
      case 'persist':
        this.disk.set(effect.task.id, { task: effect.task, status: effect.status });
        return;
      case 'forget':
        assert.equal(this.held.has(effect.taskId), false, 'forgotten while something is held');
        this.disk.delete(effect.taskId);
        return;
      case 'report': {
        const known = this.statuses.get(effect.taskId) ?? [];
        const last = known.at(-1);
        if (last !== undefined) {
          assert.ok(
            compareTaskStates(effect.status.state, last.state) >= 0,
            `${last.state} -> ${effect.status.state}`,
          );
        }
        this.statuses.set(effect.taskId, [...known, effect.status]);
      }
    }
  }

  /** Does an operation in the runtime. */
  perform(id: TaskId, operation: Operation): void {
    const held = this.held.get(id);
    const put = (phase: Observation['phase'], exitCode?: number): void => {
      const container = { containerId: id, pid: 1, ...(exitCode === undefined ? {} : { exitCode }) };
      this.held.set(id, { taskId: id, phase, container, ports: [], error: '' });
    };
    if (operation === 'create' && held === undefined) put('created');
    if (operation === 'start' && held?.phase === 'created') {
      this.starts.set(id, (this.starts.get(id) ?? 0) + 1);
      put('running');
    }
    if (operation === 'stop' && held?.phase === 'running') put('exited', 143);
    if (operation === 'remove') this.held.delete(id);
  }

  succeed(id: TaskId): void {
    const run = this.pending.get(id);
    if (run === undefined) return;
    this.pending.delete(id);
    this.aborted.delete(id);
    this.perform(id, run.operation);
    const observed = run.operation === 'prepare' ? null : (this.held.get(id) ?? null);
    this.feed({ kind: 'done', taskId: id, operation: run.operation, observed });
  }

  failWith(id: TaskId, failure: OperationFailure, halfDone: boolean): void {
    const run = this.pending.get(id);
    if (run === undefined) return;
    this.pending.delete(id);
    this.aborted.delete(id);
    if (halfDone) this.perform(id, run.operation);
    this.feed({ kind: 'failed', taskId: id, operation: run.operation, failure });
  }

  assign(task: Task): void {
    this.assigned.set(task.id, task);
    this.feed({ kind: 'assignments', complete: false, put: [task], remove: [] });
  }

  complete(): void {
    this.completeThisLife = true;
    this.feed({ kind: 'assignments', complete: true, put: [...this.assigned.values()], remove: [] });
  }

  list(): void {
    const { sequence } = this.state;
    this.feed({ kind: 'listed', runtime: 'process', since: sequence, tasks: [...this.held.values()] });
  }

  restart(): void {
    this.pending.clear();
    this.state = initialWorkerState();
    this.completeThisLife = false;
    this.feed({ kind: 'restored', tasks: [...this.disk.values()] });
    this.list();
  }

  /** Everything succeeds from here on, and time passes, until nothing is left to do. */
  settle(): void {
    this.complete();
    this.list();
    for (let i = 0; i < 10_000; i++) {
      const [next] = this.pending.keys();
      if (next !== undefined) this.succeed(next);
      else if (this.wakeAt !== null) {
        this.nowMs = this.wakeAt;
        this.feed({ kind: 'wake' });
      } else return;
    }
    assert.fail('the worker does not come to rest');
  }

  last(id: TaskId): TaskStatus | undefined {
    return this.statuses.get(id)?.at(-1);
  }
}

const done = (bench: Bench, id: TaskId, ...operations: Operation[]): void => {
  for (const operation of operations) {
    assert.equal(bench.pending.get(id)?.operation, operation);
    bench.succeed(id);
  }
};

test('accepted, prepared, made, started: one operation after the other', () => {
  const bench = new Bench();
  const task = makeTask();
  bench.complete();
  bench.assign(task);
  done(bench, task.id, 'prepare', 'create', 'start');
  assert.deepEqual(
    bench.statuses.get(task.id)?.map((status) => status.state),
    ['accepted', 'preparing', 'ready', 'starting', 'running'],
  );
  assert.equal(bench.pending.size, 0);
});

test('a final error before STARTING rejects, from there on it fails the task', () => {
  const failure: OperationFailure = { code: 'INVALID_ARGUMENT', message: 'no such thing', waits: false };
  for (const [steps, state] of [
    [0, 'rejected'],
    [1, 'rejected'],
    [2, 'failed'],
  ] as const) {
    const bench = new Bench();
    const task = makeTask();
    bench.assign(task);
    for (let i = 0; i < steps; i++) bench.succeed(task.id);
    bench.failWith(task.id, failure, false);
    assert.equal(bench.last(task.id)?.state, state);
    assert.equal(bench.last(task.id)?.error, 'no such thing');
  }
});

test('a failing pull is tried again with growing waits, then given up', () => {
  const bench = new Bench();
  const task = makeTask();
  bench.assign(task);
  const waits: number[] = [];
  for (let i = 0; i < 20 && bench.last(task.id)?.state !== 'rejected'; i++) {
    bench.failWith(task.id, { code: 'UNAVAILABLE', message: 'registry away', waits: false }, false);
    if (bench.wakeAt === null) break;
    waits.push(bench.wakeAt - bench.nowMs);
    bench.nowMs = bench.wakeAt;
    bench.feed({ kind: 'wake' });
  }
  assert.equal(bench.last(task.id)?.state, 'rejected');
  assert.deepEqual(waits, [500, 1_000, 2_000, 4_000, 8_000]);
});

test('an outage is waited out without limit, and its end is acted on at once', () => {
  const bench = new Bench();
  const task = makeTask();
  bench.assign(task);
  for (let i = 0; i < 100; i++) {
    bench.failWith(task.id, { code: 'UNAVAILABLE', message: 'engine away', waits: true }, false);
    assert.equal(bench.last(task.id)?.state, 'preparing');
    if (i === 99) break;
    bench.nowMs = bench.wakeAt ?? assert.fail('no wake-up');
    bench.feed({ kind: 'wake' });
  }
  assert.equal((bench.wakeAt ?? 0) - bench.nowMs, 5_000);
  bench.list();
  done(bench, task.id, 'prepare', 'create', 'start');
  assert.equal(bench.last(task.id)?.state, 'running');
});

test('a task that others reach is stopped a moment after its routes are gone, one that nobody reaches at once', () => {
  const port = { protocol: 'tcp', targetPort: 80, publishedPort: 8_080, publishMode: 'ingress' } as const;
  for (const [endpointPorts, waits] of [
    [[port], true],
    [[], false],
  ] as const) {
    const bench = new Bench();
    const task = makeTask({ endpointPorts });
    bench.assign(task);
    done(bench, task.id, 'prepare', 'create', 'start');
    // What happens meanwhile does not cut the wait short.
    bench.feed({ kind: 'changed', taskId: task.id });
    bench.assign({ ...task, desiredState: 'shutdown' });
    bench.succeed(task.id);
    if (waits) {
      assert.equal(bench.pending.size, 0);
      assert.equal(bench.wakeAt, bench.nowMs + DRAIN_MS);
      bench.nowMs += DRAIN_MS;
      bench.feed({ kind: 'wake' });
    }
    done(bench, task.id, 'stop');
    assert.equal(bench.last(task.id)?.state, 'shutdown');
  }
});

test('a task with a health check is RUNNING only when healthy, and is ended when unhealthy', () => {
  const bench = new Bench();
  const task = makeTask({ container: { healthCheck: { test: ['CMD', 'true'] } } });
  const health = (value: 'starting' | 'healthy' | 'unhealthy'): void => {
    bench.held.set(task.id, { ...(bench.held.get(task.id) as Observation), health: value });
    bench.feed({ kind: 'changed', taskId: task.id });
    bench.succeed(task.id);
  };
  bench.assign(task);
  done(bench, task.id, 'prepare', 'create');
  assert.equal(bench.pending.get(task.id)?.operation, 'start');
  bench.pending.delete(task.id);
  bench.perform(task.id, 'start');
  const started: Observation = { ...(bench.held.get(task.id) as Observation), health: 'starting' };
  bench.held.set(task.id, started);
  bench.feed({ kind: 'done', taskId: task.id, operation: 'start', observed: started });
  assert.deepEqual([bench.last(task.id)?.state, bench.last(task.id)?.healthy], ['starting', false]);
  health('healthy');
  assert.deepEqual([bench.last(task.id)?.state, bench.last(task.id)?.healthy], ['running', true]);
  health('starting');
  assert.deepEqual([bench.last(task.id)?.state, bench.last(task.id)?.healthy], ['running', true]);
  health('unhealthy');
  done(bench, task.id, 'stop');
  assert.equal(bench.last(task.id)?.state, 'failed');
  assert.equal(bench.last(task.id)?.error, 'task: non-zero exit (143): unhealthy container');
  assert.equal(bench.last(task.id)?.healthy, undefined);
});

test('a pull for a task that is no longer wanted is given up', () => {
  const bench = new Bench();
  const task = makeTask();
  bench.assign(task);
  bench.assign({ ...task, desiredState: 'shutdown' });
  assert.deepEqual([...bench.aborted], [task.id]);
  bench.failWith(task.id, { code: 'CANCELLED', message: '', waits: false }, false);
  assert.equal(bench.last(task.id)?.state, 'shutdown');
  assert.equal(bench.pending.size, 0);
});

test('a list that began before an operation says nothing about its outcome', () => {
  const bench = new Bench();
  const task = makeTask();
  bench.assign(task);
  const since = bench.state.sequence;
  done(bench, task.id, 'prepare', 'create', 'start');
  bench.feed({ kind: 'listed', runtime: 'process', since, tasks: [] });
  assert.equal(bench.last(task.id)?.state, 'running');
});

test('what vanished from the runtime fails, but is never made and started twice', () => {
  const bench = new Bench();
  const task = makeTask();
  bench.assign(task);
  done(bench, task.id, 'prepare', 'create', 'start');
  bench.held.delete(task.id);
  bench.restart();
  bench.settle();
  assert.equal(bench.last(task.id)?.state, 'failed');
  assert.equal(bench.starts.get(task.id), 1);
});

const command = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('succeed' as const), task: fc.nat(4) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('fail' as const),
      task: fc.nat(4),
      code: fc.constantFrom('UNAVAILABLE' as const, 'RUNTIME' as const, 'TIMEOUT' as const),
      waits: fc.boolean(),
      halfDone: fc.boolean(),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('desire' as const),
      task: fc.nat(4),
      desired: fc.constantFrom<DesiredState[]>('ready', 'running', 'shutdown', 'remove'),
    }),
  },
  fc.record({ kind: fc.constant('unassign' as const), task: fc.nat(4) }),
  fc.record({ kind: fc.constant('exit' as const), task: fc.nat(4), code: fc.nat(2) }),
  fc.record({ kind: fc.constant('vanish' as const), task: fc.nat(4) }),
  fc.record({ kind: fc.constant('changed' as const), task: fc.nat(4) }),
  fc.record({ kind: fc.constant('stray' as const), task: fc.nat(4) }),
  fc.constant({ kind: 'restart' as const }),
  fc.constant({ kind: 'complete' as const }),
  fc.constant({ kind: 'list' as const }),
  fc.constant({ kind: 'wake' as const }),
);

test('whatever happens: states rise, nothing starts twice, and in the end all is as assigned', () => {
  fc.assert(
    fc.property(fc.array(command, { maxLength: 60 }), (commands) => {
      const bench = new Bench();
      // An id is used once: a task taken out of the assignments never comes back.
      const tasks = Array.from({ length: 5 }, (_, i) => makeTask({ slot: i + 1 }));
      const over = new Set<TaskId>();
      for (const step of commands) {
        const task = 'task' in step ? (tasks[step.task] as Task) : undefined;
        obey(bench, step, task, over);
      }
      bench.settle();
      for (const { id } of tasks) {
        assert.ok((bench.starts.get(id) ?? 0) <= 1, 'started twice');
        const wanted = bench.assigned.get(id);
        const phase = bench.held.get(id)?.phase;
        if (wanted === undefined) {
          assert.equal(phase, undefined);
          assert.equal(bench.state.tasks.has(id), false);
          continue;
        }
        const status = bench.state.tasks.get(id)?.status.state ?? 'new';
        if (phase === 'running') assert.equal(status, 'running');
        else if (wanted.desiredState === 'ready')
          assert.ok(status === 'ready' || isTerminalState(status), status);
        else assert.ok(isTerminalState(status), status);
        if (wanted.desiredState === 'shutdown' || wanted.desiredState === 'remove') {
          assert.notEqual(phase, 'running');
        }
      }
    }),
    { numRuns: 400 },
  );
});

type Command = typeof command extends fc.Arbitrary<infer T> ? T : never;

function obey(bench: Bench, step: Command, task: Task | undefined, over: Set<TaskId>): void {
  const id = task?.id as TaskId;
  switch (step.kind) {
    case 'succeed':
      return bench.succeed(id);
    case 'fail':
      return bench.failWith(id, { code: step.code, message: 'broken', waits: step.waits }, step.halfDone);
    case 'desire': {
      if (over.has(id)) return;
      const before = bench.assigned.get(id)?.desiredState ?? 'ready';
      const order = ['ready', 'running', 'shutdown', 'remove'];
      if (order.indexOf(step.desired) < order.indexOf(before)) return;
      return bench.assign({ ...(task as Task), desiredState: step.desired });
    }
    case 'unassign':
      if (!bench.assigned.delete(id)) return;
      over.add(id);
      // A removal comes within a session, which began with a complete set.
      if (!bench.completeThisLife) return bench.complete();
      return bench.feed({ kind: 'assignments', complete: false, put: [], remove: [id] });
    case 'exit': {
      const held = bench.held.get(id);
      if (held?.phase !== 'running') return;
      bench.held.set(id, { ...held, phase: 'exited', container: { ...held.container, exitCode: step.code } });
      return bench.feed({ kind: 'changed', taskId: id });
    }
    case 'vanish':
      bench.held.delete(id);
      return bench.feed({ kind: 'changed', taskId: id });
    case 'changed':
      return bench.feed({ kind: 'changed', taskId: id });
    case 'stray':
      if (bench.assigned.has(id) || over.has(id) || bench.state.tasks.has(id)) return;
      over.add(id);
      bench.perform(id, 'create');
      return bench.list();
    case 'restart':
      return bench.restart();
    case 'complete':
      return bench.complete();
    case 'list':
      return bench.list();
    case 'wake':
      bench.nowMs += 1_000;
      return bench.feed({ kind: 'wake' });
  }
}
