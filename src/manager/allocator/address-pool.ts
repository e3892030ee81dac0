/**
 * The addresses of one network: which are held, which were freed of late, and which to hand out next.
 *
 * Owns: one pool a network, derived from the view for one plan.
 * Invariants: an address is held by one task or node at a time; the network and broadcast addresses are never
 * handed out; an address that an ended task still shows is used only when no other is free, the longest-free first;
 * tasks take addresses upward from the last one given, nodes take theirs from the top.
 */
import { lastAddress, type Ipv4Block } from './ipv4.ts';

/** Addresses of one network. */
export class AddressPool {
  readonly #first: number;
  readonly #last: number;
  readonly #held = new Set<number>();
  /** Address -> wall-clock ms of the end of the last task that had it. */
  readonly #freed = new Map<number, number>();
  #cursor: number;
  #cursorAt = Number.NEGATIVE_INFINITY;

  constructor(block: Ipv4Block) {
    this.#first = block.first + 1;
    this.#last = lastAddress(block) - 1;
    this.#cursor = this.#last;
  }

  /** Marks an address as held. `givenAt`: when its task was made; the newest one is where the search goes on. */
  hold(address: number, givenAt: number | null): void {
    this.#held.add(address);
    this.#advance(address, givenAt);
  }

  /** Marks an address as freed by a task made at `givenAt` that ended at `endedAt`. */
  noteFreed(address: number, givenAt: number, endedAt: number): void {
    this.#freed.set(address, Math.max(endedAt, this.#freed.get(address) ?? endedAt));
    this.#advance(address, givenAt);
  }

  /** An address for a task, or null when none is free. */
  takeForTask(): number | null {
    const count = this.#last - this.#first + 1;
    for (let step = 1; step <= count; step++) {
      const address = this.#first + ((this.#cursor - this.#first + step) % count);
      if (this.#held.has(address) || this.#freed.has(address)) continue;
      return this.#take(address);
    }
    const reused = this.#longestFreed();
    return reused === null ? null : this.#take(reused);
  }

  /** An address for a node (its gateway), from the top; null when none is free. */
  takeForNode(): number | null {
    for (let address = this.#last; address >= this.#first; address--) {
      if (this.#held.has(address) || this.#freed.has(address)) continue;
      this.#held.add(address);
      return address;
    }
    const reused = this.#longestFreed();
    if (reused !== null) this.#held.add(reused);
    return reused;
  }

  /** Gives back an address taken in this plan. */
  release(address: number): void {
    this.#held.delete(address);
  }

  #advance(address: number, givenAt: number | null): void {
    if (givenAt === null || givenAt < this.#cursorAt) return;
    if (address < this.#first || address > this.#last) return;
    this.#cursorAt = givenAt;
    this.#cursor = address;
  }

  #take(address: number): number {
    this.#held.add(address);
    this.#cursor = address;
    return address;
  }

  #longestFreed(): number | null {
    let best: number | null = null;
    let bestAt = Number.POSITIVE_INFINITY;
    for (const [address, endedAt] of this.#freed) {
      if (this.#held.has(address) || endedAt >= bestAt) continue;
      best = address;
      bestAt = endedAt;
    }
    return best;
  }
}
