/** The log's parts: what is durable, what is not yet, and what may be applied. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Inflights } from '../../../src/raft/core/inflights.ts';
import { RaftLog } from '../../../src/raft/core/log.ts';
import { StableLog } from '../../../src/raft/core/stable-log.ts';
import { EMPTY_BYTES, EMPTY_CONFIG, type Entry, limitEntries } from '../../../src/raft/core/types.ts';
import { Unstable } from '../../../src/raft/core/unstable.ts';
import { entry } from '../../raft/network.ts';

const NO_LIMIT = Number.MAX_SAFE_INTEGER;

describe('the volatile tail', () => {
  test('drops what became durable, but not an entry that replaced it meanwhile (append ABA)', () => {
    const tail = new Unstable(5);
    tail.truncateAndAppend([entry(1, 5), entry(1, 6)]);
    tail.acceptInProgress();
    assert.deepEqual(tail.nextEntries(), []);
    tail.truncateAndAppend([entry(2, 6)]);
    assert.deepEqual(tail.nextEntries(), [entry(2, 6)], 'the replacement must be written too');
    tail.stableTo(6, 1);
    assert.equal(tail.offset, 5);
    tail.stableTo(5, 1);
    assert.equal(tail.offset, 6);
    tail.stableTo(6, 2);
    assert.equal(tail.hasEntries(), false);
  });

  test('hands each entry to the writer once', () => {
    const tail = new Unstable(1);
    const handed: number[] = [];
    for (let index = 1; index <= 6; index++) {
      tail.truncateAndAppend([entry(1, index)]);
      if (index % 2 === 0) continue;
      handed.push(...tail.nextEntries().map((each) => each.index));
      tail.acceptInProgress();
    }
    assert.deepEqual(handed, [1, 2, 3, 4, 5]);
  });
});

describe('the whole log', () => {
  const build = (durable: number, committed: number): { log: RaftLog; stable: StableLog } => {
    const stable = StableLog.empty();
    stable.append(Array.from({ length: durable }, (_, i) => entry(1, i + 1)));
    const log = new RaftLog(stable, NO_LIMIT);
    log.commitTo(committed);
    return { log, stable };
  };

  test('never replaces what is committed', () => {
    const { log } = build(5, 3);
    assert.throws(() => log.append([entry(2, 3)]), /committed entry is never replaced/);
    assert.throws(() => log.maybeAppend(2, 1, [entry(2, 3)], 0), /contradicts/);
    assert.throws(() => log.commitTo(6), /the log was lost/);
  });

  test('applies only what is durable, unless the caller persists first', () => {
    const { log } = build(2, 2);
    log.append([entry(2, 3), entry(2, 4)]);
    log.commitTo(4);
    assert.deepEqual(
      log.nextCommittedEntries(false).map((each) => each.index),
      [1, 2],
    );
    assert.deepEqual(
      log.nextCommittedEntries(true).map((each) => each.index),
      [1, 2, 3, 4],
    );
  });

  test('reads across the durable part and the tail, within the limit', () => {
    const { log } = build(3, 0);
    log.append([entry(2, 4, 'x'.repeat(100)), entry(2, 5)]);
    assert.deepEqual(
      log.slice(1, 6, NO_LIMIT).map((each) => each.index),
      [1, 2, 3, 4, 5],
    );
    assert.equal(log.slice(1, 6, 80).length, 3, 'a large entry does not ride on small ones');
    assert.equal(log.slice(4, 6, 1).length, 1, 'one entry always goes');
  });

  test('applies nothing while a snapshot waits to be installed', () => {
    const { log, stable } = build(3, 1);
    const snapshot = { index: 9, term: 2, config: EMPTY_CONFIG, data: EMPTY_BYTES };
    log.restore(snapshot);
    assert.deepEqual(log.nextCommittedEntries(true), []);
    assert.equal(log.lastIndex(), 9);
    assert.equal(log.term(9), 2);
    assert.equal(log.term(3), null);
    stable.install(snapshot);
    log.stableSnapshotTo(9);
    log.appliedTo(9, 0);
    assert.equal(log.firstIndex(), 10);
  });

  test('finds where logs may first agree, and never skips a place where they do', () => {
    const terms = fc.array(fc.nat(3), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(terms, terms, (ours, theirs) => {
        const logOf = (steps: readonly number[]): Entry[] => {
          let term = 1;
          return steps.map((step, i) => entry((term += step), i + 1));
        };
        const [mine, other] = [logOf(ours), logOf(theirs)];
        const stable = StableLog.empty();
        stable.append(mine);
        const last = other.length;
        const hint = new RaftLog(stable, NO_LIMIT).findConflictByTerm(
          Math.min(mine.length, last),
          other[last - 1]?.term ?? 0,
        );
        const agreeing = mine.filter((each, i) => other[i]?.term === each.term).map((each) => each.index);
        assert.ok(hint.index >= Math.max(0, ...agreeing));
      }),
    );
  });
});

describe('the durable mirror', () => {
  test('keeps the term before its first entry, and drops what is compacted', () => {
    const stable = StableLog.empty();
    stable.append([entry(1, 1), entry(2, 2), entry(3, 3)]);
    stable.compact(2);
    assert.equal(stable.firstIndex(), 3);
    assert.equal(stable.term(2), 2);
    assert.equal(stable.term(1), null);
    assert.throws(() => stable.entries(2, 3, NO_LIMIT), /where they are held/);
    assert.throws(() => stable.append([entry(3, 9)]), /no gap/);
  });
});

describe('limits', () => {
  test('the window of messages in flight is bounded in number and bytes', () => {
    const window = new Inflights(3, 100);
    window.add(1, 10);
    window.add(2, 200);
    assert.equal(window.full(), true, 'bytes');
    window.freeUpTo(2);
    for (const index of [3, 4, 5]) window.add(index, 1);
    assert.equal(window.full(), true, 'messages');
    window.freeUpTo(3);
    assert.equal(window.count, 2);
    window.reset();
    assert.equal(window.count, 0);
  });

  test('a prefix within a limit has at least one entry and is as long as it can be', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(50), { minLength: 1 }), fc.nat(500), (sizes, max) => {
        const all = sizes.map((size, i) => entry(1, i + 1, 'x'.repeat(size)));
        const cost = (list: readonly Entry[]): number =>
          list.reduce((sum, each) => sum + each.data.length + 24, 0);
        const taken = limitEntries(all, max);
        assert.ok(taken.length === 1 || cost(taken) <= max);
        if (taken.length < all.length) assert.ok(cost(all.slice(0, taken.length + 1)) > max);
      }),
    );
  });
});
