import assert from 'node:assert/strict';
import { createServer, type Server, type Socket, connect as connectTcp } from 'node:net';
import { after, afterEach, before, describe, it } from 'node:test';
import { connect as connectTls, createServer as createTlsServer } from 'node:tls';
import { ok, refuse } from '../../../src/base/result.ts';
import { rootDigest } from '../../../src/pki/join-token.ts';
import { systemClock } from '../../../src/base/clock.ts';
import { createRpcCounters } from '../../../src/rpc/counters.ts';
import type { RpcConnection, ServerCredentials } from '../../../src/rpc/types.ts';
import { asNode, createCluster, soon, type TestCluster, TestNet, until } from './cluster.ts';

const dayMs = 86_400_000;

describe('handshake', () => {
  let cluster: TestCluster;
  let foreign: TestCluster;
  let manager: ServerCredentials;
  let worker: ServerCredentials;
  let stranger: ServerCredentials;
  let net = new TestNet();

  before(async () => {
    cluster = await createCluster('cluster1');
    foreign = await createCluster('cluster1');
    manager = await cluster.issue('m1', 'manager');
    worker = await cluster.issue('w1', 'worker');
    stranger = await foreign.issue('x1', 'manager');
  });
  afterEach(async () => {
    await net.stop();
    net = new TestNet();
  });

  async function whoAmI(connection: RpcConnection): Promise<unknown> {
    return connection.call('who', null, { signal: soon() });
  }
  const whoHandlers = {
    calls: {
      who: async (_params: unknown, context: { connection: RpcConnection }) => context.connection.peer,
    },
    streams: {},
    notifications: {},
  };

  it('tells both ends who the other is', async () => {
    const server = await net.listen(manager, { handlers: whoHandlers });
    const connection = await net.connect(
      server,
      asNode(worker, { expectRole: 'manager', expectNodeId: 'm1' }),
    );
    assert.equal(connection.peer?.nodeId, 'm1');
    assert.equal(connection.peer?.role, 'manager');
    assert.equal(connection.peer?.clusterId, 'cluster1');
    assert.ok((connection.peer?.certificateExpiresAtMs ?? 0) > Date.now() + 89 * dayMs);
    const seen = (await whoAmI(connection)) as { nodeId: string; role: string };
    assert.equal(seen.nodeId, 'w1');
    assert.equal(seen.role, 'worker');
  });

  it('refuses a server of another root at the client', async () => {
    const server = await net.listen(stranger);
    await assert.rejects(net.connect(server, asNode(worker)), (error: Error) => {
      assert.equal((error as { code?: string }).code, 'UNAUTHENTICATED');
      assert.match(error.message, /127\.0\.0\.1:\d+ was refused: .*another cluster/);
      return true;
    });
  });

  it('refuses a client of another root at the server, and the client is told', async () => {
    const counters = createRpcCounters();
    const server = await net.listen(manager, { counters });
    const impostor = { ...stranger, rootPem: cluster.rootPem };
    await assert.rejects(net.connect(server, asNode(impostor)), (error: Error) => {
      assert.equal((error as { code?: string }).code, 'UNAUTHENTICATED');
      assert.match(error.message, /refused this node: .*not issued by this cluster's root/);
      return true;
    });
    await until(() => counters.clientsRefused === 1, 'the refusal is counted');
    assert.equal([...server.connections()].length, 0);
  });

  it('refuses a member that may not come in any more, and the client is told', async () => {
    const server = await net.listen(manager, {
      admit: (peer) => (peer.nodeId === 'w1' ? refuse('node w1 was removed') : ok(peer)),
    });
    await assert.rejects(net.connect(server, asNode(worker)), {
      code: 'PERMISSION_DENIED',
      message: /refused this node: node w1 was removed/,
    });
    await net.connect(server, asNode(await cluster.issue('w2', 'worker')));
    await net.connect(server, { kind: 'pinned-root', digest: rootDigest(cluster.rootPem) });
  });

  it('refuses an expired client certificate', async () => {
    const old = await createCluster('cluster1', Date.now() - 200 * dayMs);
    const server = await net.listen(await old.issue('m1', 'manager'));
    const expired = await old.issue('w1', 'worker', Date.now() - 100 * dayMs);
    await assert.rejects(net.connect(server, asNode(expired)), {
      code: 'UNAUTHENTICATED',
      message: /expired at/,
    });
  });

  it('does not listen with an expired certificate or one of another root', async () => {
    const old = await createCluster('cluster1', Date.now() - 200 * dayMs);
    const expired = await old.issue('m1', 'manager', Date.now() - 100 * dayMs);
    await assert.rejects(net.listen(expired), { code: 'INVALID_ARGUMENT', message: /expired at/ });
    await assert.rejects(net.listen({ ...manager, rootPem: foreign.rootPem }), { code: 'INVALID_ARGUMENT' });
  });

  it('refuses a server that is not the node or role expected', async () => {
    const server = await net.listen(worker);
    await assert.rejects(net.connect(server, asNode(manager, { expectRole: 'manager' })), {
      code: 'UNAUTHENTICATED',
      message: /it is a worker, not a manager/,
    });
    await assert.rejects(net.connect(server, asNode(manager, { expectNodeId: 'w2' })), {
      code: 'UNAUTHENTICATED',
      message: /it is node w1, not w2/,
    });
  });

  it('lets a joiner with the right digest in, without identity', async () => {
    const server = await net.listen(manager, { handlers: whoHandlers });
    const joiner = await net.connect(server, { kind: 'pinned-root', digest: rootDigest(cluster.rootPem) });
    assert.equal(joiner.peer?.nodeId, 'm1');
    assert.equal(await whoAmI(joiner), null);
  });

  it('refuses a server whose root has another digest before sending anything', async () => {
    const seen: unknown[] = [];
    const { certificatePem, keyPem } = stranger;
    const server = createTlsServer({ cert: certificatePem + foreign.rootPem, key: keyPem }, (socket) => {
      socket.on('data', (data) => seen.push(data));
      socket.on('error', () => {});
    });
    const port = await listening(server);
    await assert.rejects(
      net.connect(
        { address: { host: '127.0.0.1', port } },
        { kind: 'pinned-root', digest: rootDigest(cluster.rootPem) },
      ),
      { code: 'UNAUTHENTICATED', message: /digest in the join token/ },
    );
    await stopped(server);
    assert.deepEqual(seen, [], 'no byte of the application reached the wrong server');
  });

  it('refuses a server that shows the pinned root but has no certificate of it', async () => {
    const server = createTlsServer({ cert: stranger.certificatePem + cluster.rootPem, key: stranger.keyPem });
    server.on('tlsClientError', () => {});
    server.on('secureConnection', (socket) => socket.on('error', () => {}));
    const port = await listening(server);
    const pinned = { kind: 'pinned-root', digest: rootDigest(cluster.rootPem) } as const;
    await assert.rejects(net.connect({ address: { host: '127.0.0.1', port } }, pinned), {
      code: 'UNAUTHENTICATED',
    });
    await stopped(server);
  });

  it('refuses to join at a worker', async () => {
    const server = await net.listen(worker);
    await assert.rejects(net.connect(server, { kind: 'pinned-root', digest: rootDigest(cluster.rootPem) }), {
      code: 'UNAUTHENTICATED',
      message: /join at the address of a manager/,
    });
  });

  it('says what to check when nobody answers', async () => {
    const closed = createServer();
    const port = await listening(closed);
    await stopped(closed);
    await assert.rejects(
      net.connect({ address: { host: '127.0.0.1', port } }, asNode(worker)),
      (error: Error) => {
        assert.equal((error as { code?: string }).code, 'UNAVAILABLE');
        assert.match(error.message, new RegExp(`127\\.0\\.0\\.1:${port}: the connection was refused; check`));
        return true;
      },
    );
  });

  it('gives up on what accepts and stays silent, and on what speaks no TLS', async () => {
    const silent = createServer((socket) => socket.on('error', () => {}).resume());
    const port = await listening(silent);
    const address = { host: '127.0.0.1', port };
    await assert.rejects(net.connect({ address }, asNode(worker), { connectTimeoutMs: 50 }), {
      code: 'UNAVAILABLE',
      message: /no answer within 50 ms/,
    });
    await stopped(silent);
    const plain = createServer((socket) => {
      socket.on('error', () => {}).resume();
      socket.end('SSH-2.0-something\r\n');
    });
    const plainPort = await listening(plain);
    await assert.rejects(net.connect({ address: { host: '127.0.0.1', port: plainPort } }, asNode(worker)), {
      code: 'UNAVAILABLE',
    });
    await stopped(plain);
  });

  it('stops an attempt when asked to', async () => {
    const silent = createServer((socket) => socket.on('error', () => {}).resume());
    const address = { host: '127.0.0.1', port: await listening(silent) };
    const controller = new AbortController();
    const attempt = net.connect({ address }, asNode(worker), { signal: controller.signal });
    controller.abort();
    await assert.rejects(attempt, { code: 'CANCELLED' });
    await stopped(silent);
  });

  it('names the address when the port is taken', async () => {
    const server = await net.listen(manager);
    await assert.rejects(net.listen(manager, { port: server.address.port }), {
      code: 'PORT_IN_USE',
      message: new RegExp(`127\\.0\\.0\\.1:${server.address.port}`),
    });
    await assert.rejects(net.listen(manager, { host: '192.0.2.1' }), { code: 'INVALID_ARGUMENT' });
  });

  it('uses new credentials for new connections and keeps the open ones', async () => {
    const server = await net.listen(manager, { handlers: whoHandlers });
    const before = await net.connect(server, asNode(worker));
    server.setCredentials(await cluster.issue('m1-renewed', 'manager'));
    const renewed = await net.connect(server, asNode(worker));
    assert.equal(renewed.peer?.nodeId, 'm1-renewed');
    assert.equal(before.peer?.nodeId, 'm1');
    assert.ok(await whoAmI(before));
    assert.throws(() => server.setCredentials({ ...manager, rootPem: foreign.rootPem }), {
      code: 'INVALID_ARGUMENT',
    });
    assert.ok(await whoAmI(await net.connect(server, asNode(worker))), 'a refused change changes nothing');
  });

  it('moves to another root when given one', async () => {
    const server = await net.listen(manager);
    server.setCredentials(stranger);
    await assert.rejects(net.connect(server, asNode(worker)), { code: 'UNAUTHENTICATED' });
    const connection = await net.connect(server, asNode(await foreign.issue('x2', 'worker')));
    assert.equal(connection.peer?.nodeId, 'x1');
  });

  it('cuts clients that do not finish their handshake', async () => {
    const counters = createRpcCounters();
    const server = await net.listen(manager, { counters, serverLimits: { handshakeTimeoutMs: 50 } });
    // Its handshake began first: were its timer not stopped, it would be cut before the other two.
    await net.connect(server, asNode(worker));
    const tcp = connectTcp(server.address.port, '127.0.0.1');
    const tls = connectTls({ ...server.address, rejectUnauthorized: false });
    await Promise.all([gone(tcp), gone(tls)]);
    await until(() => counters.clientsRefused === 2, 'both are counted');
    assert.equal([...server.connections()].length, 1);
  });

  it('bounds the clients without a certificate, and lets members in again after', async () => {
    const counters = createRpcCounters();
    const server = await net.listen(manager, { counters, serverLimits: { unauthenticatedMax: 2 } });
    const pinned = { kind: 'pinned-root', digest: rootDigest(cluster.rootPem) } as const;
    const first = await net.connect(server, pinned);
    await net.connect(server, asNode(worker));
    await net.connect(server, pinned);
    await assert.rejects(net.connect(server, pinned), { code: 'UNAVAILABLE' });
    assert.equal(counters.clientsRefused, 1);
    first.close('done');
    await first.closed;
    await until(() => [...server.connections()].length === 2, 'the joiner left');
    await net.connect(server, asNode(worker));
  });

  it('answers a browser and an unknown version in plain words', async () => {
    const server = await net.listen(manager);
    const ask = async (request: string): Promise<string> => {
      const socket = connectTls({ ...server.address, rejectUnauthorized: false });
      let answer = '';
      socket.on('data', (data) => {
        answer += data.toString();
      });
      socket.on('error', () => {});
      socket.write(request);
      await gone(socket);
      return answer;
    };
    assert.match(await ask('GET / HTTP/1.1\r\nHost: x\r\n\r\n'), /426 .*node-to-node port of swarmd/s);
    const upgrade = 'Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';
    assert.match(await ask(`GET /swarmd/rpc/9 HTTP/1.1\r\n${upgrade}`), /404 .*run the same version/s);
    await ask('garbage\r\n\r\n');
  });

  it('closes twice, with connections open, and leaves no socket', async () => {
    const server = await net.listen(manager);
    const connection = await net.connect(server, asNode(worker));
    const tcp = connectTcp(server.address.port, '127.0.0.1');
    tcp.on('error', () => {});
    await Promise.all([server.close(), server.close()]);
    assert.match(await connection.closed, /the node is stopping/);
    await gone(tcp);
    await assert.rejects(net.connect(server, asNode(worker)), { code: 'UNAVAILABLE' });
  });

  it('closes a connection when the certificate of the peer expires', async () => {
    const shift = { ms: 0 };
    const real = systemClock();
    const clock = { ...real, nowMs: () => real.nowMs() + shift.ms };
    const server = await net.listen(manager, { clock, limits: { pingIntervalMs: 10 } });
    const connection = await net.connect(server, asNode(worker));
    shift.ms = 91 * dayMs;
    assert.match(await connection.closed, /certificate expired/);
  });

  after(() => net.stop());
});

async function listening(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  return address.port;
}

function stopped(server: Server): Promise<void> {
  return new Promise((resolve) => server.close(() => resolve()));
}

function gone(socket: Socket): Promise<void> {
  socket.on('error', () => {});
  socket.resume();
  return new Promise((resolve) => {
    if (socket.closed) resolve();
    socket.once('close', () => resolve());
  });
}
