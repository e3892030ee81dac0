/**
 * Numbers and bytes in binary records, on the wire and on disk. Big-endian; ids, terms and indexes take 6 bytes.
 */
import { EMPTY_BYTES } from './core/types.ts';

/** Bytes of an id, a term or an index. */
export const U48_BYTES = 6;

/** Writes numbers and bytes one after another into a buffer of known length. */
export class ByteWriter {
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(length: number) {
    this.bytes = new Uint8Array(length);
    this.#view = new DataView(this.bytes.buffer);
  }

  u8(value: number): void {
    this.#view.setUint8(this.#at, value);
    this.#at += 1;
  }

  u32(value: number): void {
    this.#view.setUint32(this.#at, value);
    this.#at += 4;
  }

  u48(value: number): void {
    this.#view.setUint16(this.#at, Math.floor(value / 0x1_0000_0000));
    this.#view.setUint32(this.#at + 2, value % 0x1_0000_0000);
    this.#at += U48_BYTES;
  }

  raw(value: Uint8Array): void {
    this.bytes.set(value, this.#at);
    this.#at += value.length;
  }
}

/** Thrown by a reader at bytes that end early or lie. Decoders catch it; it never leaves this folder. */
export class Malformed extends Error {}

/** Reads what a {@link ByteWriter} wrote, throwing {@link Malformed} where it cannot be. */
export class ByteReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  u8(): number {
    this.#need(1);
    return this.#view.getUint8(this.#at++);
  }

  u32(): number {
    this.#need(4);
    this.#at += 4;
    return this.#view.getUint32(this.#at - 4);
  }

  u48(): number {
    this.#need(U48_BYTES);
    this.#at += U48_BYTES;
    return this.#view.getUint16(this.#at - U48_BYTES) * 0x1_0000_0000 + this.#view.getUint32(this.#at - 4);
  }

  raw(length: number): Uint8Array {
    this.#need(length);
    if (length === 0) return EMPTY_BYTES;
    this.#at += length;
    // Not `slice`: on a Buffer that would be a view into the receiver's memory.
    return new Uint8Array(this.#bytes.subarray(this.#at - length, this.#at));
  }

  #need(length: number): void {
    if (this.left < length) throw new Malformed();
  }
}
