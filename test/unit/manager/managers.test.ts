/** Whole managers in this process: real log, real RPC over TLS on loopback. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { systemClock } from '../../../src/base/clock.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { systemRandom } from '../../../src/base/random.ts';
import { firstActions } from '../../../src/manager/first-state.ts';
import { Manager, type ManagerOptions } from '../../../src/manager/manager.ts';
import type { NodeView, ServiceView } from '../../../src/model/api.ts';
import { type ClusterId, newId, type NodeId } from '../../../src/model/ids.ts';
import type { JoinAnswer } from '../../../src/model/wire.ts';
import { createCertificateAuthority, issueNodeCertificate } from '../../../src/pki/certificate-authority.ts';
import { parseJoinToken } from '../../../src/pki/join-token.ts';
import { generatePrivateKey } from '../../../src/pki/key-pair.ts';
import { createSigningRequest } from '../../../src/pki/signing-request.ts';
import { formatAddress } from '../../../src/rpc/address.ts';
import { connect } from '../../../src/rpc/client.ts';
import { ConnectionPool } from '../../../src/rpc/connection-pool.ts';
import { RpcServer } from '../../../src/rpc/server.ts';
import type { RpcConnection, RpcHandlers, ServerCredentials } from '../../../src/rpc/types.ts';
import { aServiceSpec } from '../../support/builders.ts';
import { waitFor } from '../../support/wait.ts';

const clock = systemClock();
const random = systemRandom();
const soon = (): AbortSignal => AbortSignal.timeout(20_000);
const none: RpcHandlers = { calls: {}, streams: {}, notifications: {} };

/** One manager with its port, as src/node puts it together. */
class Host {
  readonly dataDir: string;
  readonly credentials: ServerCredentials;
  readonly server: RpcServer;
  readonly #pool: ConnectionPool;
  manager!: Manager;
  nodeId = '';

  private constructor(
    dataDir: string,
    credentials: ServerCredentials,
    server: RpcServer,
    pool: ConnectionPool,
  ) {
    this.dataDir = dataDir;
    this.credentials = credentials;
    this.server = server;
    this.#pool = pool;
  }

  static async start(
    dataDir: string,
    credentials: ServerCredentials,
    self: { readonly nodeId: string; readonly raftId: number; readonly port?: number },
    start: (address: string) => ManagerOptions['start'],
  ): Promise<Host> {
    const handlers = { calls: {}, streams: {}, notifications: {} };
    let host: Host | null = null;
    const server = await RpcServer.listen({
      host: '127.0.0.1',
      port: self.port ?? 0,
      credentials,
      handlers,
      clock,
      log: silentLogger,
      admit: (peer) => host?.manager?.admit(peer) ?? { ok: true, value: peer },
    });
    const pool = new ConnectionPool({
      credentials: () => ({ kind: 'node', ...credentials, expectRole: 'manager' }),
      handlers: none,
      clock,
      random,
      log: silentLogger,
    });
    host = new Host(dataDir, credentials, server, pool);
    host.nodeId = self.nodeId;
    host.manager = await Manager.open(
      {
        dataDir,
        self: { id: self.raftId, nodeId: self.nodeId, address: host.address, voter: true },
        start: start(host.address),
      },
      { pool, clock, random, log: silentLogger, onFatal: (error) => assert.fail(error) },
    );
    const own = host.manager.handlers();
    Object.assign(handlers.calls, own.calls);
    Object.assign(handlers.streams, own.streams);
    Object.assign(handlers.notifications, own.notifications);
    return host;
  }

  get address(): string {
    return formatAddress('127.0.0.1', this.server.address.port);
  }

  async stop(): Promise<void> {
    await this.manager.stop();
    await this.#pool.closeAll();
    await this.server.close();
  }
}

async function newHost(dataDir: string): Promise<Host> {
  const clusterId = newId<ClusterId>(random);
  const nodeId = newId<NodeId>(random);
  const nowMs = clock.nowMs();
  const authority = await createCertificateAuthority({ clusterId, nowMs });
  const keyPem = await generatePrivateKey();
  const csrPem = await createSigningRequest(keyPem);
  const issued = await issueNodeCertificate(authority, { csrPem, nodeId, role: 'manager', clusterId, nowMs });
  assert.ok(issued.ok);
  const credentials = { rootPem: authority.certificatePem, certificatePem: issued.value, keyPem };
  const raftId = 11;
  return await Host.start(dataDir, credentials, { nodeId, raftId }, (managerAddress) => ({
    kind: 'init',
    actions: firstActions(
      {
        clusterId,
        nodeId,
        raftId,
        hostname: 'first',
        address: '127.0.0.1',
        managerAddress,
        rootCertificatePem: authority.certificatePem,
        rootKeyPem: authority.privateKeyPem,
        labels: {},
        availability: 'active',
        spec: {},
      },
      random,
    ),
  }));
}

/** Joins by a token through `through`, as a node without a certificate. */
async function askToJoin(
  through: Host,
  token: string,
  over: object = {},
): Promise<{ answer: JoinAnswer; keyPem: string }> {
  const parsed = parseJoinToken(token);
  assert.ok(parsed.ok);
  const keyPem = await generatePrivateKey();
  const connection = await connect({
    ...through.server.address,
    credentials: { kind: 'pinned-root', digest: parsed.value.digest },
    handlers: none,
    clock,
    log: silentLogger,
    signal: soon(),
  });
  try {
    const csrPem = await createSigningRequest(keyPem);
    const request = { token, csrPem, address: '', port: 4_000, hostname: 'joiner', ...over };
    const answer = (await connection.call('node.join', request, { signal: soon() })) as JoinAnswer;
    return { answer, keyPem };
  } finally {
    connection.close('joined');
  }
}

function connectAs(credentials: ServerCredentials, to: Host): Promise<RpcConnection> {
  return connect({
    ...to.server.address,
    credentials: { kind: 'node', ...credentials },
    handlers: none,
    clock,
    log: silentLogger,
    signal: soon(),
  });
}

async function freePort(): Promise<number> {
  const { createServer } = await import('node:net');
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return typeof address === 'object' && address !== null ? address.port : 0;
}

async function joinManager(through: Host, dataDir: string): Promise<Host> {
  const { manager: token } = (await through.manager.call('cluster.tokens', {}, soon())) as {
    manager: string;
  };
  const port = await freePort();
  const { answer, keyPem } = await askToJoin(through, token, { port });
  assert.equal(answer.role, 'manager');
  const credentials = { rootPem: answer.rootPem, certificatePem: answer.certificatePem, keyPem };
  return await Host.start(
    dataDir,
    credentials,
    { nodeId: answer.nodeId, raftId: answer.raftId, port },
    () => ({
      kind: 'join',
    }),
  );
}

const votersOf = (host: Host): number =>
  host.manager.status().members.filter((member) => member.voter).length;

describe('managers', () => {
  let folder: string;
  let hosts: Host[];

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'swarmd-managers-'));
    hosts = [];
  });
  afterEach(async () => {
    for (const host of hosts) await host.stop();
    await rm(folder, { recursive: true, force: true });
  });

  it('one manager: serves, plans, and is the same after a restart', async () => {
    const first = await newHost(join(folder, 'a'));
    hosts.push(first);
    const call = (method: string, params: unknown = {}): Promise<unknown> =>
      first.manager.call(method, params, soon());
    const made = (await call('service.create', { spec: aServiceSpec('web') })) as ServiceView;
    await assert.rejects(call('nothing.here'), { code: 'NOT_FOUND' });
    // No node is ready, so the planners' work ends with a task that waits and says why.
    await waitFor('the planners', async () => {
      const [task] = (await call('task.list', { service: 'web' })) as { status: { state: string } }[];
      return task?.status.state === 'pending';
    });
    const before = await waitFor('a quiet log', async () => {
      const digest = first.manager.stateMachine.store.digest();
      await new Promise((resolve) => setImmediate(resolve));
      return digest === first.manager.stateMachine.store.digest() ? digest : undefined;
    });
    await first.stop();
    await first.stop();
    await assert.rejects(call('node.list'), { code: 'UNAVAILABLE', message: /stopping/ });

    const again = await Host.start(
      first.dataDir,
      first.credentials,
      { nodeId: first.nodeId, raftId: 11 },
      () => ({ kind: 'resume' }),
    );
    hosts.splice(0, 1, again);
    const found = (await again.manager.call('service.inspect', { ref: 'web' }, soon())) as ServiceView;
    assert.equal(found.id, made.id);
    assert.equal(again.manager.stateMachine.store.digest(), before);
  });

  it('a start that fails leaves nothing open', async () => {
    const first = await newHost(join(folder, 'a'));
    await first.stop();
    const options = {
      dataDir: first.dataDir,
      self: { id: 12, nodeId: 'other', address: '127.0.0.1:1', voter: true },
      start: { kind: 'resume' as const },
    };
    const pool = new ConnectionPool({
      credentials: () => ({ kind: 'node', ...first.credentials }),
      handlers: none,
      clock,
      random,
      log: silentLogger,
    });
    const dependencies = { pool, clock, random, log: silentLogger, onFatal: () => {} };
    await assert.rejects(Manager.open(options, dependencies), { code: 'FAILED_PRECONDITION' });
    // The folder's database is free again: the refusal is the same, not LOCKED.
    await assert.rejects(Manager.open(options, dependencies), { code: 'FAILED_PRECONDITION' });
  });

  it('three managers: join, forward, redirect, survive the leader, refuse a removed node', async () => {
    const a = await newHost(join(folder, 'a'));
    hosts.push(a);
    const b = await joinManager(a, join(folder, 'b'));
    hosts.push(b);
    await waitFor('two voters', () => votersOf(b) === 2);
    const c = await joinManager(b, join(folder, 'c'));
    hosts.push(c);
    await waitFor('three voters', () => [a, b, c].every((host) => votersOf(host) === 3));

    // A follower forwards, and sees its own write.
    const made = (await b.manager.call('service.create', { spec: aServiceSpec('web') }, soon())) as {
      id: string;
    };
    const found = (await c.manager.call('service.inspect', { ref: 'web' }, soon())) as { id: string };
    assert.equal(found.id, made.id);
    await assert.rejects(b.manager.call('service.inspect', { ref: 'wep' }, soon()), {
      code: 'NOT_FOUND',
      message: /did you mean web/,
    });

    // A worker that asks a follower is told where the leader is.
    const tokens = (await b.manager.call('cluster.tokens', {}, soon())) as { worker: string };
    const { answer, keyPem } = await askToJoin(c, tokens.worker);
    assert.equal(answer.role, 'worker');
    const worker = { rootPem: answer.rootPem, certificatePem: answer.certificatePem, keyPem };
    const asWorker = await connectAs(worker, b);
    await assert.rejects(asWorker.call('dispatcher.heartbeat', { sessionId: 'x' }, { signal: soon() }), {
      code: 'FAILED_PRECONDITION',
      details: { leaderAddress: a.address },
    });
    await assert.rejects(asWorker.call('api.call', { method: 'node.list', params: {} }, { signal: soon() }), {
      code: 'PERMISSION_DENIED',
    });
    asWorker.close('asked');

    // A removed node is refused when it connects, by every manager.
    await b.manager.call('node.remove', { ref: answer.nodeId, force: true }, soon());
    for (const host of [a, b, c]) {
      await waitFor('the refusal', () =>
        connectAs(worker, host).then(
          (connection) => {
            connection.close('not refused');
            return false;
          },
          (error: { code?: string; message: string }) => {
            assert.equal(error.code, 'PERMISSION_DENIED');
            assert.match(error.message, /was removed from the cluster; run "swarmd leave --force"/);
            return true;
          },
        ),
      );
    }

    // The leader stops: another one leads, and plans.
    await a.stop();
    const before = (await b.manager.call('service.inspect', { ref: 'web' }, soon())) as ServiceView;
    assert.equal(before.id, made.id);
    await c.manager.call('service.create', { spec: aServiceSpec('api') }, soon());
    await waitFor('a plan of the new leader', async () => {
      const tasks = (await b.manager.call('task.list', { service: 'api' }, soon())) as unknown[];
      return tasks.length === 1;
    });
    const nodes = (await b.manager.call('node.list', {}, soon())) as NodeView[];
    assert.equal(nodes.filter((node) => node.managerStatus?.leader === true).length, 1);
    await waitFor(
      'equal replicas',
      () => b.manager.stateMachine.store.digest() === c.manager.stateMachine.store.digest(),
    );

    // Cut off from the majority: an answer in time, with the counts.
    await c.stop();
    const startedMs = performance.now();
    await assert.rejects(b.manager.call('node.list', {}, soon()), (error: Error & { code?: string }) => {
      assert.equal(error.code, 'NO_LEADER', error.message);
      assert.match(error.message, /2 of 3 managers must be up/);
      assert.deepEqual((error as Error & { details?: unknown }).details, { voters: 3, needed: 2 });
      return true;
    });
    assert.ok(performance.now() - startedMs < 9_000);
  });
});
