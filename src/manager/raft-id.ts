/** Member ids of the consensus group. */
import { randomBelow, type Random } from '../base/random.ts';

/** A member id: random, at most 47 bits, never 0, never used again. */
export function newRaftId(random: Random): number {
  return randomBelow(random, 0x8000) * 0x1_0000_0000 + random.uint32() + 1;
}
