/**
 * The simulated network: who reaches whom, datagrams that are lost, doubled, delayed and reordered, and the state
 * that connections ask about.
 *
 * Data owned: the links that are cut or clogged, who listens at which address.
 */
import type { Dice, NetworkFaults } from './draws.ts';
import { healthyNetwork } from './draws.ts';
import type { Process, VirtualTime } from './virtual-time.ts';

/** What answers at an address. */
export interface Listener<Served> {
  readonly host: string;
  readonly process: Process;
  readonly served: Served;
}

/** Hosts by name and the links between them. A link is directed: `from` to `to`. */
export class Network<Served> {
  faults: NetworkFaults = healthyNetwork;
  readonly time: VirtualTime;
  readonly dice: Dice;
  readonly #listeners = new Map<string, Listener<Served>>();
  readonly #cut = new Set<string>();
  /** Links whose messages wait until then. */
  readonly #clogged = new Map<string, number>();

  constructor(time: VirtualTime, dice: Dice) {
    this.time = time;
    this.dice = dice;
  }

  listen(address: string, listener: Listener<Served>): void {
    this.#listeners.set(address, listener);
  }

  /** Who answers at `address` now. */
  at(address: string): Listener<Served> | null {
    const listener = this.#listeners.get(address);
    return listener?.process.alive === true ? listener : null;
  }

  cut(from: string, to: string): void {
    this.#cut.add(`${from}>${to}`);
  }

  clog(from: string, to: string, untilMs: number): void {
    this.#clogged.set(`${from}>${to}`, untilMs);
  }

  /** Mends every link. */
  mend(): void {
    this.#cut.clear();
    this.#clogged.clear();
  }

  passes(from: string, to: string): boolean {
    return !this.#cut.has(`${from}>${to}`);
  }

  /** How long the next message on a link takes. */
  delayMs(from: string, to: string): number {
    const { delayMaxMs, straggle } = this.faults;
    const clogged = (this.#clogged.get(`${from}>${to}`) ?? 0) - this.time.nowMs;
    const base = 0.1 + (this.dice.below(delayMaxMs * 1_000) + 1) / 1_000;
    const late = straggle > 0 && this.dice.chance(straggle) ? base * this.dice.below(100) : 0;
    return Math.max(0, clogged) + base + late;
  }

  /** Sends one datagram; `deliver` runs at each arrival, for whoever listens there then. */
  send(
    from: string,
    toAddress: string,
    bytes: Uint8Array,
    deliver: (to: Listener<Served>, bytes: Uint8Array) => void,
  ): void {
    const { dice, time } = this;
    const to = this.#listeners.get(toAddress)?.host;
    if (to === undefined || !this.passes(from, to)) return;
    const { loss, duplication, truncate } = this.faults;
    if (loss > 0 && dice.chance(loss)) return;
    const copies = duplication > 0 && dice.chance(duplication) ? 2 : 1;
    const cutAt = truncate > 0 && dice.chance(truncate) ? dice.below(bytes.length) : bytes.length;
    const sent = bytes.slice(0, cutAt);
    for (let i = 0; i < copies; i++) {
      const arrive = (): void => {
        const listener = this.at(toAddress);
        if (listener === null || !this.passes(from, listener.host)) return;
        // A paused receiver finds it in its socket when it wakes.
        const wait = listener.process.pausedUntilMs - time.nowMs;
        if (wait > 0)
          time.after(wait, listener.process, `late frame ${from}>${to}`, () => deliver(listener, sent));
        else deliver(listener, sent);
      };
      time.after(this.delayMs(from, to), null, `frame ${from}>${to}`, arrive);
    }
  }
}
