/** Elections, one rule a test. Sections are of the extended Raft paper; "thesis" is Ongaro's dissertation. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Message } from '../../../src/raft/core/types.ts';
import { entry, from, group, Network, voters } from '../../raft/network.ts';

const answers = (network: Network, id: number, received: Message): readonly Message[] => {
  network.core(id).receive(received);
  return network.handle(network.peer(id)).filter((sent) => sent.to === received.from);
};

describe('elections', () => {
  test('a member begins as follower, and without a leader campaigns within two election timeouts (§5.2)', () => {
    const network = new Network();
    network.add(1, voters(1, 2), { electionTicks: 10, preVote: false });
    assert.equal(network.role(1), 'follower');
    network.tick(1, 9);
    assert.equal(network.role(1), 'follower');
    network.tick(1, 11);
    assert.equal(network.role(1), 'candidate');
    assert.equal(network.peer(1).hardState.vote, 1, 'it votes for itself');
  });

  test('election timeouts differ from member to member and from time to time (§5.2)', () => {
    const network = new Network();
    const due = new Set<number>();
    for (let id = 1; id <= 30; id++) {
      const { state } = network.add(id, voters(id, 99), { electionTicks: 10 }).core;
      assert.ok(state.electionDueTicks >= 10 && state.electionDueTicks < 20);
      due.add(state.electionDueTicks);
    }
    assert.ok(due.size > 5, 'drawn at random');
  });

  test('a majority of votes elects, less does not (§5.2)', () => {
    for (const [alive, role] of [
      [[1, 2, 3], 'leader'],
      [[1, 2], 'pre-candidate'],
    ] as const) {
      const network = new Network();
      for (const id of [1, 2, 3, 4, 5]) network.add(id, voters(1, 2, 3, 4, 5));
      network.passes = (sent) => alive.some((id) => id === sent.to);
      network.elect(1);
      assert.equal(network.role(1), role);
    }
  });

  test('a lone voter elects itself', () => {
    const network = group(1);
    assert.equal(network.role(1), 'leader');
    assert.deepEqual(network.log(1), ['1/1'], 'and begins its term with an empty entry');
  });

  test('one vote a term, first come first served, also after a restart (§5.2)', () => {
    const network = new Network();
    network.add(1, voters(1, 2, 3));
    const ask = (candidate: number): Message => from(candidate, 'vote', 1, { term: 2, index: 0, logTerm: 0 });
    assert.equal(answers(network, 1, ask(2))[0]?.reject, false);
    assert.equal(answers(network, 1, ask(3))[0]?.reject, true);
    network.restart(1);
    assert.equal(answers(network, 1, ask(3))[0]?.reject, true, 'the vote was durable');
    assert.equal(answers(network, 1, ask(2))[0]?.reject, false, 'and may be repeated');
  });

  test('no vote for a log that is less up to date (§5.4.1)', () => {
    const cases = [
      { term: 2, index: 2, granted: true },
      { term: 2, index: 3, granted: true },
      { term: 3, index: 1, granted: true },
      { term: 2, index: 1, granted: false },
      { term: 1, index: 9, granted: false },
    ];
    for (const { term, index, granted } of cases) {
      const network = new Network();
      network.add(1, voters(1, 2, 3), { log: [entry(1, 1), entry(2, 2)] });
      const [answer] = answers(network, 1, from(2, 'vote', 1, { term: 5, logTerm: term, index }));
      assert.equal(answer?.reject, !granted, `${term}/${index}`);
    }
  });

  test('a vote is answered only after it is durable', () => {
    const network = new Network();
    const peer = network.add(1, voters(1, 2), { asyncStorage: true });
    peer.core.receive(from(2, 'vote', 1, { term: 2 }));
    const { messages } = peer.core.ready();
    assert.deepEqual(
      messages.map((sent) => sent.type),
      ['storage-append'],
    );
    assert.equal(messages[0]?.responses[0]?.type, 'vote-response');
  });

  test('a candidate of an old term, and everybody else, follows the leader of a newer one (§5.1)', () => {
    for (const type of ['append', 'heartbeat'] as const) {
      const network = group(3);
      network.core(1).receive(from(2, type, 1, { term: 9 }));
      assert.equal(network.role(1), 'follower');
      assert.equal(network.term(1), 9);
      assert.equal(network.core(1).state.leader, 2);
    }
  });

  test('a split vote ends in no leader of that term (§5.2)', () => {
    const network = new Network();
    for (const id of [1, 2]) network.add(id, voters(1, 2), { preVote: false });
    network.core(1).campaign();
    network.core(2).campaign();
    network.settle();
    assert.equal(network.role(1), 'follower');
    assert.equal(network.role(2), 'follower');
  });

  test('a pre-vote changes neither term nor vote, and is refused for an old log (thesis §9.6)', () => {
    const network = group(3);
    network.propose(1, 'x');
    network.isolate(3);
    network.propose(1, 'y');
    network.tick(3, 100);
    assert.equal(network.term(3), 1, 'alone it does not raise its term');
    network.heal();
    network.peers.delete(1);
    for (const id of [2, 3]) network.core(id).forgetLeader();
    network.elect(3);
    assert.notEqual(network.role(3), 'leader');
    assert.equal(network.term(2), 1);
    network.elect(2);
    assert.equal(network.role(2), 'leader');
  });

  test('who hears from a leader ignores votes (thesis §4.2.3), unless that leader asked for them', () => {
    const network = group(3);
    const vote = { term: 7, index: 99, logTerm: 6 };
    network.core(2).receive(from(3, 'vote', 2, vote));
    assert.equal(network.term(2), 1);
    network.core(2).receive(from(3, 'vote', 2, { ...vote, context: 1 }));
    assert.equal(network.term(2), 7);
  });

  test('a leader without a quorum steps down within two election timeouts (thesis §6.2)', () => {
    const network = group(3, { electionTicks: 10 });
    network.isolate(1);
    network.tick(1, 20);
    assert.equal(network.role(1), 'follower');
    assert.equal(network.core(1).state.leader, 0);
  });

  test('a member whose term ran ahead brings a leader of an older term down, so that both can go on', () => {
    const network = group(3, { electionTicks: 10 });
    network.peer(3).hardState = { term: 5, vote: 3, commit: 1 };
    network.restart(3);
    network.tick(1);
    assert.ok(network.term(1) >= 5, 'the leader learned of the term');
    network.tick(1, 20);
    network.elect(1);
    assert.equal(network.role(1), 'leader');
    assert.equal(network.core(3).state.leader, 1);
  });

  test('leadership is handed to a member with the whole log, at once (thesis §3.10)', () => {
    const network = group(3);
    network.propose(1, 'x');
    network.core(1).transferLeadership(2);
    network.settle();
    assert.equal(network.role(2), 'leader');
    assert.equal(network.role(1), 'follower');
  });

  test('a handover waits for the log, refuses proposals meanwhile, and is given up after a timeout', () => {
    const network = group(3, { electionTicks: 10 });
    network.isolate(2);
    network.propose(1, 'x');
    network.core(1).transferLeadership(2);
    network.settle();
    assert.equal(network.core(1).propose([new Uint8Array(1)]), 'dropped');
    network.tick(1, 11);
    assert.equal(network.core(1).state.transferee, 0);
    assert.equal(network.core(1).propose([new Uint8Array(1)]), 'ok');
    network.core(1).transferLeadership(2);
    network.heal();
    network.tick(1, 2);
    assert.equal(network.role(2), 'leader');
  });

  test('a learner does not campaign', () => {
    const network = new Network();
    network.add(1, { ...voters(2), learners: [1] });
    network.tick(1, 100);
    assert.equal(network.role(1), 'follower');
  });
});
