import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { SwarmdError } from '../../../src/base/errors.ts';
import type {
  RpcConnection,
  RpcContext,
  RpcStream,
  RpcStreamHandler,
  ServerCredentials,
} from '../../../src/rpc/types.ts';
import { asNode, createCluster, noHandlers, soon, type TestCluster, TestNet, until } from './cluster.ts';

describe('streams', () => {
  let cluster: TestCluster;
  let manager: ServerCredentials;
  let worker: ServerCredentials;
  let net = new TestNet();
  before(async () => {
    cluster = await createCluster('cluster1');
    manager = await cluster.issue('m1', 'manager');
    worker = await cluster.issue('w1', 'worker');
  });
  afterEach(async () => {
    await net.stop();
    net = new TestNet();
  });
  after(() => net.stop());

  const streams = (handlers: Record<string, RpcStreamHandler>) => ({
    handlers: { ...noHandlers, streams: handlers },
  });
  async function serve(handlers: Record<string, RpcStreamHandler>, limits = {}): Promise<RpcConnection> {
    const server = await net.listen(manager, { ...streams(handlers), limits });
    return net.connect(server, asNode(worker), { limits });
  }
  async function collect(stream: RpcStream): Promise<unknown[]> {
    const all: unknown[] = [];
    for await (const message of stream) all.push(message);
    return all;
  }

  it('carry messages both ways until each end ends', async () => {
    const client = await serve({
      double: async (params, stream) => {
        for await (const message of stream) await stream.write((message as number) * (params as number));
      },
    });
    const stream = client.openStream('double', 2, { signal: soon() });
    const answers = collect(stream);
    for (let index = 0; index < 1000; index++) await stream.write(index);
    stream.end();
    assert.deepEqual(
      await answers,
      Array.from({ length: 1000 }, (_, index) => index * 2),
    );
    await stream.closed;
    await assert.rejects(stream.write(1), { code: 'FAILED_PRECONDITION' });
  });

  it('go from server to client too', async () => {
    const accepted: RpcConnection[] = [];
    const server = await net.listen(manager, { onConnection: (connection) => accepted.push(connection) });
    await net.connect(
      server,
      asNode(worker),
      streams({ logs: async (_params, stream) => stream.write('line') }),
    );
    const stream = accepted[0]?.openStream('logs', null, { signal: soon() });
    assert.ok(stream);
    assert.deepEqual(await collect(stream), ['line']);
  });

  it('hold a fast writer back while the reader is slow', async () => {
    let written = 0;
    const client = await serve(
      {
        flood: async (_params, stream) => {
          for (let index = 0; index < 2000; index++) {
            await stream.write(new Uint8Array(10_000));
            written++;
          }
        },
      },
      { streamWindowBytes: 100_000 },
    );
    const stream = client.openStream('flood', null, { signal: soon() });
    const reader = stream[Symbol.asyncIterator]();
    let readMessages = 0;
    let mostAhead = 0;
    while (!(await reader.next()).done) {
      readMessages++;
      mostAhead = Math.max(mostAhead, written - readMessages);
    }
    assert.equal(readMessages, 2000);
    assert.ok(mostAhead <= 11, `at most the window of 10 messages and one more is unread, was ${mostAhead}`);
  });

  it('hold a fast client back too, and not the other streams and calls of the connection', async () => {
    const readers: RpcStream[] = [];
    const server = await net.listen(manager, {
      handlers: {
        ...noHandlers,
        calls: { echo: async (params) => params },
        streams: {
          stuck: async (_params, stream, context) => {
            readers.push(stream);
            await new Promise<void>((resolve) => context.signal.addEventListener('abort', () => resolve()));
          },
          echo: async (_params, stream) => {
            for await (const message of stream) await stream.write(message);
          },
        },
      },
    });
    const client = await net.connect(server, asNode(worker));
    const stuck = client.openStream('stuck', null, { signal: soon() });
    let written = 0;
    const writing = (async () => {
      for (;;) {
        await stuck.write(new Uint8Array(50_000));
        written++;
      }
    })();
    const refused = assert.rejects(writing, { code: 'CANCELLED' });
    const other = client.openStream('echo', null, { signal: soon() });
    const otherMessages = collect(other);
    for (let index = 0; index < 100; index++) {
      await other.write(index);
      assert.equal(await client.call('echo', index, { signal: soon() }), index);
    }
    other.end();
    assert.equal((await otherMessages).length, 100);
    assert.ok(written <= 6, `the window is 256 KiB, written were ${written} messages of 50 kB`);
    stuck.destroy();
    await refused;
  });

  it('move messages larger than the window', async () => {
    const client = await serve(
      {
        large: async (_params, stream) => {
          for (let index = 0; index < 5; index++) await stream.write(new Uint8Array(1_000_000));
        },
      },
      { streamWindowBytes: 1000 },
    );
    const sizes = (await collect(client.openStream('large', null, { signal: soon() }))).map(
      (message) => (message as Uint8Array).byteLength,
    );
    assert.deepEqual(
      sizes,
      [1, 1, 1, 1, 1].map(() => 1_000_000),
    );
  });

  it('end with the error of the handler, after what it wrote', async () => {
    const client = await serve({
      fail: async (_params, stream) => {
        await stream.write(1);
        await stream.write(2);
        throw new SwarmdError('NOT_FOUND', 'no such task', { details: { id: 't' } });
      },
    });
    const seen: unknown[] = [];
    const stream = client.openStream('fail', null, { signal: soon() });
    await assert.rejects(
      async () => {
        for await (const message of stream) seen.push(message);
      },
      { code: 'NOT_FOUND', message: 'no such task', details: { id: 't' } },
    );
    assert.deepEqual(seen, [1, 2]);
    await stream.closed;
  });

  it('tell the handler when the opener gives up, leaves its loop or aborts', async () => {
    const contexts: RpcContext[] = [];
    const failures: unknown[] = [];
    const client = await serve({
      forever: async (_params, stream, context) => {
        contexts.push(context);
        try {
          for (let index = 0; ; index++) await stream.write(index);
        } catch (error) {
          failures.push((error as SwarmdError).code);
        }
      },
    });
    for await (const message of client.openStream('forever', null, { signal: soon() })) {
      if (message === 10) break;
    }
    const controller = new AbortController();
    const aborted = client.openStream('forever', null, { signal: controller.signal });
    await aborted[Symbol.asyncIterator]().next();
    controller.abort();
    await assert.rejects(collect(aborted), { code: 'CANCELLED' });
    await until(() => failures.length === 2 && contexts.every((context) => context.signal.aborted), 'told');
    assert.deepEqual(failures, ['CANCELLED', 'CANCELLED']);
  });

  it('end with UNAVAILABLE when the connection is lost', async () => {
    const failures: unknown[] = [];
    const client = await serve({
      wait: async (_params, stream) => {
        try {
          await collect(stream);
        } catch (error) {
          failures.push((error as SwarmdError).code);
        }
      },
    });
    const stream = client.openStream('wait', null, { signal: soon() });
    await stream.write(1);
    const reading = collect(stream);
    client.close('bye');
    await assert.rejects(reading, { code: 'UNAVAILABLE' });
    await until(() => failures.length === 1, 'the handler was told');
    assert.deepEqual(failures, ['UNAVAILABLE']);
    await assert.rejects(collect(client.openStream('wait', null, { signal: soon() })), {
      code: 'UNAVAILABLE',
    });
  });

  it('are refused in the stream: unknown method, too many, too large, aborted', async () => {
    const client = await serve(
      {
        hang: async (_params, _stream, context) => {
          await new Promise<void>((resolve) => context.signal.addEventListener('abort', () => resolve()));
        },
      },
      { streamsOpenMax: 2, messageBytesMax: 1000 },
    );
    const open = (method: string, params: unknown = null) =>
      client.openStream(method, params, { signal: soon() });
    await assert.rejects(collect(open('nobody')), { code: 'INVALID_ARGUMENT' });
    await assert.rejects(collect(open('hang', new Uint8Array(2000))), { code: 'RESOURCE_EXHAUSTED' });
    await assert.rejects(collect(client.openStream('hang', null, { signal: AbortSignal.abort() })), {
      code: 'CANCELLED',
    });
    const first = open('hang');
    const second = open('hang');
    await assert.rejects(collect(open('hang')), { code: 'RESOURCE_EXHAUSTED', message: /streamsOpenMax/ });
    await assert.rejects(first.write(new Uint8Array(2000)), {
      code: 'RESOURCE_EXHAUSTED',
      message: /messageBytesMax/,
    });
    await first.write('still open');
    first.destroy();
    second.destroy();
    await first.closed;
  });

  it('cancel one write and keep the order of the others', async () => {
    const received: unknown[] = [];
    let read: (() => void) | null = null;
    const client = await serve(
      {
        late: async (_params, stream) => {
          await new Promise<void>((resolve) => {
            read = resolve;
          });
          for await (const message of stream) received.push((message as Uint8Array)[0]);
        },
      },
      { streamWindowBytes: 1000 },
    );
    const stream = client.openStream('late', null, { signal: soon() });
    await stream.write(new Uint8Array(2000).fill(1));
    const controller = new AbortController();
    const second = stream.write(new Uint8Array(2000).fill(2), controller.signal);
    const third = stream.write(new Uint8Array(2000).fill(3));
    const fourth = stream.write(new Uint8Array(2000).fill(4));
    stream.end();
    controller.abort();
    await assert.rejects(second, { code: 'CANCELLED' });
    await until(() => read !== null, 'the handler waits');
    (read as unknown as () => void)();
    await Promise.all([third, fourth]);
    await stream.closed;
    assert.deepEqual(received, [1, 3, 4]);
  });
});
