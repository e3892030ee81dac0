/**
 * The extended Raft paper, §5.1 (terms and roles) and §5.2 (leader election): a test a claim. Pre-vote and
 * check-quorum are our additions (thesis §9.6, §6.2); where they change what the paper says, the test says so.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Message } from '../../../src/raft/core/types.ts';
import { bytes, entry, from, group, Network, voters } from '../network.ts';
import { ask, lapse, pending, sentOf } from './scenes.ts';

const plain = { preVote: false, checkQuorum: false } as const;

/** Members 1..count of one group, nobody elected; without pre-vote and check-quorum. */
function fresh(count: number, options = {}): Network {
  const network = new Network();
  const ids = Array.from({ length: count }, (_, i) => i + 1);
  for (const id of ids) network.add(id, voters(...ids), { ...plain, ...options });
  return network;
}

const voteIn = (term: number, candidate: number, to: number): Message =>
  from(candidate, 'vote', to, { term });

describe('§5.1 terms and roles', () => {
  test('in normal operation there is exactly one leader, and everybody else follows it', () => {
    const network = group(5);
    assert.equal(network.role(1), 'leader');
    for (const id of [2, 3, 4, 5]) {
      assert.equal(network.role(id), 'follower');
      assert.equal(network.core(id).state.leader, 1);
    }
  });

  test('a follower is passive: before its timeout it says nothing of its own', () => {
    const network = group(3);
    network.sent.length = 0;
    network.tick(2, 9);
    assert.deepEqual(network.sent, []);
  });

  test('a follower does not take commands: it refuses them, and knows whom to name instead', () => {
    const network = group(3);
    assert.equal(network.core(2).propose([bytes('x')]), 'dropped');
    assert.equal(network.core(2).state.leader, 1);
  });

  test('a higher term in any message of a peer is adopted', () => {
    const types = [
      'append',
      'heartbeat',
      'vote',
      'vote-response',
      'append-response',
      'heartbeat-response',
    ] as const;
    for (const type of types) {
      const network = fresh(3);
      network.core(1).receive(from(2, type, 1, { term: 7, reject: true }));
      assert.equal(network.term(1), 7, type);
    }
  });

  test('our pre-vote asks about the next term without moving anybody into it', () => {
    const network = fresh(3);
    ask(network, from(2, 'pre-vote', 1, { term: 7 }));
    assert.equal(network.term(1), 0);
    network.core(1).receive(from(2, 'pre-vote-response', 1, { term: 7 }));
    assert.equal(network.term(1), 0);
  });

  test('a candidate that learns of a newer term becomes a follower at once', () => {
    const network = fresh(3);
    network.core(1).campaign();
    assert.equal(network.role(1), 'candidate');
    network.core(1).receive(from(2, 'vote-response', 1, { term: 3, reject: true }));
    assert.equal(network.role(1), 'follower');
  });

  test('a leader that learns of a newer term becomes a follower at once', () => {
    const network = group(3);
    network.core(1).receive(from(2, 'append-response', 1, { term: 2, reject: true }));
    assert.equal(network.role(1), 'follower');
    assert.equal(network.core(1).state.leader, 0);
  });

  test('a term never decreases', () => {
    const network = fresh(3);
    let before = 0;
    for (const [type, term] of [
      ['vote', 5],
      ['append', 3],
      ['heartbeat', 5],
      ['vote', 4],
      ['append', 6],
    ] as const) {
      network.core(1).receive(from(2, type, 1, { term }));
      assert.ok(network.term(1) >= before, `${type} of term ${term}`);
      before = network.term(1);
    }
    assert.equal(before, 6);
  });

  test('a request of an older term is refused: no entry taken, no vote given', () => {
    const network = fresh(3);
    ask(network, voteIn(5, 2, 1));
    ask(network, from(3, 'append', 1, { term: 4, entries: [entry(4, 1)] }));
    assert.deepEqual(network.log(1), []);
    const answered = ask(network, from(3, 'vote', 1, { term: 4, index: 9, logTerm: 4 }));
    assert.deepEqual(
      answered.filter((sent) => !sent.reject),
      [],
    );
    assert.equal(network.core(1).state.vote, 2);
  });

  test('the leader of an older term is told the newer one, so that it steps down', () => {
    const network = group(3);
    network.peer(3).hardState = { term: 5, vote: 0, commit: 0 };
    network.restart(3);
    network.tick(1);
    assert.equal(network.role(1), 'follower');
    assert.equal(network.term(1), 5);
  });

  test('what was not answered is sent again', () => {
    const network = group(2);
    network.passes = (sent) => sent.type !== 'append';
    network.propose(1, 'lost at first');
    network.heal();
    network.tick(1, 2);
    assert.deepEqual(network.texts(2), ['lost at first']);
  });

  test('requests go out to all at once, without waiting for anybody', () => {
    const network = group(5);
    network.core(1).propose([bytes('x')]);
    const appends = pending(network, 1).filter((sent) => sent.type === 'append');
    assert.deepEqual(
      appends.map((sent) => sent.to),
      [2, 3, 4, 5],
    );
  });
});

describe('§5.2 leader election', () => {
  test('a member starts as follower', () => {
    assert.equal(fresh(3).role(1), 'follower');
  });

  test('it stays follower while it hears from a leader', () => {
    const network = group(3, { electionTicks: 10 });
    for (let i = 0; i < 10; i++) {
      network.tick(2, 5);
      network.tick(1, 1);
    }
    assert.equal(network.role(2), 'follower');
    assert.equal(network.term(2), 1);
  });

  test('granting a vote also restarts its timeout', () => {
    const network = fresh(3, { electionTicks: 10 });
    network.tick(1, 9);
    ask(network, voteIn(1, 2, 1));
    network.tick(1, 9);
    assert.equal(network.role(1), 'follower');
  });

  test('a leader sends heartbeats to everybody, regularly', () => {
    const network = group(3, { heartbeatTicks: 2, electionTicks: 10 });
    network.sent.length = 0;
    network.tick(1, 6);
    assert.equal(sentOf(network, 'heartbeat', 2).length, 3);
    assert.equal(sentOf(network, 'heartbeat', 3).length, 3);
  });

  test('without a word over the election timeout a follower starts an election', () => {
    const network = fresh(3, { electionTicks: 10 });
    network.passes = () => false;
    network.tick(1, 20);
    assert.equal(network.role(1), 'candidate');
  });

  test('with pre-vote it first asks whether it could win, in its old term', () => {
    const network = fresh(3, { electionTicks: 10, preVote: true });
    network.passes = () => false;
    network.tick(1, 20);
    assert.equal(network.role(1), 'pre-candidate');
    assert.equal(network.term(1), 0);
  });

  test('a candidate raises its term, votes for itself and asks all others in parallel', () => {
    const network = fresh(5);
    network.core(1).campaign();
    const asked = pending(network, 1).filter((sent) => sent.type === 'vote');
    assert.deepEqual(
      asked.map((sent) => sent.to),
      [2, 3, 4, 5],
    );
    assert.equal(network.term(1), 1);
    assert.deepEqual(network.peer(1).hardState, { term: 1, vote: 1, commit: 0 });
  });

  test('its own vote counts only once it is durable', () => {
    const network = new Network();
    const { core } = network.add(1, voters(1), { ...plain, asyncStorage: true });
    core.campaign();
    assert.equal(core.state.role, 'candidate');
    const [write] = core.ready().messages;
    for (const response of write?.responses ?? []) core.receive(response);
    assert.equal(core.state.role, 'leader');
  });

  test('it wins with the votes of a majority of the whole group, and not with fewer', () => {
    for (const [count, needed] of [
      [1, 0],
      [2, 1],
      [3, 1],
      [4, 2],
      [5, 2],
      [7, 3],
    ] as const) {
      const network = fresh(count);
      network.core(1).campaign();
      pending(network, 1);
      for (let voter = 2; voter < needed + 2; voter++) {
        assert.equal(network.role(1), 'candidate', `${count} members, ${voter - 2} answers`);
        network.core(1).receive(from(voter, 'vote-response', 1, { term: 1 }));
      }
      assert.equal(network.role(1), 'leader', `${count} members`);
    }
  });

  test('the same vote twice counts once', () => {
    const network = fresh(5);
    network.core(1).campaign();
    pending(network, 1);
    for (let i = 0; i < 3; i++) network.core(1).receive(from(2, 'vote-response', 1, { term: 1 }));
    assert.equal(network.role(1), 'candidate');
  });

  test('votes of an earlier term do not count', () => {
    const network = fresh(3);
    for (let i = 0; i < 2; i++) {
      network.core(1).campaign();
      pending(network, 1);
    }
    network.core(1).receive(from(2, 'vote-response', 1, { term: 1 }));
    assert.equal(network.role(1), 'candidate');
    assert.equal(network.term(1), 2);
  });

  test('a member votes for one candidate a term, whoever asks first', () => {
    const network = fresh(3);
    assert.equal(ask(network, voteIn(1, 2, 1))[0]?.reject, false);
    assert.equal(ask(network, voteIn(1, 3, 1))[0]?.reject, true);
    assert.equal(ask(network, voteIn(2, 3, 1))[0]?.reject, false, 'in the next term it is free again');
  });

  test('its vote survives a restart', () => {
    const network = fresh(3);
    ask(network, voteIn(1, 2, 1));
    network.restart(1);
    assert.equal(ask(network, voteIn(1, 3, 1))[0]?.reject, true);
  });

  test('a new leader makes itself known to everybody at once, and so prevents further elections', () => {
    const network = fresh(3);
    network.core(1).campaign();
    pending(network, 1);
    network.core(1).receive(from(2, 'vote-response', 1, { term: 1 }));
    const said = pending(network, 1).filter((sent) => sent.type === 'append');
    assert.deepEqual(
      said.map((sent) => sent.to),
      [2, 3],
    );
  });

  test('a candidate that hears from the leader of its term returns to follower', () => {
    for (const type of ['append', 'heartbeat'] as const) {
      const network = fresh(3);
      network.core(1).campaign();
      network.core(1).receive(from(2, type, 1, { term: 1 }));
      assert.equal(network.role(1), 'follower');
      assert.equal(network.core(1).state.leader, 2);
    }
  });

  test('a candidate that hears from a leader of an older term goes on', () => {
    const network = fresh(3);
    for (let i = 0; i < 2; i++) network.core(1).campaign();
    network.core(1).receive(from(2, 'append', 1, { term: 1, entries: [entry(1, 1)] }));
    assert.equal(network.role(1), 'candidate');
    assert.deepEqual(network.log(1), []);
  });

  test('when votes are split nobody leads that term, and a timeout starts the next one', () => {
    const network = fresh(4, { electionTicks: 10 });
    network.passes = (sent) => [1, 2].includes(sent.from) === [1, 2].includes(sent.to);
    network.core(1).campaign();
    network.core(3).campaign();
    network.settle();
    assert.ok([1, 2, 3, 4].every((id) => network.role(id) !== 'leader' && network.term(id) === 1));
    network.heal();
    network.tick(1, 20);
    assert.equal(network.role(1), 'leader');
    assert.equal(network.term(1), 2);
  });

  test('timeouts are drawn from a fixed interval, anew for every election', () => {
    const { core } = fresh(3, { electionTicks: 10 }).peer(1);
    const drawn = new Set<number>();
    for (let i = 0; i < 100; i++) {
      core.campaign();
      assert.ok(core.state.electionDueTicks >= 10 && core.state.electionDueTicks < 20);
      drawn.add(core.state.electionDueTicks);
    }
    assert.equal(drawn.size, 10, 'every value of the interval appears');
  });

  test('a candidate waits out its new timeout before it tries again', () => {
    const network = fresh(3, { electionTicks: 10 });
    network.passes = () => false;
    network.core(1).campaign();
    network.tick(1, 9);
    assert.equal(network.term(1), 1);
    network.tick(1, 11);
    assert.equal(network.term(1), 2);
  });

  test('whoever campaigns at the same moment, a leader emerges within a few timeouts', () => {
    for (let count = 2; count <= 7; count++) {
      const network = fresh(count, { electionTicks: 10, preVote: true, checkQuorum: true });
      const ids = [...network.peers.keys()];
      for (const id of ids) network.core(id).state.electionDueTicks = 10;
      let ticks = 0;
      while (!ids.some((id) => network.role(id) === 'leader')) {
        for (const id of ids) network.core(id).tick();
        network.settle();
        assert.ok(++ticks < 100, `${count} members`);
      }
    }
  });

  test('a dead leader is replaced by the others', () => {
    const network = group(3);
    network.peers.delete(1);
    lapse(network, 2, 3);
    network.elect(2);
    assert.equal(network.role(2), 'leader');
    assert.equal(network.core(3).state.leader, 2);
  });
});
