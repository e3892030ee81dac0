/**
 * The wire format inside a binary WebSocket frame: records, each `u32 length | u8 kind | body`.
 *
 * Bodies: a notification is `u8 method length | method | bytes`; a stream message is `f64 stream | value`;
 * every other kind is one MessagePack array. Streams are numbered by who opens them (odd: the client of
 * the TLS connection, even: the server), calls by their caller.
 *
 * Invariant: `decodeRecord` returns only records whose every field has its type and range.
 */
import { ok, type Result, refuse } from '../base/result.ts';
import { methodBytesMax } from './limits.ts';
import { decodeValue, encodeValue } from './message-pack.ts';

/** An error as it travels. */
export interface WireError {
  readonly code: string;
  readonly message: string;
  readonly details: unknown;
}

/** One record on the wire. */
export type RpcRecord =
  | { readonly kind: 'call'; readonly id: number; readonly method: string; readonly params: unknown }
  | { readonly kind: 'answer'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'call-error'; readonly id: number; readonly error: WireError }
  | { readonly kind: 'cancel'; readonly id: number }
  | { readonly kind: 'open'; readonly id: number; readonly method: string; readonly params: unknown }
  /** The sender of `end` writes no more. */
  | { readonly kind: 'end'; readonly id: number }
  /** The handler returned: the stream is over once what it wrote was read. */
  | { readonly kind: 'finish'; readonly id: number }
  | { readonly kind: 'destroy'; readonly id: number; readonly error: WireError }
  /** The sender read `bytes` more and frees them for the writer. */
  | { readonly kind: 'credit'; readonly id: number; readonly bytes: number }
  | { readonly kind: 'message'; readonly id: number; readonly value: Uint8Array }
  | { readonly kind: 'notify'; readonly method: string; readonly data: Uint8Array };

/** Bytes of a record before its body. */
export const recordHeadBytes = 5;

const kindCodes: Readonly<Record<RpcRecord['kind'], number>> = {
  call: 1,
  answer: 2,
  'call-error': 3,
  cancel: 4,
  open: 5,
  end: 6,
  finish: 7,
  destroy: 8,
  credit: 9,
  message: 10,
  notify: 11,
};
const kindsByCode = new Map(
  Object.entries(kindCodes).map(([kind, code]) => [code, kind as RpcRecord['kind']]),
);

/** A record ready to be sent: its kind's code and its body in pieces (one copy, made when it is framed). */
export interface EncodedRecord {
  readonly code: number;
  readonly pieces: readonly Uint8Array[];
  /** Bytes of the body. */
  readonly bytes: number;
}

/** Encodes a record. Throws what the encoder throws on values that are not plain data. */
export function encodeRecord(record: RpcRecord): EncodedRecord {
  return pieces(kindCodes[record.kind], bodyOf(record));
}

function bodyOf(record: RpcRecord): Uint8Array[] {
  switch (record.kind) {
    case 'call':
    case 'open':
      return [encodeValue([record.id, record.method, record.params])];
    case 'answer':
      return [encodeValue([record.id, record.value])];
    case 'call-error':
    case 'destroy':
      return [encodeValue([record.id, record.error.code, record.error.message, record.error.details])];
    case 'cancel':
    case 'end':
    case 'finish':
      return [encodeValue([record.id])];
    case 'credit':
      return [encodeValue([record.id, record.bytes])];
    case 'message':
      return [streamHead(record.id), record.value];
    case 'notify':
      return [methodHead(record.method), record.data];
  }
}

function pieces(code: number, body: readonly Uint8Array[]): EncodedRecord {
  let bytes = 0;
  for (const piece of body) bytes += piece.byteLength;
  return { code, pieces: body, bytes };
}

function streamHead(id: number): Uint8Array {
  const head = Buffer.allocUnsafe(8);
  head.writeDoubleBE(id);
  return head;
}

const methodHeads = new Map<string, Uint8Array>();

/** The length-prefixed name, remembered: a node notifies only a handful of methods. */
function methodHead(method: string): Uint8Array {
  const known = methodHeads.get(method);
  if (known !== undefined) return known;
  const name = Buffer.from(method, 'utf8');
  const head = Buffer.concat([Buffer.from([name.byteLength]), name]);
  if (methodHeads.size < 64) methodHeads.set(method, head);
  return head;
}

/** Whether a name can travel: 1 to 255 bytes. */
export function isMethodName(method: unknown): method is string {
  if (typeof method !== 'string' || method.length === 0 || method.length > methodBytesMax) return false;
  return Buffer.byteLength(method, 'utf8') <= methodBytesMax;
}

/** Joins encoded records into one frame. */
export function joinRecords(records: readonly EncodedRecord[]): Buffer {
  let total = 0;
  for (const record of records) total += recordHeadBytes + record.bytes;
  const frame = Buffer.allocUnsafe(total);
  let at = 0;
  for (const record of records) {
    frame.writeUInt32BE(record.bytes, at);
    frame[at + 4] = record.code;
    at += recordHeadBytes;
    for (const piece of record.pieces) {
      frame.set(piece, at);
      at += piece.byteLength;
    }
  }
  return frame;
}

/** A record's kind and undecoded body, as cut out of a frame. */
export interface RawRecord {
  readonly kind: RpcRecord['kind'];
  readonly body: Uint8Array;
}

/** Cuts the record at `at` out of a frame. `next` is where the following one begins. */
export function cutRecord(
  frame: Buffer,
  at: number,
  messageBytesMax: number,
): Result<RawRecord & { readonly next: number }> {
  if (at + recordHeadBytes > frame.byteLength) return refuse('a frame that ends within a record');
  const bytes = frame.readUInt32BE(at);
  if (bytes > messageBytesMax) {
    return refuse(`a message of ${bytes} bytes, over the limit of ${messageBytesMax} (messageBytesMax)`);
  }
  const start = at + recordHeadBytes;
  if (start + bytes > frame.byteLength) return refuse('a frame that ends within a record');
  const kind = kindsByCode.get(frame[at + 4] as number);
  if (kind === undefined) return refuse('a record of an unknown kind');
  return ok({ kind, body: frame.subarray(start, start + bytes), next: start + bytes });
}

/** Decodes and checks a record from a peer, or says what it sent instead. */
export function decodeRecord(raw: RawRecord): Result<RpcRecord> {
  if (raw.kind === 'notify') return decodeNotification(raw.body);
  if (raw.kind === 'message') return decodeStreamMessage(raw.body);
  const decoded = decodeValue(raw.body);
  if (!decoded.ok) return decoded;
  const fields = decoded.value;
  if (!Array.isArray(fields) || !isId(fields[0])) return refuse(`a ${raw.kind} record without a number`);
  return decodeFields(raw.kind, fields[0], fields);
}

function decodeFields(
  kind: Exclude<RpcRecord['kind'], 'notify' | 'message'>,
  id: number,
  fields: readonly unknown[],
): Result<RpcRecord> {
  switch (kind) {
    case 'call':
    case 'open':
      if (!isMethodName(fields[1])) return refuse(`a ${kind} record without a method`);
      return ok({ kind, id, method: fields[1], params: fields[2] });
    case 'answer':
      return ok({ kind, id, value: fields[1] });
    case 'call-error':
    case 'destroy':
      if (typeof fields[1] !== 'string' || typeof fields[2] !== 'string')
        return refuse('an error without a code');
      return ok({ kind, id, error: { code: fields[1], message: fields[2], details: fields[3] } });
    case 'credit':
      if (!isId(fields[1])) return refuse('a credit record without an amount');
      return ok({ kind, id, bytes: fields[1] });
    case 'cancel':
    case 'end':
    case 'finish':
      return ok({ kind, id });
  }
}

function decodeNotification(body: Uint8Array): Result<RpcRecord> {
  const nameBytes = body[0] ?? 0;
  if (nameBytes === 0 || nameBytes + 1 > body.byteLength) return refuse('a notification without a method');
  const method = Buffer.from(body.buffer, body.byteOffset + 1, nameBytes).toString('utf8');
  return ok({ kind: 'notify', method, data: body.subarray(1 + nameBytes) });
}

function decodeStreamMessage(body: Uint8Array): Result<RpcRecord> {
  if (body.byteLength < 8) return refuse('a stream message without a stream');
  const id = new DataView(body.buffer, body.byteOffset, 8).getFloat64(0);
  if (!isId(id)) return refuse('a stream message without a stream');
  return ok({ kind: 'message', id, value: body.subarray(8) });
}

/** Numbers of calls and streams and amounts of credit: 1 .. 2^53-1. */
function isId(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) > 0;
}
