/** Managers that moved, and managers that were left behind: what is written into the state. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ManualClock } from '../../../src/base/clock.ts';
import { silentLogger } from '../../../src/base/log.ts';
import {
  type Announcement,
  type AnnouncementContext,
  Announcer,
  parseAnnouncement,
  takeAnnouncement,
} from '../../../src/manager/announcer.ts';
import { retireExpelled } from '../../../src/manager/expelled-managers.ts';
import type { RaftMember, RaftStatus } from '../../../src/raft/types.ts';
import type { RpcConnection } from '../../../src/rpc/types.ts';
import { aNode } from '../../support/builders.ts';
import { apiContext, aRaftStatus, MemoryLog } from '../../support/manager-fixtures.ts';

const soon = AbortSignal.timeout(30_000);
const member = (nodeId: string, id: number): RaftMember => ({
  id,
  nodeId,
  address: `${nodeId}:1`,
  voter: true,
});
const members = [member('m1', 1), member('m2', 2), member('m3', 3)];

function aLog(): MemoryLog {
  const log = new MemoryLog();
  const nodes = members.map(({ id, nodeId, address }) =>
    aNode(nodeId, { manager: { raftId: id, address }, spec: { role: 'manager' } }),
  );
  log.apply([...nodes, aNode('w1')].map((object) => ({ kind: 'create', table: 'node', object }) as const));
  return log;
}

describe('managers that were left behind', () => {
  it('are workers that are down, in one batch; the others stay as they are', async () => {
    const log = aLog();
    const before = [log.store.get('node', 'm3'), log.store.get('node', 'w1')];
    await retireExpelled(apiContext(log), [1, 2, 77], soon);
    assert.equal(log.batches.length, 2);
    for (const id of ['m1', 'm2']) {
      const node = log.store.get('node', id);
      assert.deepEqual([node?.manager, node?.spec.role, node?.status.state], [undefined, 'worker', 'down']);
    }
    assert.deepEqual([log.store.get('node', 'm3'), log.store.get('node', 'w1')], before);
    await retireExpelled(apiContext(log), [1, 2], soon);
    assert.equal(log.batches.length, 2, 'nothing is written twice');
  });
});

describe('an announced address', () => {
  function setUp(over: Partial<RaftStatus> = {}) {
    const log = aLog();
    const noted: [number, string][] = [];
    const passed: Announcement[] = [];
    const context: AnnouncementContext = {
      ...apiContext(log),
      raftStatus: () => aRaftStatus(members, over),
      reach: () => members,
      noteAddress: (id, address) => noted.push([id, address]),
      tellLeader: async (announcement) => {
        passed.push(announcement);
      },
    };
    return { log, noted, passed, context };
  }

  it('is written by the leader, once', async () => {
    const { log, noted, passed, context } = setUp();
    const answer = await takeAnnouncement(context, { nodeId: 'm2', address: 'new:5' }, soon);
    await takeAnnouncement(context, { nodeId: 'm2', address: 'new:5' }, soon);
    assert.deepEqual(log.store.get('node', 'm2')?.manager, { raftId: 2, address: 'new:5' });
    assert.equal(log.batches.length, 2);
    assert.deepEqual(noted[0], [2, 'new:5']);
    assert.deepEqual(passed, []);
    assert.deepEqual(answer.members[0], { id: 1, address: 'm1:1' });
  });

  it('is noted and passed on by one that does not lead', async () => {
    const { log, noted, passed, context } = setUp({ role: 'follower', memberId: 3 });
    await takeAnnouncement(context, { nodeId: 'm2', address: 'new:5' }, soon);
    assert.deepEqual([noted, passed], [[[2, 'new:5']], [{ nodeId: 'm2', address: 'new:5' }]]);
    assert.equal(log.batches.length, 1);
  });

  it('is refused from who is no member, and when it is none', async () => {
    const { context } = setUp();
    await assert.rejects(takeAnnouncement(context, { nodeId: 'w1', address: 'new:5' }, soon), {
      code: 'FAILED_PRECONDITION',
    });
    for (const address of ['', 'a b', 'x:0', 'x:99999', 7, null])
      assert.throws(() => parseAnnouncement('m2', { address }), { code: 'INVALID_ARGUMENT' });
    assert.throws(() => parseAnnouncement(undefined, { address: 'new:5' }), { code: 'INVALID_ARGUMENT' });
  });

  it('is told to every manager until state and group have it; who moved, too, is looked for where others say', async () => {
    const log = aLog();
    const clock = new ManualClock();
    const told: string[] = [];
    const where = new Map(members.map(({ id, address }) => [id, address]));
    let listed: readonly RaftMember[] = members;
    let hasLeader = true;
    const reached = (): RaftMember[] => members.map((one) => ({ ...one, address: where.get(one.id) ?? '' }));
    const answer = { members: [{ id: 3, address: 'moved:3' }] };
    const announcer = new Announcer({
      clock,
      log: silentLogger,
      self: { ...member('m2', 2), address: 'new:2' },
      view: log.store,
      members: reached,
      listed: () => listed,
      hasLeader: () => hasLeader,
      note: (id, address) => void where.set(id, address),
      here: () => Promise.resolve(),
      connect: ({ address }) => {
        if (address === 'm3:1') return Promise.reject(new Error('nobody there'));
        const call = (method: string, params: unknown) => {
          told.push(`${address} ${method} ${JSON.stringify(params)}`);
          return Promise.resolve(answer);
        };
        return Promise.resolve({ call } as unknown as RpcConnection);
      },
    });
    const look = async (): Promise<void> => {
      clock.advance(1_000);
      for (let i = 0; i < 20; i++) await Promise.resolve();
    };
    await look();
    assert.deepEqual(told, ['m1:1 manager.announce {"address":"new:2"}']);
    await look();
    assert.ok(told.includes('moved:3 manager.announce {"address":"new:2"}'));
    const node = log.store.get('node', 'm2');
    assert.ok(node !== undefined);
    const object = { ...node, manager: { raftId: 2, address: 'new:2' } };
    log.apply([{ kind: 'update', table: 'node', object, expect: node.meta.version }]);
    told.length = 0;
    await look();
    assert.ok(told.length > 0, 'the group has the old address still, and so has who restarts');
    listed = members.map((one) => (one.id === 2 ? { ...one, address: 'new:2' } : one));
    await look();
    told.length = 0;
    await look();
    assert.equal(told.length, 0);
    // A new member that moved before its copy of the state says that it is one.
    const { manager: _unknown, ...worker } = log.store.get('node', 'm2') ?? node;
    log.apply([{ kind: 'update', table: 'node', object: worker, expect: worker.meta.version }]);
    await look();
    assert.equal(told.length, 0, 'the leader reaches it, so it is where it was');
    hasLeader = false;
    await look();
    assert.ok(told.includes('m1:1 manager.announce {"address":"new:2"}'));
    await announcer.stop();
  });
});
