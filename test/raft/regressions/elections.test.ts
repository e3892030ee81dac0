/** Named regressions of pre-vote: a majority was up, and nobody was elected. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { group, Network, voters } from '../network.ts';
import { logOf } from '../paper/scenes.ts';

/** Ticks these members together until one leads; the number of ticks, or null when none does. */
function ticksToLeader(network: Network, ids: readonly number[], ticksMax: number): number | null {
  for (let ticks = 1; ticks <= ticksMax; ticks++) {
    for (const id of ids) network.core(id).tick();
    network.settle();
    if (ids.some((id) => network.role(id) === 'leader')) return ticks;
  }
  return null;
}

describe('regressions: elections', () => {
  test('etcd-8243: a member of an older term answered pre-votes in its own, and was never heard', () => {
    // 1 went through elections up to term 5 with a leader that is gone; 3 was cut off in term 1 all the while.
    const network = new Network();
    network.add(1, voters(1, 2, 3), { log: logOf(1, 5), hardState: { term: 5, vote: 2, commit: 1 } });
    network.add(3, voters(1, 2, 3), { log: logOf(1), hardState: { term: 1, vote: 2, commit: 1 } });
    // Only 1 gets to campaign: what 3 learns by campaigning itself is another matter (8501).
    assert.notEqual(ticksToLeader(network, [1], 100), null);
    assert.equal(network.role(1), 'leader');
    assert.deepEqual(network.log(3), network.log(1));
  });

  test('etcd-8501: a higher term with a shorter log faced a lower term with a longer one, and neither gave way', () => {
    const network = new Network();
    network.add(1, voters(1, 2, 3), { log: logOf(1), hardState: { term: 5, vote: 1, commit: 1 } });
    network.add(2, voters(1, 2, 3), { log: logOf(1, 1, 1), hardState: { term: 3, vote: 2, commit: 1 } });
    assert.notEqual(ticksToLeader(network, [1, 2], 100), null);
    assert.equal(network.role(2), 'leader', 'only the longer log may lead');
    assert.ok(network.term(2) > 5);
  });

  test('etcd-10355: pre-candidates kept the lost leader in mind, and ignored each other\u2019s pre-votes in turn', () => {
    for (let lag = 0; lag < 12; lag++) {
      const network = group(3, { electionTicks: 10 });
      network.peers.delete(1);
      for (const id of [2, 3]) network.core(id).state.electionDueTicks = 12;
      // The last heartbeat reached 3 later than 2.
      for (let i = 0; i < lag; i++) network.core(2).tick();
      assert.notEqual(ticksToLeader(network, [2, 3], 300), null, `${lag} ticks apart`);
    }
  });
});
