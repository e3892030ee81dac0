/**
 * A byte buffer with the shape of the codec's writer. The codec's own keeps an array element a bit and copies all of
 * it after every record, which makes answers with hundreds of records slow.
 *
 * Invariant: `toBuffer` is a view, not a copy; it is valid until the next write.
 */

/** Writes big-endian values of 1 to 32 bits. */
export class MessageWriter {
  /** Unused; the codec's type has it. */
  readonly buffer: number[] = [];
  /** Byte offset by name, for compression; the codec keeps it here. */
  readonly names = new Map<string, number>();
  #bytes = Buffer.alloc(512);
  #bits = 0;

  write(value: number, bits: number): void {
    this.#reserve(bits);
    this.patch(this.#bits, value, bits);
    this.#bits += bits;
  }

  writeBuffer(other: { toBuffer(): Buffer }): void {
    for (const byte of other.toBuffer()) this.write(byte, 8);
  }

  bitLength(): number {
    return this.#bits;
  }

  byteLength(): number {
    return this.#bits / 8;
  }

  /** Overwrites `bits` bits from `bitOffset` on. */
  patch(bitOffset: number, value: number, bits: number): void {
    if ((bitOffset & 7) === 0 && (bits & 7) === 0) {
      this.#bytes.writeUIntBE(
        bits === 32 ? value >>> 0 : value & (2 ** bits - 1),
        bitOffset >>> 3,
        bits >>> 3,
      );
      return;
    }
    for (let bit = 0; bit < bits; bit++) {
      const at = bitOffset + bit;
      const mask = 0x80 >>> (at & 7);
      const byte = this.#bytes[at >>> 3] ?? 0;
      this.#bytes[at >>> 3] = ((value >>> (bits - bit - 1)) & 1) === 1 ? byte | mask : byte & ~mask;
    }
  }

  toBuffer(): Buffer {
    return this.#bytes.subarray(0, Math.ceil(this.#bits / 8));
  }

  #reserve(bits: number): void {
    const needed = Math.ceil((this.#bits + bits) / 8);
    if (needed <= this.#bytes.length) return;
    const grown = Buffer.alloc(Math.max(needed, this.#bytes.length * 2));
    this.#bytes.copy(grown);
    this.#bytes = grown;
  }
}
