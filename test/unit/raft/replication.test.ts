/** Replication, reads and snapshots, one rule a test. Sections are of the extended Raft paper. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Entry, message } from '../../../src/raft/core/types.ts';
import { bytes, entry, from, group, Network, voters } from '../../raft/network.ts';

describe('replication', () => {
  test('an entry is committed once a majority has it, and applied everywhere in order (§5.3)', () => {
    const network = group(3);
    for (const text of ['a', 'b', 'c']) network.propose(1, text);
    for (const id of [1, 2, 3]) assert.deepEqual(network.texts(id), ['a', 'b', 'c']);
    network.isolate(1);
    network.propose(1, 'alone');
    assert.deepEqual(network.texts(1), ['a', 'b', 'c']);
  });

  test('a leader counts its own copy only when it is durable', () => {
    const network = new Network();
    const peer = network.add(1, voters(1), { asyncStorage: true, preVote: false });
    peer.core.campaign();
    const [vote] = peer.core.ready().messages;
    for (const response of vote?.responses ?? []) peer.core.receive(response);
    const [append] = peer.core.ready().messages;
    assert.equal(peer.core.state.role, 'leader');
    assert.equal(peer.core.state.log.committed, 0);
    peer.stable.append(append?.entries ?? []);
    for (const response of append?.responses ?? []) peer.core.receive(response);
    assert.equal(peer.core.state.log.committed, 1);
  });

  test('an acknowledgement of a replaced entry does not count for its replacement (append ABA)', () => {
    const network = new Network();
    const { core } = network.add(1, voters(1, 2, 3), { asyncStorage: true });
    const append = (term: number, sender: number, entries: readonly Entry[]): void => {
      core.receive(from(sender, 'append', 1, { term, entries }));
    };
    append(1, 2, [entry(1, 1, 'old')]);
    const first = core.ready().messages.find((sent) => sent.type === 'storage-append');
    append(2, 3, [entry(2, 1, 'new')]);
    for (const response of first?.responses ?? []) {
      if (response.to === 1) core.receive(response);
    }
    assert.equal(core.state.log.hasUnstableEntries(), true, 'the new entry still waits for its own write');
    const second = core.ready().messages.find((sent) => sent.type === 'storage-append');
    assert.deepEqual(second?.entries, [entry(2, 1, 'new')]);
  });

  test("followers whose logs differ in any way are brought to the leader's (figure 7)", () => {
    const terms = (list: readonly number[]): Entry[] => list.map((term, i) => entry(term, i + 1, `${term}`));
    const leaderLog = terms([1, 1, 1, 4, 4, 5, 5, 6, 6, 6]);
    const followers = [
      [1, 1, 1, 4, 4, 5, 5, 6, 6],
      [1, 1, 1, 4],
      [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
      [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
      [1, 1, 1, 4, 4, 4, 4],
      [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    for (const log of followers) {
      const network = new Network();
      const ids = [1, 2, 3];
      network.add(1, voters(...ids), { log: leaderLog, hardState: { term: 7, vote: 0, commit: 3 } });
      network.add(2, voters(...ids), { log: terms(log), hardState: { term: 7, vote: 0, commit: 3 } });
      network.add(3, voters(...ids), { hardState: { term: 7, vote: 0, commit: 0 } });
      network.elect(1);
      assert.equal(network.role(1), 'leader');
      assert.deepEqual(network.log(2), network.log(1), log.join());
      assert.deepEqual(network.log(3), network.log(1));
    }
  });

  test('an entry of an earlier term is not committed by counting its copies (figure 8)', () => {
    // (c): 1 leads again in term 4 and 3 has the entry of term 2 as well, but nothing of term 4 is there yet.
    const network = new Network();
    const ids = [1, 2, 3, 4, 5];
    const base = { preVote: false, checkQuorum: false };
    const term = (value: number) => ({ term: value, vote: 0, commit: 1 });
    for (const id of [1, 2]) {
      network.add(id, voters(...ids), {
        ...base,
        log: [entry(1, 1), entry(2, 2, 'two')],
        hardState: term(3),
      });
    }
    for (const id of [3, 4])
      network.add(id, voters(...ids), { ...base, log: [entry(1, 1)], hardState: term(3) });
    network.add(5, voters(...ids), { ...base, log: [entry(1, 1), entry(3, 2, 'three')], hardState: term(3) });
    // Entries of the new term do not get out; those of the old one do.
    network.passes = (sent) =>
      sent.to !== 5 && sent.from !== 5 && !sent.entries.some((each) => each.term === 4);
    network.elect(1);
    network.core(1).receive(from(3, 'append-response', 1, { term: 4, index: 2 }));
    assert.equal(network.role(1), 'leader');
    assert.equal(network.core(1).state.log.committed, 1, 'three copies of 2/2 do not commit it');
    // (d): 5 may still be elected and replace it.
    network.heal();
    network.peers.delete(1);
    // The first attempt is in a term that is taken.
    for (let i = 0; i < 2; i++) network.elect(5);
    assert.equal(network.role(5), 'leader');
    assert.deepEqual(network.texts(2), ['three']);
    // (e): but once an entry of term 4 is on a majority, 5 can not.
    const other = new Network();
    for (const id of [1, 2, 3]) {
      other.add(id, voters(...ids), { ...base, log: [entry(1, 1), entry(2, 2, 'two')], hardState: term(3) });
    }
    other.add(4, voters(...ids), { ...base, log: [entry(1, 1)], hardState: term(3) });
    other.add(5, voters(...ids), { ...base, log: [entry(1, 1), entry(3, 2, 'three')], hardState: term(3) });
    other.passes = (sent) => sent.to !== 5 && sent.from !== 5;
    other.elect(1);
    assert.deepEqual(other.texts(2), ['two']);
    other.heal();
    for (let i = 0; i < 3; i++) other.elect(5);
    assert.notEqual(other.role(5), 'leader');
  });

  test("a follower commits no further than the leader's entries reach", () => {
    const network = new Network();
    const { core } = network.add(1, voters(1, 2, 3), { log: [entry(1, 1), entry(1, 2), entry(1, 3)] });
    core.receive(from(2, 'append', 1, { term: 2, index: 1, logTerm: 1, commit: 3 }));
    assert.equal(core.state.log.committed, 1, "the tail may not be the leader's");
  });

  test('a late rejection of an earlier probe changes nothing: another one is out already', () => {
    const network = group(3, { checkQuorum: false, preVote: false });
    for (const text of ['a', 'b', 'c']) network.propose(1, text);
    // A new leader begins by probing, and hears nothing of 3 yet.
    network.passes = (sent) => sent.from !== 3 || sent.to !== 2;
    network.core(2).campaign();
    network.settle();
    assert.equal(network.role(2), 'leader');
    const { core } = network.peer(2);
    const progress = core.state.tracker.progress.get(3);
    const probed = (progress?.next ?? 0) - 1;
    const { term } = core.state;
    const reject = (index: number): void =>
      void core.receive(from(3, 'append-response', 2, { term, index, reject: true, rejectHint: 0 }));
    reject(probed - 2);
    assert.deepEqual([progress?.state, progress?.next], ['probe', probed + 1]);
    reject(probed);
    assert.ok((progress?.next ?? 0) <= probed, 'the answer to the probe that is out counts');
  });

  test('messages in flight to a follower are bounded, and lost ones are made good after a heartbeat', () => {
    const network = group(2, { maxInflightMessages: 4 });
    network.passes = (sent) => sent.type !== 'append';
    for (let i = 0; i < 20; i++) network.propose(1, `${i}`);
    const appends = network.sent.filter(
      (sent) => sent.type === 'append' && sent.entries[0]?.data.length === 1,
    );
    assert.ok(appends.length <= 5, `${appends.length} messages were sent`);
    network.heal();
    network.tick(1, 3);
    assert.equal(network.texts(2).length, 20);
  });

  test('one message holds a bounded number of bytes', () => {
    const network = new Network();
    for (const id of [1, 2]) network.add(id, voters(1, 2), { maxMessageBytes: 1000 });
    network.elect(1);
    network.core(1).propose(Array.from({ length: 50 }, () => new Uint8Array(100)));
    network.settle();
    const sizes = network.sent.map((sent) => sent.entries.reduce((sum, each) => sum + each.data.length, 0));
    assert.ok(Math.max(...sizes) <= 1000);
    assert.equal(network.peer(2).applied.length, 51);
  });

  test('a leader refuses proposals while too much is uncommitted, but a large one on its own passes', () => {
    const network = group(3, { maxUncommittedBytes: 100 });
    network.isolate(1);
    assert.equal(network.core(1).propose([new Uint8Array(500)]), 'ok');
    assert.equal(network.core(1).propose([new Uint8Array(1)]), 'dropped');
    network.heal();
    network.tick(1, 3);
    assert.equal(network.core(1).state.uncommittedBytes, 0);
    assert.equal(network.core(1).propose([new Uint8Array(1)]), 'ok');
  });

  test('proposals need a leader', () => {
    const network = group(3);
    assert.equal(network.core(2).propose([bytes('x')]), 'dropped');
    assert.equal(network.core(1).receive(message('hup', 1)), 'local-message');
    assert.equal(network.core(1).receive(from(9, 'append-response', 1, { term: 1 })), 'unknown-peer');
  });

  test('restarted members go on from what they persisted', () => {
    const network = group(3);
    network.propose(1, 'a');
    for (const id of [1, 2, 3]) network.restart(id);
    network.elect(2);
    network.propose(2, 'b');
    for (const id of [1, 2, 3]) assert.deepEqual(network.texts(id), ['a', 'b']);
  });
});

describe('linearizable reads', () => {
  const reads = (network: Network, id: number): number[] => network.peer(id).reads.map((read) => read.index);

  test('are confirmed by a quorum, on the leader and on followers', () => {
    const network = group(3);
    network.propose(1, 'x');
    network.core(1).readIndex(7);
    network.core(3).readIndex(8);
    network.settle();
    assert.deepEqual(network.peer(1).reads, [{ index: 2, context: 7 }]);
    assert.deepEqual(network.peer(3).reads, [{ index: 2, context: 8 }]);
  });

  test('are not served by a leader that was replaced without knowing it', () => {
    const network = group(3);
    network.isolate(1);
    for (const id of [2, 3]) network.core(id).forgetLeader();
    network.elect(2);
    network.propose(2, 'newer');
    network.core(1).readIndex(1);
    network.settle();
    assert.deepEqual(reads(network, 1), []);
    network.heal();
    network.tick(1, 3);
    assert.deepEqual(reads(network, 1), [], 'also not when the answers to its heartbeats arrive late');
  });

  test('wait until the leader committed an entry of its own term', () => {
    const network = group(3);
    network.propose(1, 'x');
    network.core(2).forgetLeader();
    network.core(3).forgetLeader();
    network.passes = (sent) => sent.type !== 'append';
    network.elect(2);
    assert.equal(network.role(2), 'leader');
    network.core(2).readIndex(5);
    network.settle();
    assert.deepEqual(reads(network, 2), []);
    network.heal();
    network.tick(2, 2);
    assert.deepEqual(reads(network, 2), [3], 'then they see everything acknowledged before');
  });

  test('a lone leader also waits for its first commit: an old commit index may be behind', () => {
    const network = new Network();
    const { core } = network.add(1, voters(1), {
      log: [entry(1, 1), entry(1, 2, 'acknowledged')],
      hardState: { term: 1, vote: 1, commit: 1 },
      preVote: false,
    });
    core.campaign();
    network.handle(network.peer(1));
    core.readIndex(3);
    network.settle();
    assert.deepEqual(reads(network, 1), [3]);
    assert.deepEqual(network.texts(1), ['acknowledged']);
  });

  test('an answer to an older heartbeat does not confirm a newer read', () => {
    const network = group(3);
    const { core } = network.peer(1);
    core.readIndex(1);
    const [beat] = network.handle(network.peer(1));
    core.readIndex(2);
    network.handle(network.peer(1));
    core.receive(from(2, 'heartbeat-response', 1, { term: 1, context: beat?.context ?? 0 }));
    network.handle(network.peer(1));
    assert.deepEqual(
      network.peer(1).reads.map((read) => read.context),
      [1],
    );
  });
});

describe('snapshots', () => {
  test('bring a follower up to date that is behind the log (§7)', () => {
    const network = group(3);
    network.isolate(3);
    for (let i = 0; i < 10; i++) network.propose(1, `${i}`);
    const snapshot = network.compact(1);
    network.heal();
    network.tick(1, 3);
    const { stable, core } = network.peer(3);
    assert.deepEqual(stable.snapshot(), snapshot);
    assert.equal(core.state.log.committed, snapshot.index);
    network.propose(1, 'after');
    assert.deepEqual(network.texts(3), ['after']);
  });

  test('of the past, or without this member, are ignored', () => {
    const network = group(3);
    for (let i = 0; i < 5; i++) network.propose(1, `${i}`);
    const { core } = network.peer(2);
    const offer = (index: number, config = voters(1, 2, 3)): void => {
      const snapshot = { index, term: 1, config, data: new Uint8Array(0) };
      core.receive(from(1, 'snapshot', 2, { term: 1, snapshot }));
    };
    offer(3);
    assert.equal(core.state.log.committed, 6);
    offer(50, voters(1, 3));
    assert.equal(core.state.log.committed, 6);
    assert.equal(core.state.log.hasPendingSnapshot(), false);
  });

  test('that the log reaches already only move the commit index', () => {
    const network = new Network();
    const { core } = network.add(1, voters(1, 2, 3), { log: [entry(1, 1), entry(1, 2), entry(1, 3)] });
    const snapshot = { index: 2, term: 1, config: voters(1, 2, 3), data: new Uint8Array(0) };
    core.receive(from(2, 'snapshot', 1, { term: 1, snapshot }));
    assert.equal(core.state.log.committed, 2);
    assert.equal(core.state.log.lastIndex(), 3, 'nothing was thrown away');
  });

  test('that fail are tried again after a heartbeat', () => {
    const network = group(3);
    network.isolate(3);
    for (let i = 0; i < 5; i++) network.propose(1, `${i}`);
    network.compact(1);
    network.passes = (sent) => sent.type !== 'snapshot';
    network.tick(1, 2);
    const state = (): string | undefined => network.core(1).state.tracker.progress.get(3)?.state;
    assert.equal(state(), 'snapshot');
    network.core(1).reportSnapshot(3, 'failed');
    assert.equal(state(), 'probe');
    network.heal();
    network.tick(1, 3);
    assert.equal(state(), 'replicate');
    assert.equal(network.peer(3).stable.snapshot()?.index, 6);
  });
});
