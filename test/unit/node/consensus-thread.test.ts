/** Consensus threads of real managers: three in this process, whose main thread plays the three daemons. */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { silentLogger } from '../../../src/base/log.ts';
import { ConsensusThread } from '../../../src/node/consensus-thread.ts';
import { ENDPOINT_METHOD, RAFT_METHOD } from '../../../src/node/peer-links.ts';
import type { RaftMember, RaftNodeOptions } from '../../../src/raft/types.ts';
import type { RpcServer } from '../../../src/rpc/server.ts';
import { createCluster, soon, type TestCluster, TestNet } from '../rpc/cluster.ts';
import { waitFor } from '../../support/wait.ts';

const TICK_MS = 50;
const ELECTION_TICKS = 5;

interface Host {
  readonly member: RaftMember;
  readonly server: RpcServer;
  readonly applied: string[];
  thread: ConsensusThread | null;
  /** Frames that came through the main thread. */
  relayed: number;
  fatal: Error | null;
}

let folder: string;
let cluster: TestCluster;
let net: TestNet;
let hosts: Host[];

/** A daemon without its consensus. `endpoint` is what it says about where that listens. */
async function makeHost(id: number, endpoint?: () => unknown): Promise<Host> {
  const nodeId = `m${id}`;
  const credentials = await cluster.issue(nodeId, 'manager');
  const server = await net.listen(credentials, {
    handlers: {
      calls: { [ENDPOINT_METHOD]: async () => endpoint?.() ?? { port: host.thread?.port } },
      streams: {},
      notifications: {
        [RAFT_METHOD]: (frame) => {
          host.relayed++;
          host.thread?.node.receive(frame);
        },
      },
    },
  });
  const address = `127.0.0.1:${server.address.port}`;
  const host: Host = {
    member: { id, nodeId, address, voter: true },
    server,
    applied: [],
    thread: null,
    relayed: 0,
    fatal: null,
  };
  hosts.push(host);
  return host;
}

async function open(host: Host, options: Partial<RaftNodeOptions>): Promise<ConsensusThread> {
  const { id, nodeId } = host.member;
  const settings = {
    folder: join(folder, nodeId),
    options: { memberId: id, tickMs: TICK_MS, electionTicks: ELECTION_TICKS, ...options },
    host: '127.0.0.1',
    ports: [0],
    credentials: await cluster.issue(nodeId, 'manager'),
  };
  const stateMachine = {
    apply: (_index: number, data: Uint8Array) => host.applied.push(new TextDecoder().decode(data)),
    snapshot: () => new TextEncoder().encode(JSON.stringify(host.applied)),
    restore: (data: Uint8Array) => {
      host.applied.splice(
        0,
        host.applied.length,
        ...(JSON.parse(new TextDecoder().decode(data)) as string[]),
      );
    },
  };
  const onFatal = (error: Error): void => {
    host.fatal = error;
  };
  const events = { stateMachine, onStatus: () => {}, onFatal };
  host.thread = await ConsensusThread.open(settings, events, silentLogger);
  return host.thread;
}

async function group(endpoint?: () => unknown): Promise<readonly [Host, Host, Host]> {
  const [first, second, third] = [
    await makeHost(1, endpoint),
    await makeHost(2, endpoint),
    await makeHost(3, endpoint),
  ];
  const { node } = await open(first, { bootstrap: first.member });
  await waitFor('the first member to lead', () => node.status().role === 'leader');
  for (const host of [second, third]) {
    await open(host, { join: true });
    await node.addMember(host.member, soon());
  }
  return [first, second, third];
}

async function put(host: Host, text: string): Promise<string> {
  const outcome = await host.thread?.node.propose(new TextEncoder().encode(text), soon());
  return outcome?.kind ?? 'no node';
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'swarmd-consensus-'));
  cluster = await createCluster('thread-test');
  net = new TestNet();
  hosts = [];
});
afterEach(async () => {
  await Promise.all(hosts.map((host) => Promise.resolve(host.thread?.node.stop())));
  await net.stop();
  await rm(folder, { recursive: true, force: true });
});

describe('the consensus thread', () => {
  test('three managers: what one writes is applied by all, and a restart has it again', async () => {
    const [first, second, third] = await group();
    assert.equal(await put(first, 'a'), 'committed');
    await waitFor('all to apply it', () => hosts.every((host) => host.applied.includes('a')));
    await third.thread?.node.stop();
    third.applied.length = 0;
    assert.equal(await put(first, 'b'), 'committed');
    await open(third, {});
    await waitFor('the third to have both', () => third.applied.join() === 'a,b');
    assert.ok((await second.thread?.node.readIndex(soon())) !== undefined);
  });

  test('a stall of the daemons costs the leader nothing: threads talk straight to one another', async () => {
    const [first, ...others] = await group();
    assert.equal(await put(first, 'before'), 'committed');
    const ways = (): number => others.reduce((sum, host) => sum + host.relayed, first.relayed);
    const isStraight = async (): Promise<boolean> => {
      const before = ways();
      await put(first, 'probe');
      return ways() === before;
    };
    await waitFor('straight connections', isStraight);
    const { term } = first.thread?.node.status() ?? {};
    // Six election timeouts in which the main thread of all three does nothing at all.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 6 * TICK_MS * ELECTION_TICKS);
    assert.equal(await put(first, 'after'), 'committed');
    const after = first.thread?.node.status();
    assert.deepEqual([after?.role, after?.term], ['leader', term]);
  });

  test('managers that cannot reach the threads of one another go through the main port', async () => {
    const unreachable = { port: 1 };
    const [first, second, third] = await group(() => unreachable);
    assert.equal(await put(first, 'a'), 'committed');
    await waitFor('all to apply it', () => hosts.every((host) => host.applied.includes('a')));
    assert.ok(second.relayed > 0 && third.relayed > 0);
  });

  test('a node that was removed is not listened to any more', async () => {
    const [first, , third] = await group();
    const thread = first.thread as ConsensusThread;
    const credentials = { kind: 'node', ...(await cluster.issue('m3', 'manager')) } as const;
    const address = { address: { host: '127.0.0.1', port: thread.port } };
    const open3 = await net.connect(address, credentials);
    thread.block([third.member.nodeId]);
    assert.match(await open3.closed, /removed/);
    await assert.rejects(net.connect(address, credentials), { code: 'PERMISSION_DENIED' });
  });

  test('a lone manager leads at once: there is nobody whose answer it could wait for', async () => {
    const host = await makeHost(1);
    const electionTicks = 100_000;
    const first = await open(host, { bootstrap: host.member, electionTicks });
    await waitFor('it to lead', () => first.node.status().role === 'leader');
    await first.node.stop();
    const again = await open(host, { electionTicks });
    await waitFor('it to lead again', () => again.node.status().role === 'leader');
  });

  test('a damaged log is told as such, and the thread is gone', async () => {
    const host = await makeHost(1);
    await mkdir(join(folder, 'm1'), { recursive: true });
    await writeFile(join(folder, 'm1', 'CURRENT'), 'nonsense');
    await assert.rejects(open(host, { bootstrap: host.member }), { code: 'CORRUPT' });
    assert.equal(host.fatal, null);
  });

  test('a state machine that breaks ends the node, once', async () => {
    const host = await makeHost(1);
    const { node } = await open(host, { bootstrap: host.member });
    await waitFor('it to lead', () => node.status().role === 'leader');
    host.applied.push = () => {
      throw new Error('broken');
    };
    assert.equal(await put(host, 'a'), 'unknown');
    await waitFor('the failure', () => host.fatal !== null);
    assert.match(host.fatal?.message ?? '', /broken/);
    assert.equal(await put(host, 'b'), 'refused');
  });
});
