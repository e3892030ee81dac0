/** swarmd's consensus as a group: three member processes on loopback, and clients over its RPC. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { systemRandom } from '../../src/base/random.ts';
import { createCertificateAuthority, issueNodeCertificate } from '../../src/pki/certificate-authority.ts';
import { generatePrivateKey } from '../../src/pki/key-pair.ts';
import { createSigningRequest } from '../../src/pki/signing-request.ts';
import type { RaftMember, RaftStatus } from '../../src/raft/types.ts';
import { connect } from '../../src/rpc/client.ts';
import type { RpcConnection, ServerCredentials } from '../../src/rpc/types.ts';
import { type Group, type MemberSettings, type Target, type Timing, until, VALUE_BYTES } from './settings.ts';

export interface GroupOptions extends Timing {
  readonly folder: string;
  readonly firstPort: number;
}

/** What a member tells of itself. */
export type MemberStatus = RaftStatus & { readonly keys: number; readonly rss: number };

const CLUSTER = 'bench';
const MEMBERS = [0, 1, 2];
const forever = new AbortController().signal;

/** Issues certificates of one cluster. */
async function issuer(): Promise<(nodeId: string) => Promise<ServerCredentials>> {
  const nowMs = Date.now();
  const authority = await createCertificateAuthority({ clusterId: CLUSTER, nowMs });
  return async (nodeId) => {
    const keyPem = await generatePrivateKey();
    const csrPem = await createSigningRequest(keyPem);
    const request = { csrPem, nodeId, role: 'manager', clusterId: CLUSTER, nowMs } as const;
    const certificate = await issueNodeCertificate(authority, request);
    if (!certificate.ok) throw new Error(certificate.reason);
    return { rootPem: authority.certificatePem, certificatePem: certificate.value, keyPem };
  };
}

/** Three processes on loopback. */
export class SwarmdGroup implements Group {
  readonly #settings: MemberSettings[];
  readonly #children: (ChildProcess | null)[] = [null, null, null];
  readonly #client: ServerCredentials;

  private constructor(settings: MemberSettings[], client: ServerCredentials) {
    this.#settings = settings;
    this.#client = client;
  }

  static async start(options: GroupOptions): Promise<SwarmdGroup> {
    const issue = await issuer();
    const settings: MemberSettings[] = [];
    for (const index of MEMBERS) {
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
    const group = new SwarmdGroup(settings, await issue('client'));
    try {
      for (const index of MEMBERS) await group.start(index);
      await until('a leader', async () => (await group.#leading()) !== null);
      for (const index of [1, 2]) await group.#atLeader('add', group.#member(index));
    } catch (error) {
      await group.stop();
      throw error;
    }
    return group;
  }

  #member(index: number): RaftMember {
    return (this.#settings[index] as MemberSettings).self;
  }

  async start(index: number): Promise<void> {
    const script = fileURLToPath(new URL('member.ts', import.meta.url));
    const child = spawn(process.execPath, [script, JSON.stringify(this.#settings[index])], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, UV_THREADPOOL_SIZE: '16' },
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

  async replace(index: number): Promise<void> {
    const old = this.#settings[index] as MemberSettings;
    await rm(old.folder, { recursive: true, force: true });
    await this.#atLeader('remove', old.self.id);
    const self = { ...old.self, id: old.self.id + 10 };
    this.#settings[index] = { ...old, self, bootstrap: false };
    await this.start(index);
    await this.#atLeader('add', self);
  }

  async stop(): Promise<void> {
    await Promise.all(MEMBERS.map((index) => this.kill(index, 'SIGKILL')));
  }

  #connect(index: number): Promise<RpcConnection> {
    return connect({
      host: '127.0.0.1',
      port: (this.#settings[index] as MemberSettings).port,
      credentials: { kind: 'node', ...this.#client },
      handlers: { calls: {}, streams: {}, notifications: {} },
      clock: systemClock(),
      log: silentLogger,
      signal: forever,
      connectTimeoutMs: 1_000,
    });
  }

  async #atLeader(method: string, params: unknown): Promise<void> {
    const connection = await this.#connect((await this.#leading()) ?? 0);
    try {
      await connection.call(method, params, { signal: AbortSignal.timeout(60_000) });
    } finally {
      connection.close('done');
    }
  }

  async #leading(): Promise<number | null> {
    for (const index of MEMBERS) {
      if (this.#children[index] === null) continue;
      const status = await this.status(index).catch(() => null);
      if (status?.role === 'leader') return index;
    }
    return null;
  }

  async leader(): Promise<number> {
    let leader = 0;
    await until('a leader of the whole group', async () => {
      leader = (await this.#leading()) ?? -1;
      return leader >= 0 && (await this.status(leader)).members.filter((each) => each.voter).length === 3;
    });
    return leader;
  }

  async status(index: number): Promise<MemberStatus> {
    const connection = await this.#connect(index);
    try {
      return (await connection.call('status', null, { signal: forever, timeoutMs: 1_000 })) as MemberStatus;
    } finally {
      connection.close('asked');
    }
  }

  async hasAll(index: number): Promise<boolean> {
    const leader = await this.leader();
    const [own, all] = [await this.status(index), await this.status(leader)];
    return own.appliedIndex >= all.commitIndex;
  }

  async target(index: number, connections: number): Promise<Target> {
    const open = await Promise.all(Array.from({ length: connections }, () => this.#connect(index)));
    let next = 0;
    const call = (method: string, params: unknown): Promise<unknown> =>
      (open[next++ % open.length] as RpcConnection).call(method, params, {
        signal: forever,
        timeoutMs: 10_000,
      });
    return {
      put: async (key) => {
        const outcome = await call('put', entry(key));
        if (outcome !== 1) throw new Error(String(outcome));
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
function entry(key: string): Uint8Array {
  const bytes = new Uint8Array(1 + key.length + VALUE_BYTES);
  bytes[0] = key.length;
  for (let i = 0; i < key.length; i++) bytes[1 + i] = key.charCodeAt(i);
  for (let i = 1 + key.length; i + 4 <= bytes.length; i += 64) bytes[i] = random.uint32() & 0xff;
  return bytes;
}
