/** Changes of the group, one rule a test. Sections are of Ongaro's dissertation. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { configChangeOf } from '../../../src/raft/core/config-codec.ts';
import {
  applyChange,
  type ChangeState,
  type ConfigChangeStep,
  restoreConfig,
} from '../../../src/raft/core/membership.ts';
import { jointCommitted, jointVote, majorityCommitted, majorityVote } from '../../../src/raft/core/quorum.ts';
import { configState } from '../../../src/raft/core/tracker.ts';
import { EMPTY_BYTES, EMPTY_CONFIG } from '../../../src/raft/core/types.ts';
import { entry, from, group, type Network, voters } from '../../raft/network.ts';

const addVoter = (id: number): ConfigChangeStep => ({ kind: 'add-voter', id });
const addLearner = (id: number): ConfigChangeStep => ({ kind: 'add-learner', id });
const remove = (id: number): ConfigChangeStep => ({ kind: 'remove', id });
const votersOf = (network: Network, id: number): readonly number[] => network.core(id).config().voters;
const single = (step: ConfigChangeStep) =>
  ({ transition: 'auto', steps: [step], context: EMPTY_BYTES }) as const;

describe('changes of the group', () => {
  test('a member is added, catches up, and counts', () => {
    const network = group(1);
    network.propose(1, 'x');
    network.add(2, voters(1));
    network.change(1, [addVoter(2)]);
    assert.deepEqual(votersOf(network, 1), [1, 2]);
    network.tick(1, 2);
    assert.deepEqual(network.texts(2), ['x']);
    assert.deepEqual(votersOf(network, 2), [1, 2]);
    network.isolate(2);
    network.propose(1, 'y');
    assert.deepEqual(network.texts(1), ['x'], 'one of two is no majority');
  });

  test('a learner gets the log but does not count', () => {
    const network = group(1);
    network.add(2, voters(1));
    network.change(1, [addLearner(2)]);
    network.propose(1, 'x');
    network.tick(1, 2);
    assert.deepEqual(network.texts(2), ['x']);
    assert.equal(network.core(2).state.isLearner, true);
    network.isolate(2);
    network.propose(1, 'y');
    assert.deepEqual(network.texts(1), ['x', 'y']);
  });

  test('only one change at a time: a second becomes an empty entry (§4.1)', () => {
    const network = group(3);
    network.isolate(1);
    const { core } = network.peer(1);
    core.proposeConfigChange(single(addVoter(4)));
    assert.equal(core.configChangeRefusal(single(addVoter(5))), 'another change is not applied yet');
    core.proposeConfigChange(single(addVoter(5)));
    network.heal();
    network.tick(1, 3);
    assert.deepEqual(votersOf(network, 1), [1, 2, 3, 4]);
    assert.equal(core.configChangeRefusal(single(addVoter(5))), null);
  });

  test('no change before the leader committed an entry of its term (the single-server bug of 2015)', () => {
    const network = group(3);
    for (const id of [2, 3]) network.core(id).forgetLeader();
    network.passes = (sent) => sent.type !== 'append';
    network.elect(2);
    assert.equal(network.role(2), 'leader');
    const { core } = network.peer(2);
    assert.equal(core.configChangeRefusal(single(addVoter(4))), 'nothing of this term is committed yet');
    network.heal();
    network.tick(2, 2);
    assert.equal(core.configChangeRefusal(single(addVoter(4))), null);
  });

  test('a new leader with an inherited change makes no other before that is applied', () => {
    const network = group(3);
    network.passes = (sent) => sent.type !== 'append-response';
    network.core(1).proposeConfigChange(single(addVoter(4)));
    network.settle();
    network.passes = (sent) => sent.type !== 'append';
    for (const id of [2, 3]) network.core(id).forgetLeader();
    network.elect(2);
    assert.equal(network.role(2), 'leader');
    network.change(2, [addVoter(5)]);
    network.heal();
    network.tick(2, 3);
    assert.deepEqual(votersOf(network, 2), [1, 2, 3, 4]);
  });

  test('a member with a committed change it did not apply does not campaign', () => {
    const network = group(3);
    network.propose(1, 'x');
    const data = network.core(1).config();
    const { core } = network.add(9, voters(1, 2, 9), {
      log: [entry(1, 1), { term: 1, index: 2, kind: 'config', data: EMPTY_BYTES }],
      hardState: { term: 1, vote: 0, commit: 2 },
    });
    assert.deepEqual(data.voters, [1, 2, 3]);
    core.campaign();
    assert.equal(core.state.role, 'follower');
  });

  test('a removed leader steps down once the change is committed, and the rest goes on (§4.2.2)', () => {
    const network = group(3);
    network.change(1, [remove(1)]);
    assert.equal(network.role(1), 'follower');
    network.tick(1, 100);
    assert.equal(network.role(1), 'follower', 'it does not campaign');
    network.core(3).forgetLeader();
    network.elect(2);
    network.propose(2, 'x');
    assert.deepEqual(network.texts(3), ['x']);
    assert.deepEqual(votersOf(network, 2), [2, 3]);
  });

  test('a removed member with a longer log refuses its vote, but says what is committed', () => {
    const network = group(2);
    network.isolate(2);
    network.core(1).proposeConfigChange(single(remove(1)));
    network.core(1).propose([new Uint8Array(1)]);
    network.settle();
    const { core } = network.peer(1);
    // 2 gets the removal but not the entry after it, and never hears of the commit.
    network.heal();
    network.passes = (sent) => sent.type !== 'append' && sent.type !== 'heartbeat';
    const all = network.peer(1).stable.entries(2, 4, 1e9);
    const append = { term: 1, index: 1, logTerm: 1, commit: 1, entries: all.slice(0, 1) };
    network.core(2).receive(from(1, 'append', 2, append));
    network.settle();
    assert.ok(core.state.log.committed >= 2);
    network.core(2).forgetLeader();
    for (let i = 0; i < 2; i++) network.elect(2);
    assert.equal(network.role(2), 'leader');
    assert.deepEqual(votersOf(network, 2), [2]);
  });

  test('two voters become one', () => {
    const network = group(2);
    network.change(1, [remove(2)]);
    network.isolate(2);
    network.propose(1, 'x');
    assert.deepEqual(network.texts(1), ['x']);
  });

  test('several changes go through a joint configuration that both halves must agree to (§4.3)', () => {
    const network = group(3);
    for (const id of [4, 5]) network.add(id, voters(1, 2, 3));
    network.change(1, [addVoter(4), addVoter(5), remove(2), remove(3)], 'joint-explicit');
    assert.deepEqual(network.core(1).config(), {
      ...EMPTY_CONFIG,
      voters: [1, 4, 5],
      votersOutgoing: [1, 2, 3],
    });
    network.tick(1, 2);
    network.passes = (sent) => ![2, 3].includes(sent.from) && ![2, 3].includes(sent.to);
    network.propose(1, 'x');
    assert.deepEqual(network.texts(1), [], 'the outgoing half did not agree');
    network.heal();
    network.tick(1, 2);
    assert.deepEqual(network.texts(1), ['x']);
    network.change(1, []);
    assert.deepEqual(votersOf(network, 1), [1, 4, 5]);
  });

  test('an automatic joint configuration is left by itself, also by the next leader', () => {
    const network = group(3);
    for (const id of [4, 5]) network.add(id, voters(1, 2, 3));
    network.change(1, [addVoter(4), addVoter(5)]);
    network.tick(1, 3);
    for (const id of [1, 2, 3, 4, 5]) {
      assert.deepEqual(network.core(id).config(), voters(1, 2, 3, 4, 5), `member ${id}`);
    }
    const changes = network.peer(5).applied.filter((each) => each.kind === 'config');
    assert.equal(configChangeOf(changes.at(-1)?.data ?? new Uint8Array(1)).steps.length, 0);
  });

  test('a restart in the middle of a change ends in the same group', () => {
    const network = group(3);
    network.add(4, voters(1, 2, 3));
    network.change(1, [addVoter(4)]);
    network.tick(1, 2);
    for (const id of [1, 2, 3]) network.restart(id);
    network.elect(2);
    network.propose(2, 'x');
    for (const id of [1, 2, 3]) assert.deepEqual(votersOf(network, id), [1, 2, 3, 4], `member ${id}`);
  });

  test('a snapshot that does not know a new member is not sent; a newer one is asked for', () => {
    const network = group(1);
    for (let i = 0; i < 5; i++) network.propose(1, `${i}`);
    network.compact(1);
    network.core(1).takeNotes();
    network.add(2, voters(1));
    network.change(1, [addLearner(2)]);
    network.tick(1, 2);
    assert.ok(
      network
        .core(1)
        .takeNotes()
        .some((note) => note.kind === 'snapshot-wanted' && note.by === 2),
    );
    assert.equal(network.core(2).state.log.committed, 0);
    network.compact(1);
    network.tick(1, 2);
    assert.deepEqual(network.core(2).config().learners, [2]);
  });
});

describe('properties', () => {
  const step = fc.record({
    kind: fc.constantFrom('add-voter' as const, 'add-learner' as const, 'remove' as const),
    id: fc.integer({ min: 1, max: 6 }),
  });
  const limits = { maxInflightMessages: 1, maxInflightBytes: 0 };

  test('any row of changes keeps quorums overlapping and can be stored and read back', () => {
    const change = fc.record({
      transition: fc.constantFrom('auto' as const, 'joint-explicit' as const),
      steps: fc.array(step, { maxLength: 4 }),
    });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 20 }), (changes) => {
        let state: ChangeState = restoreConfig(limits, 0, voters(1));
        for (const each of changes) {
          const base = { ...state, limits, lastIndex: 3 };
          const result = applyChange(base, { ...each, context: EMPTY_BYTES });
          if (!result.ok) continue;
          const [before, after] = [state.membership, result.value.membership];
          // A quorum of the new group and one of the old always share a member: both cannot be won apart.
          for (let mask = 0; mask < 64; mask++) {
            const ids = [1, 2, 3, 4, 5, 6];
            const mine = new Map(ids.map((id) => [id, (mask >> (id - 1)) % 2 === 1] as const));
            const rest = new Map(ids.map((id) => [id, (mask >> (id - 1)) % 2 === 0] as const));
            const old = jointVote(before.incoming, before.outgoing, mine);
            const fresh = jointVote(after.incoming, after.outgoing, rest);
            assert.ok(!(old === 'won' && fresh === 'won'));
          }
          state = result.value;
          const stored = configState(state.membership);
          assert.deepEqual(configState(restoreConfig(limits, 9, stored).membership), stored);
        }
      }),
    );
  });

  test('an index is committed exactly when a vote for it would be won', () => {
    const acks = fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 7 });
    fc.assert(
      fc.property(acks, fc.array(fc.integer({ min: 0, max: 6 }), { maxLength: 4 }), (acked, second) => {
        const ids = acked.map((_, id) => id);
        const other = [...new Set(second.filter((id) => id < ids.length))];
        const ackOf = (id: number): number => acked[id] ?? 0;
        for (let index = 1; index <= 9; index++) {
          const votes = new Map(ids.map((id) => [id, ackOf(id) >= index] as const));
          assert.equal(majorityCommitted(ids, ackOf) >= index, majorityVote(ids, votes) === 'won');
          assert.equal(jointCommitted(ids, other, ackOf) >= index, jointVote(ids, other, votes) === 'won');
        }
      }),
    );
  });
});
