/** Named regressions of membership changes: split groups, and groups that could not elect anybody. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { encodeConfigChange } from '../../../src/raft/core/config-codec.ts';
import type { ConfigChangeStep } from '../../../src/raft/core/membership.ts';
import { EMPTY_BYTES, type Entry } from '../../../src/raft/core/types.ts';
import { MemoryDisk } from '../../../src/raft/memory-storage.ts';
import { SimCluster } from '../cluster.ts';
import { bytes, entry, from, group, Network, voters } from '../network.ts';
import { ask, committed, lapse, logOf, pending } from '../paper/scenes.ts';

const never = new AbortController().signal;
const change = (step: ConfigChangeStep) =>
  ({ transition: 'auto', steps: [step], context: EMPTY_BYTES }) as const;
const addVoter = (id: number): ConfigChangeStep => ({ kind: 'add-voter', id });
const remove = (id: number): ConfigChangeStep => ({ kind: 'remove', id });
const changeEntry = (term: number, index: number, step: ConfigChangeStep): Entry => ({
  term,
  index,
  kind: 'config',
  data: encodeConfigChange(change(step)),
});

describe('regressions: membership', () => {
  test('single-server change of 2015: a new leader changed the group while a change of an earlier term could still win', () => {
    // 1, 2, 3, 4 in term 1: the leader 1 proposes to add 5 and is cut off with it. 2 leads in term 2. Were it to
    // remove 1 before it commits anything of its own, {2, 3} would decide, and so would {1, 4, 5}.
    const network = group(4);
    network.isolate(1);
    network.core(1).proposeConfigChange(change(addVoter(5)));
    network.settle();
    lapse(network, 2, 3, 4);
    network.passes = (sent) => sent.type !== 'append' && sent.to !== 1 && sent.from !== 1;
    network.elect(2);
    assert.equal(network.role(2), 'leader');
    const { log, pendingConfigIndex } = network.core(2).state;
    assert.ok(
      pendingConfigIndex <= log.applied,
      'everything it inherited is applied: that is not what holds it back',
    );
    assert.equal(
      network.core(2).configChangeRefusal(change(remove(1))),
      'nothing of this term is committed yet',
    );
    network.passes = (sent) => sent.to !== 1 && sent.from !== 1;
    network.tick(2, 2);
    assert.equal(network.core(2).configChangeRefusal(change(remove(1))), null);
    assert.deepEqual(network.log(3), ['1/1', '2/2'], 'now {1, 4, 5} cannot elect 1 any more');
  });

  test('rethinkdb-5289: a member whose log was deleted came back under its old id, and voted anew', async () => {
    const cluster = new SimCluster(1);
    await cluster.form([1, 2, 3]);
    const [wiped = 0] = [1, 2, 3].filter((id) => id !== cluster.leader());
    cluster.crash(wiped);
    Object.assign(cluster.get(wiped), { disk: new MemoryDisk() });
    await assert.rejects(cluster.start(wiped, 'restart'), {
      code: 'FAILED_PRECONDITION',
      message: /a lost folder cannot be replaced by an empty one/,
    });
    await cluster.stop();
  });

  test('redisraft-17: a leader cut off from the others removed them, and then was a majority by itself', () => {
    const network = group(3);
    network.isolate(1);
    for (const id of [2, 3]) network.change(1, [remove(id)]);
    network.propose(1, 'alone');
    assert.deepEqual(network.core(1).config().voters, [1, 2, 3]);
    assert.deepEqual(network.texts(1), []);
    lapse(network, 2, 3);
    network.elect(2);
    network.propose(2, 'kept');
    network.heal();
    network.tick(2, 2);
    for (const id of [1, 2, 3]) {
      assert.deepEqual(network.texts(id), ['kept']);
      assert.deepEqual(network.core(id).config().voters, [1, 2, 3]);
    }
  });

  test('redisraft-44: a member two changes behind stood for election in the group of long ago, and won beside another', () => {
    // {1, 2, 3} + 4 + 5. Who applied both needs three of five; who applied none would do with {1, 3}.
    const log = [entry(1, 1), changeEntry(1, 2, addVoter(4)), changeEntry(1, 3, addVoter(5))];
    for (const campaign of ['timeout', 'handover'] as const) {
      const network = new Network();
      const { core } = network.add(3, voters(1, 2, 3), { log, hardState: { term: 1, vote: 0, commit: 3 } });
      if (campaign === 'timeout') core.campaign();
      else core.receive(from(2, 'timeout-now', 3, { term: 1 }));
      assert.equal(core.state.role, 'follower', campaign);
      network.settle();
      assert.deepEqual(core.config().voters, [1, 2, 3, 4, 5]);
      core.campaign();
      assert.equal(core.state.role, 'pre-candidate', 'once they are applied it may');
    }
  });

  test('etcd-12359: a voter without its promotion and a candidate with a shorter log kept each other from the majority', () => {
    // 4 is being promoted. 1 leads, 2 is down. 3 holds the promotion and knows that it is committed; 4 holds it too,
    // and more, but does not know. Then 1 goes, and 2 is back: 2, 3, 4 are three of four voters.
    const promotion = changeEntry(1, 2, addVoter(4));
    const before = { ...voters(1, 2, 3), learners: [4] };
    const network = new Network();
    network.add(2, before, { log: logOf(1), hardState: { term: 1, vote: 1, commit: 1 } });
    network.add(3, before, { log: [entry(1, 1), promotion], hardState: { term: 1, vote: 1, commit: 2 } });
    network.add(4, before, {
      log: [entry(1, 1), promotion, entry(1, 3)],
      hardState: { term: 1, vote: 0, commit: 1 },
    });
    network.settle();
    assert.deepEqual(network.core(3).config().voters, [1, 2, 3, 4]);
    assert.deepEqual(network.core(4).config().learners, [4]);
    const leads = (): boolean => [2, 3, 4].some((id) => network.role(id) === 'leader');
    for (let ticks = 0; ticks < 300 && !leads(); ticks++) {
      for (const id of [2, 3, 4]) network.core(id).tick();
      network.settle();
    }
    assert.ok(leads(), 'somebody was elected');
  });

  test('etcd-12359: the refusal of a removed member was final, as nobody told the candidate of the removal', () => {
    const network = new Network();
    const hardState = { term: 1, vote: 0, commit: 2 };
    network.add(1, voters(1, 2), {
      log: [entry(1, 1), changeEntry(1, 2, remove(1)), entry(1, 3)],
      hardState,
    });
    network.add(2, voters(1, 2), {
      log: [entry(1, 1), changeEntry(1, 2, remove(1))],
      hardState: { ...hardState, commit: 1 },
    });
    network.settle();
    assert.deepEqual(network.core(1).config().voters, [2]);
    for (let i = 0; i < 3; i++) network.elect(2);
    assert.equal(network.role(2), 'leader');
  });

  test('a candidate that learned of its own removal in the middle of its election won it, and ended itself', () => {
    // 1 holds its own removal, and does not know that it is committed; 2 does, and refuses for its longer log.
    const removal = changeEntry(1, 2, remove(1));
    const network = new Network();
    const options = { log: [entry(1, 1), removal], preVote: false };
    network.add(1, voters(1, 2, 3, 4), { ...options, hardState: { term: 1, vote: 0, commit: 1 } });
    const { core } = network.peer(1);
    core.campaign();
    pending(network, 1);
    assert.equal(core.state.role, 'candidate');
    core.receive(from(2, 'vote-response', 1, { term: 2, reject: true, commit: 2, logTerm: 1 }));
    pending(network, 1);
    assert.deepEqual(core.config().voters, [2, 3, 4]);
    for (const id of [3, 4]) core.receive(from(id, 'vote-response', 1, { term: 2 }));
    pending(network, 1);
    assert.equal(core.state.role, 'follower');
  });

  test('camunda-57386: members refused votes by their own role and their own idea of the group', () => {
    const learner = new Network();
    learner.add(1, { ...voters(2, 3), learners: [1] }, { log: logOf(1) });
    assert.equal(ask(learner, from(3, 'vote', 1, { term: 2, index: 1, logTerm: 1 }))[0]?.reject, false);
    const stranger = new Network();
    stranger.add(1, voters(1, 2, 3), { log: logOf(1) });
    assert.equal(ask(stranger, from(4, 'vote', 1, { term: 2, index: 1, logTerm: 1 }))[0]?.reject, false);
    const outside = new Network();
    outside.add(1, voters(2, 3), { log: logOf(1) });
    assert.equal(ask(outside, from(4, 'pre-vote', 1, { term: 2, index: 1, logTerm: 1 }))[0]?.reject, false);
  });

  test('camunda-57386: a restart forgot a change of the group that had taken effect', async () => {
    const cluster = new SimCluster(2);
    await cluster.form([1, 2]);
    const leader = cluster.leader() ?? 0;
    const other = 3 - leader;
    await cluster.whilePumping(cluster.nodeOf(leader).removeMember(other, never));
    cluster.crash(leader);
    cluster.crash(other);
    await cluster.start(leader, 'restart');
    await cluster.until(() => cluster.leader() === leader, 'it leads alone', 1_000);
    await cluster.stop();
  });

  test('logcabin-205: a removed leader that had stepped down stood for election again', () => {
    const network = group(3, { electionTicks: 10 });
    network.change(1, [remove(1)]);
    assert.equal(network.role(1), 'follower');
    network.isolate(1);
    network.sent.length = 0;
    network.tick(1, 200);
    assert.equal(network.term(1), 1);
    assert.deepEqual(network.sent, []);
    assert.ok(committed(network, 1) >= 2);
  });

  test('matrixone-23281: a snapshot taken right after a change of the group did not hold it', async () => {
    const cluster = new SimCluster(3, { snapshotEntries: 1, snapshotKeepEntries: 1 });
    await cluster.form([1]);
    cluster.define(2);
    await cluster.start(2, 'join');
    await cluster.whilePumping(cluster.nodeOf(1).addMember(cluster.get(2).member, never));
    const { disk } = cluster.get(1);
    const holds = (): boolean => {
      const last = disk.entries.findLast((each) => each.kind === 'config')?.index ?? 0;
      return (disk.snapshot?.index ?? 0) >= last;
    };
    for (let i = 0; i < 5; i++) await cluster.whilePumping(cluster.nodeOf(1).propose(bytes(`${i}`), never));
    await cluster.until(holds, 'a snapshot covers the change');
    assert.deepEqual(disk.snapshot?.config.voters, [1, 2]);
    for (const id of [1, 2]) {
      cluster.crash(id);
      await cluster.start(id, 'restart');
    }
    await cluster.until(() => cluster.leader() !== null, 'both elect a leader');
    for (const id of [1, 2]) {
      const { members } = cluster.nodeOf(id).status();
      assert.deepEqual(
        members.map((each) => [each.id, each.voter, each.address]),
        [
          [1, true, 'host1:1'],
          [2, true, 'host2:1'],
        ],
      );
    }
    await cluster.stop();
  });
});
