/** The raft driver: a group in virtual time, on simulated disks and network. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SwarmdError } from '../../../src/base/errors.ts';
import type { StorageStep } from '../../../src/raft/memory-storage.ts';
import type { ProposeOutcome } from '../../../src/raft/types.ts';
import { SimCluster } from '../../raft/cluster.ts';

const forever = new AbortController().signal;
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

async function propose(cluster: SimCluster, id: number, text: string): Promise<ProposeOutcome> {
  return cluster.whilePumping(cluster.nodeOf(id).propose(bytes(text), forever));
}

async function formed(ids: readonly number[], seed = 1, options = {}): Promise<SimCluster> {
  const cluster = new SimCluster(seed, options);
  await cluster.form(ids);
  const votersKnownTo = (id: number): number =>
    cluster
      .nodeOf(id)
      .status()
      .members.filter((member) => member.voter).length;
  await cluster.until(() => ids.every((id) => votersKnownTo(id) === ids.length), 'all know the group');
  return cluster;
}

async function proposeMany(cluster: SimCluster, id: number, count: number, prefix: string): Promise<void> {
  const node = cluster.nodeOf(id);
  const all = Array.from({ length: count }, (_, i) => node.propose(bytes(`${prefix}${i}`), forever));
  const outcomes = await cluster.whilePumping(Promise.all(all));
  assert.ok(
    outcomes.every((outcome) => outcome.kind === 'committed'),
    JSON.stringify(outcomes[0]),
  );
}

function leaderOf(cluster: SimCluster): number {
  const id = cluster.leader();
  assert.ok(id !== null, 'a leader');
  return id;
}

const sameState = (cluster: SimCluster, ids: readonly number[]): boolean =>
  new Set(ids.map((id) => cluster.get(id).machine.commands.join())).size === 1;

describe('a single member', () => {
  test('leads at once, without waiting for an election timeout', async () => {
    const cluster = new SimCluster(1);
    cluster.define(1);
    await cluster.start(1, 'bootstrap');
    await cluster.until(() => cluster.leader() === 1, 'it leads', 5);
    assert.deepEqual(cluster.nodeOf(1).status().members, [cluster.get(1).member]);
  });

  test('keeps acknowledged proposals over a crash, and hands results to proposers', async () => {
    const cluster = await formed([1]);
    assert.deepEqual(await propose(cluster, 1, 'a'), { kind: 'committed', index: 3, result: 1 });
    assert.deepEqual(await propose(cluster, 1, 'b'), { kind: 'committed', index: 4, result: 2 });
    cluster.crash(1);
    await cluster.start(1, 'restart');
    await cluster.until(() => cluster.leader() === 1, 'it leads again', 5);
    const index = await cluster.whilePumping(cluster.nodeOf(1).readIndex(forever));
    assert.ok(index >= 4);
    assert.deepEqual(cluster.get(1).machine.commands, ['a', 'b']);
    assert.deepEqual(cluster.nodeOf(1).status().members, [cluster.get(1).member]);
  });

  test('takes snapshots by itself and restarts from them', async () => {
    const cluster = await formed([1], 1, { snapshotEntries: 20, snapshotKeepEntries: 5 });
    for (let i = 0; i < 5; i++) await proposeMany(cluster, 1, 15, `${i}-`);
    const { disk, machine } = cluster.get(1);
    assert.ok((disk.snapshot?.index ?? 0) > 50, 'a snapshot was taken');
    assert.ok(disk.entries.length < 60, 'the log was cut');
    const before = machine.commands;
    cluster.crash(1);
    await cluster.start(1, 'restart');
    await cluster.until(() => cluster.leader() === 1, 'it leads again');
    await cluster.whilePumping(cluster.nodeOf(1).readIndex(forever));
    assert.deepEqual(cluster.get(1).machine.commands, before);
  });

  test('refuses what is too large, and everything once it stops', async () => {
    const cluster = await formed([1], 1, { maxEntryBytes: 10 });
    const { node } = cluster.get(1);
    assert.ok(node);
    assert.deepEqual(await node.propose(new Uint8Array(11), forever), {
      kind: 'refused',
      reason: 'too-large',
      leaderId: 1,
    });
    const inFlight = node.propose(bytes('x'), forever);
    await cluster.whilePumping(node.stop());
    assert.notEqual((await inFlight).kind, 'committed');
    const late = await node.propose(bytes('y'), forever);
    assert.deepEqual(late, { kind: 'refused', reason: 'stopping', leaderId: null });
    await assert.rejects(node.readIndex(forever), { code: 'NO_LEADER' });
    await node.stop();
  });

  test('refuses proposals as busy when too much is not applied yet', async () => {
    const cluster = await formed([1], 1, { maxUncommittedBytes: 100 });
    const node = cluster.nodeOf(1);
    const gate = Promise.withResolvers<void>();
    cluster.beforeStep = () => gate.promise;
    const first = node.propose(new Uint8Array(90), forever);
    await cluster.run(2);
    const second = await cluster.whilePumping(node.propose(new Uint8Array(90), forever));
    assert.deepEqual(second, { kind: 'refused', reason: 'busy', leaderId: 1 });
    gate.resolve();
    assert.equal((await cluster.whilePumping(first)).kind, 'committed');
    assert.equal((await propose(cluster, 1, 'again')).kind, 'committed');
  });

  test('answers a proposal whose caller gives up', async () => {
    const cluster = await formed([1]);
    cluster.beforeStep = () => new Promise(() => {});
    const abort = new AbortController();
    const outcome = cluster.nodeOf(1).propose(bytes('x'), abort.signal);
    await cluster.run(2);
    abort.abort();
    assert.equal((await outcome).kind, 'unknown');
  });

  test('a failed write acknowledges nothing more and is fatal', async () => {
    const cluster = await formed([1]);
    const full = new SwarmdError('RESOURCE_EXHAUSTED', 'the disk is full');
    cluster.beforeStep = () => Promise.reject(full);
    const outcome = await propose(cluster, 1, 'x');
    assert.equal(outcome.kind, 'unknown');
    assert.equal(cluster.get(1).fatal, full);
    assert.equal((await propose(cluster, 1, 'y')).kind, 'refused');
    cluster.beforeStep = () => {};
    await cluster.whilePumping(cluster.nodeOf(1).stop());
  });

  test('a state machine that throws is fatal', async () => {
    const cluster = await formed([1]);
    cluster.get(1).machine.apply = () => {
      throw new Error('not total');
    };
    await propose(cluster, 1, 'x');
    assert.match(cluster.get(1).fatal?.message ?? '', /not total/);
  });

  test('an empty storage is neither bootstrapped nor joined unasked', async () => {
    const cluster = new SimCluster(1);
    cluster.define(1);
    await assert.rejects(cluster.start(1, 'restart'), { code: 'FAILED_PRECONDITION' });
    assert.equal(cluster.get(1).disk.locked, false, 'the storage was closed');
  });

  test('a storage is not taken for another member', async () => {
    const cluster = await formed([1]);
    cluster.crash(1);
    const other = cluster.define(2);
    Object.assign(other, { disk: cluster.get(1).disk });
    await assert.rejects(cluster.start(2, 'restart'), {
      code: 'FAILED_PRECONDITION',
      message: /member 1, not 2/,
    });
  });
});

describe('a crash between storage steps', () => {
  const steps: readonly StorageStep[] = ['append', 'snapshot-chunks', 'snapshot-flip', 'compact'];
  for (const step of steps) {
    test(`before ${step}: everything acknowledged is there after the restart`, async () => {
      for (let nth = 1; nth <= 3; nth++) {
        const cluster = await formed([1], nth, { snapshotEntries: 10, snapshotKeepEntries: 3 });
        let count = 0;
        cluster.beforeStep = (_, at) => {
          if (at !== step || ++count < nth) return;
          cluster.beforeStep = () => {};
          cluster.crash(1);
        };
        const acknowledged: string[] = [];
        for (let i = 0; i < 60 && cluster.get(1).node !== null; i++) {
          const text = `${i}`;
          void cluster
            .nodeOf(1)
            .propose(bytes(text), forever)
            .then((outcome) => {
              if (outcome.kind === 'committed') acknowledged.push(text);
            });
          await cluster.run(2);
        }
        assert.equal(cluster.get(1).node, null, 'it crashed');
        await cluster.start(1, 'restart');
        await cluster.until(() => cluster.leader() === 1, 'it leads again');
        await cluster.whilePumping(cluster.nodeOf(1).readIndex(forever));
        const { seen, commands } = cluster.get(1).machine;
        assert.deepEqual(
          acknowledged.filter((text) => !seen.has(text)),
          [],
        );
        assert.equal(commands.length, seen.size);
        assert.deepEqual(cluster.violations, []);
      }
    });
  }
});

describe('three members', () => {
  test('elect, replicate, and read linearizably everywhere', async () => {
    const cluster = await formed([1, 2, 3]);
    await proposeMany(cluster, leaderOf(cluster), 50, 'p');
    for (const id of [1, 2, 3]) {
      await cluster.whilePumping(cluster.nodeOf(id).readIndex(forever));
      assert.equal(cluster.get(id).machine.commands.length, 50, `member ${id} read the latest`);
    }
    const groups = [1, 2, 3].map((id) => cluster.nodeOf(id).status().members);
    assert.deepEqual(groups[1], groups[0]);
    assert.deepEqual(
      groups[0]?.map((member) => member.voter),
      [true, true, true],
    );
    const follower = [1, 2, 3].find((id) => id !== leaderOf(cluster)) ?? 0;
    assert.deepEqual(await propose(cluster, follower, 'x'), {
      kind: 'refused',
      reason: 'not-leader',
      leaderId: leaderOf(cluster),
    });
  });

  test('elect another leader when the leader stops, and lose nothing acknowledged', async () => {
    const cluster = await formed([1, 2, 3]);
    const first = leaderOf(cluster);
    await proposeMany(cluster, first, 20, 'a');
    cluster.crash(first);
    await cluster.until(() => cluster.leader() !== null, 'another leads', 1000);
    const second = leaderOf(cluster);
    assert.notEqual(second, first);
    await proposeMany(cluster, second, 20, 'b');
    await cluster.start(first, 'restart');
    await cluster.until(() => sameState(cluster, [1, 2, 3]), 'all have the same state');
    assert.equal(cluster.get(first).machine.commands.length, 40);
    assert.deepEqual(cluster.violations, []);
  });

  test('a cut-off leader steps down, its proposals end unknown, and it follows when healed', async () => {
    const cluster = await formed([1, 2, 3]);
    const old = leaderOf(cluster);
    cluster.passes = (from, to) => from !== old && to !== old;
    const lost = cluster.nodeOf(old).propose(bytes('lost'), forever);
    const outcome = await cluster.whilePumping(lost, 5000);
    assert.equal(outcome.kind, 'unknown');
    await assert.rejects(cluster.whilePumping(cluster.nodeOf(old).readIndex(forever)), { code: 'NO_LEADER' });
    await cluster.until(() => cluster.leader() !== null && cluster.leader() !== old, 'another leads');
    await proposeMany(cluster, leaderOf(cluster), 5, 'kept');
    cluster.passes = () => true;
    await cluster.until(() => sameState(cluster, [1, 2, 3]), 'all have the same state');
    assert.equal(cluster.get(old).machine.seen.has('lost'), false);
  });

  test('a cut-off follower does not disturb the term when it returns (pre-vote)', async () => {
    const cluster = await formed([1, 2, 3]);
    const leader = leaderOf(cluster);
    const { term } = cluster.nodeOf(leader).status();
    const follower = [1, 2, 3].find((id) => id !== leader) ?? 0;
    cluster.passes = (from, to) => from !== follower && to !== follower;
    await cluster.run(3000);
    cluster.passes = () => true;
    await cluster.run(1000);
    assert.equal(leaderOf(cluster), leader);
    assert.equal(cluster.nodeOf(follower).status().term, term);
  });

  test('leadership is handed over on request', async () => {
    const cluster = await formed([1, 2, 3]);
    const leader = leaderOf(cluster);
    const target = [1, 2, 3].find((id) => id !== leader) ?? 0;
    await cluster.whilePumping(cluster.nodeOf(leader).transferLeadership(target, forever), 100);
    assert.equal(leaderOf(cluster), target);
    await cluster.whilePumping(cluster.nodeOf(target).transferLeadership(null, forever), 100);
    assert.notEqual(leaderOf(cluster), target);
    const second = leaderOf(cluster);
    cluster.passes = (_, to) => to !== target;
    await assert.rejects(cluster.whilePumping(cluster.nodeOf(second).transferLeadership(target, forever)), {
      code: 'TIMEOUT',
    });
    assert.equal((await propose(cluster, second, 'still leading')).kind, 'committed');
    await assert.rejects(cluster.nodeOf(second).transferLeadership(99, forever), {
      code: 'FAILED_PRECONDITION',
    });
  });

  test('members are removed, the leader too', async () => {
    const cluster = await formed([1, 2, 3]);
    const leader = leaderOf(cluster);
    const [a = 0, b = 0] = [1, 2, 3].filter((id) => id !== leader);
    await cluster.whilePumping(cluster.nodeOf(leader).removeMember(a, forever));
    assert.deepEqual(
      new Set(
        cluster
          .nodeOf(leader)
          .status()
          .members.map((member) => member.id),
      ),
      new Set([leader, b]),
    );
    await cluster.whilePumping(cluster.nodeOf(leader).removeMember(leader, forever));
    await cluster.until(() => cluster.leader() === b, 'the last one leads');
    await proposeMany(cluster, b, 3, 'x');
    await assert.rejects(cluster.nodeOf(b).removeMember(b, forever), { code: 'FAILED_PRECONDITION' });
    assert.deepEqual(cluster.violations, []);
  });

  test('a change of the group takes effect only when a crash cannot undo it', async () => {
    const cluster = await formed([1, 2]);
    const leader = leaderOf(cluster);
    const other = 3 - leader;
    await cluster.whilePumping(cluster.nodeOf(leader).removeMember(other, forever));
    // Alone now, and known to be: after a crash it must not ask the removed member, whose log may be longer.
    cluster.crash(leader);
    cluster.crash(other);
    await cluster.start(leader, 'restart');
    await cluster.until(() => cluster.leader() === leader, 'it leads alone', 1000);
  });

  test('a leader removed from a pair leaves the other one able to lead, whatever was lost', async () => {
    const cluster = await formed([1, 2]);
    const removed = leaderOf(cluster);
    const last = 3 - removed;
    // The other one holds the change, but never hears that it is committed, nor is it handed leadership.
    let isCut = false;
    cluster.passes = (from, to) => !isCut || from !== removed || to !== last;
    const removal = cluster.nodeOf(removed).removeMember(removed, forever);
    const logOf = (id: number): number => cluster.get(id).disk.entries.length;
    const before = logOf(last);
    await cluster.until(() => logOf(last) > before, 'the change is on its disk');
    isCut = true;
    await cluster.whilePumping(removal);
    cluster.crash(removed);
    cluster.crash(last);
    isCut = false;
    await cluster.start(removed, 'restart');
    await cluster.start(last, 'restart');
    await cluster.until(() => cluster.leader() === last, 'the last one leads');
    assert.equal((await propose(cluster, last, 'x')).kind, 'committed');
  });

  test('a member changes its address', async () => {
    const cluster = await formed([1, 2, 3]);
    const leader = leaderOf(cluster);
    const moved = { ...cluster.get(2).member, address: 'elsewhere:9' };
    await cluster.whilePumping(cluster.nodeOf(leader).addMember(moved, forever));
    await cluster.until(
      () => [1, 2, 3].every((id) => cluster.nodeOf(id).status().members[1]?.address === 'elsewhere:9'),
      'all know the new address',
    );
    cluster.crash(3);
    await cluster.start(3, 'restart');
    await cluster.until(
      () => cluster.nodeOf(3).status().members[1]?.address === 'elsewhere:9',
      'also after a restart',
    );
  });

  test('concurrent membership changes are made one after another', async () => {
    const cluster = await formed([1]);
    for (const id of [2, 3]) {
      cluster.define(id);
      await cluster.start(id, 'join');
    }
    const node = cluster.nodeOf(1);
    const both = [2, 3].map((id) => node.addMember(cluster.get(id).member, forever));
    await cluster.whilePumping(Promise.all(both));
    assert.deepEqual(
      node.status().members.map((member) => member.voter),
      [true, true, true],
    );
  });

  test('a follower far behind, and a new member, catch up by snapshot', async () => {
    const cluster = await formed([1, 2, 3], 3, { snapshotEntries: 30, snapshotKeepEntries: 5 });
    const leader = leaderOf(cluster);
    const behind = [1, 2, 3].find((id) => id !== leader) ?? 0;
    cluster.crash(behind);
    // The leader keeps what a follower needs that it believes to be there.
    await cluster.run(250);
    for (let i = 0; i < 6; i++) await proposeMany(cluster, leader, 25, `${i}-`);
    assert.ok((cluster.get(leader).disk.entries[0]?.index ?? 0) > 60, 'the log was cut');
    await cluster.start(behind, 'restart');
    await cluster.until(() => sameState(cluster, [1, 2, 3]), 'the follower caught up');
    assert.equal(cluster.get(behind).machine.commands.length, 150);
    const newcomer = cluster.define(4);
    await cluster.start(4, 'join');
    await cluster.whilePumping(cluster.nodeOf(leaderOf(cluster)).addMember(newcomer.member, forever));
    await cluster.until(() => sameState(cluster, [1, 2, 3, 4]), 'the newcomer caught up');
    assert.equal(cluster.nodeOf(4).status().members.length, 4);
    cluster.crash(4);
    await cluster.start(4, 'restart');
    await proposeMany(cluster, leaderOf(cluster), 3, 'after');
    await cluster.until(() => sameState(cluster, [1, 2, 3, 4]), 'also after its restart');
    assert.deepEqual(cluster.violations, []);
  });

  test('a newcomer, and a member that was away, catch up with a leader that moved', async () => {
    const cluster = await formed([1, 2, 3], 4);
    const leader = leaderOf(cluster);
    const away = [1, 2, 3].find((id) => id !== leader) ?? 0;
    cluster.crash(away);
    const moved = { ...cluster.get(leader).member, address: 'elsewhere:1' };
    cluster.get(leader).address = moved.address;
    for (const id of [1, 2, 3]) if (id !== away) cluster.nodeOf(id).noteAddress(leader, moved.address);
    await cluster.whilePumping(cluster.nodeOf(leader).addMember(moved, forever));
    await proposeMany(cluster, leader, 5, 'after');
    await cluster.start(away, 'restart');
    await cluster.until(() => sameState(cluster, [1, 2, 3]), 'the member that was away caught up');
    assert.equal(leaderOf(cluster), leader, 'and needed no other leader for it');
    const newcomer = cluster.define(4);
    await cluster.start(4, 'join');
    await cluster.whilePumping(cluster.nodeOf(leader).addMember(newcomer.member, forever));
    await cluster.until(() => sameState(cluster, [1, 2, 3, 4]), 'the newcomer caught up');
    assert.deepEqual(cluster.violations, []);
  });

  test('a large snapshot goes in chunks, over a network that loses them', async () => {
    const cluster = await formed([1], 5, { snapshotEntries: 20, snapshotKeepEntries: 2 });
    const big = 'x'.repeat(100_000);
    for (let i = 0; i < 40; i++) await propose(cluster, 1, `${i}${big}`);
    assert.ok(cluster.get(1).disk.snapshotState.length > 3 * 512 * 1024, 'several chunks');
    cluster.faults = { loss: 1000, duplication: 500, delayMaxMs: 5, diskDelayMaxMs: 0 };
    const newcomer = cluster.define(2);
    await cluster.start(2, 'join');
    await cluster.whilePumping(cluster.nodeOf(1).addMember(newcomer.member, forever));
    await cluster.until(() => sameState(cluster, [1, 2]), 'it caught up');
    assert.deepEqual(cluster.violations, []);
  });

  test('a receiver that crashes in the middle of a snapshot starts over, and gets it', async () => {
    const cluster = await formed([1], 6, { snapshotEntries: 20, snapshotKeepEntries: 2 });
    const big = 'x'.repeat(100_000);
    for (let i = 0; i < 60; i++) await propose(cluster, 1, `${i}${big}`);
    let answers = 0;
    cluster.passes = (from) => from !== 2 || ++answers < 14;
    cluster.define(2);
    await cluster.start(2, 'join');
    const adding = cluster.nodeOf(1).addMember(cluster.get(2).member, forever);
    await cluster.until(() => answers > 20, 'the transfer is under way');
    assert.equal(cluster.nodeOf(2).status().appliedIndex, 0);
    cluster.crash(2);
    cluster.passes = () => true;
    await cluster.start(2, 'restart');
    await cluster.whilePumping(adding);
    await cluster.until(() => sameState(cluster, [1, 2]), 'it caught up');
    assert.deepEqual(cluster.violations, []);
  });

  test('a leader whose disk hangs gives up leadership', async () => {
    const cluster = await formed([1, 2, 3]);
    const slow = leaderOf(cluster);
    const gate = Promise.withResolvers<void>();
    cluster.beforeStep = (id) => (id === slow ? gate.promise : undefined);
    void cluster.nodeOf(slow).propose(bytes('x'), forever);
    await cluster.until(() => cluster.leader() !== null && cluster.leader() !== slow, 'another leads');
    assert.equal((await propose(cluster, leaderOf(cluster), 'y')).kind, 'committed');
    gate.resolve();
    await cluster.until(() => sameState(cluster, [1, 2, 3]), 'all have the same state');
  });

  test('garbage from the network is counted and dropped', async () => {
    const cluster = await formed([1]);
    const node = cluster.nodeOf(1);
    for (const frame of [new Uint8Array(0), Uint8Array.of(1), Uint8Array.of(9, 9, 9), new Uint8Array(200)]) {
      node.receive(frame);
    }
    assert.equal(node.refusedFrames().malformed, 4);
    assert.equal((await propose(cluster, 1, 'fine')).kind, 'committed');
  });
});
