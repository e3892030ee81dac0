import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  cutRecord,
  decodeRecord,
  type EncodedRecord,
  joinRecords,
  type RpcRecord,
} from '../../../src/rpc/frame.ts';
import { streamMessageOverheadBytes } from '../../../src/rpc/limits.ts';
import { PeerStream } from '../../../src/rpc/stream.ts';

const windowBytes = 500;
const largestMessage = 300;

/** Two ends of a stream over two queues that the test delivers from, in the order it likes. */
class StreamPair {
  readonly violations: string[] = [];
  readonly #queues: { left: RpcRecord[]; right: RpcRecord[] } = { left: [], right: [] };
  isBusy = false;
  readonly left = this.#end('right');
  readonly right = this.#end('left');

  #end(to: 'left' | 'right'): PeerStream {
    return new PeerStream(1, {
      name: `the ${to} stream`,
      windowBytes,
      writesWaitingMax: 1000,
      sendMessageBytesMax: 10_000,
      isBusy: () => this.isBusy,
      post: (record) => this.#queues[to].push(recordOf(record)),
      onOver: () => {},
      onViolation: (what) => this.violations.push(what),
    });
  }

  /** Delivers one record to a side; false when none is on its way. */
  deliver(to: 'left' | 'right'): boolean {
    const record = this.#queues[to].shift();
    const end = this[to];
    switch (record?.kind) {
      case undefined:
        return false;
      case 'message':
        end.onMessage(record.value);
        return true;
      case 'credit':
        end.onCredit(record.bytes);
        return true;
      case 'end':
        end.onEnd();
        return true;
      case 'finish':
        end.onFinish();
        return true;
      case 'destroy':
        end.onDestroy(record.error);
        return true;
      default:
        throw new Error(`unexpected ${record?.kind}`);
    }
  }
}

function recordOf(encoded: EncodedRecord): RpcRecord {
  const raw = cutRecord(joinRecords([encoded]), 0, 1_000_000);
  assert.ok(raw.ok);
  const record = decodeRecord(raw.value);
  assert.ok(record.ok);
  return record.value;
}

const step = fc.oneof(
  fc.record({
    do: fc.constant('write' as const),
    side: fc.constantFrom('left' as const, 'right' as const),
    size: fc.nat(largestMessage),
  }),
  fc.record({
    do: fc.constantFrom('read' as const, 'deliver' as const),
    side: fc.constantFrom('left' as const, 'right' as const),
  }),
  fc.record({ do: fc.constantFrom('busy' as const, 'idle' as const) }),
);

describe('a stream under any interleaving', () => {
  it('delivers everything once, in order, within the window, and then ends', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 120 }), async (steps) => {
        const pair = new StreamPair();
        const written = { left: [] as number[], right: [] as number[] };
        const read = { left: [] as number[], right: [] as number[] };
        const reads: Promise<void>[] = [];
        const writes: Promise<void>[] = [];
        const iterators = {
          left: pair.left[Symbol.asyncIterator](),
          right: pair.right[Symbol.asyncIterator](),
        };
        const isReading = { left: false, right: false };
        const readOne = (side: 'left' | 'right'): void => {
          if (isReading[side]) return;
          isReading[side] = true;
          reads.push(
            iterators[side].next().then((result) => {
              isReading[side] = false;
              if (!result.done) read[side].push((result.value as { n: number }).n);
            }),
          );
        };
        let n = 0;
        for (const each of steps) {
          if (each.do === 'write') {
            written[each.side === 'left' ? 'right' : 'left'].push(n);
            writes.push(pair[each.side].write({ n: n++, fill: 'x'.repeat(each.size) }));
          } else if (each.do === 'read') readOne(each.side);
          else if (each.do === 'deliver') pair.deliver(each.side);
          else {
            pair.isBusy = each.do === 'busy';
            pair.left.pump();
            pair.right.pump();
          }
          await Promise.resolve();
        }
        pair.isBusy = false;
        pair.left.end();
        pair.right.end();
        pair.left.pump();
        pair.right.pump();
        for (let round = 0; round < 10_000; round++) {
          const moved = [pair.deliver('left'), pair.deliver('right')];
          readOne('left');
          readOne('right');
          await new Promise((resolve) => setImmediate(resolve));
          const isDone =
            !moved.includes(true) &&
            read.left.length === written.left.length &&
            read.right.length === written.right.length;
          if (isDone) break;
        }
        await Promise.all([...writes, ...reads, pair.left.closed, pair.right.closed]);
        assert.deepEqual(read, written);
        assert.deepEqual(pair.violations, []);
      }),
      { numRuns: 60 },
    );
  });

  it('lets a writer get ahead by the window and one message at most', async () => {
    const pair = new StreamPair();
    let accepted = 0;
    for (let index = 0; index < 50; index++) {
      void pair.left.write('x'.repeat(100)).then(
        () => accepted++,
        () => {},
      );
    }
    await new Promise((resolve) => setImmediate(resolve));
    const cost = 102 + streamMessageOverheadBytes;
    assert.equal(accepted, Math.ceil(windowBytes / cost));
    while (pair.deliver('right'));
    const reader = pair.right[Symbol.asyncIterator]();
    await reader.next();
    await reader.next();
    while (pair.deliver('left'));
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(accepted, Math.ceil(windowBytes / cost) + 2, 'reading gives credit back');
    pair.left.destroy();
  });
});
