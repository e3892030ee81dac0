import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  checkLinearizable,
  checkPartitioned,
  type Model,
  type Operation,
  type RegisterInput,
  type RegisterOutput,
  type RegisterState,
  registerModel,
} from '../../support/linearizability.ts';

type RegisterOperation = Operation<RegisterInput, RegisterOutput>;

const read = (value: string | null, calledAt: number, returnedAt: number): RegisterOperation => ({
  input: { kind: 'read' },
  output: { value },
  calledAt,
  returnedAt,
});
const write = (value: string, calledAt: number, returnedAt: number): RegisterOperation => ({
  input: { kind: 'write', value },
  output: returnedAt === Number.POSITIVE_INFINITY ? null : { done: true },
  calledAt,
  returnedAt,
});

const judge = (history: RegisterOperation[]): boolean | 'unknown' =>
  checkLinearizable(registerModel, history).linearizable;

describe('linearizability checker', () => {
  it('accepts reads that see an overlapping write or not', () => {
    assert.equal(judge([write('1', 0, 10), read(null, 1, 2), read('1', 3, 4)]), true);
  });

  it('refuses a stale read after the write returned', () => {
    assert.equal(judge([write('1', 0, 1), read(null, 2, 3)]), false);
  });

  it('refuses two reads that see a write and then not', () => {
    assert.equal(judge([write('1', 0, 10), read('1', 1, 2), read(null, 3, 4)]), false);
  });

  it('lets a write without an outcome take effect late, or never', () => {
    const lost = write('1', 0, Number.POSITIVE_INFINITY);
    assert.equal(judge([lost, read(null, 5, 6), read('1', 7, 8)]), true);
    assert.equal(judge([lost, read(null, 5, 6)]), true);
    assert.equal(judge([lost, read('1', 5, 6), read(null, 7, 8)]), false);
  });

  it('says unknown when the search is cut', () => {
    const history = Array.from({ length: 12 }, (_, i) => write(String(i), 0, 100));
    const verdict = checkLinearizable(registerModel, [...history, read('x', 101, 102)], 50);
    assert.equal(verdict.linearizable, 'unknown');
  });

  it('names the part that fails', () => {
    type KeyInput = { readonly key: string; readonly input: RegisterInput };
    const keyed: Model<RegisterState, KeyInput, RegisterOutput> = {
      ...registerModel,
      step: (state, { input }, output) => registerModel.step(state, input, output),
    };
    const history = [write('1', 0, 1), read('1', 2, 3)].map((one) => ({
      ...one,
      input: { key: 'a', input: one.input },
    }));
    const bad = [write('1', 0, 1), read('2', 2, 3)].map((one) => ({
      ...one,
      input: { key: 'b', input: one.input },
    }));
    assert.deepEqual(
      checkPartitioned(keyed, history, ({ key }) => key),
      { linearizable: true },
    );
    assert.equal(checkPartitioned(keyed, [...history, ...bad], ({ key }) => key).part, 'b');
  });

  it('agrees with trying every order', () => {
    const value = fc.constantFrom('1', '2');
    const input: fc.Arbitrary<RegisterInput> = fc.oneof(
      fc.constant({ kind: 'read' as const }),
      value.map((one) => ({ kind: 'write' as const, value: one })),
      fc.tuple(value, value).map(([from, to]) => ({ kind: 'cas' as const, from, to })),
    );
    const operation = fc
      .record({
        input,
        at: fc.nat(8),
        length: fc.integer({ min: 1, max: 6 }),
        value: fc.constantFrom('1', '2', null),
        done: fc.boolean(),
        lost: fc.boolean(),
      })
      .map(({ input: one, at, length, value: seen, done, lost }): RegisterOperation => {
        if (lost && one.kind !== 'read')
          return { input: one, output: null, calledAt: at, returnedAt: Number.POSITIVE_INFINITY };
        const output: RegisterOutput =
          one.kind === 'read' ? { value: seen } : { done: one.kind === 'write' || done };
        return { input: one, output, calledAt: at, returnedAt: at + length };
      });
    let refused = 0;
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 5 }), (history) => {
        const expected = bruteForce(history);
        if (!expected) refused += 1;
        assert.equal(judge(history), expected);
      }),
      { numRuns: 2_000 },
    );
    assert.ok(refused > 100, 'the generator makes histories of both kinds');
  });
});

/** Whether any order works: every subset of the operations without an outcome, every permutation in time order. */
function bruteForce(history: readonly RegisterOperation[]): boolean {
  const search = (state: RegisterState, left: readonly RegisterOperation[]): boolean => {
    if (left.every((one) => one.returnedAt === Number.POSITIVE_INFINITY)) return true;
    return left.some((one, index) => {
      // Nothing may come before an operation that had returned when it was called.
      if (left.some((other) => other !== one && other.returnedAt < one.calledAt)) return false;
      const next = registerModel.step(state, one.input, one.output);
      return next !== null && search(next, left.toSpliced(index, 1));
    });
  };
  return search(registerModel.initial, history);
}
