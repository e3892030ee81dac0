/** Going on alone after the majority is lost for good. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { configChangeOf, encodeConfigChange } from '../../../src/raft/core/config-codec.ts';
import type { ConfigChange } from '../../../src/raft/core/membership.ts';
import { EMPTY_BYTES, EMPTY_CONFIG, type Entry } from '../../../src/raft/core/types.ts';
import { committedGroup, FORCED_TERM_LEAP, forcedStart, withBatch } from '../../../src/raft/forced-start.ts';
import { decodeContacts, encodeContacts, MemberTable } from '../../../src/raft/members.ts';
import type { StorageStep } from '../../../src/raft/memory-storage.ts';
import type { StoredState } from '../../../src/raft/storage.ts';
import { SimCluster } from '../../raft/cluster.ts';

const forever = new AbortController().signal;
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const row = (id: number) => ({ id, nodeId: `node${id}`, address: `host${id}:1` });

async function write(cluster: SimCluster, id: number, text: string): Promise<void> {
  const outcome = await cluster.whilePumping(cluster.nodeOf(id).propose(bytes(text), forever));
  assert.equal(outcome.kind, 'committed', JSON.stringify(outcome));
}

async function threeMembers(options = {}): Promise<SimCluster> {
  const cluster = new SimCluster(7, options);
  await cluster.form([1, 2, 3]);
  const leader = cluster.leader() ?? 0;
  for (let i = 0; i < 10; i++) await write(cluster, leader, `before${i}`);
  // Heartbeats tell everybody what is committed.
  await cluster.run(100);
  return cluster;
}

/** Kills everybody and starts `id` alone, by force. */
async function goOnAlone(cluster: SimCluster, id: number): Promise<void> {
  for (const each of [1, 2, 3]) cluster.crash(each);
  await cluster.start(id, 'force');
  await cluster.until(() => cluster.leader() === id, 'it leads alone');
}

describe('a surviving member that is forced to go on alone', () => {
  test('is the whole group, keeps what was committed and takes writes', async () => {
    for (const survivor of [1, 2, 3]) {
      const cluster = await threeMembers();
      await goOnAlone(cluster, survivor);
      await write(cluster, survivor, 'after');
      const { commands } = cluster.get(survivor).machine;
      assert.deepEqual(commands, [...Array.from({ length: 10 }, (_, i) => `before${i}`), 'after']);
      const { members, expelled, term } = cluster.nodeOf(survivor).status();
      assert.deepEqual(members, [cluster.get(survivor).member]);
      assert.deepEqual(
        expelled,
        [1, 2, 3].filter((id) => id !== survivor),
      );
      assert.ok(term > FORCED_TERM_LEAP);
      assert.deepEqual(cluster.violations, []);
    }
  });

  test('does so also when the group is only in its snapshot', async () => {
    const cluster = await threeMembers({ snapshotEntries: 5, snapshotKeepEntries: 0 });
    await goOnAlone(cluster, 2);
    await write(cluster, 2, 'after');
    assert.ok((cluster.get(2).disk.snapshot?.index ?? 0) > 5, 'a snapshot was taken');
    // The snapshots that follow remember who was expelled.
    for (let i = 0; i < 12; i++) await write(cluster, 2, `more${i}`);
    cluster.crash(2);
    await cluster.start(2, 'restart');
    await cluster.until(() => cluster.leader() === 2, 'it leads again');
    assert.deepEqual(cluster.nodeOf(2).status().expelled, [1, 3]);
    assert.equal(cluster.get(2).machine.commands.at(-1), 'more11');
  });

  test('neither hears nor follows a member that returns, and is not disturbed by it', async () => {
    const cluster = await threeMembers();
    await goOnAlone(cluster, 1);
    await write(cluster, 1, 'after');
    const { term } = cluster.nodeOf(1).status();
    await cluster.start(2, 'restart');
    await cluster.run(2_000);
    assert.equal(cluster.nodeOf(1).status().role, 'leader');
    assert.equal(cluster.nodeOf(1).status().term, term, 'its term was not touched');
    assert.notEqual(cluster.nodeOf(2).status().role, 'leader');
    assert.ok(cluster.nodeOf(1).refusedFrames().expelled > 0, 'the other did try');
    await write(cluster, 1, 'still');
    // Two of three are a majority of the old group: they may even lead each other, but never the one that went on.
    await cluster.start(3, 'restart');
    await cluster.until(
      () => [2, 3].some((id) => cluster.nodeOf(id).status().role === 'leader'),
      'the old members elect one of them',
    );
    await cluster.run(1_000);
    assert.equal(cluster.nodeOf(1).status().role, 'leader');
    assert.equal(cluster.nodeOf(1).status().term, term);
    await write(cluster, 1, 'to the end');
    assert.equal(cluster.get(1).machine.commands.at(-1), 'to the end');
    assert.equal(cluster.get(1).fatal, null);
  });

  test('takes new members, which do not hear the old ones either, and never an old one by its id', async () => {
    const cluster = await threeMembers();
    await goOnAlone(cluster, 3);
    const fresh = cluster.define(4);
    await cluster.start(4, 'join');
    await cluster.whilePumping(cluster.nodeOf(3).addMember(fresh.member, forever));
    assert.deepEqual(cluster.nodeOf(4).status().expelled, [1, 2]);
    await write(cluster, 3, 'with two');
    await assert.rejects(cluster.whilePumping(cluster.nodeOf(3).addMember(cluster.get(1).member, forever)), {
      code: 'FAILED_PRECONDITION',
    });
  });

  test('may be started so again, after a crash at any step of the write, and the second time changes nothing', async () => {
    for (const step of ['before', 'after'] as const) {
      const cluster = await threeMembers();
      for (const id of [1, 2, 3]) cluster.crash(id);
      const reached = Promise.withResolvers<void>();
      cluster.beforeStep = (_id: number, what: StorageStep) => {
        if (what !== 'append' || step === 'after') return;
        reached.resolve();
        return new Promise(() => {});
      };
      const opening = cluster.start(1, 'force');
      if (step === 'before') {
        opening.catch(() => {});
        await reached.promise;
        cluster.crash(1);
        cluster.beforeStep = () => {};
      } else {
        await opening;
        await cluster.until(() => cluster.leader() === 1, 'it leads alone');
        await write(cluster, 1, 'between');
        cluster.crash(1);
      }
      const { term } = cluster.get(1).disk.hardState;
      await cluster.start(1, 'force');
      await cluster.until(() => cluster.leader() === 1, 'it leads again');
      await write(cluster, 1, 'after');
      const now = cluster.nodeOf(1).status().term;
      if (step === 'after') assert.ok(now < term + FORCED_TERM_LEAP, 'no second leap');
      assert.equal(cluster.get(1).machine.commands.includes('between'), step === 'after');
    }
  });

  test('is refused where there is nothing to go on with', async () => {
    const cluster = new SimCluster(1);
    cluster.define(1);
    await assert.rejects(cluster.start(1, 'force'), { code: 'FAILED_PRECONDITION' });
    assert.equal(cluster.get(1).disk.memberId, null, 'nothing was written');
    await cluster.start(1, 'join');
    cluster.crash(1);
    await assert.rejects(cluster.start(1, 'force'), /never received/);
  });
});

describe('what is written to go on alone', () => {
  const config = (index: number, change: Partial<ConfigChange>, contacts: readonly number[] = []): Entry => ({
    index,
    term: 1,
    kind: 'config',
    data: encodeConfigChange({
      transition: 'auto',
      steps: [],
      context: contacts.length === 0 ? EMPTY_BYTES : encodeContacts(contacts.map(row)),
      ...change,
    }),
  });
  const normal = (index: number, term = 1): Entry => ({
    index,
    term,
    kind: 'normal',
    data: bytes(`n${index}`),
  });
  const stored = (
    entries: readonly Entry[],
    commit: number,
    over: Partial<StoredState> = {},
  ): StoredState => ({
    memberId: 1,
    hardState: { term: 3, vote: 2, commit },
    compactedIndex: 0,
    compactedTerm: 0,
    entries,
    snapshot: null,
    ...over,
  });

  /** The group after the written entries, by the table that the driver keeps. */
  function groupAfter(state: StoredState): {
    readonly voters: readonly number[];
    readonly expelled: readonly number[];
  } {
    const again = forcedStart(state, 1);
    assert.equal(again, null, 'a second time there is nothing to write');
    const table = new MemberTable(EMPTY_CONFIG, []);
    if (state.snapshot !== null)
      table.restore(state.snapshot.config, state.snapshot.data, state.snapshot.index);
    for (const entry of state.entries) {
      if (entry.kind !== 'config') continue;
      table.apply(configChangeOf(entry.data), { ...EMPTY_CONFIG, voters: [1] }, entry.index);
    }
    return { voters: table.list.map(({ id }) => id), expelled: table.expelled };
  }

  function forced(state: StoredState): StoredState {
    const batch = forcedStart(state, 1);
    assert.ok(batch !== null);
    assert.equal(batch.hardState.commit, batch.entries.at(-1)?.index);
    assert.ok(batch.hardState.term >= state.hardState.term + FORCED_TERM_LEAP);
    assert.ok(batch.entries.every((entry) => entry.term === batch.hardState.term));
    return withBatch(state, batch);
  }

  const three = [
    config(1, { steps: [{ kind: 'add-voter', id: 1 }] }, [1]),
    config(2, { steps: [{ kind: 'add-voter', id: 2 }] }, [2]),
    config(3, { steps: [{ kind: 'add-voter', id: 3 }] }, [3]),
  ];

  test('leads out of a joint configuration, with learners and learners to be', () => {
    const joint = config(
      4,
      {
        transition: 'joint-explicit',
        steps: [
          { kind: 'add-voter', id: 4 },
          { kind: 'remove', id: 2 },
          { kind: 'add-learner', id: 3 },
          { kind: 'add-learner', id: 5 },
        ],
      },
      [4, 5],
    );
    const after = forced(stored([...three, joint, normal(5)], 5));
    assert.deepEqual(groupAfter(after), { voters: [1], expelled: [2, 3, 4, 5] });
  });

  test('makes a voter of a survivor that was a learner', () => {
    const learner = [
      config(1, { steps: [{ kind: 'add-voter', id: 2 }] }, [2]),
      config(2, { steps: [{ kind: 'add-learner', id: 1 }] }, [1]),
    ];
    assert.deepEqual(groupAfter(forced(stored(learner, 2))), { voters: [1], expelled: [2] });
  });

  test('keeps what is not known to be committed, since it may have been acknowledged, and expels whom that names, too', () => {
    const tail = [
      normal(5, 2),
      { ...config(6, { steps: [{ kind: 'add-learner', id: 9 }] }, [9]), term: 2 },
      { ...config(7, { steps: [{ kind: 'remove', id: 2 }] }), term: 2 },
      normal(8, 3),
    ];
    const log = [...three, normal(4), ...tail];
    const after = forced(stored(log, 4));
    assert.deepEqual(after.entries.slice(0, log.length), log);
    // Its removal may not have been committed: then it still takes itself for a member.
    assert.deepEqual(groupAfter(after), { voters: [1], expelled: [2, 3, 9] });
  });

  test('stays a member although the end of the log removes it', () => {
    const removal = config(4, { steps: [{ kind: 'remove', id: 1 }] });
    assert.deepEqual(groupAfter(forced(stored([...three, removal], 3))), { voters: [1], expelled: [2, 3] });
  });

  test('keeps what it held as the only voter, whatever commit index was written', () => {
    const alone = [three[0] as Entry, normal(2), normal(3)];
    assert.equal(forcedStart(stored(alone, 1), 1), null, 'it is the whole group already');
    const then = [...alone, config(4, { steps: [{ kind: 'add-voter', id: 2 }] }, [2]), normal(5)];
    const after = forced(stored(then, 1));
    assert.deepEqual(after.entries.slice(0, 5), then);
  });

  test('starts from a snapshot that knows more than the entries before it', () => {
    const snapshot = {
      index: 10,
      term: 2,
      config: { ...EMPTY_CONFIG, voters: [1, 2, 3] },
      data: encodeContacts([1, 2, 3].map(row)),
    };
    const state = stored([], 8, { snapshot, compactedIndex: 10, compactedTerm: 2 });
    const after = forced(state);
    assert.equal(after.entries[0]?.index, 11);
    const { expelled } = groupAfter(after);
    assert.deepEqual(expelled, [2, 3]);
  });

  test('leads from every group that a log can tell of to the one member alone, in one write', () => {
    const member = fc.integer({ min: 1, max: 6 });
    const step = fc.record({
      kind: fc.constantFrom('add-voter', 'add-voter', 'add-learner', 'remove' as const),
      id: member,
    });
    const entry = fc.oneof(
      fc.constant(null),
      fc.record({
        transition: fc.constantFrom('auto', 'auto', 'joint-explicit', 'joint-implicit' as const),
        steps: fc.array(step, { maxLength: 4 }),
      }),
    );
    fc.assert(
      fc.property(
        fc.array(entry, { maxLength: 15 }),
        fc.nat(20),
        fc.nat(20),
        (drawn, commitDraw, snapshotDraw) => {
          const first = config(1, { steps: [{ kind: 'add-voter', id: 1 }] }, [1]);
          const all = drawn.map((change, i) =>
            change === null
              ? normal(i + 2)
              : config(
                  i + 2,
                  change,
                  change.steps.map(({ id }) => id),
                ),
          );
          const entries = [first, ...all];
          const commit = 1 + (commitDraw % entries.length);
          const whole = stored(entries, commit);
          // The same history, of which a part is in a snapshot only.
          const cut = snapshotDraw % (commit + 1);
          const table = committedGroup(stored(entries, cut));
          const snapshot = { index: cut, term: 1, config: table.config, data: table.encode() };
          const compacted =
            cut === 0
              ? whole
              : stored(entries.slice(cut), commit, { snapshot, compactedIndex: cut, compactedTerm: 1 });
          for (const state of [whole, compacted]) {
            const batch = forcedStart(state, 1);
            const after = batch === null ? state : withBatch(state, batch);
            const group = committedGroup(after);
            assert.equal(forcedStart(after, 1), null, 'a second time there is nothing to write');
            if (batch === null) continue;
            assert.deepEqual(
              group.list.map(({ id, voter }) => [id, voter]),
              [[1, true]],
            );
            const last = { ...state, hardState: { ...state.hardState, commit: entries.length } };
            for (const { id } of committedGroup(last).list) assert.equal(group.isExpelled(id), id !== 1);
            assert.deepEqual(
              after.entries.slice(0, state.entries.length),
              state.entries,
              'nothing is dropped',
            );
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  test('the list of contacts carries who was expelled, and nothing else new', () => {
    const rows = [row(1), { ...row(2), expelled: true as const }];
    assert.deepEqual(decodeContacts(encodeContacts(rows)), rows);
  });
});
