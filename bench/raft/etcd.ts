/**
 * etcd as a target: its gRPC spoken directly over Node's HTTP/2, so that the client is not the bottleneck.
 *
 * Only what the benchmark needs of protobuf: Put(key = 1, value = 2) and Range(key = 1), linearizable by default.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { type ClientHttp2Session, connect } from 'node:http2';
import { VALUE_BYTES, type Target } from './settings.ts';

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

/** A client with `sessions` HTTP/2 sessions to one member. */
export function etcdTarget(endpoint: string, sessions: number): Target {
  const open = Array.from({ length: sessions }, () => connect(endpoint));
  for (const session of open) session.on('error', () => {});
  const value = field(2, new Uint8Array(VALUE_BYTES).fill(120));
  const pick = (): ClientHttp2Session => {
    const session = open.shift() as ClientHttp2Session;
    open.push(session);
    return session;
  };
  return {
    name: 'etcd',
    put: (key) => call(pick(), '/etcdserverpb.KV/Put', Buffer.concat([field(1, Buffer.from(key)), value])),
    get: (key) => call(pick(), '/etcdserverpb.KV/Range', field(1, Buffer.from(key))),
    close: async () => {
      for (const session of open) session.destroy();
    },
  };
}

export interface EtcdOptions {
  readonly folder: string;
  /** Client port of the first member; the others follow, peers 100 above. */
  readonly firstPort: number;
  readonly heartbeatMs: number;
  readonly electionMs: number;
}

export function etcdClientUrl(options: EtcdOptions, index: number): string {
  return `http://127.0.0.1:${options.firstPort + index}`;
}

/** Starts one of three members. */
export function startEtcd(options: EtcdOptions, index: number, state: 'new' | 'existing'): ChildProcess {
  const peer = (i: number): string => `http://127.0.0.1:${options.firstPort + 100 + i}`;
  const args = {
    name: `e${index}`,
    'data-dir': `${options.folder}/e${index}`,
    'listen-client-urls': etcdClientUrl(options, index),
    'advertise-client-urls': etcdClientUrl(options, index),
    'listen-peer-urls': peer(index),
    'initial-advertise-peer-urls': peer(index),
    'initial-cluster': [0, 1, 2].map((i) => `e${i}=${peer(i)}`).join(','),
    'initial-cluster-state': state,
    'heartbeat-interval': String(options.heartbeatMs),
    'election-timeout': String(options.electionMs),
    'quota-backend-bytes': String(8 * 2 ** 30),
    'log-level': 'error',
  };
  return spawn(
    'etcd',
    Object.entries(args).flatMap(([key, value]) => [`--${key}`, value]),
    { stdio: 'ignore' },
  );
}
