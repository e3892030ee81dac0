/** The extended Raft paper, §5.3 (log replication), §5.5 (crashes) and §5.6 (timing): a test a claim. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { coreDefaults } from '../../../src/raft/core/config.ts';
import { bytes, entry, from, group, Network, voters } from '../network.ts';
import { ask, committed, lapse, logOf, pending, sentOf } from './scenes.ts';

/** A follower 1 of leader 2 in `term`, with a log of these terms. */
function follower(terms: readonly number[], term = terms.at(-1) ?? 0): Network {
  const network = new Network();
  const log = logOf(...terms);
  network.add(1, voters(1, 2, 3), { log, hardState: { term, vote: 0, commit: 0 }, preVote: false });
  return network;
}

/** Leader 1 with a log of these terms, elected for `term`; member 2 has a log of its own, 3 an empty one. */
function leaderOver(own: readonly number[], other: readonly number[], term: number): Network {
  const network = new Network();
  const hardState = { term: term - 1, vote: 0, commit: 0 };
  const options = { hardState, preVote: false, checkQuorum: false };
  network.add(1, voters(1, 2, 3), { ...options, log: logOf(...own) });
  network.add(2, voters(1, 2, 3), { ...options, log: logOf(...other) });
  network.add(3, voters(1, 2, 3), options);
  return network;
}

describe('§5.3 the normal course', () => {
  test('a command becomes a new entry of the leader, and goes out to all others in parallel', () => {
    const network = group(3);
    network.core(1).propose([bytes('x')]);
    const appends = pending(network, 1).filter((sent) => sent.type === 'append');
    assert.deepEqual(network.log(1), ['1/1', '1/2']);
    assert.deepEqual(
      appends.map((sent) => [sent.to, sent.entries.length]),
      [
        [2, 1],
        [3, 1],
      ],
    );
  });

  test('it is applied only when it is safely replicated', () => {
    const network = group(3);
    network.core(1).propose([bytes('x')]);
    pending(network, 1);
    assert.deepEqual(network.texts(1), []);
    network.core(1).receive(from(2, 'append-response', 1, { term: 1, index: 2 }));
    pending(network, 1);
    assert.deepEqual(network.texts(1), ['x']);
  });

  test('a follower that lost messages is sent them again and again, also after the commit', () => {
    const network = group(3);
    network.isolate(3);
    network.propose(1, 'x');
    assert.deepEqual(network.texts(1), ['x']);
    for (let i = 0; i < 5; i++) network.tick(1);
    network.heal();
    network.tick(1, 2);
    assert.deepEqual(network.texts(3), ['x']);
  });

  test('every entry carries the term in which a leader received it, and its place', () => {
    const network = group(3);
    network.propose(1, 'a');
    lapse(network, 2, 3);
    network.elect(2);
    network.propose(2, 'b');
    assert.deepEqual(network.log(1), ['1/1', '1/2', '2/3', '2/4']);
  });

  test('an entry is committed once a majority has it, and not before', () => {
    const network = group(5);
    network.core(1).propose([bytes('x')]);
    pending(network, 1);
    network.core(1).receive(from(2, 'append-response', 1, { term: 1, index: 2 }));
    assert.equal(committed(network, 1), 1);
    network.core(1).receive(from(2, 'append-response', 1, { term: 1, index: 2 }));
    assert.equal(committed(network, 1), 1, 'the same member twice is one member');
    network.core(1).receive(from(3, 'append-response', 1, { term: 1, index: 2 }));
    assert.equal(committed(network, 1), 2);
  });

  test('committing an entry commits everything before it, also what earlier leaders made', () => {
    const network = leaderOver([1, 2], [1], 3);
    network.elect(1);
    assert.deepEqual(network.texts(1), ['1/1', '2/2']);
    assert.equal(committed(network, 1), 3);
  });

  test('the leader tells its followers what is committed, with the next message whatever it is', () => {
    for (const type of ['append', 'heartbeat'] as const) {
      const network = group(3);
      network.passes = (sent) => sent.type === type || sent.entries.length > 0 || sent.to === 1;
      network.propose(1, 'x');
      if (type === 'heartbeat') network.tick(1, 2);
      assert.deepEqual(network.texts(2), ['x'], type);
    }
  });

  test('a follower applies what is committed, in the order of the log', () => {
    const network = follower([1, 1, 1]);
    ask(network, from(2, 'append', 1, { term: 1, index: 3, logTerm: 1, commit: 3 }));
    assert.deepEqual(network.texts(1), ['1/1', '1/2', '1/3']);
  });

  test('a heartbeat never commits more than the follower is known to share with the leader', () => {
    const network = leaderOver([1, 1], [1, 2], 3);
    network.passes = (sent) => sent.type !== 'append' || sent.to === 3;
    network.elect(1);
    network.tick(1, 3);
    assert.equal(network.role(1), 'leader');
    assert.ok(committed(network, 1) >= 2);
    assert.equal(committed(network, 2), 0);
  });

  test('one slow follower costs the others nothing', () => {
    const network = group(3);
    network.passes = (sent) => sent.to !== 3 && sent.from !== 3;
    for (let i = 0; i < 300; i++) network.propose(1, `${i}`);
    assert.equal(network.texts(2).length, 300);
  });
});

describe('§5.3 log matching', () => {
  test('two entries of one place and term hold the same command: a leader makes one only, and keeps it', () => {
    const network = group(3);
    for (const text of ['a', 'b', 'c']) network.propose(1, text);
    const places = network.log(1);
    assert.equal(new Set(places).size, places.length);
    const before = network.peer(1).stable.entries(1, 5, 1e9);
    for (const text of ['d', 'e']) network.propose(1, text);
    assert.deepEqual(network.peer(1).stable.entries(1, 5, 1e9), before);
  });

  test('a follower refuses entries whose predecessor it does not hold', () => {
    const network = follower([1, 1]);
    const [tooFar] = ask(
      network,
      from(2, 'append', 1, { term: 1, index: 5, logTerm: 1, entries: [entry(1, 6)] }),
    );
    assert.equal(tooFar?.reject, true);
    const [otherTerm] = ask(
      network,
      from(2, 'append', 1, { term: 3, index: 2, logTerm: 2, entries: [entry(3, 3)] }),
    );
    assert.equal(otherTerm?.reject, true);
    assert.deepEqual(network.log(1), ['1/1', '1/2']);
  });

  test('when it accepts, its log is the leader\u2019s up to the last new entry, and it says so', () => {
    const network = follower([1, 1]);
    const [accepted] = ask(
      network,
      from(2, 'append', 1, { term: 2, index: 2, logTerm: 1, entries: [entry(2, 3), entry(2, 4)] }),
    );
    assert.equal(accepted?.reject, false);
    assert.equal(accepted?.index, 4);
    assert.deepEqual(network.log(1), ['1/1', '1/2', '2/3', '2/4']);
  });

  test('an entry in conflict is deleted with everything after it', () => {
    const network = follower([1, 1, 2, 2, 2]);
    ask(network, from(2, 'append', 1, { term: 3, index: 2, logTerm: 1, entries: [entry(3, 3)] }));
    assert.deepEqual(network.log(1), ['1/1', '1/2', '3/3']);
  });

  test('entries that are there already are left alone, with what follows them', () => {
    const network = follower([1, 1, 1, 1]);
    const [accepted] = ask(
      network,
      from(2, 'append', 1, { term: 1, index: 1, logTerm: 1, entries: [entry(1, 2)] }),
    );
    assert.equal(accepted?.index, 2, 'only what the message covers is confirmed');
    assert.deepEqual(network.log(1), ['1/1', '1/2', '1/3', '1/4']);
  });

  test('an empty append confirms the place it names, and deletes nothing', () => {
    const network = follower([1, 1, 1]);
    const [accepted] = ask(network, from(2, 'append', 1, { term: 1, index: 2, logTerm: 1 }));
    assert.equal(accepted?.index, 2);
    assert.equal(network.log(1).length, 3);
  });

  test('what a follower lacks, has too much, or both, becomes the leader\u2019s log', () => {
    const leader = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    for (const other of [
      leader.slice(0, 4),
      [...leader, 6],
      [...leader, 7, 7],
      [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ]) {
      const network = leaderOver(leader, other, 8);
      network.elect(1);
      assert.equal(network.role(1), 'leader', other.join());
      assert.deepEqual(network.log(2), network.log(1), other.join());
    }
  });

  test('a new leader tries right after the end of its own log first', () => {
    const network = leaderOver([1, 1, 1], [1], 2);
    network.core(1).campaign();
    pending(network, 1);
    network.core(1).receive(from(3, 'vote-response', 1, { term: 2 }));
    const first = pending(network, 1).find((sent) => sent.type === 'append' && sent.to === 2);
    assert.equal(first?.index, 3);
  });

  test('after a refusal it goes back until the logs agree', () => {
    const network = leaderOver([1, 1, 1, 1, 1], [1, 1], 2);
    network.elect(1);
    const tried = sentOf(network, 'append', 2).map((sent) => sent.index);
    assert.deepEqual(tried.slice(0, 2), [5, 2]);
    assert.deepEqual(network.log(2), network.log(1));
  });

  test('it skips a whole term of conflicts with each refusal', () => {
    const leader = [1, ...Array.from({ length: 40 }, () => 4)];
    const other = [1, ...Array.from({ length: 20 }, () => 2), ...Array.from({ length: 20 }, () => 3)];
    const network = leaderOver(leader, other, 5);
    network.elect(1);
    const refusals = network.sent.filter(
      (sent) => sent.type === 'append-response' && sent.from === 2 && sent.reject,
    );
    assert.ok(refusals.length <= 3, `${refusals.length} refusals`);
    assert.deepEqual(network.log(2), network.log(1));
  });

  test('a leader never changes or deletes entries of its own log', () => {
    const network = leaderOver([1, 2], [1, 1, 1, 1, 1], 4);
    network.elect(1);
    network.propose(1, 'x');
    assert.deepEqual(network.log(1).slice(0, 2), ['1/1', '2/2']);
    const before = network.log(1);
    for (const type of ['append-response', 'heartbeat-response'] as const) {
      network.core(1).receive(from(2, type, 1, { term: 4, index: 1, reject: true, rejectHint: 0 }));
      network.settle();
    }
    assert.deepEqual(network.log(1), before);
  });

  test('a new leader does nothing special to repair logs: the normal course does', () => {
    const network = leaderOver([1, 2, 2], [1, 1, 1, 1], 3);
    network.elect(1);
    assert.deepEqual([...new Set(sentOf(network, 'snapshot').map((sent) => sent.type))], []);
    for (const id of [2, 3]) assert.deepEqual(network.log(id), network.log(1));
  });
});

describe('§5.5 crashes of followers and candidates', () => {
  test('requests to a crashed member are repeated until it is back', () => {
    const network = group(3);
    const sleeping = network.peer(3);
    network.peers.delete(3);
    network.propose(1, 'x');
    network.tick(1, 5);
    network.peers.set(3, sleeping);
    network.restart(3);
    network.tick(1, 3);
    assert.deepEqual(network.texts(3), ['x']);
  });

  test('the same request twice does what it does once', () => {
    const network = follower([1]);
    const append = from(2, 'append', 1, {
      term: 1,
      index: 1,
      logTerm: 1,
      commit: 2,
      entries: [entry(1, 2, 'x')],
    });
    const [first] = ask(network, append);
    const [second] = ask(network, append);
    assert.deepEqual(second, first);
    assert.deepEqual(network.texts(1), ['1/1', 'x']);
    const vote = from(3, 'vote', 1, { term: 4, index: 9, logTerm: 3 });
    assert.deepEqual(ask(network, vote), ask(network, vote));
  });

  test('a member that crashed before it answered is asked the same again, and answers', () => {
    const network = follower([1]);
    const append = from(2, 'append', 1, { term: 1, index: 1, logTerm: 1, entries: [entry(1, 2)] });
    ask(network, append);
    network.restart(1);
    assert.equal(ask(network, append)[0]?.index, 2);
    assert.deepEqual(network.log(1), ['1/1', '1/2']);
  });
});

describe('§5.6 timing', () => {
  test('safety needs no clock: without a single tick entries are replicated and leaders replaced', () => {
    const network = group(3);
    network.propose(1, 'a');
    lapse(network, 2, 3);
    network.elect(2);
    network.propose(2, 'b');
    for (const id of [1, 2, 3]) assert.deepEqual(network.texts(id), ['a', 'b']);
  });

  test('by default heartbeats come an order of magnitude faster than elections', () => {
    assert.ok(coreDefaults.electionTicks >= 10 * coreDefaults.heartbeatTicks);
  });
});
