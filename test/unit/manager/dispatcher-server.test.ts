import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { ManualClock } from '../../../src/base/clock.ts';
import { seededRandom } from '../../../src/base/random.ts';
import { DispatcherServer } from '../../../src/manager/dispatcher/server.ts';
import type { Action } from '../../../src/manager/state/actions.ts';
import type { NodeId } from '../../../src/model/ids.ts';
import type { SessionMessage } from '../../../src/model/wire.ts';
import { aCluster, aNode, aTask } from '../../support/builders.ts';
import {
  aConnection,
  aContext,
  FakeStream,
  type LogLine,
  MemoryLog,
  peerOf,
  recordingLogger,
} from '../../support/manager-fixtures.ts';
import { waitFor } from '../../support/wait.ts';

const quick = { timeoutMs: 2_000, everyMs: 1 };
const HEARTBEAT_MS = 1_000;

async function settle(): Promise<void> {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
}

let open: DispatcherServer[] = [];
afterEach(async () => {
  for (const server of open) await server.stop();
  open = [];
});

function setUp() {
  const log = new MemoryLog();
  log.apply([
    { kind: 'create', table: 'cluster', object: aCluster({ heartbeatMs: HEARTBEAT_MS }) },
    {
      kind: 'create',
      table: 'node',
      object: aNode('n1', { status: { state: 'unknown', message: '', address: '' } }),
    },
  ]);
  const clock = new ManualClock();
  const lines: LogLine[] = [];
  const server = new DispatcherServer({
    store: log.store,
    proposer: log,
    clock,
    random: seededRandom(1),
    log: recordingLogger(lines),
  });
  open.push(server);
  log.onApplied = (changes) => server.changed(changes);
  return { log, clock, server, lines };
}

const request = { description: aNode('host-of-n1').description, address: '', previousSession: '' };

/** Opens a session of a node; `ended` settles with it. */
function openSession({ server }: ReturnType<typeof setUp>, nodeId = 'n1', stream = new FakeStream()) {
  const leave = new AbortController();
  const context = aContext(aConnection(peerOf(nodeId)), leave.signal);
  const ended = server.session(request, stream, context).then(
    () => 'ended' as const,
    (error: Error & { code?: string }) => error,
  );
  const messages = stream.written as SessionMessage[];
  const welcome = async (): Promise<string> => {
    const first = await waitFor('the welcome', () => messages[0], quick);
    assert.ok(first.kind === 'welcome');
    return first.sessionId;
  };
  return { stream, context, ended, messages, welcome, leave };
}

const stateOf = (log: MemoryLog, id = 'n1'): string | undefined => log.store.get('node', id)?.status.state;

const task = (id: string): Action => ({
  kind: 'create',
  table: 'task',
  object: aTask(id, 's1', 'assigned', { nodeId: 'n1' as NodeId }),
});

describe('dispatcher server: sessions', () => {
  it('registers the node, welcomes it, and sends the whole and then the differences', async () => {
    const it = setUp();
    it.log.apply([task('t1')]);
    const session = openSession(it);
    await session.welcome();
    const sets = () => session.messages.filter((message) => message.kind === 'assignments');
    await waitFor('the whole', () => sets().length >= 1, quick);
    const node = it.log.store.get('node', 'n1');
    assert.equal(node?.status.state, 'ready');
    assert.equal(node?.status.address, '10.1.2.3', 'the address the leader saw');
    assert.equal(node?.description.hostname, 'host-of-n1');
    it.log.apply([task('t2')]);
    it.log.apply([task('t3')]);
    await waitFor('a difference', () => sets().length >= 2, quick);
    const [whole, difference] = sets();
    assert.ok(whole !== undefined && difference !== undefined);
    assert.deepEqual([whole.type, whole.put.map((item) => item.id)], ['complete', ['t1']]);
    assert.deepEqual(
      [difference.type, difference.sequence, difference.put.map((item) => item.id)],
      ['incremental', 2, ['t2', 't3']],
    );
    assert.notEqual(it.server.connectionOf('n1' as NodeId), null);
  });

  it('answers heartbeats of the current session only', async () => {
    const it = setUp();
    const session = openSession(it);
    const sessionId = await session.welcome();
    assert.deepEqual(it.server.heartbeat({ sessionId }, session.context), { heartbeatMs: HEARTBEAT_MS });
    for (const params of [{ sessionId: 'other' }, {}, null, 7]) {
      assert.throws(() => it.server.heartbeat(params, session.context), {
        code: 'FAILED_PRECONDITION',
        details: { reason: 'unknown-session' },
      });
    }
    assert.throws(() => it.server.heartbeat({ sessionId }, aContext(aConnection(null))), {
      code: 'UNAUTHENTICATED',
    });
  });

  it('refuses an unknown node and a malformed request', async () => {
    const it = setUp();
    const unknown = await openSession(it, 'n9').ended;
    assert.ok(unknown !== 'ended');
    assert.equal(unknown.code, 'NOT_FOUND');
    assert.match(unknown.message, /swarmd leave --force/);
    const context = aContext(aConnection(peerOf('n1')));
    for (const params of [null, {}, { description: null }, { description: { hostname: 7 } }]) {
      await assert.rejects(it.server.session(params, new FakeStream(), context), {
        code: 'INVALID_ARGUMENT',
      });
    }
    assert.equal(stateOf(it.log), 'unknown');
  });

  it('keeps of a description only what it knows, bounded', async () => {
    const it = setUp();
    const strange = {
      ...request,
      description: {
        ...request.description,
        hostname: 'h'.repeat(10_000),
        engineLabels: undefined,
        plugins: [null, { type: 'Volume', name: 'local', junk: 'x' }],
        runtimes: ['docker', 'rocket'],
        resources: { nanoCpus: Number.NaN, memoryBytes: -5, generic: { gpu: 2, bad: 'x' } },
        junk: 'x'.repeat(100_000),
      },
    };
    const stream = new FakeStream();
    void it.server.session(strange, stream, aContext(aConnection(peerOf('n1'))));
    await waitFor('the welcome', () => stream.written.length > 0, quick);
    const description = it.log.store.get('node', 'n1')?.description;
    assert.equal(description?.hostname.length, 255);
    assert.deepEqual(description?.engineLabels, {});
    assert.deepEqual(description?.runtimes, ['docker']);
    assert.deepEqual(description?.resources, { nanoCpus: 0, memoryBytes: 0, generic: { gpu: 2, bad: 0 } });
    assert.deepEqual(description?.plugins[1], { type: 'Volume', name: 'local' });
    assert.ok(!('junk' in (description ?? {})));
  });

  it('a newer session ends the older one; a late older one does not end the newer', async () => {
    const it = setUp();
    const first = openSession(it);
    await first.welcome();
    const second = openSession(it);
    const sessionId = await second.welcome();
    assert.equal(await first.ended, 'ended');
    // The worker gave up this attempt while its registration was on its way.
    const late = openSession(it);
    late.leave.abort(new Error('gone'));
    const outcome = await late.ended;
    assert.ok(outcome !== 'ended');
    assert.equal(outcome.code, 'CANCELLED');
    assert.deepEqual(it.server.heartbeat({ sessionId }, second.context), { heartbeatMs: HEARTBEAT_MS });
    assert.notEqual(it.server.connectionOf('n1' as NodeId), null);
  });

  it('ends with the stream or the connection of the worker', async () => {
    const it = setUp();
    const first = openSession(it);
    await first.welcome();
    first.stream.finish();
    assert.equal(await first.ended, 'ended');
    const second = openSession(it);
    await second.welcome();
    second.leave.abort(new Error('connection lost'));
    assert.equal(await second.ended, 'ended');
    assert.equal(it.server.connectionOf('n1' as NodeId), null);
  });

  it('ends when the node is removed, and says so', async () => {
    const it = setUp();
    const session = openSession(it);
    await session.welcome();
    it.log.apply([{ kind: 'delete', table: 'node', id: 'n1', expect: null }]);
    const outcome = await session.ended;
    assert.ok(outcome !== 'ended');
    assert.match(outcome.message, /was removed/);
  });

  it('ends with leadership, also one that was just opening; and leaves no timer', async () => {
    const it = setUp();
    const session = openSession(it);
    await session.welcome();
    const { promise: held, resolve: release } = Promise.withResolvers<void>();
    it.log.apply([
      {
        kind: 'create',
        table: 'node',
        object: aNode('n2', { status: { state: 'down', message: '', address: '' } }),
      },
    ]);
    it.log.before = () => held;
    const opening = openSession(it, 'n2');
    await settle();
    const stopped = it.server.stop();
    assert.equal(await session.ended, 'ended');
    release();
    await stopped;
    const outcome = await opening.ended;
    assert.ok(outcome !== 'ended');
    assert.match(outcome.message, /not the leader any more/);
    it.clock.advance(3_600_000);
    await settle();
    assert.deepEqual(
      it.lines.filter((line) => line.level === 'warn'),
      [],
    );
  });
});

describe('dispatcher server: slow workers', () => {
  it('gathers differences while the worker is busy: memory is bounded by the objects, not the changes', async () => {
    const it = setUp();
    const session = openSession(it);
    await session.welcome();
    await settle();
    session.stream.accepts = false;
    const taken = session.messages.length;
    it.log.apply([task('t1')]);
    await settle();
    for (let i = 0; i < 500; i++) {
      it.log.apply([
        { kind: 'patch-task', id: 't1' as never, patch: { endpointPorts: [] }, expect: null },
        task(`more-${i}`),
      ]);
      if (i % 100 === 0) await settle();
    }
    session.stream.drain();
    await waitFor('the rest', () => session.messages.length >= taken + 2, quick);
    await settle();
    const rest = session.messages.slice(taken);
    assert.ok(rest.length <= 5, `${rest.length} messages`);
    const sequences = rest.map((message) => (message.kind === 'assignments' ? message.sequence : 0));
    // One on its way, one waiting, and everything after that as one.
    assert.deepEqual([...new Set(sequences)], [2, 3, 4]);
    const ids = new Set(
      rest.flatMap((message) => (message.kind === 'assignments' ? message.put.map((item) => item.id) : [])),
    );
    assert.equal(ids.size, 501);
  });

  it('ends the session of a worker that takes nothing for too long', async () => {
    const it = setUp();
    const session = openSession(it);
    const sessionId = await session.welcome();
    await settle();
    session.stream.accepts = false;
    it.log.apply([task('t1')]);
    await settle();
    // It is alive, and does not read.
    for (let i = 0; i < 15; i++) {
      it.server.heartbeat({ sessionId }, session.context);
      it.clock.advance(2_000);
    }
    const outcome = await session.ended;
    assert.ok(outcome !== 'ended');
    assert.equal(outcome.code, 'RESOURCE_EXHAUSTED');
    assert.equal(it.server.connectionOf('n1' as NodeId), null);
  });
});

describe('dispatcher server: status reports', () => {
  const report = (sessionId: string, taskId: string, status: object = {}) => ({
    sessionId,
    updates: [{ taskId, status: { state: 'running', at: 5, message: 'started', error: '', ...status } }],
  });

  it('answers once the report is committed', async () => {
    const it = setUp();
    it.log.apply([task('t1')]);
    const session = openSession(it);
    const sessionId = await session.welcome();
    const { promise: held, resolve: release } = Promise.withResolvers<void>();
    it.log.before = () => held;
    let answered = false;
    const answer = it.server.status(report(sessionId, 't1'), session.context).then(() => {
      answered = true;
    });
    await settle();
    assert.equal(answered, false);
    assert.equal(it.log.store.get('task', 't1')?.status.state, 'assigned');
    release();
    await answer;
    assert.equal(it.log.store.get('task', 't1')?.status.state, 'running');
  });

  it('gathers the reports that come while one is on its way', async () => {
    const it = setUp();
    it.log.apply([task('t1'), task('t2'), task('t3')]);
    const session = openSession(it);
    const sessionId = await session.welcome();
    const before = it.log.batches.length;
    await Promise.all(
      ['t1', 't2', 't3'].map((id) => it.server.status(report(sessionId, id), session.context)),
    );
    assert.ok(it.log.batches.length - before <= 2);
    await it.server.status({ sessionId, updates: [] }, session.context);
  });

  it('refuses a malformed report whole, and one of another session', async () => {
    const it = setUp();
    it.log.apply([task('t1')]);
    const session = openSession(it);
    const sessionId = await session.welcome();
    const good = report(sessionId, 't1').updates[0];
    const bad: unknown[] = [
      null,
      {},
      { taskId: 't1', status: null },
      { taskId: 7, status: good?.status },
      ...[
        { state: 'flying' },
        { state: 'assigned' },
        { state: 'orphaned' },
        { at: Number.NaN },
        { message: 7 },
        { error: undefined },
      ].map((status) => report(sessionId, 't1', status).updates[0]),
    ];
    for (const update of bad) {
      await assert.rejects(it.server.status({ sessionId, updates: [good, update] }, session.context), {
        code: 'INVALID_ARGUMENT',
      });
    }
    await assert.rejects(it.server.status({ sessionId, updates: 'x' }, session.context), {
      code: 'INVALID_ARGUMENT',
    });
    for (const params of [report('other', 't1'), null]) {
      await assert.rejects(it.server.status(params, session.context), {
        details: { reason: 'unknown-session' },
      });
    }
    assert.equal(it.log.store.get('task', 't1')?.status.state, 'assigned');
  });

  it('keeps of a status only what it knows, with bounded texts and ports that can be', async () => {
    const it = setUp();
    it.log.apply([task('t1')]);
    const session = openSession(it);
    const sessionId = await session.welcome();
    const port = { protocol: 'tcp', targetPort: 80, hostPort: 30_000 };
    const status = {
      message: 'm'.repeat(100_000),
      error: 'e'.repeat(100_000),
      junk: 'x'.repeat(100_000),
      ports: [{ ...port, junk: 1 }, { ...port, hostPort: 70_000 }, null],
      container: { containerId: 'abc', pid: 7, exitCode: 0, junk: 1 },
      healthy: true,
    };
    await it.server.status(report(sessionId, 't1', status), session.context);
    const kept = it.log.store.get('task', 't1')?.status;
    assert.deepEqual([kept?.message.length, kept?.error.length], [1_024, 1_024]);
    assert.deepEqual(kept?.ports, [port]);
    assert.deepEqual(kept?.container, { containerId: 'abc', pid: 7, exitCode: 0 });
    assert.ok(!('junk' in (kept ?? {})));
  });

  it('lets the worker send again what was not taken, also when the log breaks', async () => {
    const it = setUp();
    it.log.apply([task('t1')]);
    const session = openSession(it);
    const sessionId = await session.welcome();
    it.log.answers.push({ kind: 'unavailable', reason: 'busy' });
    await assert.rejects(it.server.status(report(sessionId, 't1'), session.context), {
      code: 'UNAVAILABLE',
      message: /send it again/,
    });
    it.log.before = () => {
      it.log.before = () => Promise.resolve();
      return Promise.reject(new Error('broken'));
    };
    await assert.rejects(it.server.status(report(sessionId, 't1'), session.context), /broken/);
    await it.server.status(report(sessionId, 't1'), session.context);
    assert.equal(it.log.store.get('task', 't1')?.status.state, 'running');
  });
});

describe('dispatcher server: nodes that go and return', () => {
  it('marks a silent node down, and ready when it returns', async () => {
    const it = setUp();
    const session = openSession(it);
    const sessionId = await session.welcome();
    it.clock.advance(2 * HEARTBEAT_MS);
    it.server.heartbeat({ sessionId }, session.context);
    it.clock.advance(2 * HEARTBEAT_MS);
    await settle();
    assert.equal(stateOf(it.log), 'ready');
    it.clock.advance(HEARTBEAT_MS);
    await waitFor('down', () => stateOf(it.log) === 'down', quick);
    assert.equal(await session.ended, 'ended');
    assert.equal(it.log.store.get('node', 'n1')?.status.since, 5 * HEARTBEAT_MS);
    await openSession(it).welcome();
    assert.equal(stateOf(it.log), 'ready');
  });

  it('marks a node down that never came after a change of leader', async () => {
    const it = setUp();
    it.clock.advance(5 * HEARTBEAT_MS);
    await waitFor('down', () => stateOf(it.log) === 'down', quick);
  });

  it('marks it down later when the log is not available', async () => {
    const it = setUp();
    it.log.answers.push({ kind: 'unavailable', reason: 'busy' }, { kind: 'unknown', reason: 'lost' });
    it.clock.advance(5 * HEARTBEAT_MS);
    await settle();
    assert.equal(stateOf(it.log), 'unknown');
    it.clock.advance(HEARTBEAT_MS);
    await settle();
    it.clock.advance(HEARTBEAT_MS);
    await waitFor('down', () => stateOf(it.log) === 'down', quick);
  });

  it('a return is not overtaken by the "down" that was already on its way', async () => {
    const it = setUp();
    const first = openSession(it);
    await first.welcome();
    const { promise: held, resolve: release } = Promise.withResolvers<void>();
    it.log.before = () => held;
    it.clock.advance(3 * HEARTBEAT_MS);
    await settle();
    // The node is still "ready" in the state here: the mark waits in the log.
    const second = openSession(it);
    await settle();
    release();
    it.log.before = () => Promise.resolve();
    const sessionId = await second.welcome();
    await settle();
    assert.equal(stateOf(it.log), 'ready');
    assert.deepEqual(it.server.heartbeat({ sessionId }, second.context), { heartbeatMs: HEARTBEAT_MS });
  });
});
