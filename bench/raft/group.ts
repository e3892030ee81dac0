/** A group of three member processes, and a client for it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { systemRandom } from '../../src/base/random.ts';
import { createCertificateAuthority, issueNodeCertificate } from '../../src/pki/certificate-authority.ts';
import { generatePrivateKey } from '../../src/pki/key-pair.ts';
import { createSigningRequest } from '../../src/pki/signing-request.ts';
import type { RaftStatus } from '../../src/raft/types.ts';
import { connect } from '../../src/rpc/client.ts';
import type { RpcConnection, ServerCredentials } from '../../src/rpc/types.ts';
import { type MemberSettings, VALUE_BYTES, type Target } from './settings.ts';

export interface GroupOptions {
  readonly folder: string;
  readonly firstPort: number;
  readonly tickMs: number;
  readonly electionTicks: number;
}

const CLUSTER = 'bench';
const forever = new AbortController().signal;
export type MemberStatus = RaftStatus & { readonly keys: number; readonly rss: number };

/** Three processes on loopback. */
export class Group {
  readonly #settings: MemberSettings[];
  readonly #children: (ChildProcess | null)[] = [null, null, null];
  readonly #client: ServerCredentials;

  private constructor(settings: MemberSettings[], client: ServerCredentials) {
    this.#settings = settings;
    this.#client = client;
  }

  static async start(options: GroupOptions): Promise<Group> {
    const nowMs = Date.now();
    const authority = await createCertificateAuthority({ clusterId: CLUSTER, nowMs });
    const issue = async (nodeId: string): Promise<ServerCredentials> => {
      const keyPem = await generatePrivateKey();
      const csrPem = await createSigningRequest(keyPem);
      const certificate = await issueNodeCertificate(authority, {
        csrPem,
        nodeId,
        role: 'manager',
        clusterId: CLUSTER,
        nowMs,
      });
      if (!certificate.ok) throw new Error(certificate.reason);
      return { rootPem: authority.certificatePem, certificatePem: certificate.value, keyPem };
    };
    const settings: MemberSettings[] = [];
    for (const index of [0, 1, 2]) {
      const port = options.firstPort + index;
      settings.push({
        self: { id: index + 1, nodeId: `m${index}`, address: `127.0.0.1:${port}`, voter: true },
        folder: `${options.folder}/m${index}`,
        port,
        bootstrap: index === 0,
        tickMs: options.tickMs,
        electionTicks: options.electionTicks,
        credentials: await issue(`m${index}`),
      });
    }
    const group = new Group(settings, await issue('client'));
    try {
      await group.#form();
    } catch (error) {
      await group.stop();
      throw error;
    }
    return group;
  }

  async #form(): Promise<void> {
    for (const index of [0, 1, 2]) await this.run(index);
    while ((await this.leader()) === null) await new Promise((resolve) => setTimeout(resolve, 20));
    const first = await this.connect(0);
    for (const index of [1, 2])
      await first.call('add', (this.#settings[index] as MemberSettings).self, { signal: forever });
    first.close('formed');
  }

  /** Starts (again) one member and waits until it answers. */
  async run(index: number): Promise<void> {
    const script = fileURLToPath(new URL('member.ts', import.meta.url));
    const child = spawn(process.execPath, [script, JSON.stringify(this.#settings[index])], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, UV_THREADPOOL_SIZE: '8' },
    });
    this.#children[index] = child;
    const lines = createInterface({ input: child.stdout });
    await Promise.race([
      once(lines, 'line'),
      once(child, 'exit').then(() => {
        throw new Error(`member ${index} ended before it was ready`);
      }),
    ]);
  }

  async kill(index: number, signal: NodeJS.Signals): Promise<void> {
    const child = this.#children[index];
    if (child === null || child === undefined) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
    this.#children[index] = null;
  }

  async stop(): Promise<void> {
    await Promise.all(
      [0, 1, 2].map((index) => this.kill(index, (process.env['BENCH_STOP'] ?? 'SIGKILL') as 'SIGKILL')),
    );
  }

  connect(index: number): Promise<RpcConnection> {
    const { port } = this.#settings[index] as MemberSettings;
    return connect({
      host: '127.0.0.1',
      port,
      credentials: { kind: 'node', ...this.#client },
      handlers: { calls: {}, streams: {}, notifications: {} },
      clock: systemClock(),
      log: silentLogger,
      signal: forever,
      connectTimeoutMs: 1_000,
    });
  }

  /** Index of the member that leads; null while none does. */
  async leader(): Promise<number | null> {
    for (const index of [0, 1, 2]) {
      if (this.#children[index] === null) continue;
      const status = await this.status(index).catch(() => null);
      if (status?.role === 'leader') return index;
    }
    return null;
  }

  async status(index: number): Promise<MemberStatus> {
    const connection = await this.connect(index);
    try {
      return (await connection.call('status', null, { signal: forever, timeoutMs: 1_000 })) as MemberStatus;
    } finally {
      connection.close('asked');
    }
  }

  /** A client over `connections` to one member. */
  async target(index: number, connections: number): Promise<Target> {
    const open = await Promise.all(Array.from({ length: connections }, () => this.connect(index)));
    let next = 0;
    const call = (method: string, params: unknown): Promise<unknown> =>
      (open[next++ % open.length] as RpcConnection).call(method, params, {
        signal: forever,
        timeoutMs: 10_000,
      });
    return {
      name: 'swarmd',
      put: async (key) => {
        if ((await call('put', entry(key))) !== 1) throw new Error('not committed');
      },
      get: async (key) => {
        await call('get', key);
      },
      close: async () => {
        for (const connection of open) connection.close('done');
      },
    };
  }
}

const random = systemRandom();

/** Key length, key, value of fresh bytes. */
export function entry(key: string): Uint8Array {
  const bytes = new Uint8Array(1 + key.length + VALUE_BYTES);
  bytes[0] = key.length;
  for (let i = 0; i < key.length; i++) bytes[1 + i] = key.charCodeAt(i);
  for (let i = 1 + key.length; i + 4 <= bytes.length; i += 64) bytes[i] = random.uint32() & 0xff;
  return bytes;
}
