/** Named regressions of snapshots on a follower. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { encodeChunk, encodeMessage } from '../../../src/raft/codec.ts';
import { encodeConfigChange } from '../../../src/raft/core/config-codec.ts';
import type { ConfigChangeStep } from '../../../src/raft/core/membership.ts';
import { StableLog } from '../../../src/raft/core/stable-log.ts';
import {
  APPEND_THREAD,
  EMPTY_BYTES,
  type Entry,
  message,
  type Snapshot,
} from '../../../src/raft/core/types.ts';
import { LogWriter } from '../../../src/raft/log-writer.ts';
import { encodeContacts } from '../../../src/raft/members.ts';
import { MemoryDisk, MemoryStorage } from '../../../src/raft/memory-storage.ts';
import { ListMachine, SimCluster } from '../cluster.ts';
import { entry, from, group, Network, voters } from '../network.ts';
import { ask, logOf } from '../paper/scenes.ts';

const snapshotAt = (index: number, term: number, config = voters(1, 2, 3)): Snapshot => ({
  index,
  term,
  config,
  data: EMPTY_BYTES,
});

describe('regressions: snapshots', () => {
  test('willemt-118: an old append from the beginning of the log was appended again behind the snapshot', () => {
    const network = group(3);
    for (let i = 0; i < 6; i++) network.propose(1, `${i}`);
    const old = network.peer(1).stable.entries(1, 8, 1e9);
    network.compact(2);
    const [answer] = ask(network, from(1, 'append', 2, { term: 1, commit: 7, entries: old }));
    assert.equal(answer?.reject, false);
    assert.equal(answer?.index, 7, 'the leader learns what is there');
    assert.equal(network.core(2).state.log.lastIndex(), 7);
    assert.deepEqual(network.log(2), []);
    network.propose(1, 'next');
    assert.deepEqual(network.texts(2), ['0', '1', '2', '3', '4', '5', 'next']);
  });

  test('willemt-118: a snapshot was refused although the longer log contradicted it', () => {
    const network = new Network();
    const hardState = { term: 3, vote: 0, commit: 1 };
    network.add(1, voters(1, 2, 3), { log: logOf(1, 2, 2, 2, 2, 2), hardState });
    const [answer] = ask(network, from(2, 'snapshot', 1, { term: 3, snapshot: snapshotAt(4, 3) }));
    assert.equal(answer?.index, 4);
    assert.equal(network.core(1).state.log.term(4), 3);
    assert.equal(network.core(1).state.log.lastIndex(), 4);
    const [next] = ask(
      network,
      from(2, 'append', 1, { term: 3, index: 4, logTerm: 3, entries: [entry(3, 5)] }),
    );
    assert.equal(next?.reject, false, 'and the log goes on from there');
  });

  test('etcd-18055: a second snapshot arrived before the first was installed, and the first one\u2019s state was gone', async () => {
    const disk = new MemoryDisk();
    const storage = new MemoryStorage(disk);
    const installed: string[] = [];
    const failures: unknown[] = [];
    const hardState = { term: 1, vote: 0, commit: 0 };
    const writer = new LogWriter(
      { storage, stable: StableLog.empty(), hardState, monotonicMs: () => 0 },
      {
        onDurable: () => {},
        onInstalled: (snapshot, state) =>
          installed.push(`${snapshot.index} ${new TextDecoder().decode(state)}`),
        onCommitDurable: () => {},
        onFailed: (error) => failures.push(error),
      },
    );
    const gate = Promise.withResolvers<void>();
    disk.beforeStep = () => gate.promise;
    for (const index of [5, 9, 12]) {
      const hard = { term: 1, commit: index };
      writer.keepState(index, new TextEncoder().encode(`state of ${index}`));
      writer.submit(message('storage-append', APPEND_THREAD, { ...hard, snapshot: snapshotAt(index, 1) }));
      await new Promise((resolve) => setImmediate(resolve));
    }
    gate.resolve();
    await writer.idle();
    assert.deepEqual(failures, []);
    assert.deepEqual(installed, ['5 state of 5', '9 state of 9', '12 state of 12']);
    assert.equal(new TextDecoder().decode(disk.snapshotState), 'state of 12');
  });

  test('a change of the group that waited for the disk was applied on top of a newer snapshot\u2019s group', async () => {
    // Member 3 learns that "4 is a learner" is committed, while its disk is slow; then a snapshot comes in which 4
    // is a voter. Whatever the order in which they are finished, 4 is a voter in the end, and is asked for its vote.
    const contacts = [1, 2, 3, 4].map((id) => ({ id, nodeId: `node${id}`, address: `host${id}:1` }));
    const config = (index: number, step: ConfigChangeStep): Entry => ({
      term: 1,
      index,
      kind: 'config',
      data: encodeConfigChange({ transition: 'auto', steps: [step], context: encodeContacts(contacts) }),
    });
    const cluster = new SimCluster(7);
    cluster.define(3);
    const node = await cluster.start(3, 'join');
    const asked = new Set<number>();
    cluster.passes = (_, to) => {
      asked.add(to);
      return false;
    };
    const tell = (fields: Parameters<typeof message>[2]): void =>
      node.receive(encodeMessage(message('append', 3, { from: 1, term: 1, ...fields })));
    tell({ entries: [1, 2, 3].map((id) => config(id, { kind: 'add-voter', id })) });
    tell({ index: 3, logTerm: 1, entries: [config(4, { kind: 'add-learner', id: 4 })] });
    await cluster.run(5);
    const gate = Promise.withResolvers<void>();
    cluster.beforeStep = () => gate.promise;
    tell({ index: 4, logTerm: 1, commit: 4 });
    await cluster.run(5);
    const machine = new ListMachine();
    const payload = machine.snapshot();
    const snapshot = { ...snapshotAt(20, 1, voters(1, 2, 3, 4)), data: encodeContacts(contacts) };
    const carried = message('snapshot', 3, { from: 1, term: 1, snapshot });
    node.receive(encodeChunk({ message: carried, chunk: 0, chunks: 1, bytes: payload.length, payload }));
    await cluster.run(5);
    gate.resolve();
    cluster.beforeStep = () => {};
    await cluster.until(() => node.status().appliedIndex === 20, 'the snapshot is installed');
    assert.deepEqual(
      node.status().members.map((member) => member.voter),
      [true, true, true, true],
    );
    asked.clear();
    await cluster.run(3_000);
    assert.deepEqual(asked, new Set([1, 2, 4]), 'every voter is asked');
    assert.deepEqual(cluster.violations, []);
    await cluster.stop();
  });
});
