import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { AssertionError } from '../../../src/base/assert.ts';
import { ManualClock } from '../../../src/base/clock.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { type LogWriter, logProposer } from '../../../src/manager/proposer.ts';
import { type Action, BATCH_BYTES_MAX } from '../../../src/manager/state/actions.ts';
import { decodeBatch, encodeBatch } from '../../../src/manager/state/codec.ts';
import { Store } from '../../../src/manager/state/store.ts';
import { StoreStateMachine } from '../../../src/manager/state-machine.ts';
import type { NodeId, TaskId } from '../../../src/model/ids.ts';
import type { ProposeOutcome } from '../../../src/raft/types.ts';
import { aNode, aService, aTask } from '../../support/builders.ts';
import { type LogLine, recordingLogger } from '../../support/manager-fixtures.ts';

const soon = AbortSignal.timeout(10_000);
const createNode = (id: string): Action => ({ kind: 'create', table: 'node', object: aNode(id) });

describe('proposer', () => {
  const cases: readonly (readonly [ProposeOutcome, object])[] = [
    [
      { kind: 'committed', index: 9, result: { ok: true, index: 9 } },
      { kind: 'applied', index: 9 },
    ],
    [
      {
        kind: 'committed',
        index: 9,
        result: { ok: false, refusal: { kind: 'missing', table: 'node', id: 'n' } },
      },
      { kind: 'refused', refusal: { kind: 'missing', table: 'node', id: 'n' } },
    ],
    [{ kind: 'refused', reason: 'not-leader', leaderId: 3 }, { kind: 'not-leader' }],
    [
      { kind: 'unknown', reason: 'leadership was lost' },
      { kind: 'unknown', reason: 'leadership was lost' },
    ],
  ];
  for (const [outcome, expected] of cases) {
    it(`${outcome.kind} of the log becomes ${JSON.stringify(expected).slice(0, 40)}`, async () => {
      const writer: LogWriter = { propose: () => Promise.resolve(outcome) };
      assert.deepEqual(
        await logProposer(writer, new ManualClock(5)).propose([createNode('n')], soon),
        expected,
      );
    });
  }

  for (const reason of ['busy', 'stopping'] as const) {
    it(`says what to do when the log is ${reason}`, async () => {
      const writer: LogWriter = {
        propose: () => Promise.resolve({ kind: 'refused', reason, leaderId: null }),
      };
      const result = await logProposer(writer, new ManualClock()).propose([], soon);
      assert.equal(result.kind, 'unavailable');
      assert.match(result.kind === 'unavailable' ? result.reason : '', /try again later|ask another/);
    });
  }

  it("stamps the leader's time, and never sends what is over the limit", async () => {
    const sent: Uint8Array[] = [];
    const writer: LogWriter = {
      propose: (data) => {
        sent.push(data);
        return Promise.resolve({ kind: 'committed', index: 1, result: { ok: true, index: 1 } });
      },
    };
    const proposer = logProposer(writer, new ManualClock(77));
    await proposer.propose([createNode('n')], soon);
    const batch = decodeBatch(sent[0] as Uint8Array);
    assert.equal(batch.ok && batch.value.at, 77);
    const status = { state: 'ready', message: 'x'.repeat(BATCH_BYTES_MAX), address: '' } as const;
    const large: Action = { kind: 'create', table: 'node', object: aNode('n', { status }) };
    const result = await proposer.propose([large], soon);
    assert.equal(result.kind, 'too-large');
    assert.equal(sent.length, 1);
  });
});

describe('state machine', () => {
  it('refuses what it cannot decode, and takes note of the index', () => {
    const lines: LogLine[] = [];
    const machine = new StoreStateMachine(recordingLogger(lines));
    for (const [i, data] of [new Uint8Array([0xc1]), new Uint8Array(0), encodeBatch(7 as never)].entries()) {
      const result = machine.apply(i + 1, data);
      assert.equal(!result.ok && result.refusal.kind, 'undecodable');
    }
    assert.equal(machine.store.index, 3);
    assert.equal(lines.length, 3);
  });

  it('refuses whole an entry with an action it cannot make sense of', () => {
    const machine = new StoreStateMachine(silentLogger);
    const strange = [
      { kind: 'create', table: 'spaceship', object: { id: 'x' } },
      { kind: 'create', table: 'service', object: { id: 'x' } },
      { kind: 'create', table: 'service' },
      { kind: 'patch-task' },
      { kind: 'create', table: '__proto__', object: { id: 'x' } },
    ];
    for (const [i, action] of strange.entries()) {
      const data = encodeBatch({ at: 1, actions: [createNode(`n${i}`), action as never] });
      const result = machine.apply(i + 1, data);
      if (action.kind !== 'patch-task') assert.equal(!result.ok && result.refusal.kind, 'undecodable');
    }
    assert.deepEqual(
      [...machine.store.all('node')].map((node) => node.id),
      ['n3'],
      'only the entry with a patch of a task that is not there was taken',
    );
    assert.equal(machine.apply(9, encodeBatch({ at: 1, actions: [createNode('n9')] })).ok, true);
  });

  it('restores a snapshot to an equal state, and tells listeners that everything is new', () => {
    const machine = new StoreStateMachine(silentLogger);
    machine.apply(1, encodeBatch({ at: 1, actions: [createNode('n1'), createNode('n2')] }));
    machine.apply(2, encodeBatch({ at: 2, actions: [createNode('n3')] }));
    const other = new StoreStateMachine(silentLogger);
    other.apply(1, encodeBatch({ at: 1, actions: [createNode('gone')] }));
    const heard: unknown[] = [];
    other.subscribe((changes) => heard.push(changes));
    other.restore(machine.snapshot(), 2);
    assert.deepEqual(other.store.contents(), machine.store.contents());
    assert.equal(other.store.digest(), machine.store.digest());
    assert.deepEqual(heard, [null]);
    assert.throws(() => other.restore(new Uint8Array([1]), 3), /snapshot at entry 3.*join it again/);
  });

  it('tells listeners of every applied batch in order, and of no refused one', () => {
    const machine = new StoreStateMachine(silentLogger);
    const heard: string[] = [];
    const unsubscribe = machine.subscribe((changes) => {
      for (const change of changes ?? []) heard.push(change.id);
    });
    machine.apply(1, encodeBatch({ at: 1, actions: [createNode('n1')] }));
    machine.apply(2, encodeBatch({ at: 1, actions: [createNode('n1')] }));
    machine.apply(3, encodeBatch({ at: 1, actions: [createNode('n2')] }));
    unsubscribe();
    machine.apply(4, encodeBatch({ at: 1, actions: [createNode('n3')] }));
    assert.deepEqual(heard, ['n1', 'n2']);
  });

  it('a listener that throws, or leaves meanwhile, stops neither the others nor the log', () => {
    const lines: LogLine[] = [];
    const machine = new StoreStateMachine(recordingLogger(lines));
    let heard = 0;
    const leave = machine.subscribe(() => {
      leave();
      throw new Error('broken');
    });
    machine.subscribe(() => {
      heard += 1;
    });
    assert.equal(machine.apply(1, encodeBatch({ at: 1, actions: [createNode('n1')] })).ok, true);
    assert.equal(machine.apply(2, encodeBatch({ at: 1, actions: [createNode('n2')] })).ok, true);
    assert.equal(heard, 2);
    assert.deepEqual(
      lines.map((line) => line.message),
      ['a listener of the state failed'],
    );
    machine.subscribe(() => {
      throw new AssertionError('an invariant');
    });
    assert.throws(
      () => machine.apply(3, encodeBatch({ at: 1, actions: [createNode('n3')] })),
      AssertionError,
    );
  });
});

describe('state digest', () => {
  const names = fc.constantFrom('a', 'b', 'c', 'd');
  const actions: fc.Arbitrary<Action> = fc.oneof(
    names.map(createNode),
    names.map((id): Action => ({ kind: 'create', table: 'service', object: aService(id) })),
    fc.tuple(names, names).map(([id, node]): Action => {
      return { kind: 'create', table: 'task', object: aTask(id, 's', 'running', { nodeId: node as NodeId }) };
    }),
    fc
      .tuple(fc.constantFrom('node', 'service', 'task'), names)
      .map(([table, id]): Action => ({ kind: 'delete', table, id, expect: null }) as Action),
    names.map((id): Action => {
      return { kind: 'patch-task', id: id as TaskId, patch: { desiredState: 'shutdown' }, expect: null };
    }),
  );
  const logs = fc.array(fc.array(actions, { minLength: 1, maxLength: 3 }), { maxLength: 12 });

  it('is equal on replicas fed the same log, also over a snapshot in the middle, and asked at any time', () => {
    fc.assert(
      fc.property(logs, fc.nat(), (log, cut) => {
        const entries = log.map((batch, i) => encodeBatch({ at: i, actions: batch }));
        const at = entries.length === 0 ? 0 : cut % entries.length;
        const [steady, asked, restored] = [
          new StoreStateMachine(silentLogger),
          new StoreStateMachine(silentLogger),
          new StoreStateMachine(silentLogger),
        ];
        for (const [i, entry] of entries.entries()) {
          steady.apply(i + 1, entry);
          asked.apply(i + 1, entry);
          asked.store.tentatively(i, (apply) => void apply([createNode('z')]));
          asked.store.digest();
          if (i === at) restored.restore(steady.snapshot(), i + 1);
          if (i > at) restored.apply(i + 1, entry);
        }
        assert.equal(asked.store.digest(), steady.store.digest());
        if (entries.length > 0) assert.equal(restored.store.digest(), steady.store.digest());
      }),
      { numRuns: 60 },
    );
  });

  it('depends on neither the order of objects nor of fields, nor on fields without a value', () => {
    const first = new Store();
    const second = new Store();
    const [a, b] = [aNode('a'), aNode('b')];
    const load = (store: Store, node: readonly object[]): void => {
      store.load({
        index: 1,
        tables: {
          cluster: [],
          node: node as never,
          service: [],
          task: [],
          network: [],
          secret: [],
          config: [],
        },
      });
    };
    const turned = { ...Object.fromEntries(Object.entries(b).reverse()), manager: undefined };
    load(first, [a, b]);
    load(second, [turned, a]);
    assert.equal(first.digest(), second.digest());
    load(second, [a, { ...b, status: { ...b.status, message: 'other' } }]);
    assert.notEqual(first.digest(), second.digest());
    load(second, [a]);
    assert.notEqual(first.digest(), second.digest());
    assert.match(first.digest(), /^[0-9a-f]{64}$/);
  });

  it('tells any two contents apart', () => {
    const build = (log: Action[][]): Store => {
      const store = new Store();
      for (const [i, batch] of log.entries()) store.apply(i + 1, { at: 1, actions: batch });
      return store;
    };
    fc.assert(
      fc.property(logs, logs, (one, two) => {
        const [a, b] = [build(one), build(two)];
        const sorted = (store: Store): string => {
          const { tables } = store.contents();
          const byId = (x: { id: string }, y: { id: string }): number => (x.id < y.id ? -1 : 1);
          return JSON.stringify(Object.values(tables).map((table) => [...table].sort(byId)));
        };
        assert.equal(a.digest() === b.digest(), sorted(a) === sorted(b));
      }),
      { numRuns: 60 },
    );
  });
});
