import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { SwarmdError } from '../../../src/base/errors.ts';
import { rootDigest } from '../../../src/pki/join-token.ts';
import { createRpcCounters } from '../../../src/rpc/counters.ts';
import type {
  RpcCallHandler,
  RpcConnection,
  RpcContext,
  RpcNotificationHandler,
  ServerCredentials,
} from '../../../src/rpc/types.ts';
import { asNode, createCluster, noHandlers, soon, type TestCluster, TestNet, until } from './cluster.ts';

describe('calls and notifications', () => {
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

  const calls = (handlers: Record<string, RpcCallHandler>) => ({
    handlers: { ...noHandlers, calls: handlers },
  });
  const notifications = (handlers: Record<string, RpcNotificationHandler>) => ({
    handlers: { ...noHandlers, notifications: handlers },
  });
  /** A handler that waits until its signal aborts. */
  const hang =
    (seen: RpcContext[]): RpcCallHandler =>
    (_params, context) => {
      seen.push(context);
      return new Promise((_resolve, reject) => {
        context.signal.addEventListener('abort', () => reject(context.signal.reason as Error));
      });
    };

  it('carry plain data both ways, many at once, from either end', async () => {
    const accepted: RpcConnection[] = [];
    const echo = calls({ echo: async (params) => params });
    const server = await net.listen(manager, {
      ...echo,
      onConnection: (connection) => accepted.push(connection),
    });
    const client = await net.connect(server, asNode(worker), echo);
    const value = {
      text: 'ü',
      list: [1, -2, 3.5, null, true],
      bytes: new Uint8Array([0, 255]),
      big: 2 ** 40,
      nested: { a: {} },
    };
    const back = (await client.call('echo', value, { signal: soon() })) as typeof value;
    assert.deepEqual({ ...back, bytes: [...back.bytes] }, { ...value, bytes: [0, 255] });
    assert.equal(await client.call('echo', undefined, { signal: soon() }), undefined);
    const answers = await Promise.all(
      Array.from({ length: 500 }, (_, index) => client.call('echo', index, { signal: soon() })),
    );
    assert.deepEqual(
      answers,
      Array.from({ length: 500 }, (_, index) => index),
    );
    assert.equal(await accepted[0]?.call('echo', 'from the server', { signal: soon() }), 'from the server');
  });

  it('reject with the code, message and details of the handler', async () => {
    const server = await net.listen(
      manager,
      calls({
        fail: async () => {
          throw new SwarmdError('CONFLICT', 'read it again', { details: { version: 7 } });
        },
        defect: () => {
          throw new TypeError('x is not a function');
        },
      }),
    );
    const client = await net.connect(server, asNode(worker));
    await assert.rejects(client.call('fail', null, { signal: soon() }), {
      name: 'SwarmdError',
      code: 'CONFLICT',
      message: 'read it again',
      details: { version: 7 },
    });
    await assert.rejects(client.call('defect', null, { signal: soon() }), { code: 'INTERNAL' });
    for (const unknown of ['nobody', 'toString', '__proto__']) {
      await assert.rejects(client.call(unknown, null, { signal: soon() }), {
        code: 'INVALID_ARGUMENT',
        message: /serves no call/,
      });
    }
    await assert.rejects(client.call('', null, { signal: soon() }), { code: 'INVALID_ARGUMENT' });
  });

  it('cancel the handler when the caller gives up or runs out of time', async () => {
    const seen: RpcContext[] = [];
    const server = await net.listen(manager, calls({ hang: hang(seen) }));
    const client = await net.connect(server, asNode(worker));
    const controller = new AbortController();
    const call = client.call('hang', null, { signal: controller.signal });
    await until(() => seen.length === 1, 'the handler runs');
    controller.abort();
    await assert.rejects(call, { code: 'CANCELLED' });
    await assert.rejects(client.call('hang', null, { signal: soon(), timeoutMs: 20 }), {
      code: 'TIMEOUT',
      message: /"hang".*w1|"hang" to manager m1 at .* within 20 ms/,
    });
    await until(() => seen.length === 2 && seen.every((context) => context.signal.aborted), 'both were told');
    await assert.rejects(client.call('hang', null, { signal: AbortSignal.abort() }), { code: 'CANCELLED' });
    assert.equal(seen.length, 2, 'a call cancelled before it began is not sent');
  });

  it('end with UNAVAILABLE when the connection is lost, on both ends', async () => {
    const seen: RpcContext[] = [];
    const server = await net.listen(manager, calls({ hang: hang(seen) }));
    const client = await net.connect(server, asNode(worker));
    const call = client.call('hang', null, { signal: soon() });
    await until(() => seen.length === 1, 'the handler runs');
    seen[0]?.connection.close('maintenance');
    await assert.rejects(call, { code: 'UNAVAILABLE', message: /m1 .*the peer closed it: maintenance/ });
    const reason: unknown = seen[0]?.signal.reason;
    assert.ok(reason instanceof SwarmdError);
    assert.equal(reason.code, 'UNAVAILABLE');
    assert.match(await client.closed, /maintenance/);
    await assert.rejects(client.call('hang', null, { signal: soon() }), { code: 'UNAVAILABLE' });
    assert.equal(client.notify('x', new Uint8Array(1)), false);
    client.close('again');
  });

  it('are bounded in number, on the side that makes and on the side that serves them', async () => {
    const seen: RpcContext[] = [];
    const server = await net.listen(manager, {
      ...calls({ hang: hang(seen) }),
      limits: { callsInFlightMax: 3 },
    });
    const client = await net.connect(server, asNode(worker), { limits: { callsInFlightMax: 4 } });
    const controller = new AbortController();
    const three = [1, 2, 3].map(() => client.call('hang', null, { signal: controller.signal }));
    const settled = Promise.allSettled(three);
    await assert.rejects(client.call('hang', null, { signal: soon() }), {
      code: 'RESOURCE_EXHAUSTED',
      message: /was not served.*limit of 3 \(callsInFlightMax\)/,
    });
    const fourth = client.call('hang', null, { signal: soon() });
    await assert.rejects(client.call('hang', null, { signal: soon() }), {
      code: 'RESOURCE_EXHAUSTED',
      message: /was not sent.*limit of 4/,
    });
    await assert.rejects(fourth, { code: 'RESOURCE_EXHAUSTED' });
    controller.abort();
    await settled;
    await until(() => seen.every((context) => context.signal.aborted), 'the handlers were told');
    assert.equal(seen.length, 3);
  });

  it('refuse messages over the size limit by name and stay usable', async () => {
    const limits = { messageBytesMax: 1000 };
    const answers = calls({
      size: async (params) => new Uint8Array(params as number),
      echo: async (params) => params,
    });
    const server = await net.listen(manager, { ...answers, limits });
    const client = await net.connect(server, asNode(worker), { limits });
    const tooLarge = { code: 'RESOURCE_EXHAUSTED', message: /over the limit of 1000 \(messageBytesMax\)/ };
    await assert.rejects(client.call('echo', new Uint8Array(1001), { signal: soon() }), tooLarge);
    await assert.rejects(client.call('size', 1001, { signal: soon() }), tooLarge);
    assert.equal(client.notify('x', new Uint8Array(1001)), false);
    assert.equal(((await client.call('size', 900, { signal: soon() })) as Uint8Array).byteLength, 900);
  });

  it('refuse what is not plain data', async () => {
    const server = await net.listen(manager);
    const client = await net.connect(server, asNode(worker));
    const cyclic: Record<string, unknown> = {};
    cyclic['self'] = cyclic;
    await assert.rejects(client.call('x', cyclic, { signal: soon() }), { code: 'INVALID_ARGUMENT' });
  });

  it('carry a message of the full default size', async () => {
    const server = await net.listen(
      manager,
      calls({ size: async (params) => (params as Uint8Array).byteLength }),
    );
    const client = await net.connect(server, asNode(worker));
    const bytes = 4 * 1024 * 1024 - 64;
    assert.equal(await client.call('size', new Uint8Array(bytes), { signal: soon() }), bytes);
  });

  it('give a client without a certificate little', async () => {
    const seen: RpcContext[] = [];
    const server = await net.listen(manager, calls({ hang: hang(seen), echo: async (params) => params }));
    const client = await net.connect(server, { kind: 'pinned-root', digest: rootDigest(cluster.rootPem) });
    assert.equal(await client.call('echo', 'csr', { signal: soon() }), 'csr');
    await assert.rejects(client.call('echo', new Uint8Array(70_000), { signal: soon() }), {
      code: 'RESOURCE_EXHAUSTED',
    });
    const controller = new AbortController();
    const four = Promise.allSettled(
      [1, 2, 3, 4].map(() => client.call('hang', null, { signal: controller.signal })),
    );
    await assert.rejects(client.call('echo', 1, { signal: soon() }), { code: 'RESOURCE_EXHAUSTED' });
    controller.abort();
    await four;
    const stream = client.openStream('logs', null, { signal: soon() });
    await assert.rejects(stream[Symbol.asyncIterator]().next(), { code: 'RESOURCE_EXHAUSTED' });
  });

  it('deliver 10,000 notifications in order, in far fewer frames', async () => {
    const received: number[] = [];
    const server = await net.listen(
      manager,
      notifications({
        raft: (data) => received.push(Buffer.from(data).readUInt32BE(0)),
      }),
    );
    const client = await net.connect(server, asNode(worker));
    for (let index = 0; index < 10_000; index++) {
      const data = Buffer.alloc(200);
      data.writeUInt32BE(index);
      assert.equal(client.notify('raft', data), true);
    }
    await until(() => received.length === 10_000, 'all notifications');
    assert.deepEqual(
      received,
      Array.from({ length: 10_000 }, (_, index) => index),
    );
  });

  it('drop and count notifications over the send bound, of no handler, and of one that throws', async () => {
    const atServer = createRpcCounters();
    const counters = createRpcCounters();
    const server = await net.listen(manager, {
      ...notifications({
        bad: () => {
          throw new Error('no');
        },
      }),
      counters: atServer,
    });
    const client = await net.connect(server, asNode(worker), { counters, limits: { sendBytesMax: 1000 } });
    assert.equal(client.notify('unknown', new Uint8Array(600)), true);
    assert.equal(client.notify('bad', new Uint8Array(600)), false, 'over the send bound within the turn');
    assert.equal(counters.notificationsDropped, 1);
    await until(() => client.notify('bad', new Uint8Array(600)), 'the buffer drains');
    await until(() => atServer.notificationsRefused === 2, 'both were refused');
    await assert.rejects(
      client.call('x', new Uint8Array(1), { signal: soon() }).then(() => null),
      SwarmdError,
    );
  });
});
