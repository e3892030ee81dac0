/**
 * etcd as a group: its gRPC spoken directly over Node's HTTP/2, so that no client library is the bottleneck.
 *
 * Only what the benchmark needs of protobuf: Put(key = 1, value = 2) and Range(key = 1), linearizable by default.
 * Plain, as etcd's own figures are taken, or with TLS both ways, as swarmd always speaks.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { type ClientHttp2Session, connect } from 'node:http2';
import type { GroupOptions } from './group.ts';
import { type Group, type Target, until, VALUE_BYTES } from './settings.ts';

const MEMBERS = [0, 1, 2];

function field(number: number, bytes: Uint8Array): Buffer {
  const head: number[] = [(number << 3) | 2];
  for (let length = bytes.length; ; length >>>= 7) {
    if (length < 128) {
      head.push(length);
      break;
    }
    head.push((length & 127) | 128);
  }
  return Buffer.concat([Uint8Array.from(head), bytes]);
}

function framed(message: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

function call(session: ClientHttp2Session, path: string, message: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    let status = '';
    stream.on('trailers', (headers) => {
      status = String(headers['grpc-status']);
    });
    stream.on('response', (headers) => {
      if (headers['grpc-status'] !== undefined) status = String(headers['grpc-status']);
    });
    stream.on('error', reject);
    stream.on('close', () => (status === '0' ? resolve() : reject(new Error(`grpc status ${status}`))));
    stream.resume();
    stream.end(framed(message));
  });
}

/** Certificate and key files for everybody, made once a run. */
async function makeTls(folder: string): Promise<{ readonly cert: string; readonly key: string }> {
  const [cert, key] = [`${folder}/cert.pem`, `${folder}/key.pem`];
  const args = [
    'req',
    '-x509',
    '-nodes',
    '-days',
    '2',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
  ];
  const more = ['-keyout', key, '-out', cert, '-subj', '/CN=bench', '-addext', 'subjectAltName=IP:127.0.0.1'];
  const { status, stderr } = spawnSync('openssl', [...args, ...more]);
  if (status !== 0) throw new Error(`openssl: ${stderr.toString()}`);
  return { cert, key };
}

/** Three etcd processes on loopback. */
export class EtcdGroup implements Group {
  readonly #options: GroupOptions;
  readonly #tls: { readonly cert: string; readonly key: string } | null;
  readonly #children: (ChildProcess | null)[] = [null, null, null];

  private constructor(options: GroupOptions, tls: { readonly cert: string; readonly key: string } | null) {
    this.#options = options;
    this.#tls = tls;
  }

  static async start(options: GroupOptions, withTls: boolean): Promise<EtcdGroup> {
    await mkdir(options.folder, { recursive: true });
    const group = new EtcdGroup(options, withTls ? await makeTls(options.folder) : null);
    for (const index of MEMBERS) group.#spawn(index, 'new');
    await group.leader();
    return group;
  }

  #client(index: number): string {
    return `${this.#tls === null ? 'http' : 'https'}://127.0.0.1:${this.#options.firstPort + index}`;
  }

  #peer(index: number): string {
    return `${this.#tls === null ? 'http' : 'https'}://127.0.0.1:${this.#options.firstPort + 100 + index}`;
  }

  #folder(index: number): string {
    return `${this.#options.folder}/e${index}`;
  }

  #spawn(index: number, state: 'new' | 'existing'): void {
    const { tickMs, electionTicks } = this.#options;
    const args: Record<string, string> = {
      name: `e${index}`,
      'data-dir': this.#folder(index),
      'listen-client-urls': this.#client(index),
      'advertise-client-urls': this.#client(index),
      'listen-peer-urls': this.#peer(index),
      'initial-advertise-peer-urls': this.#peer(index),
      'initial-cluster': MEMBERS.map((i) => `e${i}=${this.#peer(i)}`).join(','),
      'initial-cluster-state': state,
      'heartbeat-interval': String(tickMs),
      'election-timeout': String(tickMs * electionTicks),
      'quota-backend-bytes': String(8 * 2 ** 30),
      'log-level': 'error',
    };
    if (this.#tls !== null) {
      const { cert, key } = this.#tls;
      Object.assign(args, { 'cert-file': cert, 'key-file': key, 'trusted-ca-file': cert });
      Object.assign(args, { 'peer-cert-file': cert, 'peer-key-file': key, 'peer-trusted-ca-file': cert });
      Object.assign(args, { 'client-cert-auth': 'true', 'peer-client-cert-auth': 'true' });
    }
    const flags = Object.entries(args).map(([name, value]) => `--${name}=${value}`);
    this.#children[index] = spawn('etcd', flags, { stdio: 'ignore' });
  }

  #ctl(index: number, ...args: readonly string[]): string {
    const tls = this.#tls;
    const flags = tls === null ? [] : ['--cert', tls.cert, '--key', tls.key, '--cacert', tls.cert];
    const { stdout } = spawnSync('etcdctl', ['--endpoints', this.#client(index), ...flags, ...args], {
      env: { ...process.env, ETCDCTL_API: '3' },
      timeout: 5_000,
    });
    return stdout.toString();
  }

  #status(index: number): { leads: boolean; applied: number } | null {
    const text = this.#ctl(index, 'endpoint', 'status', '-w', 'json');
    const [found] = JSON.parse(text === '' ? '[]' : text) as {
      Status: { leader: number; raftAppliedIndex: number; header: { member_id: number } };
    }[];
    if (found === undefined) return null;
    const { leader, raftAppliedIndex, header } = found.Status;
    return { leads: leader === header.member_id, applied: raftAppliedIndex };
  }

  async leader(): Promise<number> {
    let leader = -1;
    await until('a leader', async () => {
      leader =
        MEMBERS.find((index) => this.#children[index] !== null && this.#status(index)?.leads === true) ?? -1;
      return leader >= 0;
    });
    return leader;
  }

  async kill(index: number, signal: NodeJS.Signals): Promise<void> {
    const child = this.#children[index];
    if (child === null || child === undefined) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
    this.#children[index] = null;
  }

  async start(index: number): Promise<void> {
    this.#spawn(index, 'existing');
  }

  async replace(index: number): Promise<void> {
    const leader = await this.leader();
    const line = this.#ctl(leader, 'member', 'list')
      .split('\n')
      .find((each) => each.includes(`e${index}`));
    this.#ctl(leader, 'member', 'remove', line?.split(',')[0] ?? '');
    await rm(this.#folder(index), { recursive: true, force: true });
    this.#ctl(leader, 'member', 'add', `e${index}`, `--peer-urls=${this.#peer(index)}`);
    this.#spawn(index, 'existing');
  }

  async hasAll(index: number): Promise<boolean> {
    const all = this.#status(await this.leader());
    const own = this.#status(index);
    return own !== null && all !== null && own.applied >= all.applied;
  }

  async stop(): Promise<void> {
    await Promise.all(MEMBERS.map((index) => this.kill(index, 'SIGKILL')));
  }

  async target(index: number, connections: number): Promise<Target> {
    const secure =
      this.#tls === null
        ? {}
        : {
            ca: readFileSync(this.#tls.cert),
            cert: readFileSync(this.#tls.cert),
            key: readFileSync(this.#tls.key),
          };
    const open = Array.from({ length: connections }, () => connect(this.#client(index), secure));
    for (const session of open) session.on('error', () => {});
    const value = field(2, new Uint8Array(VALUE_BYTES).fill(120));
    const pick = (): ClientHttp2Session => {
      const session = open.shift() as ClientHttp2Session;
      open.push(session);
      return session;
    };
    return {
      put: (key) => call(pick(), '/etcdserverpb.KV/Put', Buffer.concat([field(1, Buffer.from(key)), value])),
      get: (key) => call(pick(), '/etcdserverpb.KV/Range', field(1, Buffer.from(key))),
      close: async () => {
        for (const session of open) session.destroy();
      },
    };
  }
}
