/**
 * Client interaction: the extended Raft paper, §8, and the thesis, chapter 6 (finding the leader, linearizable
 * reads, at most once). A test a claim. We do not use leases for reads (thesis §6.4.1); the core can.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { silentLogger } from '../../../src/base/log.ts';
import type { Action, ApplyResult, Batch } from '../../../src/manager/state/actions.ts';
import { encodeBatch } from '../../../src/manager/state/codec.ts';
import { OUTCOME_LIFE_MS } from '../../../src/manager/state/outcomes.ts';
import { StoreStateMachine } from '../../../src/manager/state-machine.ts';
import { checkConfig, coreDefaults } from '../../../src/raft/core/config.ts';
import type { ReadState } from '../../../src/raft/core/types.ts';
import { aNode } from '../../support/builders.ts';
import { SimCluster } from '../cluster.ts';
import { bytes, from, group, type Network, voters } from '../network.ts';
import { lapse, pending, sentOf } from './scenes.ts';

const never = new AbortController().signal;

const readsOf = (network: Network, id: number): readonly ReadState[] => network.peer(id).reads;

/** Leader 2 of term 2 whose first entry did not get out, so that nothing of its term is committed. */
function newLeader(): Network {
  const network = group(3);
  network.propose(1, 'acknowledged');
  lapse(network, 2, 3);
  network.passes = (sent) => sent.type !== 'append';
  network.elect(2);
  assert.equal(network.role(2), 'leader');
  return network;
}

async function cluster3(seed: number): Promise<{ cluster: SimCluster; leader: number; others: number[] }> {
  const cluster = new SimCluster(seed);
  await cluster.form([1, 2, 3]);
  const isVoter = (id: number): boolean =>
    cluster
      .nodeOf(id)
      .status()
      .members.filter((each) => each.voter).length === 3;
  await cluster.until(() => [1, 2, 3].every(isVoter), 'all know the group');
  const leader = cluster.leader() ?? 0;
  return { cluster, leader, others: [1, 2, 3].filter((id) => id !== leader) };
}

describe('finding the leader (§8, thesis §6.2)', () => {
  test('a member that does not lead refuses a command, and says who leads', async () => {
    const { cluster, leader, others } = await cluster3(1);
    const outcome = await cluster.nodeOf(others[0] ?? 0).propose(bytes('x'), never);
    assert.deepEqual(outcome, { kind: 'refused', reason: 'not-leader', leaderId: leader });
    await cluster.stop();
  });

  test('a refused command is not in any log: it may be sent to another member without care', async () => {
    const { cluster, leader, others } = await cluster3(2);
    await cluster.nodeOf(others[0] ?? 0).propose(bytes('x'), never);
    await cluster.whilePumping(cluster.nodeOf(leader).propose(bytes('x'), never));
    await cluster.until(
      () => others.every((id) => cluster.get(id).machine.applied > 0),
      'it is applied everywhere',
    );
    assert.deepEqual(cluster.get(leader).machine.commands, ['x']);
    await cluster.stop();
  });

  test('a leader that reaches no majority for an election timeout steps down, and then sends its clients away', () => {
    const network = group(5, { electionTicks: 10 });
    network.isolate(1, 2);
    network.tick(1, 20);
    assert.equal(network.role(1), 'follower');
    assert.equal(network.core(1).propose([bytes('x')]), 'dropped');
  });

  test('a leader that reaches a majority, itself included, goes on', () => {
    const network = group(5, { electionTicks: 10 });
    network.isolate(1, 2, 3);
    network.tick(1, 50);
    assert.equal(network.role(1), 'leader');
  });
});

describe('at most once (§8, thesis §6.3)', () => {
  test('a command whose leader fails before it answers ends unknown: committed or not, never "refused"', async () => {
    const { cluster, leader, others } = await cluster3(3);
    let isCut = false;
    cluster.passes = (_, to) => !isCut || to !== leader;
    const outcome = cluster.nodeOf(leader).propose(bytes('once'), never);
    isCut = true;
    await cluster.until(() => cluster.leader() !== null && cluster.leader() !== leader, 'another leads');
    assert.equal((await cluster.whilePumping(outcome)).kind, 'unknown');
    await cluster.until(
      () => others.every((id) => cluster.get(id).machine.seen.has('once')),
      'it was committed',
    );
    await cluster.stop();
  });

  test('a command that another one replaced in the log ends refused, so that it may be repeated', async () => {
    const { cluster, leader, others } = await cluster3(4);
    cluster.passes = (source, to) => source !== leader && to !== leader;
    const lost = cluster.nodeOf(leader).propose(bytes('lost'), never);
    await cluster.until(() => cluster.leader() !== null && cluster.leader() !== leader, 'another leads');
    const outcome = await cluster.whilePumping(
      cluster.nodeOf(cluster.leader() ?? 0).propose(bytes('kept'), never),
    );
    assert.equal(outcome.kind, 'committed');
    cluster.passes = () => true;
    assert.notEqual((await cluster.whilePumping(lost)).kind, 'committed');
    await cluster.until(() => cluster.get(leader).machine.seen.has('kept'), 'the old leader follows');
    for (const id of [leader, ...others]) assert.equal(cluster.get(id).machine.seen.has('lost'), false);
    await cluster.stop();
  });

  test('one entry is applied once by each member, over crashes and restarts', async () => {
    const { cluster, leader } = await cluster3(5);
    for (let i = 0; i < 5; i++)
      await cluster.whilePumping(cluster.nodeOf(leader).propose(bytes(`${i}`), never));
    for (const id of [1, 2, 3]) {
      cluster.crash(id);
      await cluster.start(id, 'restart');
    }
    await cluster.until(
      () => [1, 2, 3].every((id) => cluster.get(id).machine.commands.length >= 5),
      'all caught up',
    );
    for (const id of [1, 2, 3]) assert.deepEqual(cluster.get(id).machine.commands, ['0', '1', '2', '3', '4']);
    assert.deepEqual(cluster.violations, []);
    await cluster.stop();
  });
});

describe('at most once in the state machine (§8, thesis §6.3): every change may carry a key, which is used once', () => {
  const key = 'a-key-of-one-call-1';
  const create = (id: string): Action => ({ kind: 'create', table: 'node', object: aNode(id) });
  const apply = (machine: StoreStateMachine, index: number, batch: Batch): ApplyResult =>
    machine.apply(index, encodeBatch(batch));

  test('a command that arrives again is not executed again, and answered as it was the first time', () => {
    const machine = new StoreStateMachine(silentLogger);
    assert.deepEqual(apply(machine, 5, { at: 1, actions: [create('a')], once: key }), { ok: true, index: 5 });
    const again = apply(machine, 9, { at: 2, actions: [create('b')], once: key });
    assert.equal(again.ok && again.index, 5);
    assert.equal(machine.store.get('node', 'b'), undefined);
  });

  test('what was answered is part of the replicated state: a replica that began with a snapshot knows it too', () => {
    const [first, second] = [new StoreStateMachine(silentLogger), new StoreStateMachine(silentLogger)];
    apply(first, 5, { at: 1, actions: [create('a')], once: key });
    second.restore(first.snapshot(), 5);
    for (const machine of [first, second]) {
      const again = apply(machine, 9, { at: 2, actions: [create('b')], once: key });
      assert.equal(again.ok && again.index, 5);
    }
    assert.equal(first.store.digest(), second.store.digest());
  });

  test('it is forgotten on all replicas at the same entry: by the time in the log, not by their clocks', () => {
    const [first, second] = [new StoreStateMachine(silentLogger), new StoreStateMachine(silentLogger)];
    const batches: Batch[] = [
      { at: 1, actions: [create('a')], once: key },
      { at: OUTCOME_LIFE_MS, actions: [create('b')], once: key },
      { at: OUTCOME_LIFE_MS + 1, actions: [create('c')], once: key },
    ];
    for (const machine of [first, second]) {
      batches.forEach((batch, position) => apply(machine, position + 1, batch));
      assert.deepEqual(
        new Set([...machine.store.all('node')].map((node) => `${node.id}`)),
        new Set(['a', 'c']),
      );
    }
    assert.equal(first.store.digest(), second.store.digest());
  });
});

describe('reads without the log (§8, thesis §6.4)', () => {
  test('a new leader does not know what is committed: it answers no read before its first commit', () => {
    const network = newLeader();
    network.core(2).readIndex(1);
    network.settle();
    assert.deepEqual(readsOf(network, 2), []);
    network.heal();
    network.tick(2, 2);
    assert.deepEqual(readsOf(network, 2), [{ index: 3, context: 1 }]);
  });

  test('for this it commits an empty entry as soon as it is elected', () => {
    const network = newLeader();
    network.heal();
    network.tick(2, 2);
    assert.deepEqual(network.log(3).at(-1), '2/3');
    assert.equal(network.peer(3).applied.at(-1)?.data.length, 0);
  });

  test('a read is given the commit index of its arrival, and no newer one', () => {
    const network = group(3);
    network.propose(1, 'before');
    network.core(1).readIndex(1);
    const beats = pending(network, 1);
    network.propose(1, 'after');
    for (const sent of beats) network.deliver(sent);
    network.settle();
    assert.deepEqual(readsOf(network, 1), [{ index: 2, context: 1 }]);
  });

  test('a majority must confirm the leader after the read arrived', () => {
    const network = group(5);
    network.core(1).readIndex(1);
    const beat = pending(network, 1).find((sent) => sent.type === 'heartbeat');
    const context = beat?.context ?? 0;
    network.core(1).receive(from(2, 'heartbeat-response', 1, { term: 1, context: 0 }));
    network.core(1).receive(from(3, 'heartbeat-response', 1, { term: 1, context: 0 }));
    network.core(1).receive(from(4, 'heartbeat-response', 1, { term: 1, context }));
    network.settle();
    assert.deepEqual(readsOf(network, 1), [], 'two answered a heartbeat of before, one the right one');
    network.core(1).receive(from(5, 'heartbeat-response', 1, { term: 1, context }));
    network.settle();
    assert.equal(readsOf(network, 1).length, 1);
  });

  test('learners do not count for that majority', () => {
    const network = group(3);
    network.add(4, voters(1, 2, 3));
    network.change(1, [{ kind: 'add-learner', id: 4 }]);
    network.tick(1, 2);
    network.passes = (sent) => [1, 4].includes(sent.to);
    network.core(1).readIndex(1);
    network.settle();
    assert.deepEqual(readsOf(network, 1), []);
  });

  test('a leader that was replaced answers no read', () => {
    const network = group(3);
    network.isolate(1);
    lapse(network, 2, 3);
    network.elect(2);
    network.core(1).readIndex(1);
    network.settle();
    network.heal();
    network.tick(1, 2);
    assert.deepEqual(readsOf(network, 1), []);
  });

  test('the state machine is read only when it has applied up to the read index', async () => {
    const { cluster, leader } = await cluster3(6);
    await cluster.whilePumping(cluster.nodeOf(leader).propose(bytes('x'), never));
    for (const id of [1, 2, 3]) {
      const index = await cluster.whilePumping(cluster.nodeOf(id).readIndex(never));
      assert.ok(cluster.nodeOf(id).status().appliedIndex >= index);
      assert.ok(cluster.get(id).machine.seen.has('x'), `member ${id}`);
    }
    await cluster.stop();
  });

  test('one round of heartbeats confirms every read that waits', () => {
    const network = group(3);
    for (let context = 1; context <= 4; context++) network.core(1).readIndex(context);
    const newest = sentOf(network, 'heartbeat', 2).length;
    assert.equal(newest, 0, 'nothing was sent yet');
    const beats = pending(network, 1).filter((sent) => sent.type === 'heartbeat' && sent.to === 2);
    const last = beats.at(-1);
    assert.ok(last);
    network.deliver(last);
    network.settle();
    assert.deepEqual(
      readsOf(network, 1).map((read) => read.context),
      [1, 2, 3, 4],
    );
  });

  test('a follower asks the leader for a read index, and then reads its own state', () => {
    const network = group(3);
    network.propose(1, 'x');
    network.core(3).readIndex(9);
    network.settle();
    assert.deepEqual(readsOf(network, 3), [{ index: 2, context: 9 }]);
    assert.deepEqual(readsOf(network, 1), []);
  });

  test('a lone leader needs nobody to confirm it', () => {
    const network = group(1);
    network.core(1).readIndex(1);
    network.settle();
    assert.deepEqual(readsOf(network, 1), [{ index: 1, context: 1 }]);
  });

  test('reads trust no clock unless asked to, and then only with check-quorum (thesis §6.4.1)', () => {
    assert.equal(coreDefaults.readOnly, 'safe');
    const lease = { ...coreDefaults, id: 1, readOnly: 'lease' } as const;
    assert.throws(() => checkConfig({ ...lease, checkQuorum: false }), /lease reads need checkQuorum/);
    checkConfig(lease);
  });
});
