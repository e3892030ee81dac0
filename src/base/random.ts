/**
 * Randomness as a port. Pure code takes a `Random` argument; production seeds it from the kernel.
 */
import { randomFillSync } from 'node:crypto';

/** A source of uniformly distributed 32-bit unsigned integers. */
export interface Random {
  /** 0 .. 2^32-1. */
  uint32(): number;
}

/** A deterministic generator (sfc32) for tests, the simulator and replicated decisions. */
export function seededRandom(seed: number): Random {
  let a = 0x9e3779b9;
  let b = 0x243f6a88;
  let c = seed >>> 0;
  let counter = 1;
  const next = (): number => {
    const t = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    return t >>> 0;
  };
  for (let i = 0; i < 12; i++) next();
  return { uint32: next };
}

/** The kernel's generator, for ids, secrets and jitter in production. */
export function systemRandom(): Random {
  const buffer = new Uint32Array(256);
  let used = buffer.length;
  return {
    uint32() {
      if (used === buffer.length) {
        randomFillSync(buffer);
        used = 0;
      }
      return buffer[used++] as number;
    },
  };
}

/** A uniform integer in 0 .. bound-1. `bound` is 1 .. 2^32. Free of modulo bias. */
export function randomBelow(random: Random, bound: number): number {
  const limit = 4_294_967_296 - (4_294_967_296 % bound);
  for (;;) {
    const value = random.uint32();
    if (value < limit) return value % bound;
  }
}

const BASE36 = '0123456789abcdefghijklmnopqrstuvwxyz';

/** `length` characters of 0-9a-z, uniform. */
export function randomBase36(random: Random, length: number): string {
  let text = '';
  for (let i = 0; i < length; i++) text += BASE36[randomBelow(random, 36)];
  return text;
}
