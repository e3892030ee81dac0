/** Certificates, servers and connections for the RPC tests: real TLS on loopback. */
import assert from 'node:assert/strict';
import { systemClock } from '../../../src/base/clock.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { createCertificateAuthority, issueNodeCertificate } from '../../../src/pki/certificate-authority.ts';
import { generatePrivateKey } from '../../../src/pki/key-pair.ts';
import { createSigningRequest } from '../../../src/pki/signing-request.ts';
import { type ConnectOptions, connect } from '../../../src/rpc/client.ts';
import { type ListenOptions, RpcServer } from '../../../src/rpc/server.ts';
import type {
  ClientCredentials,
  RpcConnection,
  RpcHandlers,
  ServerCredentials,
} from '../../../src/rpc/types.ts';

export interface TestCluster {
  readonly rootPem: string;
  issue(nodeId: string, role: 'manager' | 'worker', issuedAtMs?: number): Promise<ServerCredentials>;
}

export async function createCluster(clusterId: string, createdAtMs = Date.now()): Promise<TestCluster> {
  const authority = await createCertificateAuthority({ clusterId, nowMs: createdAtMs });
  return {
    rootPem: authority.certificatePem,
    async issue(nodeId, role, issuedAtMs = Date.now()) {
      const keyPem = await generatePrivateKey();
      const csrPem = await createSigningRequest(keyPem);
      const issued = await issueNodeCertificate(authority, {
        csrPem,
        nodeId,
        role,
        clusterId,
        nowMs: issuedAtMs,
      });
      assert.ok(issued.ok);
      return { rootPem: authority.certificatePem, certificatePem: issued.value, keyPem };
    },
  };
}

export const noHandlers: RpcHandlers = { calls: {}, streams: {}, notifications: {} };

export function asNode(
  credentials: ServerCredentials,
  expect: { expectRole?: 'manager'; expectNodeId?: string } = {},
): Extract<ClientCredentials, { kind: 'node' }> {
  return { kind: 'node', ...credentials, ...expect };
}

/** A server and its clients of one test; `stop` closes them. */
export class TestNet {
  readonly #servers: RpcServer[] = [];
  readonly #connections: RpcConnection[] = [];

  async listen(credentials: ServerCredentials, options: Partial<ListenOptions> = {}): Promise<RpcServer> {
    const server = await RpcServer.listen({
      host: '127.0.0.1',
      port: 0,
      credentials,
      handlers: noHandlers,
      clock: systemClock(),
      log: silentLogger,
      ...options,
    });
    this.#servers.push(server);
    return server;
  }

  async connect(
    server: { readonly address: { readonly host: string; readonly port: number } },
    credentials: ClientCredentials,
    options: Partial<ConnectOptions> = {},
  ): Promise<RpcConnection> {
    const connection = await connect({
      ...server.address,
      credentials,
      handlers: noHandlers,
      clock: systemClock(),
      log: silentLogger,
      signal: AbortSignal.timeout(20_000),
      ...options,
    });
    this.#connections.push(connection);
    return connection;
  }

  async stop(): Promise<void> {
    for (const connection of this.#connections) connection.close('the test is over');
    await Promise.all(this.#connections.map((connection) => connection.closed));
    await Promise.all(this.#servers.map((server) => server.close()));
  }
}

/** Waits until `condition` holds, at most 10 s. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const deadlineMs = performance.now() + 10_000;
  while (!condition()) {
    assert.ok(performance.now() < deadlineMs, `not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** A signal for calls of tests, so that none waits forever. */
export function soon(): AbortSignal {
  return AbortSignal.timeout(20_000);
}
