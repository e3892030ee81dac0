/**
 * The simulated network: who reaches whom, datagrams that are lost, doubled, delayed and reordered, and the state
 * that connections ask about.
 *
 * Data owned: the links that are cut or clogged, who listens at which address, the last frames.
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

interface Recent {
  readonly from: string;
  readonly toAddress: string;
  readonly arrive: () => void;
}

const RECENT_MAX = 64;
/** Frames up to this size are kept to be replayed by chance. */
const RECENT_BYTES_MAX = 4_096;

/** Hosts by name and the links between them. A link is directed: `from` to `to`. */
export class Network<Served> {
  faults: NetworkFaults = healthyNetwork;
  readonly time: VirtualTime;
  readonly dice: Dice;
  readonly #listeners = new Map<string, Listener<Served>>();
  readonly #cut = new Set<string>();
  /** Frames sent of late, to be delivered once more. */
  readonly #recent: Recent[] = [];
  /** Frames with pieces of snapshots, for the same. */
  readonly #snapshots: Recent[] = [];
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
    const { loss, duplication, truncate, garbage, replay } = this.faults;
    if (loss > 0 && dice.chance(loss)) return;
    const copies = duplication > 0 && dice.chance(duplication) ? 2 : 1;
    const cutAt = truncate > 0 && dice.chance(truncate) ? dice.below(bytes.length) : bytes.length;
    const sent = bytes.slice(0, cutAt);
    const arrive = (): void => this.#arrive(from, toAddress, sent, deliver);
    for (let i = 0; i < copies; i++) time.after(this.delayMs(from, to), null, `frame ${from}>${to}`, arrive);
    const recent = { from, toAddress, arrive };
    if (bytes[0] === CHUNK_FRAME) remember(this.#snapshots, recent);
    if (replay > 0) {
      if (bytes.length <= RECENT_BYTES_MAX) remember(this.#recent, recent);
      if (dice.chance(replay)) this.#again(dice.pick(this.#recent));
    }
    if (garbage > 0 && dice.chance(garbage)) {
      const nonsense = Uint8Array.from({ length: dice.below(200) }, () => dice.below(256));
      // A first byte that names a kind of frame gets further into the decoder.
      if (dice.chance(800)) nonsense[0] = dice.between(1, 5);
      this.#arriveLater(from, to, () => this.#arrive(from, toAddress, nonsense, deliver));
    }
  }

  /** Delivers every piece of a snapshot that was sent of late once more. */
  replaySnapshots(): void {
    for (const recent of this.#snapshots) this.#again(recent);
  }

  #again(recent: Recent | undefined): void {
    const to = recent === undefined ? undefined : this.#listeners.get(recent.toAddress)?.host;
    if (recent !== undefined && to !== undefined) this.#arriveLater(recent.from, to, recent.arrive);
  }

  #arriveLater(from: string, to: string, arrive: () => void): void {
    this.time.after(this.delayMs(from, to) + this.dice.below(3_000), null, `old frame ${from}>${to}`, arrive);
  }

  #arrive(
    from: string,
    toAddress: string,
    sent: Uint8Array,
    deliver: (to: Listener<Served>, bytes: Uint8Array) => void,
  ): void {
    const listener = this.at(toAddress);
    if (listener === null || !this.passes(from, listener.host)) return;
    // A paused receiver finds it in its socket when it wakes.
    const wait = listener.process.pausedUntilMs - this.time.nowMs;
    if (wait > 0)
      this.time.after(wait, listener.process, `late frame ${from}>${toAddress}`, () =>
        deliver(listener, sent),
      );
    else deliver(listener, sent);
  }
}

/** The first byte of a frame with a piece of a snapshot. */
const CHUNK_FRAME = 2;

function remember(list: Recent[], recent: Recent): void {
  list.push(recent);
  if (list.length > RECENT_MAX) list.shift();
}
