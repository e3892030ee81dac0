/**
 * Membership changes: the extended Raft paper, §6, and the thesis, chapter 4. A test a claim.
 *
 * Ours differs in one thing throughout: a change counts from the moment it is applied, not from the moment it is
 * in the log. It is safe because a member with a committed change it did not apply does not stand, and no change
 * is begun before the last one is applied and the leader has committed in its own term.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ConfigChangeStep } from '../../../src/raft/core/membership.ts';
import { EMPTY_BYTES, EMPTY_CONFIG } from '../../../src/raft/core/types.ts';
import { SimCluster } from '../cluster.ts';
import { bytes, entry, from, group, Network, voters } from '../network.ts';
import { ask, committed, lapse, logOf, pending, sentOf } from './scenes.ts';

const addVoter = (id: number): ConfigChangeStep => ({ kind: 'add-voter', id });
const addLearner = (id: number): ConfigChangeStep => ({ kind: 'add-learner', id });
const remove = (id: number): ConfigChangeStep => ({ kind: 'remove', id });
const change = (...steps: readonly ConfigChangeStep[]) =>
  ({ transition: 'auto', steps, context: EMPTY_BYTES }) as const;
const votersOf = (network: Network, id: number): readonly number[] => network.core(id).config().voters;
const never = new AbortController().signal;

describe('thesis §4.1 single-server changes', () => {
  test('adding one voter, or removing one, is a change of one entry', () => {
    const network = group(3);
    network.add(4, voters(1, 2, 3));
    network.change(1, [addVoter(4)]);
    network.tick(1, 2);
    for (const id of [1, 2, 3, 4]) assert.deepEqual(votersOf(network, id), [1, 2, 3, 4]);
    network.change(1, [remove(4)]);
    network.tick(1, 2);
    for (const id of [1, 2, 3]) assert.deepEqual(votersOf(network, id), [1, 2, 3]);
  });

  test('it is committed like any entry, by a majority', () => {
    const network = group(3);
    network.isolate(1);
    network.change(1, [remove(3)]);
    assert.deepEqual(votersOf(network, 1), [1, 2, 3]);
    network.heal();
    network.tick(1, 2);
    assert.deepEqual(votersOf(network, 1), [1, 2]);
  });

  test('ours: a change in the log counts for nothing until it is committed and applied', () => {
    const network = group(3);
    network.passes = (sent) => sent.type !== 'append-response';
    network.change(1, [addVoter(4)]);
    assert.equal(network.log(2).length, 2);
    for (const id of [1, 2]) assert.deepEqual(votersOf(network, id), [1, 2, 3]);
  });

  test('so there is nothing to take back when a change is replaced in the log by another leader', () => {
    const network = group(3);
    network.isolate(1);
    network.change(1, [remove(2)]);
    lapse(network, 2, 3);
    network.elect(2);
    network.propose(2, 'x');
    network.heal();
    network.tick(2, 2);
    assert.deepEqual(network.texts(1), ['x']);
    for (const id of [1, 2, 3]) assert.deepEqual(votersOf(network, id), [1, 2, 3]);
  });

  test('the next change waits until the last one is in force', () => {
    const network = group(3);
    network.isolate(1);
    network.change(1, [addVoter(4)]);
    assert.equal(
      network.core(1).configChangeRefusal(change(addVoter(5))),
      'another change is not applied yet',
    );
    network.heal();
    network.tick(1, 2);
    assert.equal(network.core(1).configChangeRefusal(change(addVoter(5))), null);
  });

  test('a leader changes nothing before it committed an entry of its term (correction of 2015)', () => {
    const network = group(3);
    lapse(network, 2, 3);
    network.passes = (sent) => sent.type !== 'append';
    network.elect(2);
    assert.notEqual(network.core(2).configChangeRefusal(change(remove(3))), null);
    network.heal();
    network.tick(2, 2);
    assert.equal(network.core(2).configChangeRefusal(change(remove(3))), null);
  });

  test('requests are served whoever sends them: entries from a leader that is no member here are taken', () => {
    const network = new Network();
    network.add(1, voters(1, 2), { log: logOf(1) });
    const [answer] = ask(
      network,
      from(9, 'append', 1, { term: 2, index: 1, logTerm: 1, entries: [entry(2, 2)] }),
    );
    assert.equal(answer?.reject, false);
    assert.deepEqual(network.log(1), ['1/1', '2/2']);
  });

  test('and a vote is given to a candidate that is no member here', () => {
    const network = new Network();
    network.add(1, voters(1, 2), { log: logOf(1) });
    const [answer] = ask(network, from(9, 'vote', 1, { term: 2, index: 1, logTerm: 1 }));
    assert.equal(answer?.reject, false);
  });

  test('and by a learner that does not know of its promotion yet', () => {
    const network = new Network();
    network.add(1, { ...voters(2, 3), learners: [1] }, { log: logOf(1) });
    assert.equal(ask(network, from(3, 'vote', 1, { term: 2, index: 1, logTerm: 1 }))[0]?.reject, false);
  });

  test('more than one voter at a time changes through a joint configuration only', () => {
    const network = group(3);
    const core = network.core(1);
    const twoAtOnce = {
      transition: 'joint-explicit',
      steps: [addVoter(4), addVoter(5)],
      context: EMPTY_BYTES,
    } as const;
    core.applyConfigChange(twoAtOnce);
    assert.deepEqual(
      core.config().votersOutgoing,
      [1, 2, 3],
      'two voters at once need a joint configuration',
    );
    const before = core.config();
    core.applyConfigChange(change(addVoter(6)));
    assert.deepEqual(core.config(), before, 'and no direct step is made inside one');
  });
});

describe('thesis §4.2.1 new members catch up first', () => {
  test('a joiner receives the log without a vote, and without delaying commits', () => {
    const network = group(3);
    network.add(4, voters(1, 2, 3));
    network.change(1, [addLearner(4)]);
    network.isolate(2, 3, 1);
    network.propose(1, 'x');
    assert.deepEqual(network.texts(1), ['x']);
    network.tick(4, 100);
    assert.equal(network.role(4), 'follower', 'it never stands');
    network.heal();
    network.tick(1, 2);
    assert.deepEqual(network.texts(4), ['x']);
  });

  test('it is promoted only when it is nearly up to date', async () => {
    const cluster = new SimCluster(1, { promotionLagEntries: 5 });
    await cluster.form([1]);
    const { member } = cluster.define(2);
    const adding = cluster.nodeOf(1).addMember(member, never);
    for (let i = 0; i < 40; i++) await cluster.whilePumping(cluster.nodeOf(1).propose(bytes(`${i}`), never));
    const known = (): boolean | undefined =>
      cluster
        .nodeOf(1)
        .status()
        .members.find((each) => each.id === 2)?.voter;
    assert.equal(known(), false, 'it was not even started: it is no voter');
    await cluster.start(2, 'join');
    await cluster.whilePumping(adding);
    assert.equal(known(), true);
    assert.ok(cluster.nodeOf(2).status().commitIndex >= 35);
    await cluster.stop();
  });

  test('why they must: a voter that never answers costs the group its quorum', () => {
    const network = group(1, { electionTicks: 10 });
    network.change(1, [addVoter(2)]);
    network.tick(1, 30);
    assert.equal(network.role(1), 'follower', 'one of two is no majority');
  });
});

describe('thesis §4.2.2 removing the leader', () => {
  test('it leads on until the change is committed', () => {
    const network = group(3);
    network.core(1).proposeConfigChange(change(remove(1)));
    pending(network, 1);
    assert.equal(network.role(1), 'leader');
    network.core(1).receive(from(2, 'append-response', 1, { term: 1, index: 2 }));
    pending(network, 1);
    assert.equal(network.role(1), 'follower');
  });

  test('then it steps down, and another can be elected without it', () => {
    const network = group(3);
    network.change(1, [remove(1)]);
    assert.equal(network.role(1), 'follower');
    network.peers.delete(1);
    lapse(network, 2, 3);
    network.elect(2);
    network.propose(2, 'x');
    assert.deepEqual(network.texts(3), ['x']);
  });

  test('while it manages a group without itself it does not count itself', () => {
    const network = group(3, { stepDownOnRemoval: false });
    network.core(1).proposeConfigChange(change(remove(1)));
    network.core(1).propose([bytes('x')]);
    pending(network, 1);
    network.core(1).receive(from(2, 'append-response', 1, { term: 1, index: 2 }));
    pending(network, 1);
    assert.equal(network.role(1), 'leader', 'our driver lets it lead on until it handed over');
    network.core(1).receive(from(2, 'append-response', 1, { term: 1, index: 3 }));
    pending(network, 1);
    assert.equal(committed(network, 1), 2, 'one of the two that remain');
    network.core(1).receive(from(3, 'append-response', 1, { term: 1, index: 3 }));
    assert.equal(committed(network, 1), 3);
    assert.equal(network.core(1).propose([bytes('y')]), 'dropped', 'ours: it takes no more commands');
  });

  test('our driver hands leadership over instead of leaving the group without a leader', async () => {
    const cluster = new SimCluster(2);
    await cluster.form([1, 2, 3]);
    const old = cluster.leader() ?? 0;
    await cluster.whilePumping(cluster.nodeOf(old).removeMember(old, never));
    await cluster.until(() => cluster.leader() !== null && cluster.leader() !== old, 'a successor', 100);
    await cluster.stop();
  });

  test('ours: a removed member that knows of its removal does not stand', () => {
    const network = group(3);
    network.change(1, [remove(3)]);
    network.tick(1, 2);
    network.isolate(3);
    network.tick(3, 100);
    assert.equal(network.role(3), 'follower');
  });
});

describe('thesis §4.2.3, paper §6: disruptive members', () => {
  /** Member 3 was removed, and does not know it. */
  const withOutcast = (): Network => {
    const network = group(3, { electionTicks: 10 });
    network.passes = (sent) => sent.to !== 3;
    network.change(1, [remove(3)]);
    network.tick(1, 2);
    assert.deepEqual(votersOf(network, 3), [1, 2, 3]);
    network.heal();
    return network;
  };

  test('a removed member that does not know it does not disturb the group', () => {
    const network = withOutcast();
    for (let i = 0; i < 20; i++) {
      network.tick(3, 10);
      network.tick(1, 1);
      network.tick(2, 1);
    }
    assert.equal(network.role(1), 'leader');
    assert.equal(network.term(1), 1);
  });

  test('pre-vote alone would not do, were its log long enough: who hears from a leader ignores votes', () => {
    const network = group(3, { electionTicks: 10 });
    const wish = { term: 2, index: 99, logTerm: 1 };
    assert.deepEqual(ask(network, from(3, 'pre-vote', 2, wish)), []);
    assert.deepEqual(ask(network, from(3, 'vote', 2, { ...wish, term: 9 })), []);
    assert.equal(network.term(2), 1, 'not even the term is taken over');
  });

  test('the leader itself ignores them too', () => {
    const network = group(3, { electionTicks: 10 });
    assert.deepEqual(ask(network, from(3, 'vote', 1, { term: 9, index: 99, logTerm: 1 })), []);
    assert.equal(network.role(1), 'leader');
  });

  test('after an election timeout without a word from the leader votes are given again', () => {
    const network = group(3, { electionTicks: 10 });
    network.core(2).state.electionDueTicks = 19;
    for (let i = 0; i < 9; i++) network.core(2).tick();
    assert.deepEqual(ask(network, from(3, 'vote', 2, { term: 2, index: 9, logTerm: 1 })), []);
    network.core(2).tick();
    assert.equal(ask(network, from(3, 'vote', 2, { term: 2, index: 9, logTerm: 1 }))[0]?.reject, false);
  });
});

describe('thesis §4.3, paper §6: joint consensus', () => {
  /** Voters 1, 2, 3 on their way to 1, 4, 5; left only when asked. */
  const joint = (): Network => {
    const network = group(3);
    for (const id of [4, 5]) network.add(id, voters(1, 2, 3));
    network.change(1, [addVoter(4), addVoter(5), remove(2), remove(3)], 'joint-explicit');
    network.tick(1, 3);
    return network;
  };

  test('entries go to the members of both configurations', () => {
    const network = joint();
    network.sent.length = 0;
    network.propose(1, 'x');
    const receivers = new Set(
      sentOf(network, 'append')
        .filter((sent) => sent.entries.length > 0)
        .map((sent) => sent.to),
    );
    assert.deepEqual(receivers, new Set([2, 3, 4, 5]));
  });

  test('committing needs a majority of each', () => {
    for (const [alive, done] of [
      [[1, 2, 4], true],
      [[1, 4, 5], false],
      [[1, 2, 3], false],
    ] as const) {
      const network = joint();
      network.passes = (sent) => alive.some((id) => id === sent.to) && alive.some((id) => id === sent.from);
      network.propose(1, 'x');
      assert.deepEqual(network.texts(1), done ? ['x'] : [], alive.join());
    }
  });

  test('so does an election', () => {
    for (const [alive, role] of [
      [[2, 1, 4], 'leader'],
      [[2, 1, 3], 'pre-candidate'],
      [[2, 4, 5], 'pre-candidate'],
    ] as const) {
      const network = joint();
      lapse(network, 2, 3, 4, 5);
      network.core(1).stepDown();
      network.passes = (sent) => alive.some((id) => id === sent.to) && alive.some((id) => id === sent.from);
      network.elect(2);
      assert.equal(network.role(2), role, alive.join());
    }
  });

  test('a member of either configuration may lead', () => {
    for (const candidate of [2, 4]) {
      const network = joint();
      lapse(network, 2, 3, 4, 5);
      network.core(1).stepDown();
      network.elect(candidate);
      assert.equal(network.role(candidate), 'leader');
    }
  });

  test('it is left by an entry of its own, after which the old members count for nothing', () => {
    const network = joint();
    network.change(1, []);
    assert.deepEqual(network.core(1).config(), { ...EMPTY_CONFIG, voters: [1, 4, 5] });
    for (const id of [2, 3]) network.peers.delete(id);
    network.propose(1, 'x');
    assert.deepEqual(network.texts(5), ['x']);
  });

  test('leaving it needs a majority of each as well', () => {
    const network = joint();
    network.passes = (sent) => ![2, 3].includes(sent.to) && ![2, 3].includes(sent.from);
    network.change(1, []);
    assert.deepEqual(network.core(1).config().votersOutgoing, [1, 2, 3]);
  });

  test('a leader outside the new configuration steps down when that is in force', () => {
    const network = group(3);
    for (const id of [4, 5]) network.add(id, voters(1, 2, 3));
    network.change(1, [addVoter(4), addVoter(5), remove(1), remove(2)], 'joint-explicit');
    network.tick(1, 3);
    assert.equal(network.role(1), 'leader');
    network.change(1, []);
    assert.equal(network.role(1), 'follower');
    assert.deepEqual(votersOf(network, 1), [3, 4, 5]);
  });

  test('a voter to be demoted keeps its vote until it is left, and is a learner then', () => {
    const network = group(3);
    network.change(1, [addLearner(3)], 'joint-explicit');
    assert.deepEqual(network.core(1).config().learnersNext, [3]);
    assert.deepEqual(network.core(1).config().votersOutgoing, [1, 2, 3]);
    network.change(1, []);
    assert.deepEqual(network.core(1).config(), { ...EMPTY_CONFIG, voters: [1, 2], learners: [3] });
  });

  test('an unfinished one is finished by the next leader', () => {
    const network = group(3);
    for (const id of [4, 5]) network.add(id, voters(1, 2, 3));
    network.passes = (sent) => !sent.entries.some((each) => each.kind === 'config' && each.data.length === 0);
    network.change(1, [addVoter(4), addVoter(5)]);
    network.tick(1, 3);
    assert.deepEqual(network.core(2).config().votersOutgoing, [1, 2, 3]);
    network.peers.delete(1);
    network.heal();
    lapse(network, 2, 3, 4, 5);
    network.elect(2);
    network.tick(2, 3);
    for (const id of [2, 3, 4, 5])
      assert.deepEqual(network.core(id).config(), voters(1, 2, 3, 4, 5), `member ${id}`);
  });
});
