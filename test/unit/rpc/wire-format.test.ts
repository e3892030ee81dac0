import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { SwarmdError } from '../../../src/base/errors.ts';
import { formatAddress, parseAddress } from '../../../src/rpc/address.ts';
import {
  cutRecord,
  decodeRecord,
  encodeRecord,
  isMethodName,
  joinRecords,
  type RpcRecord,
} from '../../../src/rpc/frame.ts';
import { batchBytes, messageDepthMax } from '../../../src/rpc/limits.ts';
import { decodeValue, encodeValue } from '../../../src/rpc/message-pack.ts';
import { Outbox } from '../../../src/rpc/outbox.ts';
import { fromWireError, toWireError } from '../../../src/rpc/wire-error.ts';

const plain = fc.jsonValue({ maxDepth: 6 }).map((value) => JSON.parse(JSON.stringify(value)) as unknown);
const id = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
const method = fc.string({ minLength: 1, maxLength: 40 });
const bytes = fc.uint8Array({ maxLength: 300 }).map((value) => Uint8Array.from(value));
const error = fc.record({ code: fc.string(), message: fc.string(), details: fc.constant({ a: 1 }) });
const anyRecord: fc.Arbitrary<RpcRecord> = fc.oneof(
  fc.record({ kind: fc.constantFrom('call' as const, 'open' as const), id, method, params: plain }),
  fc.record({ kind: fc.constant('answer' as const), id, value: plain }),
  fc.record({ kind: fc.constantFrom('call-error' as const, 'destroy' as const), id, error }),
  fc.record({ kind: fc.constantFrom('cancel' as const, 'end' as const, 'finish' as const), id }),
  fc.record({ kind: fc.constant('credit' as const), id, bytes: id }),
  fc.record({ kind: fc.constant('message' as const), id, value: bytes }),
  fc.record({ kind: fc.constant('notify' as const), method, data: bytes }),
);

/** Buffers as plain byte arrays, so that views of different classes compare. */
function comparable(value: unknown): unknown {
  if (value instanceof Uint8Array) return { bytes: [...value] };
  if (Array.isArray(value)) return value.map(comparable);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, comparable(item)]));
}

function cutAll(frame: Buffer): RpcRecord[] {
  const records: RpcRecord[] = [];
  for (let at = 0; at < frame.byteLength; ) {
    const raw = cutRecord(frame, at, 1_000_000);
    assert.ok(raw.ok);
    const record = decodeRecord(raw.value);
    assert.ok(record.ok, record.ok ? '' : record.reason);
    records.push(record.value);
    at = raw.value.next;
  }
  return records;
}

describe('the wire format', () => {
  it('gives back every record of a frame in order', () => {
    fc.assert(
      fc.property(fc.array(anyRecord, { maxLength: 8 }), (records) => {
        const frame = joinRecords(records.map(encodeRecord));
        assert.deepEqual(comparable(cutAll(frame)), comparable(records));
      }),
    );
  });

  it('never throws on any bytes, and never believes a cut frame whole', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(12), (body, kind) => {
        const head = Buffer.from([0, 0, 0, body.byteLength, kind]);
        const raw = cutRecord(Buffer.concat([head, body]), 0, 1000);
        if (raw.ok) decodeRecord(raw.value);
        decodeValue(body);
      }),
      { numRuns: 2000 },
    );
    fc.assert(
      fc.property(anyRecord, fc.nat(), (record, cut) => {
        const frame = joinRecords([encodeRecord(record)]);
        assert.ok(!cutRecord(frame.subarray(0, cut % frame.byteLength), 0, 1_000_000).ok);
      }),
    );
  });

  it('carries dates, undefined, bytes and large numbers', () => {
    const value = {
      at: new Date(1_700_000_000_123),
      none: undefined,
      nan: Number.NaN,
      big: 2 ** 53 - 1,
      long: 'x'.repeat(70_000),
    };
    const decoded = decodeValue(encodeValue(value));
    assert.ok(decoded.ok);
    assert.deepEqual(decoded.value, value);
    const list = Array.from({ length: 70_000 }, (_, index) => index);
    assert.deepEqual(decodeValue(encodeValue(list)), { ok: true, value: list });
    const map = Object.fromEntries(list.map((key) => [`k${key}`, key]));
    assert.deepEqual(decodeValue(encodeValue(map)), { ok: true, value: map });
  });

  it('cannot be used to change the prototype of objects', () => {
    const hostile = Buffer.concat([
      Buffer.from([0x81, 0xa9]),
      Buffer.from('__proto__'),
      Buffer.from([0x81, 0xa1, 0x61, 1]),
    ]);
    const decoded = decodeValue(hostile);
    assert.ok(decoded.ok);
    assert.equal(Object.getPrototypeOf(decoded.value), Object.prototype);
    assert.equal(({} as { a?: unknown }).a, undefined);
  });

  it('refuses what would cost more to decode than to send', () => {
    for (const hostile of [
      [0xdd, 0x01, 0xff, 0xff, 0xff],
      [0xdf, 0xff, 0xff, 0xff, 0xff],
      [0xc6, 0xff, 0xff, 0xff, 0xff],
      [0xdb, 0xff, 0xff, 0xff, 0xff],
      [0xd4, 0x72, 0x40, 0x90],
      [0xc7, 0x02, 0x78, 0x61, 0x61],
    ]) {
      assert.equal(decodeValue(Uint8Array.from(hostile)).ok, false);
    }
    assert.ok(decodeValue(Buffer.concat([Buffer.alloc(messageDepthMax - 1, 0x91), Buffer.from([1])])).ok);
    assert.ok(!decodeValue(Buffer.concat([Buffer.alloc(messageDepthMax + 1, 0x91), Buffer.from([1])])).ok);
  });

  it('holds method names to 1 to 255 bytes', () => {
    assert.equal(isMethodName('a'), true);
    assert.equal(isMethodName(''), false);
    assert.equal(isMethodName('x'.repeat(255)), true);
    assert.equal(isMethodName('ü'.repeat(128)), false);
    assert.equal(isMethodName(7), false);
  });

  it('carries errors, and keeps odd ones harmless', () => {
    const sent = new SwarmdError('CONFLICT', 'm'.repeat(20_000), { details: { version: 1 } });
    const got = fromWireError(toWireError(sent));
    assert.equal(got.code, 'CONFLICT');
    assert.equal(got.message.length, 8192);
    assert.deepEqual(got.details, { version: 1 });
    const odd = fromWireError({ code: 'constructor', message: 'x', details: [1] });
    assert.equal(odd.code, 'INTERNAL');
    assert.deepEqual(odd.details, { unknownCode: 'constructor' });
    const unsendable = new SwarmdError('INTERNAL', 'x', { details: { huge: 'y'.repeat(100_000) } });
    assert.deepEqual(toWireError(unsendable).details, {});
  });
});

describe('the outbox', () => {
  it('packs a turn into one frame, and cuts at the batch size', async () => {
    const frames: { bytes: number; done: () => void }[] = [];
    const outbox = new Outbox(
      (frame, done) => frames.push({ bytes: frame.byteLength, done }),
      () => {},
    );
    const record = (size: number) =>
      encodeRecord({ kind: 'notify', method: 'm', data: new Uint8Array(size) });
    for (let index = 0; index < 100; index++) outbox.post(record(10));
    assert.equal(frames.length, 0);
    assert.equal(outbox.unsentBytes, 100 * (10 + 2 + 5));
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(frames.length, 1);
    for (let index = 0; index < 100; index++) outbox.post(record(10_000));
    outbox.post(record(1_000_000));
    await new Promise((resolve) => setImmediate(resolve));
    assert.ok(frames.slice(0, -1).every((frame) => frame.bytes <= batchBytes));
    assert.equal(frames.at(-1)?.bytes, 1_000_007);
    assert.ok(outbox.unsentBytes > 2_000_000);
    for (const frame of frames) frame.done();
    assert.equal(outbox.unsentBytes, 0);
    outbox.stop();
    outbox.post(record(10));
    assert.equal(outbox.unsentBytes, 0);
  });
});

describe('addresses', () => {
  it('are read and written', () => {
    assert.deepEqual(parseAddress('10.0.0.1:99'), { ok: true, value: { host: '10.0.0.1', port: 99 } });
    assert.deepEqual(parseAddress('node-1.example'), {
      ok: true,
      value: { host: 'node-1.example', port: 2377 },
    });
    assert.deepEqual(parseAddress('[::1]:99'), { ok: true, value: { host: '::1', port: 99 } });
    assert.deepEqual(parseAddress('fe80::1'), { ok: true, value: { host: 'fe80::1', port: 2377 } });
    assert.equal(formatAddress('::1', 99), '[::1]:99');
    for (const bad of [
      '',
      ':1',
      'host:',
      'host:0',
      'host:65536',
      'a b:1',
      '[x]:1',
      'http://x:1',
      'host:1x',
    ]) {
      assert.equal(parseAddress(bad).ok, false, bad);
    }
  });
});
