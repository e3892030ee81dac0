/**
 * One member of the benchmark's group: a key-value register over swarmd's consensus, its log in LevelDB, its peers and
 * clients over swarmd's RPC (mutual TLS). Started by run.ts with its settings as JSON in the first argument.
 */
import { join } from 'node:path';
import { systemClock } from '../../src/base/clock.ts';
import { createLogger } from '../../src/base/log.ts';
import { systemRandom } from '../../src/base/random.ts';
import { RaftNode } from '../../src/raft/node.ts';
import { LevelStorage } from '../../src/raft/level-storage.ts';
import type { RaftMember } from '../../src/raft/types.ts';
import { ConnectionPool } from '../../src/rpc/connection-pool.ts';
import { RpcServer } from '../../src/rpc/server.ts';
import type { MemberSettings } from './settings.ts';

const settings = JSON.parse(process.argv[2] ?? '{}') as MemberSettings;
const clock = systemClock();
const random = systemRandom();
const log = createLogger({
  level: 'warn',
  format: 'text',
  write: (line) => console.error(line),
  nowMs: () => clock.nowMs(),
});
const forever = new AbortController().signal;

/** Entry: key length (1 byte), key, value. The state keeps values as they came. */
const values = new Map<string, Uint8Array>();
const decoder = new TextDecoder();

function apply(_index: number, data: Uint8Array): null {
  const keyLength = data[0] as number;
  values.set(decoder.decode(data.subarray(1, 1 + keyLength)), data.subarray(1 + keyLength));
  return null;
}

function snapshot(): Uint8Array {
  const parts: Uint8Array[] = [];
  const encoder = new TextEncoder();
  for (const [key, value] of values) {
    const keyBytes = encoder.encode(key);
    const head = new Uint8Array(5);
    head[0] = keyBytes.length;
    new DataView(head.buffer).setUint32(1, value.length);
    parts.push(head, keyBytes, value);
  }
  return Buffer.concat(parts);
}

function restore(data: Uint8Array): void {
  values.clear();
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  for (let at = 0; at < data.length; ) {
    const keyLength = data[at] as number;
    const valueLength = view.getUint32(at + 1);
    const key = decoder.decode(data.subarray(at + 5, at + 5 + keyLength));
    values.set(key, data.slice(at + 5 + keyLength, at + 5 + keyLength + valueLength));
    at += 5 + keyLength + valueLength;
  }
}

const pool = new ConnectionPool({
  credentials: () => ({ kind: 'node', ...settings.credentials, expectRole: 'manager' }),
  handlers: { calls: {}, streams: {}, notifications: {} },
  clock,
  random,
  log,
});
const storage = await LevelStorage.open(join(settings.folder, 'raft'));
const node = await RaftNode.open(
  {
    storage,
    memberId: settings.self.id,
    ...(settings.bootstrap ? { bootstrap: settings.self } : { join: true }),
    tickMs: settings.tickMs,
    electionTicks: settings.electionTicks,
  },
  {
    transport: {
      send: (to: RaftMember, messages) => {
        for (const message of messages) pool.notify(to.address, 'raft', message, to.nodeId);
      },
    },
    stateMachine: { apply, snapshot, restore },
    clock,
    random,
    log,
    onStatus: () => {},
    onFatal: (error) => {
      console.error(error);
      process.exit(1);
    },
  },
);
await RpcServer.listen({
  host: '127.0.0.1',
  port: settings.port,
  credentials: settings.credentials,
  clock,
  log,
  handlers: {
    calls: {
      put: async (params) => {
        const outcome = await node.propose(params as Uint8Array, forever);
        return outcome.kind === 'committed' ? 1 : outcome.kind;
      },
      get: async (params) => {
        await node.readIndex(forever);
        return values.get(params as string) ?? null;
      },
      status: async () => ({ ...node.status(), keys: values.size, rss: process.memoryUsage().rss }),
      add: async (params) => {
        await node.addMember(params as RaftMember, AbortSignal.timeout(60_000));
        return null;
      },
    },
    streams: {},
    notifications: { raft: (data) => node.receive(data) },
  },
});
process.on('SIGTERM', () => {
  void node
    .transferLeadership(null, AbortSignal.timeout(2_000))
    .catch(() => {})
    .then(() => node.stop())
    .then(() => process.exit(0));
});
console.log('ready');
