import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { silentLogger } from '../../../src/base/log.ts';
import type { NodeId } from '../../../src/model/ids.ts';
import type { TaskStatus } from '../../../src/model/objects.ts';
import {
  type AssignmentMessage,
  beginSession,
  noAssignments,
  receive,
} from '../../../src/worker/core/assignments.ts';
import { afterCheck, healthPlan, type HealthPlan, initialHealth } from '../../../src/worker/core/health.ts';
import { acknowledge, forget, nextReport, post } from '../../../src/worker/core/outbox.ts';
import { limitWrites } from '../../../src/worker/process-cgroup.ts';
import { stopSignal } from '../../../src/worker/process-create.ts';
import { cutLines, LOG_LINE_BYTES_MAX, timeAt } from '../../../src/worker/process-logs.ts';
import { resolveUser } from '../../../src/worker/process-user.ts';
import { parseLogRequest, parseSessionMessage } from '../../../src/worker/session-message.ts';
import { WorkerStore } from '../../../src/worker/worker-store.ts';
import { freshTaskId, makeTask } from '../../support/worker-fixtures.ts';

describe('assignments', () => {
  const set = (parts: Partial<AssignmentMessage>): AssignmentMessage => ({
    kind: 'assignments',
    type: 'complete',
    sequence: 0,
    more: false,
    put: [],
    remove: [],
    ...parts,
  });
  const task = makeTask();
  const put = [{ kind: 'task' as const, id: task.id, value: task }];

  test('a set in pieces takes effect with its last piece', () => {
    const first = receive(noAssignments(), set({ put, more: true }));
    assert.ok(first.ok);
    assert.equal(first.value.change, null);
    assert.equal(first.value.assignments.tables.task.size, 0);
    const last = receive(first.value.assignments, set({}));
    assert.ok(last.ok);
    assert.deepEqual(last.value.change?.putTasks, [task]);
    assert.equal(last.value.assignments.tables.task.size, 1);
  });

  test('incrementals count up from the complete set; others are refused', () => {
    const whole = receive(noAssignments(), set({ put, sequence: 4 }));
    assert.ok(whole.ok);
    const { assignments } = whole.value;
    assert.equal(receive(assignments, set({ type: 'incremental', sequence: 6 })).ok, false);
    assert.equal(receive(noAssignments(), set({ type: 'incremental', sequence: 1 })).ok, false);
    const remove = [{ kind: 'task' as const, id: task.id }];
    const next = receive(assignments, set({ type: 'incremental', sequence: 5, remove }));
    assert.ok(next.ok);
    assert.deepEqual(next.value.change?.removedTasks, [task.id]);
    assert.equal(next.value.assignments.tables.task.size, 0);
  });

  test('a new session keeps everything until its complete set replaces it', () => {
    const whole = receive(noAssignments(), set({ put }));
    assert.ok(whole.ok);
    const begun = beginSession(whole.value.assignments);
    assert.equal(begun.tables.task.size, 1);
    assert.equal(receive(begun, set({ type: 'incremental', sequence: 1 })).ok, false);
    const fresh = receive(begun, set({}));
    assert.ok(fresh.ok);
    assert.equal(fresh.value.assignments.tables.task.size, 0);
  });

  test('a piece of another set is refused', () => {
    const first = receive(noAssignments(), set({ put, more: true }));
    assert.ok(first.ok);
    assert.equal(receive(first.value.assignments, set({ sequence: 1 })).ok, false);
  });
});

test('outbox: the newest status of a task, until that one is acknowledged', () => {
  const id = freshTaskId();
  const status = (message: string): TaskStatus => ({ state: 'running', at: 0, message, error: '' });
  let outbox = post(new Map(), id, status('one'));
  const sent = nextReport(outbox, 10);
  outbox = post(outbox, id, status('two'));
  outbox = acknowledge(outbox, sent);
  assert.equal(nextReport(outbox, 10)[0]?.status.message, 'two');
  assert.equal(acknowledge(outbox, nextReport(outbox, 10)).size, 0);
  assert.equal(forget(outbox, id).size, 0);
  assert.equal(nextReport(post(outbox, freshTaskId(), status('three')), 1).length, 1);
});

describe('health checks', () => {
  const plan: HealthPlan = {
    command: { kind: 'shell', line: 'true' },
    intervalMs: 100,
    timeoutMs: 10,
    startPeriodMs: 1_000,
    retries: 2,
  };
  const failed = { passed: false, output: 'no' };

  test('forms of a test', () => {
    assert.deepEqual(healthPlan(undefined), { ok: true, value: null });
    assert.deepEqual(healthPlan({ test: ['NONE'] }), { ok: true, value: null });
    const shell = healthPlan({ test: ['CMD-SHELL', 'a b'] });
    assert.ok(shell.ok);
    assert.deepEqual(shell.value?.command, { kind: 'shell', line: 'a b' });
    assert.deepEqual([shell.value?.intervalMs, shell.value?.retries], [30_000, 3]);
    for (const bad of [['CMD'], ['CMD-SHELL', 'a', 'b'], ['curl', 'x']])
      assert.equal(healthPlan({ test: bad }).ok, false);
  });

  test('failures of the start period do not count; after it, so many in a row do', () => {
    let state = initialHealth(plan, 0, 0);
    for (const at of [100, 500, 900]) state = afterCheck(plan, state, failed, at);
    assert.deepEqual([state.health, state.failures], ['starting', 0]);
    state = afterCheck(plan, state, failed, 1_000);
    assert.equal(state.health, 'starting');
    state = afterCheck(plan, state, failed, 1_100);
    assert.equal(state.health, 'unhealthy');
  });

  test('a success ends the start period and the count', () => {
    let state = afterCheck(plan, initialHealth(plan, 0, 0), { passed: true, output: '' }, 100);
    assert.deepEqual([state.health, state.nextAtMs], ['healthy', 200]);
    state = afterCheck(plan, state, failed, 200);
    state = afterCheck(plan, state, { passed: true, output: '' }, 300);
    state = afterCheck(plan, state, failed, 400);
    assert.equal(state.health, 'healthy');
    assert.equal(afterCheck(plan, state, failed, 500).health, 'unhealthy');
  });
});

describe('session messages', () => {
  test('what is well formed passes', () => {
    for (const message of [
      { kind: 'welcome', sessionId: 's', heartbeatMs: 1_000, managers: [] },
      { kind: 'managers', managers: [{ nodeId: 'n', address: 'a:1' }] },
      { kind: 'assignments', type: 'complete', sequence: 0, more: false, put: [], remove: [] },
    ]) {
      assert.equal(parseSessionMessage(message).ok, true);
    }
  });

  test('what is not is refused', () => {
    const task = makeTask();
    const item = { kind: 'task', id: 'another', value: task };
    for (const message of [
      null,
      {},
      { kind: 'welcome', sessionId: 's', heartbeatMs: 0, managers: [] },
      { kind: 'managers', managers: [{ nodeId: 1 }] },
      { kind: 'assignments', type: 'complete', sequence: 0, more: false, put: [item], remove: [] },
      { kind: 'assignments', type: 'complete', sequence: '0', more: false, put: [], remove: [] },
    ]) {
      assert.equal(parseSessionMessage(message).ok, false);
    }
    assert.equal(parseLogRequest({ taskId: 'x', follow: true, tail: -1, sinceMs: null }).ok, false);
    assert.equal(parseLogRequest({ taskId: 'x', follow: true, tail: 1, sinceMs: 5 }).ok, true);
  });
});

describe('worker store', () => {
  test('what was put is loaded; damaged files are set aside', async (t) => {
    const dataDir = await mkdtemp(join(tmpdir(), 'swarmd-store-'));
    t.after(() => rm(dataDir, { recursive: true, force: true }));
    const [task, gone] = [makeTask(), makeTask()];
    const store = new WorkerStore(dataDir, silentLogger);
    await store.load();
    for (const message of ['one', 'two']) store.putTask({ task, status: { ...task.status, message } });
    store.putTask({ task: gone, status: gone.status });
    store.removeTask(gone.id);
    store.putManagers([{ nodeId: 'n' as NodeId, address: 'a:1' }]);
    await store.flush();
    const folder = join(dataDir, 'worker', 'tasks');
    const broken = `${freshTaskId()}.json`;
    await writeFile(join(folder, broken), '{"task":');
    const loaded = await new WorkerStore(dataDir, silentLogger).load();
    assert.deepEqual(
      loaded.tasks.map((record) => [record.task.id, record.status.message]),
      [[task.id, 'two']],
    );
    assert.deepEqual(loaded.managers, [{ nodeId: 'n', address: 'a:1' }]);
    assert.deepEqual((await readdir(folder)).toSorted(), [`${task.id}.json`, `${broken}.corrupt`].toSorted());
    assert.equal(await readFile(join(folder, `${broken}.corrupt`), 'utf8'), '{"task":');
  });
});

test('users and groups by name and number', () => {
  const passwd = 'root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:34:www:/var/www:/bin/false\n';
  const group = 'root:x:0:\nwww-data:x:33:\nusers:x:100:\n';
  const resolve = (spec: string) => {
    const user = resolveUser(spec, passwd, group);
    return user.ok ? [user.value.uid, user.value.gid, user.value.home] : user.reason;
  };
  assert.deepEqual(resolve('www-data'), [33, 34, '/var/www']);
  assert.deepEqual(resolve('33'), [33, 34, '/var/www']);
  assert.deepEqual(resolve('www-data:users'), [33, 100, '/var/www']);
  assert.deepEqual(resolve('1234:5'), [1234, 5, '']);
  assert.match(String(resolve('nobody')), /nobody is not in/);
  assert.match(String(resolve('root:none')), /group none is not in/);
});

test('stop signals by any of their names', () => {
  for (const name of [undefined, '', 'TERM', 'sigterm', '15']) assert.equal(stopSignal(name), 'SIGTERM');
  assert.equal(stopSignal('SIGUSR1'), 'SIGUSR1');
  assert.throws(() => stopSignal('SIGNOPE'), { code: 'INVALID_ARGUMENT' });
});

test('limits as control groups write them', () => {
  const limits = { memoryBytes: 1_048_576, nanoCpus: 5e8, pids: 10 };
  assert.deepEqual(
    limitWrites(limits, 2).map(({ file, value }) => `${file}=${value}`),
    ['memory.max=1048576', 'cpu.max=50000 100000', 'pids.max=10'],
  );
  assert.deepEqual(
    limitWrites(limits, 1).map(({ file, value }) => `${file}=${value}`),
    ['memory.limit_in_bytes=1048576', 'cpu.cfs_period_us=100000', 'cpu.cfs_quota_us=50000', 'pids.max=10'],
  );
  assert.deepEqual(limitWrites({}, 2), []);
});

describe('output of processes', () => {
  test('a line has the time of the first note past its start', () => {
    const notes = [
      { offset: 10, atMs: 100 },
      { offset: 20, atMs: 200 },
    ];
    assert.deepEqual(
      [0, 9, 10, 19, 20].map((position) => timeAt(notes, position, 999)),
      [100, 100, 200, 200, 999],
    );
  });

  test('lines are whole until the end, and long ones come in pieces', () => {
    const text = Buffer.from('one\n\nthree');
    assert.deepEqual(
      cutLines(text, false).lines.map((line) => line.text),
      ['one', ''],
    );
    assert.equal(cutLines(text, false).used, 5);
    assert.deepEqual(
      cutLines(text, true).lines.map((line) => line.text),
      ['one', '', 'three'],
    );
    const long = Buffer.alloc(LOG_LINE_BYTES_MAX * 2 + 5, 'x');
    assert.deepEqual(
      cutLines(long, true).lines.map((line) => line.text.length),
      [LOG_LINE_BYTES_MAX, LOG_LINE_BYTES_MAX, 5],
    );
  });
});
