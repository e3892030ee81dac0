/** Leadership transfer: the thesis, §3.10. A test a claim; what our driver adds says "ours". */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SimCluster } from '../cluster.ts';
import { bytes, from, group, type Network, voters } from '../network.ts';
import { ask, lapse, pending, sentOf } from './scenes.ts';

const never = new AbortController().signal;

/** Leader 1 wants to hand over to 2, which lacks the last entry and cannot be reached. */
function stuck(): Network {
  const network = group(3, { electionTicks: 10 });
  network.isolate(2);
  network.propose(1, 'x');
  network.core(1).transferLeadership(2);
  network.settle();
  return network;
}

describe('thesis §3.10 leadership transfer', () => {
  test('the old leader takes no new commands while it hands over', () => {
    const network = stuck();
    assert.equal(network.core(1).propose([bytes('y')]), 'dropped');
  });

  test('it first brings the target\u2019s log up to its own', () => {
    const network = stuck();
    assert.deepEqual(sentOf(network, 'timeout-now'), []);
    network.heal();
    network.tick(1, 2);
    const sent = network.sent.map((each) => each.type);
    assert.ok(sent.includes('timeout-now'));
    assert.equal(network.role(2), 'leader');
    assert.deepEqual(network.texts(2), ['x']);
  });

  test('a target that is up to date is asked at once', () => {
    const network = group(3);
    network.core(1).transferLeadership(2);
    assert.deepEqual(
      pending(network, 1).map((sent) => [sent.type, sent.to]),
      [['timeout-now', 2]],
    );
  });

  test('the target campaigns at once, in the next term, without waiting for its timeout', () => {
    const network = group(3);
    const said = ask(network, from(1, 'timeout-now', 2, { term: 1 }));
    assert.equal(network.role(2), 'candidate');
    assert.equal(network.term(2), 2);
    assert.deepEqual(
      said.map((sent) => sent.type),
      ['vote'],
    );
  });

  test('ours: it skips the pre-vote, and its votes are answered although a leader is known (§4.2.3)', () => {
    const network = group(5);
    network.core(1).transferLeadership(3);
    network.settle();
    assert.deepEqual(
      sentOf(network, 'pre-vote', 1).filter((sent) => sent.from === 3),
      [],
    );
    assert.equal(network.role(3), 'leader');
    for (const id of [1, 2, 4, 5]) assert.equal(network.core(id).state.leader, 3);
  });

  test('the old leader steps down when the target\u2019s request reaches it', () => {
    const network = group(3);
    network.core(1).transferLeadership(2);
    network.settle();
    assert.equal(network.role(1), 'follower');
    assert.equal(network.term(1), 2);
  });

  test('it takes about one election timeout; then the old leader gives up and takes commands again', () => {
    const network = stuck();
    network.tick(1, 20);
    assert.equal(network.role(1), 'leader');
    assert.equal(network.core(1).state.transferee, 0);
    assert.equal(network.core(1).propose([bytes('y')]), 'ok');
  });

  test('a target that fails leaves the group as it was', () => {
    const network = group(3, { electionTicks: 10 });
    network.peers.delete(2);
    network.core(1).transferLeadership(2);
    network.tick(1, 11);
    network.propose(1, 'still here');
    assert.deepEqual(network.texts(3), ['still here']);
  });

  test('a late request to take over is harmless: it is of an older term', () => {
    const network = group(3);
    lapse(network, 2, 3);
    network.elect(3);
    assert.equal(network.term(2), 2);
    ask(network, from(1, 'timeout-now', 2, { term: 1 }));
    assert.equal(network.role(2), 'follower');
    assert.equal(network.core(2).state.leader, 3);
  });

  test('safety does not depend on it: a target without the committed entries is not elected', () => {
    const network = group(3);
    network.isolate(3);
    network.propose(1, 'committed');
    network.heal();
    network.core(3).receive(from(1, 'timeout-now', 3, { term: 1 }));
    network.settle();
    assert.notEqual(network.role(3), 'leader');
  });

  test('to itself, to a learner, or to a stranger there is nothing to hand over', () => {
    const network = group(3);
    network.add(4, voters(1, 2, 3));
    network.change(1, [{ kind: 'add-learner', id: 4 }]);
    network.tick(1, 2);
    for (const id of [1, 4, 9]) {
      network.core(1).transferLeadership(id);
      network.settle();
      assert.equal(network.role(1), 'leader', `${id}`);
      assert.equal(network.core(1).state.transferee, 0);
    }
  });

  test('a second target takes the place of the first', () => {
    const network = stuck();
    network.core(1).transferLeadership(3);
    network.settle();
    assert.equal(network.role(3), 'leader');
  });

  test('a learner, or a member that was removed, does not obey a request to take over', () => {
    const network = group(3);
    network.add(4, { ...voters(1, 2, 3), learners: [4] });
    network.add(5, voters(1, 2, 3));
    for (const id of [4, 5]) {
      ask(network, from(1, 'timeout-now', id, { term: 1 }));
      assert.equal(network.role(id), 'follower');
    }
  });

  test('ours: a handover ends with an answer: done, or TIMEOUT with the old leader still leading', async () => {
    const cluster = new SimCluster(1);
    await cluster.form([1, 2, 3]);
    const old = cluster.leader() ?? 0;
    const [a = 0, b = 0] = [1, 2, 3].filter((id) => id !== old);
    cluster.passes = (_, to) => to !== a;
    await assert.rejects(cluster.whilePumping(cluster.nodeOf(old).transferLeadership(a, never)), {
      code: 'TIMEOUT',
    });
    assert.equal(cluster.leader(), old);
    cluster.passes = () => true;
    await cluster.whilePumping(cluster.nodeOf(old).transferLeadership(b, never));
    assert.equal(cluster.leader(), b);
    await cluster.stop();
  });
});
