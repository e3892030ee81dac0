/** The extended Raft paper, §7 (log compaction): a test a claim. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { EMPTY_BYTES, type Snapshot } from '../../../src/raft/core/types.ts';
import { entry, from, group, Network, voters } from '../network.ts';
import { SimCluster } from '../cluster.ts';
import { ask, logOf, sentOf } from './scenes.ts';

const snapshotAt = (index: number, term: number, ids = [1, 2, 3]): Snapshot => ({
  index,
  term,
  config: voters(...ids),
  data: EMPTY_BYTES,
});

/** A group of three with ten committed entries, of which member 3 got the first only. */
function withStraggler(): Network {
  const network = group(3);
  network.isolate(3);
  for (let i = 0; i < 10; i++) network.propose(1, `${i}`);
  return network;
}

describe('§7 taking snapshots', () => {
  test('each member takes its own, of committed entries, whether it leads or not', () => {
    const network = group(3);
    for (let i = 0; i < 5; i++) network.propose(1, `${i}`);
    for (const id of [1, 2]) {
      const snapshot = network.compact(id);
      assert.equal(snapshot.index, network.core(id).state.log.applied);
      assert.deepEqual(network.log(id), []);
    }
    network.propose(1, 'after');
    for (const id of [1, 2, 3]) assert.equal(network.texts(id).at(-1), 'after');
  });

  test('it remembers the place it replaces, so that the next append can be checked against it', () => {
    const network = group(3);
    for (let i = 0; i < 5; i++) network.propose(1, `${i}`);
    const { index, term } = network.compact(2);
    assert.equal(network.core(2).state.log.term(index), term);
    const [next] = ask(
      network,
      from(1, 'append', 2, { term: 1, index, logTerm: term, entries: [entry(1, index + 1)] }),
    );
    assert.equal(next?.reject, false);
  });

  test('it holds the configuration as of its last entry', () => {
    const network = group(1);
    network.add(2, voters(1));
    network.change(1, [{ kind: 'add-learner', id: 2 }]);
    assert.deepEqual(network.compact(1).config, { ...voters(1), learners: [2] });
    network.restart(1);
    assert.deepEqual(network.core(1).config().learners, [2]);
  });

  test('a restart begins with it and goes on with the entries behind it', () => {
    const network = group(1);
    network.propose(1, 'before');
    network.compact(1);
    network.propose(1, 'after');
    network.restart(1);
    network.elect(1);
    assert.deepEqual(network.texts(1), ['before', 'after'], 'what the snapshot covers is not applied again');
  });

  test('a new one takes the place of the old one and of the log up to it', () => {
    const network = group(1);
    network.propose(1, 'a');
    network.compact(1);
    network.propose(1, 'b');
    const second = network.compact(1);
    assert.deepEqual(network.peer(1).stable.snapshot(), second);
    assert.equal(network.peer(1).stable.firstIndex(), second.index + 1);
  });

  test('a member takes one by itself when its log has grown enough, and works on meanwhile', async () => {
    const cluster = new SimCluster(1, { snapshotEntries: 10, snapshotKeepEntries: 2 });
    await cluster.form([1]);
    const hold = Promise.withResolvers<void>();
    cluster.beforeStep = (_, step) => (step === 'snapshot-chunks' ? hold.promise : undefined);
    const never = new AbortController().signal;
    for (let i = 0; i < 30; i++) {
      const outcome = cluster.nodeOf(1).propose(new TextEncoder().encode(`${i}`), never);
      assert.equal((await cluster.whilePumping(outcome)).kind, 'committed');
    }
    assert.equal(cluster.get(1).disk.snapshot, null, 'the first one is still being written');
    hold.resolve();
    await cluster.until(() => (cluster.get(1).disk.entries[0]?.index ?? 1) > 5, 'the log is cut');
    await cluster.stop();
  });
});

describe('§7 sending snapshots', () => {
  test('the leader sends one when it no longer has the next entry, and not otherwise', () => {
    const kept = withStraggler();
    kept.heal();
    kept.tick(1, 3);
    assert.equal(sentOf(kept, 'snapshot').length, 0);
    const dropped = withStraggler();
    dropped.compact(1);
    dropped.heal();
    dropped.tick(1, 3);
    assert.equal(sentOf(dropped, 'snapshot', 3).length, 1);
    assert.equal(dropped.peer(3).stable.snapshot()?.index, 11);
  });

  test('a new member is brought up to date by one', () => {
    const network = group(1);
    for (let i = 0; i < 5; i++) network.propose(1, `${i}`);
    network.add(2, voters(1));
    network.isolate(2);
    network.change(1, [{ kind: 'add-learner', id: 2 }]);
    network.compact(1);
    network.heal();
    network.tick(1, 3);
    assert.equal(network.peer(2).stable.snapshot()?.index, 7);
    network.propose(1, 'next');
    assert.deepEqual(network.texts(2), ['next']);
  });

  test('the leader goes on from the log once the follower has it', () => {
    const network = withStraggler();
    network.compact(1);
    network.propose(1, 'behind the snapshot');
    network.heal();
    network.tick(1, 3);
    assert.deepEqual(network.texts(3), ['behind the snapshot']);
    assert.equal(network.core(1).state.tracker.progress.get(3)?.state, 'replicate');
  });

  test('a follower that has what it brings only moves its commit index, and keeps its log', () => {
    const network = new Network();
    network.add(1, voters(1, 2, 3), { log: logOf(1, 1, 1, 1) });
    const [answer] = ask(network, from(2, 'snapshot', 1, { term: 1, snapshot: snapshotAt(2, 1) }));
    assert.equal(answer?.index, 2);
    assert.equal(network.core(1).state.log.committed, 2);
    assert.equal(network.log(1).length, 4);
  });

  test('a follower whose log it contradicts drops all of it', () => {
    const network = new Network();
    const hardState = { term: 3, vote: 0, commit: 1 };
    network.add(1, voters(1, 2, 3), { log: logOf(1, 1, 1, 1, 1), hardState });
    const [answer] = ask(network, from(2, 'snapshot', 1, { term: 3, snapshot: snapshotAt(4, 3) }));
    assert.equal(answer?.index, 4);
    assert.deepEqual(network.log(1), []);
    assert.equal(network.core(1).state.log.lastIndex(), 4);
  });

  test('one that is older than what the follower committed changes nothing', () => {
    const network = group(3);
    for (let i = 0; i < 5; i++) network.propose(1, `${i}`);
    const before = network.log(2);
    const [answer] = ask(network, from(1, 'snapshot', 2, { term: 1, snapshot: snapshotAt(3, 1) }));
    assert.equal(answer?.index, 6, 'the leader is told where to go on');
    assert.deepEqual(network.log(2), before);
  });

  test('one of an older term is ignored', () => {
    const network = group(3);
    network.core(2).receive(from(3, 'vote', 2, { term: 4, index: 1, logTerm: 1, context: 1 }));
    ask(network, from(1, 'snapshot', 2, { term: 1, snapshot: snapshotAt(50, 1) }));
    assert.equal(network.core(2).state.log.committed, 1);
  });

  test('our chunks: the core hears of a snapshot only when its whole state arrived', async () => {
    const cluster = new SimCluster(2, { snapshotEntries: 10, snapshotKeepEntries: 2 });
    await cluster.form([1]);
    const never = new AbortController().signal;
    const big = 'x'.repeat(200_000);
    for (let i = 0; i < 12; i++)
      await cluster.whilePumping(cluster.nodeOf(1).propose(new TextEncoder().encode(`${i}${big}`), never));
    let answers = 0;
    cluster.passes = (source) => source !== 2 || answers++ < 8;
    const { member } = cluster.define(2);
    await cluster.start(2, 'join');
    const adding = cluster.nodeOf(1).addMember(member, never);
    await cluster.until(() => answers > 12, 'chunks are under way');
    assert.equal(cluster.nodeOf(2).status().appliedIndex, 0);
    assert.equal(cluster.get(2).disk.snapshot, null);
    cluster.passes = () => true;
    await cluster.whilePumping(adding);
    assert.equal(cluster.get(2).machine.commands.length, 12);
    await cluster.stop();
  });
});
