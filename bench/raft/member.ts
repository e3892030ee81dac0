/**
 * One member of the benchmark's group: a key-value register over swarmd's consensus in its thread as the daemon
 * runs it, its log in LevelDB, its peers and clients over swarmd's RPC (mutual TLS). Started by run.ts with its settings as JSON in the first argument.
 */
import { join } from 'node:path';
import { systemClock } from '../../src/base/clock.ts';
import { createLogger } from '../../src/base/log.ts';
import { ConsensusThread } from '../../src/node/consensus-thread.ts';
import { ENDPOINT_METHOD, RAFT_METHOD } from '../../src/node/peer-links.ts';
import type { RaftMember } from '../../src/raft/types.ts';
import { RpcServer } from '../../src/rpc/server.ts';
import type { MemberSettings } from './settings.ts';

const settings = JSON.parse(process.argv[2] ?? '{}') as MemberSettings;
const clock = systemClock();
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
  let bytes = 0;
  for (const [key, value] of values) bytes += 5 + key.length + value.length;
  const all = Buffer.allocUnsafeSlow(bytes);
  let at = 0;
  for (const [key, value] of values) {
    all[at] = key.length;
    all.writeUInt32BE(value.length, at + 1);
    all.write(key, at + 5, 'latin1');
    at += 5 + key.length;
    all.set(value, at);
    at += value.length;
  }
  return all;
}

function restore(data: Uint8Array): void {
  values.clear();
  const all = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  for (let at = 0; at < all.length; ) {
    const keyEnd = at + 5 + (all[at] as number);
    const end = keyEnd + all.readUInt32BE(at + 1);
    values.set(all.toString('latin1', at + 5, keyEnd), all.subarray(keyEnd, end));
    at = end;
  }
}

const thread = await ConsensusThread.open(
  {
    folder: join(settings.folder, 'raft'),
    options: {
      memberId: settings.self.id,
      ...(settings.bootstrap ? { bootstrap: settings.self } : { join: true }),
      tickMs: settings.tickMs,
      electionTicks: settings.electionTicks,
    },
    host: '127.0.0.1',
    ports: [0],
    credentials: settings.credentials,
  },
  {
    stateMachine: { apply, snapshot, restore },
    onStatus: () => {},
    onFatal: (error) => {
      console.error(error);
      process.exit(1);
    },
  },
  log,
);
const { node } = thread;
const server = await RpcServer.listen({
  host: '127.0.0.1',
  port: settings.port,
  credentials: settings.credentials,
  clock,
  log,
  handlers: {
    calls: {
      put: async (params) => {
        const outcome = await node.propose(params as Uint8Array, forever);
        return outcome.kind === 'committed' ? 1 : `${outcome.kind}: ${outcome.reason}`;
      },
      get: async (params) => {
        await node.readIndex(forever);
        return values.get(params as string) ?? null;
      },
      [ENDPOINT_METHOD]: async () => ({ port: thread.port }),
      status: async () => ({ ...node.status(), keys: values.size, rss: process.memoryUsage().rss }),
      add: async (params) => {
        await node.addMember(params as RaftMember, AbortSignal.timeout(60_000));
        return null;
      },
      remove: async (params) => {
        await node.removeMember(params as number, AbortSignal.timeout(10_000));
        return null;
      },
    },
    streams: {},
    notifications: { [RAFT_METHOD]: (data) => node.receive(data) },
  },
});
process.on('SIGTERM', () => {
  void node
    .transferLeadership(null, AbortSignal.timeout(2_000))
    .catch(() => {})
    .then(() => Promise.all([node.stop(), server.close()]))
    .then(() => process.exit(0));
});
console.log('ready');
