import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { createConnection, createServer, type Socket } from 'node:net';
import { WebSocket } from 'ws';
import { rpcPath } from '../../../src/rpc/client.ts';
import { createRpcCounters } from '../../../src/rpc/counters.ts';
import { encodeRecord, joinRecords, type RpcRecord } from '../../../src/rpc/frame.ts';
import type { RpcServer } from '../../../src/rpc/server.ts';
import type { RpcConnection, ServerCredentials } from '../../../src/rpc/types.ts';
import { asNode, createCluster, noHandlers, soon, type TestCluster, TestNet, until } from './cluster.ts';

const handlers = { ...noHandlers, calls: { echo: async (params: unknown) => params } };

describe('a hostile or dead peer', () => {
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

  async function rawSocket(server: RpcServer): Promise<WebSocket> {
    const { host, port } = server.address;
    const socket = new WebSocket(`wss://${host}:${port}${rpcPath}`, {
      cert: worker.certificatePem,
      key: worker.keyPem,
      rejectUnauthorized: false,
      perMessageDeflate: false,
    });
    socket.on('error', () => {});
    await new Promise((resolve) => socket.once('open', resolve));
    return socket;
  }
  const frameOf = (...records: RpcRecord[]): Buffer => joinRecords(records.map(encodeRecord));
  const raw = (kind: number, body: Buffer): Buffer => {
    const head = Buffer.alloc(5);
    head.writeUInt32BE(body.byteLength);
    head[4] = kind;
    return Buffer.concat([head, body]);
  };

  const garbage: readonly (readonly [string, Buffer | string])[] = [
    ['text', 'hello'],
    ['a cut head', Buffer.from([0, 0])],
    ['a length beyond the frame', Buffer.from([0, 0, 1, 0, 1, 0])],
    ['a length beyond the limit', Buffer.from([255, 255, 255, 255, 1])],
    ['an unknown kind', raw(99, Buffer.alloc(3))],
    ['a body that is no MessagePack', raw(1, Buffer.from([0xc1]))],
    ['an array that claims 2^32-1 items', raw(1, Buffer.from([0xdd, 255, 255, 255, 255]))],
    ['a map that claims 2^32-1 entries', raw(1, Buffer.from([0xdf, 255, 255, 255, 255]))],
    ['deep nesting', raw(1, Buffer.alloc(10_000, 0x91))],
    ['an extension', raw(1, Buffer.from([0xd4, 0x72, 0x40]))],
    ['bytes after the value', raw(1, Buffer.from([0x91, 1, 1]))],
    ['a number instead of an array', raw(1, Buffer.from([1]))],
    ['a call without method', raw(1, Buffer.from([0x92, 1, 2]))],
    ['a negative number', raw(4, Buffer.from([0x91, 0xff]))],
    ['a notification without name', raw(11, Buffer.alloc(0))],
    ['a notification with a cut name', raw(11, Buffer.from([9, 65]))],
    ['a stream message without stream', raw(10, Buffer.alloc(3))],
    ['a stream message for a NaN', raw(10, Buffer.from([0x7f, 0xf8, 0, 0, 0, 0, 0, 0, 1]))],
    ['an answer to no call', frameOf({ kind: 'answer', id: 5, value: 1 })],
    [
      'an error to no call',
      frameOf({ kind: 'call-error', id: 5, error: { code: 'X', message: '', details: {} } }),
    ],
    ['a message on no stream', frameOf({ kind: 'message', id: 7, value: Buffer.from([1]) })],
    [
      'a stream with the number of the other end',
      frameOf({ kind: 'open', id: 2, method: 'x', params: null }),
    ],
    [
      'a call number twice',
      frameOf(
        { kind: 'call', id: 1, method: 'echo', params: 1 },
        { kind: 'call', id: 1, method: 'echo', params: 1 },
      ),
    ],
  ];

  it('loses its connection for garbage, and no other connection notices', async () => {
    const counters = createRpcCounters();
    const server = await net.listen(manager, { handlers, counters });
    const good = await net.connect(server, asNode(worker));
    for (const [what, data] of garbage) {
      const socket = await rawSocket(server);
      const closed = new Promise<number>((resolve) => socket.once('close', resolve));
      socket.send(data);
      assert.equal(await closed, 1002, what);
      assert.equal(await good.call('echo', what, { signal: soon() }), what);
    }
    assert.equal(counters.protocolViolations, garbage.length);
    await until(() => [...server.connections()].length === 1, 'only the good connection is left');
  });

  it('loses its connection for a frame over the limit', async () => {
    const counters = createRpcCounters();
    const server = await net.listen(manager, { counters, limits: { messageBytesMax: 100_000 } });
    const socket = await rawSocket(server);
    const closed = new Promise<number>((resolve) => socket.once('close', resolve));
    socket.send(Buffer.alloc(200_000));
    assert.equal(await closed, 1009);
    assert.equal(counters.protocolViolations, 1);
  });

  it('loses its connection for a stream that ignores credit', async () => {
    let opened = 0;
    const server = await net.listen(manager, {
      limits: { streamWindowBytes: 1000 },
      handlers: {
        ...noHandlers,
        streams: {
          wait: (_params, _stream, context) => {
            opened++;
            return new Promise((resolve) => context.signal.addEventListener('abort', () => resolve()));
          },
        },
      },
    });
    const socket = await rawSocket(server);
    const closed = new Promise<number>((resolve) => socket.once('close', resolve));
    socket.send(frameOf({ kind: 'open', id: 1, method: 'wait', params: null }));
    for (let index = 0; index < 20; index++) {
      socket.send(
        frameOf({
          kind: 'message',
          id: 1,
          value: Buffer.concat([Buffer.from([0xc4, 98]), Buffer.alloc(98)]),
        }),
      );
    }
    assert.equal(await closed, 1002);
    assert.equal(opened, 1);
  });

  it('is cut when it floods with calls and never reads the answers', async () => {
    const counters = createRpcCounters();
    const limits = { sendBytesMax: 200_000, sendBytesCut: 400_000, pingIntervalMs: 60_000 };
    const server = await net.listen(manager, { handlers, counters, limits });
    const socket = await rawSocket(server);
    const gone = new Promise<void>((resolve) => socket.once('close', () => resolve()));
    socket.pause();
    let id = 0;
    const flood = setInterval(() => {
      for (let index = 0; index < 1000 && socket.bufferedAmount < 1_000_000; index++) {
        socket.send(frameOf({ kind: 'call', id: ++id, method: 'x'.repeat(200), params: null }));
      }
    }, 1);
    await until(() => counters.deadPeers === 1, 'the peer is cut');
    clearInterval(flood);
    socket.terminate();
    await gone;
  });

  it('is detected when it goes silent without closing', async () => {
    const server = await net.listen(manager, { handlers });
    const proxy = await createProxy(server.address.port);
    const counters = createRpcCounters();
    const limits = { pingIntervalMs: 20, pingTimeoutMs: 60 };
    const address = { host: '127.0.0.1', port: proxy.port };
    const client = await net.connect({ address }, asNode(worker), { limits, counters });
    assert.equal(await client.call('echo', 1, { signal: soon() }), 1);
    proxy.freeze();
    const call = client.call('echo', 2, { signal: soon() });
    await assert.rejects(call, { code: 'UNAVAILABLE', message: /silent for 60 ms/ });
    assert.match(await client.closed, /silent/);
    assert.equal(counters.deadPeers, 1);
    await proxy.close();
  });

  it('is not taken for dead while it is only idle', async () => {
    const accepted: RpcConnection[] = [];
    const limits = { pingIntervalMs: 5, pingTimeoutMs: 15 };
    const server = await net.listen(manager, {
      handlers,
      limits,
      onConnection: (connection) => accepted.push(connection),
    });
    const client = await net.connect(server, asNode(worker), { limits });
    let isClosed = false;
    void client.closed.then(() => {
      isClosed = true;
    });
    const startMs = performance.now();
    await until(() => performance.now() - startMs > 100, 'twenty intervals pass');
    assert.equal(isClosed, false);
    assert.equal(await client.call('echo', 1, { signal: soon() }), 1);
  });

  it('survives a stall of this process longer than the timeout', async () => {
    const limits = { pingIntervalMs: 10, pingTimeoutMs: 30 };
    const server = await net.listen(manager, { handlers, limits });
    const client = await net.connect(server, asNode(worker), { limits });
    const endMs = performance.now() + 150;
    while (performance.now() < endMs);
    assert.equal(await client.call('echo', 1, { signal: soon() }), 1);
  });
});

/** A TCP relay that can stop relaying without closing anything. */
async function createProxy(
  target: number,
): Promise<{ port: number; freeze(): void; close(): Promise<void> }> {
  const sockets: Socket[] = [];
  const server = createServer((inbound) => {
    const outbound = createConnection(target, '127.0.0.1');
    for (const socket of [inbound, outbound]) socket.on('error', () => {});
    inbound.pipe(outbound).pipe(inbound);
    sockets.push(inbound, outbound);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  return {
    port: address.port,
    freeze() {
      for (const socket of sockets) socket.unpipe().pause();
    },
    close() {
      for (const socket of sockets) socket.destroy();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}
