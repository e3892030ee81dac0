/** Named regressions of leadership transfer. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SimCluster } from '../cluster.ts';
import { bytes, from, group } from '../network.ts';
import { ask, pending, sentOf } from '../paper/scenes.ts';

const never = new AbortController().signal;

describe('regressions: leadership transfer', () => {
  test('hashicorp-413: asked to hand over, a candidate waited for an election that it could not win', async () => {
    const cluster = new SimCluster(1);
    await cluster.form([1, 2, 3]);
    const old = cluster.leader() ?? 0;
    cluster.passes = () => false;
    await cluster.until(
      () => cluster.nodeOf(old).status().role === 'candidate',
      'it campaigns in vain',
      5_000,
    );
    await assert.rejects(cluster.whilePumping(cluster.nodeOf(old).transferLeadership(null, never), 2_000), {
      code: 'NO_LEADER',
    });
    await cluster.stop();
  });

  test('hashicorp-487: a message of the old leader, still under way, turned its successor back into a follower', () => {
    for (const type of ['append', 'heartbeat'] as const) {
      const network = group(3);
      ask(network, from(1, 'timeout-now', 2, { term: 1 }));
      assert.equal(network.role(2), 'candidate');
      network.core(2).receive(from(1, type, 2, { term: 1, index: 1, logTerm: 1, commit: 1 }));
      assert.equal(network.role(2), 'candidate');
      network.settle();
      network.core(2).receive(from(3, 'vote-response', 2, { term: 2 }));
      assert.equal(network.role(2), 'leader');
    }
  });

  test('hashicorp-570: the mark of a handover stayed on, and a later election broke into a working group', () => {
    const network = group(3, { electionTicks: 10 });
    network.isolate(2);
    ask(network, from(1, 'timeout-now', 2, { term: 1 }));
    const marked = sentOf(network, 'vote').filter((sent) => sent.from === 2);
    assert.ok(marked.length > 0 && marked.every((sent) => sent.context === 1));
    network.sent.length = 0;
    network.tick(2, 100);
    const later = network.sent.filter((sent) => sent.type === 'vote' || sent.type === 'pre-vote');
    assert.ok(later.length > 0);
    assert.deepEqual(
      later.filter((sent) => sent.context !== 0 || sent.type === 'vote'),
      [],
      'an ordinary election asks first, and does not ask to ignore a live leader',
    );
  });

  test('hashicorp-581: commands taken during a handover made the old log the longer one, and the handover fail', () => {
    const network = group(3);
    network.core(1).transferLeadership(2);
    const [request] = pending(network, 1);
    assert.equal(request?.type, 'timeout-now');
    assert.equal(network.core(1).propose([bytes('in between')]), 'dropped');
    assert.deepEqual(network.log(1), ['1/1']);
    if (request !== undefined) network.deliver(request);
    network.settle();
    assert.equal(network.role(2), 'leader');
  });
});
