import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SwarmdError } from '../../../src/base/errors.ts';
import { serviceLogs } from '../../../src/manager/api/logs.ts';
import type { ChangeListener } from '../../../src/manager/state-machine.ts';
import type { ServiceLogRecord } from '../../../src/model/api.ts';
import type { NodeId, ServiceId } from '../../../src/model/ids.ts';
import type { LogRequest } from '../../../src/model/wire.ts';
import { aNode, aService, aServiceSpec, aTask } from '../../support/builders.ts';
import { aConnection, FakeStream, MemoryLog, peerOf } from '../../support/manager-fixtures.ts';
import { waitFor } from '../../support/wait.ts';

const quick = { timeoutMs: 2_000, everyMs: 1 };
const line = (text: string) => ({ stream: 'stdout', atMs: 1, line: text });

function setUp() {
  const log = new MemoryLog();
  const streams = new Map<string, FakeStream>();
  const requests: LogRequest[] = [];
  const listeners = new Set<ChangeListener>();
  const gone = new Set<string>();
  const abort = new AbortController();
  log.onApplied = (changes) => {
    for (const listener of listeners) listener(changes);
  };
  log.apply([
    { kind: 'create', table: 'service', object: aService('s1', { spec: aServiceSpec('web') }) },
    { kind: 'create', table: 'node', object: aNode('n1') },
    { kind: 'create', table: 'node', object: aNode('n2') },
  ]);
  const addTask = (id: string, nodeId = 'n1', state: Parameters<typeof aTask>[2] = 'running'): void => {
    log.apply([
      {
        kind: 'create',
        table: 'task',
        object: aTask(id, 's1', state, {
          nodeId: nodeId as NodeId,
          serviceAnnotations: { name: 'web', labels: {} },
        }),
      },
    ]);
  };
  const sources = {
    view: log.store,
    connectionOf: (nodeId: NodeId) =>
      gone.has(nodeId)
        ? null
        : aConnection(peerOf(nodeId), (_method, params, { signal }) => {
            const request = params as LogRequest;
            requests.push(request);
            const stream = new FakeStream();
            streams.set(request.taskId, stream);
            signal.addEventListener('abort', () => stream.finish(new SwarmdError('CANCELLED', 'given up')));
            return stream;
          }),
    subscribe: (listener: ChangeListener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  const read = (params: { follow?: boolean; ref?: string } = {}) =>
    serviceLogs(sources, { ref: 'web', follow: false, tail: 5, sinceMs: 9, ...params }, abort.signal);
  const collect = async (batches: AsyncIterable<ServiceLogRecord[]>, into: ServiceLogRecord[] = []) => {
    for await (const batch of batches) into.push(...batch);
    return into;
  };
  return { log, streams, requests, listeners, gone, abort, addTask, read, collect };
}

const textOf = (record: ServiceLogRecord): string => (record.kind === 'line' ? record.line : record.message);

describe('service logs', () => {
  it('merges the lines of every task that began, with where they come from', async () => {
    const it = setUp();
    it.addTask('t1');
    it.addTask('t2', 'n2');
    it.addTask('waiting', 'n2', 'assigned');
    it.addTask('placed-nowhere', '', 'failed');
    const all = it.collect(it.read());
    await waitFor('both streams', () => it.streams.size === 2, quick);
    // What a worker says of a line is only the line.
    it.streams.get('t1')?.push([line('one'), { ...line('two'), taskId: 'forged', kind: 'notice' }]);
    it.streams.get('t2')?.push(line('three'));
    it.streams.get('t1')?.finish();
    it.streams.get('t2')?.finish();
    const records = await all;
    assert.deepEqual(
      records
        .map((record) => [record.kind, record.taskId, record.nodeId, textOf(record)])
        .sort((a, b) => (String(a) < String(b) ? -1 : 1)),
      [
        ['line', 't1', 'n1', 'one'],
        ['line', 't1', 'n1', 'two'],
        ['line', 't2', 'n2', 'three'],
      ],
    );
    assert.deepEqual(it.requests[0], { taskId: 't1', follow: false, tail: 5, sinceMs: 9 });
    assert.equal(it.listeners.size, 0);
  });

  it('gives a notice for a node that cannot be reached or breaks off, and goes on', async () => {
    const it = setUp();
    it.addTask('t1');
    it.addTask('t2', 'n2');
    it.gone.add('n2');
    const all = it.collect(it.read());
    await waitFor('the stream', () => it.streams.size === 1, quick);
    it.streams.get('t1')?.push(line('one'));
    it.streams.get('t1')?.finish(new SwarmdError('UNAVAILABLE', 'the connection is lost'));
    assert.deepEqual((await all).map(textOf).sort(), [
      'one',
      'the logs of task t1 on node n1 ended: the connection is lost',
      'the logs of task t2 cannot be read: node n2 is not connected',
    ]);
  });

  it('reads one task by id, and says what is not found', async () => {
    const it = setUp();
    it.addTask('t1');
    it.addTask('t2');
    const all = it.collect(it.read({ ref: 't2' }));
    await waitFor('the stream', () => it.streams.has('t2'), quick);
    it.streams.get('t2')?.finish();
    await all;
    assert.equal(it.streams.size, 1);
    await assert.rejects(it.collect(it.read({ ref: 'wep' })), {
      code: 'NOT_FOUND',
      message: 'service wep not found; did you mean web?',
    });
  });

  it('keeps a bounded number of records for a reader that does not read', async () => {
    const it = setUp();
    it.addTask('t1');
    it.addTask('t2');
    const batches = it.read()[Symbol.asyncIterator]();
    const first = batches.next();
    await waitFor('both streams', () => it.streams.size === 2, quick);
    for (const stream of it.streams.values()) for (let i = 0; i < 5_000; i++) stream.push(line(`${i}`));
    await first;
    for (let i = 0; i < 10; i++) await new Promise((resolve) => setImmediate(resolve));
    const taken = [...it.streams.values()].reduce((sum, stream) => sum + stream.reads, 0);
    assert.ok(taken <= 1_000 + 2 + 10, `${taken} records were taken from the workers`);
    for (const stream of it.streams.values()) stream.finish();
    let rest = 0;
    for (let step = await batches.next(); step.done !== true; step = await batches.next())
      rest += step.value.length;
    assert.equal(rest + ((await first).value as unknown[]).length, 10_000, 'and loses none');
  });

  it('cuts batches by size', async () => {
    const it = setUp();
    it.addTask('t1');
    const batches = it.read()[Symbol.asyncIterator]();
    const first = batches.next();
    await waitFor('the stream', () => it.streams.size === 1, quick);
    it.streams.get('t1')?.push(Array.from({ length: 20 }, () => line('x'.repeat(100_000))));
    it.streams.get('t1')?.finish();
    for (let step = await first; step.done !== true; step = await batches.next())
      assert.ok(JSON.stringify(step.value).length < 500_000);
  });

  it('follows tasks made later, until it is aborted; then nothing is left', async () => {
    const it = setUp();
    it.addTask('t1');
    const records: ServiceLogRecord[] = [];
    const all = it.collect(it.read({ follow: true }), records);
    await waitFor('the stream', () => it.streams.size === 1, quick);
    it.streams.get('t1')?.push(line('one'));
    it.streams.get('t1')?.finish();
    await waitFor('the first line', () => records.length === 1, quick);
    it.addTask('t2', 'n2', 'assigned');
    it.log.apply([
      {
        kind: 'report-task',
        id: 't2' as never,
        nodeId: 'n2' as NodeId,
        status: { state: 'running', at: 1, message: '', error: '' },
      },
    ]);
    await waitFor('the second stream', () => it.streams.has('t2'), quick);
    it.streams.get('t2')?.push(line('two'));
    await waitFor('the second line', () => records.length === 2, quick);
    it.abort.abort();
    await all;
    assert.deepEqual(records.map(textOf), ['one', 'two'], 'no notice about the abort');
    assert.equal(it.listeners.size, 0);
    assert.equal(it.log.store.get('service', 's1' as ServiceId)?.id, 's1');
  });

  it('a reader that leaves ends the sources', async () => {
    const it = setUp();
    it.addTask('t1');
    const batches = it.read({ follow: true })[Symbol.asyncIterator]();
    const first = batches.next();
    await waitFor('the stream', () => it.streams.size === 1, quick);
    it.streams.get('t1')?.push(line('one'));
    await first;
    await batches.return?.(undefined);
    await it.streams.get('t1')?.closed;
    assert.equal(it.listeners.size, 0);
  });

  it('ends at once when it was aborted before', async () => {
    const it = setUp();
    it.addTask('t1');
    it.abort.abort();
    assert.deepEqual(await it.collect(it.read({ follow: true })), []);
  });
});
