import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { systemClock } from '../../../src/base/clock.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { seededRandom } from '../../../src/base/random.ts';
import { backoffMaxMs, backoffMinMs, backoffMs, ConnectionPool } from '../../../src/rpc/connection-pool.ts';
import { createRpcCounters } from '../../../src/rpc/counters.ts';
import type { ServerCredentials } from '../../../src/rpc/types.ts';
import { asNode, createCluster, noHandlers, soon, type TestCluster, TestNet, until } from './cluster.ts';

describe('the connection pool', () => {
  let cluster: TestCluster;
  let own: ServerCredentials;
  let peer: ServerCredentials;
  let net = new TestNet();
  let pools: ConnectionPool[] = [];
  before(async () => {
    cluster = await createCluster('cluster1');
    own = await cluster.issue('m1', 'manager');
    peer = await cluster.issue('m2', 'manager');
  });
  afterEach(async () => {
    await Promise.all(pools.map((pool) => pool.closeAll()));
    await net.stop();
    pools = [];
    net = new TestNet();
  });
  after(() => net.stop());

  function createPool(counters = createRpcCounters()): ConnectionPool {
    const pool = new ConnectionPool({
      credentials: () => asNode(own, { expectRole: 'manager' }),
      handlers: noHandlers,
      clock: systemClock(),
      random: seededRandom(1),
      log: silentLogger,
      counters,
    });
    pools.push(pool);
    return pool;
  }
  const addressOf = (server: { address: { host: string; port: number } }): string =>
    `${server.address.host}:${server.address.port}`;

  it('hands out one connection per address', async () => {
    const server = await net.listen(peer);
    const pool = createPool();
    const [first, second] = await Promise.all([
      pool.get(addressOf(server)),
      pool.get(addressOf(server), 'm2'),
    ]);
    assert.equal(second.peer?.nodeId, 'm2');
    assert.equal(await pool.get(addressOf(server), 'm2'), second);
    assert.equal(pool.current(addressOf(server)), second);
    await until(() => [...server.connections()].length === 1, 'one connection is left');
    assert.ok(first.peer);
  });

  it('reconnects when the peer comes back, and delivers notifications again', async () => {
    const received: number[] = [];
    const handlers = {
      ...noHandlers,
      notifications: { raft: (data: Uint8Array) => received.push(data[0] ?? -1) },
    };
    const server = await net.listen(peer, { handlers });
    const counters = createRpcCounters();
    const pool = createPool(counters);
    const address = addressOf(server);
    assert.equal(pool.notify(address, 'raft', Uint8Array.of(0)), false, 'not connected yet: dropped');
    assert.equal(counters.notificationsDropped, 1);
    await until(() => pool.notify(address, 'raft', Uint8Array.of(1)), 'connected');
    await until(() => received.includes(1), 'delivered');
    await server.close();
    await until(() => !pool.notify(address, 'raft', Uint8Array.of(2)), 'the loss is seen');
    await net.listen(peer, { handlers, port: server.address.port });
    await until(() => pool.notify(address, 'raft', Uint8Array.of(3)), 'connected again');
    await until(() => received.includes(3), 'delivered again');
  });

  it('says why a peer cannot be reached, at once and again', async () => {
    const server = await net.listen(peer);
    const address = addressOf(server);
    await server.close();
    const pool = createPool();
    await assert.rejects(pool.get(address), { code: 'UNAVAILABLE', message: /connection was refused/ });
    await assert.rejects(pool.get(address), { code: 'UNAVAILABLE' });
    await assert.rejects(pool.get(address, undefined, AbortSignal.abort()), { code: 'CANCELLED' });
    const controller = new AbortController();
    const waiting = pool.get(address, undefined, controller.signal);
    controller.abort();
    await assert.rejects(waiting, { code: 'CANCELLED' });
    await assert.rejects(pool.get('no address'), { code: 'INVALID_ARGUMENT' });
    assert.equal(pool.notify('no address', 'raft', Uint8Array.of(1)), false);
  });

  it('does not hand out another node than the one expected', async () => {
    const server = await net.listen(peer);
    const pool = createPool();
    await assert.rejects(pool.get(addressOf(server), 'm3'), {
      code: 'UNAUTHENTICATED',
      message: /it is node m2/,
    });
    pool.release(addressOf(server));
    const connection = await pool.get(addressOf(server));
    await assert.rejects(pool.get(addressOf(server), 'm3'), { code: 'UNAUTHENTICATED' });
    assert.match(await connection.closed, /node m3 is expected/);
  });

  it('lets go of a released peer and of all when it closes', async () => {
    const server = await net.listen(peer);
    const pool = createPool();
    const address = addressOf(server);
    const connection = await pool.get(address);
    pool.release(address);
    assert.match(await connection.closed, /no longer needed/);
    assert.equal(pool.current(address), null);
    const again = await pool.get(address);
    await pool.closeAll();
    assert.match(await again.closed, /the node is stopping/);
    await assert.rejects(pool.get(address), { code: 'UNAVAILABLE', message: /is stopping/ });
    await assert.rejects(again.call('x', null, { signal: soon() }), { code: 'UNAVAILABLE' });
  });

  it('backs off exponentially, capped, with jitter', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1000 }), fc.integer(), (failures, seed) => {
        const waitMs = backoffMs(failures, seededRandom(seed));
        const full = Math.min(backoffMaxMs, backoffMinMs * 2 ** (failures - 1));
        assert.ok(waitMs >= Math.floor(full / 2) && waitMs <= full);
      }),
    );
  });
});
