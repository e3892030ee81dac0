/**
 * Values to MessagePack and back. The reading side expects a hostile peer.
 *
 * Invariants: no shared structures (every message stands alone); bytes are decoded only after a walk over
 * them proved that every length fits in what is there, the nesting is bounded and no extension but
 * `undefined` and timestamps occurs, so that a small message cannot make the decoder allocate a lot.
 */
import { Packr } from 'msgpackr';
import { ok, type Result, refuse } from '../base/result.ts';
import { messageDepthMax } from './limits.ts';

const packr = new Packr({ useRecords: false, variableMapSize: true });

/** Encodes a value of plain data (objects, arrays, strings, numbers, bytes). Throws what the encoder throws. */
export function encodeValue(value: unknown): Uint8Array {
  return packr.pack(value);
}

/** Decodes bytes from a peer, or says why they are not one well-formed value. */
export function decodeValue(bytes: Uint8Array): Result<unknown> {
  const wrong = checkStructure(bytes);
  if (wrong !== null) return refuse(wrong);
  try {
    return ok(packr.unpack(bytes) as unknown);
  } catch {
    return refuse('a value that cannot be decoded');
  }
}

const extensionUndefined = 0;
const extensionTimestamp = 0xff;

/** Why the bytes are not exactly one acceptable value, or null. */
function checkStructure(bytes: Uint8Array): string | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = bytes.byteLength;
  /** Values still to come at each open level. */
  const open: number[] = [1];
  let at = 0;
  while (open.length > 0) {
    const depth = open.length - 1;
    const left = open[depth] as number;
    if (left === 0) {
      open.pop();
      continue;
    }
    open[depth] = left - 1;
    if (at >= end) return 'a value that ends too early';
    const head = headOf(view, at, end);
    if (head === null) return 'a value with an unknown or cut head';
    at += head.bytes;
    if (at > end) return 'a value that ends too early';
    if (head.children > 0) {
      if (head.children > end - at) return 'a collection longer than its message';
      if (open.length > messageDepthMax) return `a value nested deeper than ${messageDepthMax}`;
      open.push(head.children);
    }
  }
  return at === end ? null : 'bytes after its value';
}

interface Head {
  /** Bytes of the head and of the scalar's content. */
  readonly bytes: number;
  /** Values that follow inside (twice the entries of a map). */
  readonly children: number;
}

/** The head of the value at `at`; null when unknown or cut. */
function headOf(view: DataView, at: number, end: number): Head | null {
  const tag = view.getUint8(at);
  if (tag <= 0x7f || tag >= 0xe0) return scalar(1);
  if (tag <= 0x8f) return { bytes: 1, children: (tag & 0x0f) * 2 };
  if (tag <= 0x9f) return { bytes: 1, children: tag & 0x0f };
  if (tag <= 0xbf) return scalar(1 + (tag & 0x1f));
  switch (tag) {
    case 0xc0:
    case 0xc2:
    case 0xc3:
      return scalar(1);
    case 0xcc:
    case 0xd0:
      return scalar(2);
    case 0xcd:
    case 0xd1:
      return scalar(3);
    case 0xca:
    case 0xce:
    case 0xd2:
      return scalar(5);
    case 0xcb:
    case 0xcf:
    case 0xd3:
      return scalar(9);
    case 0xd4:
    case 0xd6:
    case 0xd7:
      return fixedExtension(view, at, end, tag);
    case 0xc7:
      return at + 3 <= end && view.getUint8(at + 2) === extensionTimestamp && view.getUint8(at + 1) === 12
        ? scalar(15)
        : null;
    default:
      return sizedHead(view, at, end, tag);
  }
}

function scalar(bytes: number): Head {
  return { bytes, children: 0 };
}

/** `undefined` (one byte) or a timestamp of 4 or 8 bytes; nothing else is accepted. */
function fixedExtension(view: DataView, at: number, end: number, tag: number): Head | null {
  if (at + 2 > end) return null;
  const type = view.getUint8(at + 1);
  if (tag === 0xd4) return type === extensionUndefined ? scalar(3) : null;
  if (type !== extensionTimestamp) return null;
  return scalar(tag === 0xd6 ? 6 : 10);
}

/** Strings, bytes, arrays and maps whose length is a field of 1, 2 or 4 bytes. */
function sizedHead(view: DataView, at: number, end: number, tag: number): Head | null {
  const field = sizeFields[tag];
  if (field === undefined || at + 1 + field.bytes > end) return null;
  const size =
    field.bytes === 1
      ? view.getUint8(at + 1)
      : field.bytes === 2
        ? view.getUint16(at + 1)
        : view.getUint32(at + 1);
  const head = 1 + field.bytes;
  return field.per === 0 ? scalar(head + size) : { bytes: head, children: size * field.per };
}

/** Bytes of the length field, and values per counted element (0: the elements are bytes). */
const sizeFields: Readonly<Record<number, { readonly bytes: 1 | 2 | 4; readonly per: 0 | 1 | 2 }>> = {
  0xc4: { bytes: 1, per: 0 },
  0xc5: { bytes: 2, per: 0 },
  0xc6: { bytes: 4, per: 0 },
  0xd9: { bytes: 1, per: 0 },
  0xda: { bytes: 2, per: 0 },
  0xdb: { bytes: 4, per: 0 },
  0xdc: { bytes: 2, per: 1 },
  0xdd: { bytes: 4, per: 1 },
  0xde: { bytes: 2, per: 2 },
  0xdf: { bytes: 4, per: 2 },
};
