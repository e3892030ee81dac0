/** Named regressions of commitment and durability: what was committed, acknowledged or applied too early. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Message } from '../../../src/raft/core/types.ts';
import { SimCluster } from '../cluster.ts';
import { bytes, entry, from, group, Network, voters } from '../network.ts';
import { ask, committed, lapse, logOf, pending } from '../paper/scenes.ts';

const never = new AbortController().signal;
const plain = { preVote: false, checkQuorum: false } as const;

/** The storage request in a ready set of a core with asynchronous storage. */
function writeOf(messages: readonly Message[]): Message {
  const write = messages.find((sent) => sent.type === 'storage-append');
  assert.ok(write, 'something is to be written');
  return write;
}

describe('regressions: commitment', () => {
  test('fig8: an entry of an earlier term was committed by counting its copies, and then replaced', () => {
    // Figure 8: 1 leads again in term 4; its entry of term 2 is on a majority, but 5 may still replace it.
    const network = new Network();
    const hardState = { term: 3, vote: 0, commit: 1 };
    const ids = [1, 2, 3, 4, 5];
    for (const id of [1, 2, 3]) network.add(id, voters(...ids), { ...plain, log: logOf(1, 2), hardState });
    network.add(4, voters(...ids), { ...plain, log: logOf(1), hardState });
    network.add(5, voters(...ids), { ...plain, log: [entry(1, 1, '1/1'), entry(3, 2, '3/2')], hardState });
    const isNew = (sent: Message): boolean => sent.entries.some((each) => each.term === 4);
    network.passes = (sent) => ![sent.to, sent.from].includes(5) && !isNew(sent);
    network.elect(1);
    for (const id of [2, 3]) network.core(1).receive(from(id, 'append-response', 1, { term: 4, index: 2 }));
    assert.equal(network.role(1), 'leader');
    assert.equal(committed(network, 1), 1);
    network.heal();
    network.peers.delete(1);
    for (let i = 0; i < 2; i++) network.elect(5);
    assert.equal(network.role(5), 'leader');
    assert.deepEqual(network.texts(2), ['1/1', '3/2'], 'and nothing committed was lost');
  });

  test('etcd-14370: a lone member confirmed a write before it was durable', async () => {
    const network = new Network();
    const { core, stable } = network.add(1, voters(1), { ...plain, asyncStorage: true });
    core.campaign();
    for (const response of writeOf(core.ready().messages).responses) core.receive(response);
    const write = writeOf(core.ready().messages);
    assert.equal(core.state.role, 'leader');
    assert.equal(core.state.log.committed, 0, 'its own copy does not count yet');
    stable.append(write.entries);
    for (const response of write.responses) core.receive(response);
    assert.equal(core.state.log.committed, 1);

    const cluster = new SimCluster(1);
    await cluster.form([1]);
    const gate = Promise.withResolvers<void>();
    cluster.beforeStep = () => gate.promise;
    let isAnswered = false;
    void cluster
      .nodeOf(1)
      .propose(bytes('x'), never)
      .then(() => {
        isAnswered = true;
      });
    await cluster.run(50);
    assert.equal(isAnswered, false);
    assert.deepEqual(cluster.get(1).machine.commands, []);
    gate.resolve();
    await cluster.until(() => isAnswered, 'it is answered once it is durable');
    await cluster.stop();
  });

  test('ccf-5674: a member that entered a new term forgot entries it had acknowledged, and voted against them', () => {
    const network = group(3, plain);
    network.passes = (sent) => sent.to !== 3 && (sent.to !== 2 || sent.commit < 2);
    network.propose(1, 'acknowledged');
    assert.deepEqual(network.texts(1), ['acknowledged']);
    assert.equal(committed(network, 2), 1, 'member 2 holds it, and does not know that it is committed');
    network.peers.delete(1);
    network.heal();
    const answers = ask(network, from(3, 'vote', 2, { term: 9, index: 1, logTerm: 1 }));
    assert.equal(network.term(2), 9);
    assert.equal(answers[0]?.reject, true, 'the candidate lacks it');
    assert.deepEqual(network.log(2), ['1/1', '1/2']);
    network.elect(2);
    assert.deepEqual(network.texts(3), ['acknowledged']);
  });

  test('append-aba: the late acknowledgement of a replaced write counted for the same entry written anew', () => {
    const network = new Network();
    const { core } = network.add(1, voters(1, 2, 3), { asyncStorage: true });
    const append = (term: number, leader: number, entryTerm: number): Message => {
      core.receive(from(leader, 'append', 1, { term, entries: [entry(entryTerm, 1)] }));
      return writeOf(core.ready().messages);
    };
    const deliver = (write: Message): void => {
      for (const response of write.responses) if (response.to === 1) core.receive(response);
    };
    const first = append(1, 2, 1);
    const second = append(2, 3, 2);
    const third = append(3, 2, 1);
    deliver(first);
    assert.equal(
      core.state.log.hasUnstableEntries(),
      true,
      'the disk will hold the entry of term 2 in between',
    );
    deliver(second);
    assert.equal(core.state.log.hasUnstableEntries(), true);
    deliver(third);
    assert.equal(core.state.log.hasUnstableEntries(), false);
  });

  test('dragonboat-249: the state was ahead of the log after a crash, as entries were applied before they were durable', () => {
    const network = new Network();
    const { core, stable } = network.add(1, voters(1, 2, 3), { asyncStorage: true });
    core.receive(from(2, 'append', 1, { term: 1, commit: 1, entries: [entry(1, 1, 'x')] }));
    const { messages } = core.ready();
    assert.deepEqual(
      messages.map((sent) => sent.type),
      ['storage-append'],
      'committed by others, but not on this disk',
    );
    const write = writeOf(messages);
    stable.append(write.entries);
    for (const response of write.responses) if (response.to === 1) core.receive(response);
    assert.ok(core.ready().messages.some((sent) => sent.type === 'storage-apply'));
  });

  test('dragonboat-393: a restarted member lacked an entry it had acknowledged before it was durable', () => {
    const network = new Network();
    const { core } = network.add(1, voters(1, 2, 3), { asyncStorage: true });
    core.receive(from(2, 'append', 1, { term: 1, entries: [entry(1, 1, 'x')] }));
    const { messages } = core.ready();
    assert.deepEqual(
      messages.filter((sent) => sent.type === 'append-response'),
      [],
    );
    const [answer] = writeOf(messages).responses.filter((sent) => sent.type === 'append-response');
    assert.equal(answer?.index, 1, 'the answer waits for the write');
  });

  test('dragonboat-254: a heartbeat committed more than its receiver held, and ended it', () => {
    const network = group(3);
    network.passes = (sent) => sent.to !== 3 || sent.type === 'heartbeat';
    for (let i = 0; i < 5; i++) network.propose(1, `${i}`);
    network.tick(1, 3);
    assert.equal(committed(network, 1), 6);
    assert.equal(committed(network, 3), 1, 'the heartbeats said no more than it acknowledged');
    // A log that did lose its tail is noticed, and ends the member: going on would forge an acknowledgement.
    assert.throws(
      () => network.core(3).receive(from(1, 'heartbeat', 3, { term: 1, commit: 6 })),
      /commit 6 is past the end 1: the log was lost/,
    );
  });

  test('redisraft-14: a failover lost everything, as followers did not apply what they received', async () => {
    const cluster = new SimCluster(3);
    await cluster.form([1, 2, 3]);
    const first = cluster.leader() ?? 0;
    const survivors = [1, 2, 3].filter((id) => id !== first);
    for (let i = 0; i < 5; i++)
      await cluster.whilePumping(cluster.nodeOf(first).propose(bytes(`${i}`), never));
    cluster.crash(first);
    await cluster.until(() => cluster.leader() !== null, 'a survivor leads');
    const second = cluster.leader() ?? 0;
    await cluster.whilePumping(cluster.nodeOf(second).readIndex(never));
    assert.deepEqual(cluster.get(second).machine.commands, ['0', '1', '2', '3', '4']);
    await cluster.until(
      () => survivors.every((id) => cluster.get(id).machine.seen.size === 5),
      'all have all',
    );
    await cluster.stop();
  });

  test('etcd-14143: when the whole group lost its unsynced writes, acknowledged ones were among them', async () => {
    for (let seed = 1; seed <= 4; seed++) {
      const cluster = new SimCluster(seed);
      await cluster.form([1, 2, 3]);
      const knows = (id: number): boolean =>
        cluster
          .nodeOf(id)
          .status()
          .members.every((each) => each.voter);
      await cluster.until(() => [1, 2, 3].every(knows), 'all know the group');
      const leader = cluster.leader() ?? 0;
      const others = [1, 2, 3].filter((id) => id !== leader);
      // The disks of the others are slow: an entry reaches their memory long before it is durable there.
      cluster.beforeStep = (id) => (id === leader ? undefined : new Promise(() => {}));
      const acknowledged: string[] = [];
      for (let i = 0; i < 5; i++) {
        void cluster
          .nodeOf(leader)
          .propose(bytes(`${i}`), never)
          .then((outcome) => {
            if (outcome.kind === 'committed') acknowledged.push(`${i}`);
          });
        await cluster.run(3 * seed);
      }
      for (const id of [1, 2, 3]) cluster.crash(id);
      cluster.beforeStep = () => {};
      for (const id of others) await cluster.start(id, 'restart');
      await cluster.until(() => cluster.leader() !== null, 'the others go on without it');
      const next = cluster.leader() ?? 0;
      await cluster.whilePumping(cluster.nodeOf(next).readIndex(never));
      const { seen } = cluster.get(next).machine;
      assert.deepEqual(
        acknowledged.filter((text) => !seen.has(text)),
        [],
      );
    }
  });

  test('redisraft-28: a vote left before it was durable, and after a crash another one was given in the same term', () => {
    const network = new Network();
    const peer = network.add(1, voters(1, 2, 3), { ...plain, asyncStorage: true });
    const { core } = peer;
    core.receive(from(2, 'vote', 1, { term: 5 }));
    const { messages } = core.ready();
    assert.deepEqual(
      messages.map((sent) => sent.type),
      ['storage-append'],
    );
    const write = writeOf(messages);
    assert.deepEqual(
      write.responses.filter((sent) => sent.to === 2).map((sent) => sent.type),
      ['vote-response'],
    );
    // The power goes before the write: nothing left, so the other candidate may have the vote.
    network.restart(1);
    network.core(1).receive(from(3, 'vote', 1, { term: 5 }));
    assert.equal(writeOf(network.core(1).ready().messages).vote, 3);
    // It goes after the write: the vote stands.
    peer.hardState = { term: write.term, vote: write.vote, commit: write.commit };
    network.restart(1);
    network.core(1).receive(from(3, 'vote', 1, { term: 5 }));
    const refusal = writeOf(network.core(1).ready().messages).responses.find((sent) => sent.to === 3);
    assert.equal(refusal?.reject, true);
  });

  test('etcd-13766: the state and the index it stands for were saved apart, and a restart applied entries twice or not at all', async () => {
    const cluster = new SimCluster(5, { snapshotEntries: 1, snapshotKeepEntries: 1 });
    await cluster.form([1]);
    const big = 'x'.repeat(300_000);
    const wanted = Array.from({ length: 12 }, (_, i) => `${i}${big}`);
    const all = wanted.map((text) => cluster.nodeOf(1).propose(bytes(text), never));
    for (const outcome of await cluster.whilePumping(Promise.all(all)))
      assert.equal(outcome.kind, 'committed');
    await cluster.run(20);
    cluster.crash(1);
    await cluster.start(1, 'restart');
    await cluster.until(() => cluster.leader() === 1, 'it leads again');
    await cluster.whilePumping(cluster.nodeOf(1).readIndex(never));
    assert.ok(cluster.get(1).disk.snapshot !== null, 'snapshots were taken');
    assert.deepEqual(
      cluster.get(1).machine.commands.map((text) => text.length),
      wanted.map((text) => text.length),
    );
    assert.deepEqual(cluster.violations, []);
    await cluster.stop();
  });

  test('raft-300: committed entries counted as uncommitted after a restart, as the stored commit index was behind', async () => {
    const cluster = new SimCluster(6, { snapshotEntries: 5, snapshotKeepEntries: 3, tickMs: 10_000 });
    cluster.define(1);
    await cluster.start(1, 'bootstrap');
    await cluster.until(() => cluster.leader() === 1, 'it leads');
    for (let i = 0; i < 7; i++) await cluster.whilePumping(cluster.nodeOf(1).propose(bytes(`${i}`), never));
    await cluster.run(20);
    const { disk } = cluster.get(1);
    // The commit index is written lazily; a snapshot may be ahead of it, and holds committed entries only.
    disk.hardState = { ...disk.hardState, commit: 1 };
    assert.ok((disk.snapshot?.index ?? 0) > 1);
    cluster.crash(1);
    const node = await cluster.start(1, 'restart');
    assert.ok(node.status().commitIndex >= (disk.snapshot?.index ?? 0));
    await cluster.until(() => cluster.leader() === 1, 'it leads again');
    await cluster.whilePumping(node.readIndex(never));
    assert.equal(cluster.get(1).machine.commands.length, 7);
    await cluster.stop();
  });

  test('a leader that hears of a newer term keeps what it had acknowledged to itself (ccf-5674, the leader\u2019s side)', () => {
    const network = group(3, plain);
    network.core(1).propose([bytes('x')]);
    pending(network, 1);
    lapse(network, 2, 3);
    network.core(1).receive(from(3, 'vote', 1, { term: 9, index: 1, logTerm: 1 }));
    pending(network, 1);
    assert.equal(network.role(1), 'follower');
    assert.deepEqual(network.log(1), ['1/1', '1/2']);
    assert.equal(network.core(1).state.vote, 0, 'and votes for nobody who lacks it');
  });
});
