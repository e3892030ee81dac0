/** Messages as bytes: everything that is sent is received as it was; anything else is refused, never thrown on. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  decodeFrame,
  encodeAck,
  encodeChunk,
  encodeContactList,
  encodeMessage,
} from '../../../src/raft/codec.ts';
import {
  configChangeOf,
  decodeConfigChange,
  encodeConfigChange,
} from '../../../src/raft/core/config-codec.ts';
import { type Entry, type Message, message, type WireMessageType } from '../../../src/raft/core/types.ts';
import { encodeContacts, parseContacts } from '../../../src/raft/members.ts';
import {
  decodeEntry,
  decodeHardState,
  decodeSnapshotRecord,
  encodeEntry,
  encodeHardState,
  encodeSnapshotRecord,
} from '../../../src/raft/records.ts';

const record = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> =>
  fc.record(model, { noNullPrototype: true });
const id = fc.integer({ min: 1, max: 2 ** 48 - 1 });
const index = fc.integer({ min: 0, max: 2 ** 47 });
const payload = fc.uint8Array({ maxLength: 40 });
const ids = fc.array(id, { maxLength: 5 });
const config = record({
  voters: ids,
  votersOutgoing: ids,
  learners: ids,
  learnersNext: ids,
  autoLeave: fc.boolean(),
});
const snapshot = record({ index, term: index, config, data: payload });
const plainTypes: readonly WireMessageType[] = [
  'append-response',
  'vote',
  'vote-response',
  'pre-vote',
  'pre-vote-response',
  'heartbeat',
  'heartbeat-response',
  'timeout-now',
  'transfer-leader',
  'forget-leader',
  'read-index-response',
];
const plain = record({
  type: fc.constantFrom(...plainTypes),
  to: id,
  from: id,
  term: id,
  logTerm: index,
  index,
  commit: index,
  reject: fc.boolean(),
  rejectHint: index,
  context: index,
}).map(({ type, to, ...fields }) => message(type, to, fields));
const append = fc
  .tuple(plain, fc.array(fc.tuple(payload, fc.integer({ min: 0, max: 2 })), { maxLength: 6 }))
  .map(([base, drafts]): Message => {
    let term = 1;
    const entries = drafts.map(([data, step], position): Entry => {
      term += step;
      return { index: base.index + 1 + position, term, kind: 'normal', data };
    });
    return { ...base, type: 'append', term: term + 1, entries };
  });
const snapshotMessage = fc
  .tuple(plain, snapshot)
  .map(([base, sent]): Message => ({ ...base, type: 'snapshot', snapshot: sent }));
const change = record({
  transition: fc.constantFrom('auto' as const, 'joint-implicit' as const, 'joint-explicit' as const),
  steps: fc.array(
    record({ kind: fc.constantFrom('add-voter' as const, 'add-learner' as const, 'remove' as const), id }),
  ),
  context: payload,
});

describe('messages', () => {
  test('arrive as they were sent', () => {
    fc.assert(
      fc.property(fc.oneof(plain, append, snapshotMessage), (sent) => {
        assert.deepEqual(decodeFrame(encodeMessage(sent)), { kind: 'message', message: sent });
      }),
    );
  });

  test('carry configuration changes that can be applied, and no others', () => {
    const context = encodeContacts([{ id: 5, nodeId: 'n', address: 'h:1' }]);
    const good = encodeConfigChange({ transition: 'auto', steps: [{ kind: 'add-voter', id: 5 }], context });
    const bad = [
      Uint8Array.of(9),
      encodeConfigChange({ transition: 'auto', steps: [], context: Uint8Array.of(1) }),
    ];
    const carrying = (data: Uint8Array): Uint8Array =>
      encodeMessage(
        message('append', 2, { from: 1, term: 3, entries: [{ index: 1, term: 3, kind: 'config', data }] }),
      );
    assert.equal(decodeFrame(carrying(good))?.kind, 'message');
    for (const data of bad) assert.equal(decodeFrame(carrying(data)), null);
  });

  test('without a sender, of a local type, with gaps or with terms from the future are refused', () => {
    const entry = (at: number, term: number): Entry => ({
      index: at,
      term,
      kind: 'normal',
      data: new Uint8Array(1),
    });
    const bad: Message[] = [
      message('heartbeat', 2, { from: 0, term: 1 }),
      message('heartbeat', 2, { from: 1, term: 0 }),
      message('append', 2, { from: 1, term: 2, index: 4, entries: [entry(6, 2)] }),
      message('append', 2, { from: 1, term: 2, index: 4, entries: [entry(5, 3)] }),
      message('append', 2, { from: 1, term: 3, index: 4, entries: [entry(5, 3), entry(6, 2)] }),
      message('heartbeat', 2, { from: 1, term: 2, entries: [entry(1, 1)] }),
      message('snapshot', 2, { from: 1, term: 2 }),
    ];
    for (const sent of bad) assert.equal(decodeFrame(encodeMessage(sent)), null, JSON.stringify(sent));
  });

  test('chunks, answers and contacts arrive as they were sent; a changed chunk does not', () => {
    fc.assert(
      fc.property(snapshotMessage, payload, fc.nat(1000), (sent, bytes, chunk) => {
        const part = { message: sent, chunk, chunks: chunk + 1, bytes: bytes.length, payload: bytes };
        const frame = encodeChunk(part);
        assert.deepEqual(decodeFrame(frame), { kind: 'snapshot-chunk', chunk: part });
        if (bytes.length === 0) return;
        frame[frame.length - 1] = (frame.at(-1) ?? 0) ^ 4;
        assert.equal(decodeFrame(frame), null);
      }),
    );
    const ack = { from: 1, to: 2, index: 3, term: 4, next: 5 };
    assert.deepEqual(decodeFrame(encodeAck(ack)), { kind: 'snapshot-ack', ack });
    const list = { to: 7, index: 9, contacts: [{ id: 1, nodeId: 'ä', address: '[::1]:4' }] };
    assert.deepEqual(decodeFrame(encodeContactList(list)), { kind: 'contacts', list });
  });

  test('of any bytes are decoded or refused, but never throw', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => void decodeFrame(bytes)),
      { numRuns: 2000 },
    );
    fc.assert(
      fc.property(
        fc.oneof(append, snapshotMessage),
        fc.nat(),
        fc.nat(255),
        fc.nat(),
        (sent, at, value, cut) => {
          const bytes = encodeMessage(sent);
          bytes[at % bytes.length] = value;
          decodeFrame(bytes);
          assert.equal(decodeFrame(encodeMessage(sent).subarray(0, cut % bytes.length)), null);
        },
      ),
      { numRuns: 2000 },
    );
  });

  test('do not keep the buffer they came in', () => {
    const sent = message('append', 2, {
      from: 1,
      term: 1,
      entries: [{ index: 1, term: 1, kind: 'normal', data: Uint8Array.of(7) }],
    });
    const bytes = Buffer.from(encodeMessage(sent));
    const frame = decodeFrame(bytes);
    bytes.fill(0);
    assert.ok(frame?.kind === 'message');
    assert.deepEqual(frame.message.entries[0]?.data, Uint8Array.of(7));
  });
});

describe('configuration changes', () => {
  test('decode to what was encoded', () => {
    fc.assert(
      fc.property(change, (given) => assert.deepEqual(configChangeOf(encodeConfigChange(given)), given)),
    );
  });

  test('of any bytes are decoded or refused', () => {
    fc.assert(fc.property(fc.uint8Array(), (bytes) => void decodeConfigChange(bytes)));
    fc.assert(fc.property(fc.uint8Array(), (bytes) => void parseContacts(bytes)));
  });
});

describe('records', () => {
  test('decode to what was encoded, and notice any changed bit', () => {
    fc.assert(
      fc.property(index, id, payload, snapshot, fc.nat(), fc.nat(7), (at, term, data, taken, where, bit) => {
        const entry: Entry = { index: at, term, kind: 'normal', data };
        const stored = { entry, previousTerm: term };
        const hard = { hardState: { term, vote: term, commit: at }, lastIndex: at, writes: term };
        const kept = { snapshot: taken, id: 3, chunks: 4, bytes: 5, compactedIndex: 6, compactedTerm: 7 };
        const flipped = (bytes: Uint8Array): Uint8Array => {
          const copy = bytes.slice();
          copy[where % copy.length] = (copy[where % copy.length] ?? 0) ^ (1 << bit);
          return copy;
        };
        assert.deepEqual(decodeEntry(at, encodeEntry(stored)), stored);
        assert.equal(decodeEntry(at, flipped(encodeEntry(stored))), null);
        assert.equal(decodeEntry(at + 1, encodeEntry(stored)), null);
        assert.deepEqual(decodeHardState(encodeHardState(hard)), hard);
        assert.equal(decodeHardState(flipped(encodeHardState(hard))), null);
        assert.deepEqual(decodeSnapshotRecord(encodeSnapshotRecord(kept)), kept);
        assert.equal(decodeSnapshotRecord(flipped(encodeSnapshotRecord(kept))), null);
      }),
    );
  });
});
