import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { AssertionError } from '../../../src/base/assert.ts';
import { SwarmdError } from '../../../src/base/errors.ts';
import { MessageBatch, packMessages, unpackMessages } from '../../../src/raft/message-port.ts';
import type { FromDriver, ToDriver } from '../../../src/raft/messages.ts';

type Message = ToDriver | FromDriver;

const id = fc.nat();
const bytes = fc.uint8Array({ maxLength: 40 });
const plain = { noNullPrototype: true };
const member = fc.record({ id, nodeId: fc.string(), address: fc.string(), voter: fc.boolean() }, plain);
const error = fc.constantFrom<Error>(
  new SwarmdError('NO_LEADER', 'none', { details: { voters: 3 } }),
  new AssertionError('broken'),
  new Error('other'),
);

const entries = fc
  .tuple(id, fc.array(fc.tuple(bytes, id), { minLength: 1, maxLength: 5 }))
  .map(([first, list]) => list.map(([data, proposal], i) => ({ index: first + i, data, proposal })));

const message: fc.Arbitrary<Message> = fc.oneof(
  fc.record({ kind: fc.constant('propose' as const), id, data: bytes }),
  fc.record({ kind: fc.constant('read' as const), id }),
  fc.record({ kind: fc.constant('frame' as const), frame: bytes }),
  fc.record({ kind: fc.constant('snapshot' as const), index: id, state: bytes }),
  fc.record({
    kind: fc.constant('call' as const),
    id,
    call: fc.record({ kind: fc.constant('add' as const), member }, plain),
  }),
  fc.record({ kind: fc.constant('failed' as const), error }),
  fc.record({ kind: fc.constant('apply' as const), entries, commitIndex: id }),
  fc.record({ kind: fc.constant('restore' as const), index: id, state: bytes }),
  fc.record({ kind: fc.constant('read' as const), ids: fc.array(id), index: id }),
  fc.record({ kind: fc.constant('read-failed' as const), ids: fc.array(id), error }),
  fc.record({ kind: fc.constant('called' as const), id, error: fc.option(error) }),
  fc.record({ kind: fc.constant('fatal' as const), error }),
  fc.record({ kind: fc.constant('stopped' as const) }),
) as fc.Arbitrary<Message>;

describe('messages between threads', () => {
  test('arrive as they were sent, whatever the byte arrays are views of', () => {
    fc.assert(
      fc.property(fc.array(message, { maxLength: 12 }), (drawn) => {
        const messages = drawn.map((each) => ({ ...each }));
        const crossed = structuredClone(packMessages(messages));
        assert.deepEqual(unpackMessages(crossed), messages);
      }),
    );
  });

  test('an error keeps its class, code, details and stack', () => {
    const sent = new SwarmdError('CORRUPT', 'damaged', { details: { entry: 7 } });
    const [got] = unpackMessages<FromDriver>(structuredClone(packMessages([{ kind: 'fatal', error: sent }])));
    assert.ok(got?.kind === 'fatal' && got.error instanceof SwarmdError);
    assert.deepEqual(
      [got.error.code, got.error.details, got.error.stack],
      ['CORRUPT', { entry: 7 }, sent.stack],
    );
  });

  test('what is said in one turn crosses in one piece; "applied" goes along and is never overtaken', async () => {
    const sent: Message[][] = [];
    const batch = new MessageBatch((packed) => void sent.push(unpackMessages(packed)));
    batch.post({ kind: 'applied', index: 4 });
    batch.post({ kind: 'applied', index: 5 });
    batch.post({ kind: 'read', id: 1 });
    batch.post({ kind: 'applied', index: 6 });
    batch.post({ kind: 'stop' });
    await Promise.resolve();
    assert.deepEqual(sent, [
      [
        { kind: 'applied', index: 5 },
        { kind: 'read', id: 1 },
        { kind: 'applied', index: 6 },
        { kind: 'stop' },
      ],
    ]);
  });

  test('"applied" alone is told all the same', async () => {
    const told = await new Promise<Message[]>((resolve) => {
      new MessageBatch((packed) => resolve(unpackMessages(packed))).post({ kind: 'applied', index: 9 });
    });
    assert.deepEqual(told, [{ kind: 'applied', index: 9 }]);
  });
});
