/** Named regressions of linearizable reads: a read was answered that was already out of date. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { coreDefaults } from '../../../src/raft/core/config.ts';
import { SimCluster } from '../cluster.ts';
import { bytes, from, group, Network, voters } from '../network.ts';
import { lapse, logOf, pending } from '../paper/scenes.ts';

const never = new AbortController().signal;

describe('regressions: reads', () => {
  test('etcd-7331: a new leader answered with a commit index from before its term', () => {
    const network = group(3);
    network.passes = (sent) => sent.type !== 'append' || sent.entries.length > 0;
    network.propose(1, 'acknowledged');
    assert.equal(
      network.core(2).state.log.committed,
      1,
      'the next leader holds it, but does not know of the commit',
    );
    lapse(network, 2, 3);
    network.passes = (sent) => sent.type !== 'append';
    network.elect(2);
    assert.equal(network.role(2), 'leader');
    network.core(2).readIndex(1);
    network.settle();
    assert.deepEqual(network.peer(2).reads, []);
    network.heal();
    network.tick(2, 2);
    assert.deepEqual(network.peer(2).reads, [{ index: 3, context: 1 }]);
    assert.deepEqual(network.texts(2), ['acknowledged']);
  });

  test('redisraft-18: after a restart of the whole group reads were empty for a while', async () => {
    const lone = new Network();
    const hardState = { term: 1, vote: 1, commit: 1 };
    const { core } = lone.add(1, voters(1), { log: logOf(1, 1), hardState, preVote: false });
    core.campaign();
    lone.handle(lone.peer(1));
    core.readIndex(3);
    lone.settle();
    assert.deepEqual(lone.peer(1).reads, [{ index: 3, context: 3 }]);

    const cluster = new SimCluster(1);
    await cluster.form([1, 2, 3]);
    await cluster.whilePumping(cluster.nodeOf(cluster.leader() ?? 0).propose(bytes('kept'), never));
    for (const id of [1, 2, 3]) cluster.crash(id);
    for (const id of [1, 2, 3]) await cluster.start(id, 'restart');
    for (const id of [1, 2, 3]) {
      await cluster.until(() => cluster.nodeOf(id).status().leaderId !== null, 'it knows a leader');
      await cluster.whilePumping(cluster.nodeOf(id).readIndex(never));
      assert.ok(cluster.get(id).machine.seen.has('kept'), `member ${id}`);
    }
    await cluster.stop();
  });

  test('etcd-20418: an answer to an earlier round confirmed a read that was asked again under the same context', () => {
    const network = group(3);
    const requestOf3 = from(3, 'read-index', 1, { context: 77 });
    network.core(1).receive(requestOf3);
    const beat = pending(network, 1).find((sent) => sent.type === 'heartbeat' && sent.to === 2);
    assert.ok(beat);
    const late = from(2, 'heartbeat-response', 1, { term: 1, context: beat.context });
    network.core(1).receive(late);
    assert.deepEqual(
      pending(network, 1).map((sent) => sent.type),
      ['read-index-response'],
    );
    // Cut off, replaced without knowing it, and asked again; the network delivers the old answer once more.
    network.isolate(1);
    lapse(network, 2, 3);
    network.elect(2);
    network.propose(2, 'newer');
    network.core(1).receive(requestOf3);
    network.core(1).receive(late);
    assert.deepEqual(
      pending(network, 1).filter((sent) => sent.type === 'read-index-response'),
      [],
    );
  });

  test('d-engine-381: a leader cut off with a minority answered reads from its own state', () => {
    const network = group(3);
    network.propose(1, 'old');
    network.isolate(1);
    lapse(network, 2, 3);
    network.elect(2);
    network.propose(2, 'new');
    assert.equal(network.role(1), 'leader', 'it does not know');
    network.core(1).readIndex(1);
    network.settle();
    assert.deepEqual(network.peer(1).reads, []);
  });

  test('raft-rs-368: reads that waited for a voter waited on when that voter was removed', () => {
    const network = group(2);
    network.passes = (sent) => sent.type !== 'heartbeat-response';
    network.core(1).readIndex(1);
    network.settle();
    assert.deepEqual(network.peer(1).reads, []);
    network.change(1, [{ kind: 'remove', id: 2 }]);
    assert.deepEqual(network.core(1).config().voters, [1]);
    assert.deepEqual(network.peer(1).reads, [{ index: 1, context: 1 }], 'the leader is the majority now');
    assert.equal(network.core(1).state.reads.pending.length, 0);
  });

  test('stale reads by default: without asking for it, any member answered from its own state (etcd 0.4.1)', async () => {
    assert.equal(coreDefaults.readOnly, 'safe');
    const cluster = new SimCluster(4);
    await cluster.form([1, 2, 3]);
    const leader = cluster.leader() ?? 0;
    const [cut = 0] = [1, 2, 3].filter((id) => id !== leader);
    cluster.passes = (source, to) => source !== cut && to !== cut;
    await cluster.whilePumping(cluster.nodeOf(leader).propose(bytes('new'), never));
    let answered: 'yes' | 'no' | null = null;
    cluster
      .nodeOf(cut)
      .readIndex(never)
      .then(
        () => (answered = 'yes'),
        () => (answered = 'no'),
      );
    await cluster.run(2_000);
    assert.notEqual(answered, 'yes', 'it could only answer with what it had before');
    cluster.passes = () => true;
    await cluster.until(() => cluster.nodeOf(cut).status().leaderId !== null, 'it is back');
    await cluster.whilePumping(cluster.nodeOf(cut).readIndex(never));
    assert.ok(cluster.get(cut).machine.seen.has('new'));
    await cluster.stop();
  });
});
