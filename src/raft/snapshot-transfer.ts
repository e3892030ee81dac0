/**
 * Snapshots between members: sent in chunks, a few in flight, resumed where the receiver stands.
 *
 * Invariants: one transfer a peer; a receiver takes chunks in order only, and says which it wants next; the
 * core sees the snapshot message only after the whole state arrived. A lost chunk or answer is made good by
 * the sender's timer; a sender that makes no progress for long reports failure, and the core starts over.
 */
import { encodeAck, encodeChunk, type SnapshotAck, type SnapshotChunk } from './codec.ts';
import type { Message } from './core/types.ts';
import { chunkCount, type RaftStorage, SNAPSHOT_CHUNK_BYTES } from './storage.ts';

/** Bounds of a snapshot's transfer. */
export const snapshotTransferLimits = {
  /** Chunks on the wire without an answer. */
  windowChunks: 4,
  /** A state larger than this is refused by its receiver. */
  stateBytes: 1024 * 1024 * 1024,
  /** Election timeouts without an answer before a transfer fails. */
  quietRounds: 10,
} as const;

interface Sending {
  readonly message: Message;
  chunks: number;
  bytes: number;
  /** The next chunk the receiver wants. */
  acked: number;
  /** The next chunk to send. */
  next: number;
  quietTicks: number;
  quietRounds: number;
  pumping: boolean;
}

/** How a transfer ended. */
export type TransferEnd = (to: number, outcome: 'sent' | 'failed') => void;

/** The sending side, for all peers. */
export class SnapshotSender {
  readonly #storage: RaftStorage;
  readonly #send: (to: number, frame: Uint8Array) => void;
  readonly #onEnd: TransferEnd;
  readonly #sending = new Map<number, Sending>();

  constructor(storage: RaftStorage, send: (to: number, frame: Uint8Array) => void, onEnd: TransferEnd) {
    this.#storage = storage;
    this.#send = send;
    this.#onEnd = onEnd;
  }

  /** Starts sending the snapshot that `message` names to its receiver, in place of an older transfer. */
  start(message: Message): void {
    const sending: Sending = {
      message,
      chunks: -1,
      bytes: 0,
      acked: 0,
      next: 0,
      quietTicks: 0,
      quietRounds: 0,
      pumping: false,
    };
    this.#sending.set(message.to, sending);
    void this.#pump(sending);
  }

  /** Takes the receiver's answer. */
  onAck(ack: SnapshotAck): void {
    const sending = this.#sending.get(ack.from);
    const snapshot = sending?.message.snapshot;
    if (sending === undefined || snapshot?.index !== ack.index || snapshot.term !== ack.term) return;
    sending.quietTicks = 0;
    sending.quietRounds = 0;
    if (sending.chunks >= 0 && ack.next >= sending.chunks) {
      this.#finish(sending, 'sent');
      return;
    }
    // Going back means that the receiver lost what it had (it restarted).
    if (ack.next < sending.acked) sending.next = ack.next;
    sending.acked = ack.next;
    sending.next = Math.max(sending.next, ack.next);
    void this.#pump(sending);
  }

  /** Counts a tick; a transfer quiet for `maxTicks` sends again, and after ten times that fails. */
  tick(maxTicks: number): void {
    for (const sending of this.#sending.values()) {
      sending.quietTicks++;
      if (sending.quietTicks < maxTicks) continue;
      sending.quietTicks = 0;
      sending.quietRounds++;
      sending.next = sending.acked;
      if (sending.quietRounds >= snapshotTransferLimits.quietRounds) this.#finish(sending, 'failed');
      else void this.#pump(sending);
    }
  }

  /** Ends every transfer without telling anybody: this node leads no more. */
  stopAll(): void {
    this.#sending.clear();
  }

  async #pump(sending: Sending): Promise<void> {
    if (sending.pumping) return;
    sending.pumping = true;
    try {
      await this.#sendWindow(sending);
    } catch {
      // A read error concerns this follower only; a broken disk shows at the next write.
      this.#finish(sending, 'failed');
    } finally {
      sending.pumping = false;
    }
  }

  async #sendWindow(sending: Sending): Promise<void> {
    const { snapshot, to } = sending.message;
    if (snapshot === null) return;
    const { index, term } = snapshot;
    if (sending.chunks < 0) {
      const size = await this.#storage.snapshotSize(index, term);
      if (size === null) {
        this.#finish(sending, 'failed');
        return;
      }
      sending.chunks = size.chunks;
      sending.bytes = size.bytes;
    }
    const { message, chunks, bytes } = sending;
    while (sending.next < chunks && sending.next < sending.acked + snapshotTransferLimits.windowChunks) {
      const chunk = sending.next++;
      const payload = await this.#storage.readSnapshotChunk(index, term, chunk);
      if (this.#sending.get(to) !== sending) return;
      if (payload === null) {
        this.#finish(sending, 'failed');
        return;
      }
      this.#send(to, encodeChunk({ message, chunk, chunks, bytes, payload }));
    }
  }

  #finish(sending: Sending, outcome: 'sent' | 'failed'): void {
    const { to } = sending.message;
    if (this.#sending.get(to) !== sending) return;
    this.#sending.delete(to);
    this.#onEnd(to, outcome);
  }
}

/** The receiving side: at most one snapshot in the making. */
export class SnapshotReceiver {
  readonly #self: number;
  readonly #answer: (to: number, frame: Uint8Array) => void;
  #index = 0;
  #term = 0;
  #chunks = 0;
  #next = 0;
  #state: Uint8Array = new Uint8Array(0);

  constructor(self: number, answer: (to: number, frame: Uint8Array) => void) {
    this.#self = self;
    this.#answer = answer;
  }

  /** Takes a chunk; returns the whole state when this was the last one. `wanted` false answers "enough". */
  onChunk(received: SnapshotChunk, wanted: boolean): Uint8Array | null {
    const { message, chunk, chunks, bytes, payload } = received;
    const { snapshot } = message;
    if (snapshot === null || bytes > snapshotTransferLimits.stateBytes || chunks !== chunkCount(bytes))
      return null;
    if (!wanted) {
      this.#ack(message.from, snapshot.index, snapshot.term, chunks);
      return null;
    }
    if (snapshot.index !== this.#index || snapshot.term !== this.#term) {
      this.#index = snapshot.index;
      this.#term = snapshot.term;
      this.#chunks = chunks;
      this.#next = 0;
      this.#state = new Uint8Array(bytes);
    }
    const isExpected = chunk === this.#next && chunks === this.#chunks && bytes === this.#state.length;
    const at = chunk * SNAPSHOT_CHUNK_BYTES;
    if (isExpected && payload.length === Math.min(SNAPSHOT_CHUNK_BYTES, bytes - at)) {
      this.#state.set(payload, at);
      this.#next++;
    }
    this.#ack(message.from, snapshot.index, snapshot.term, this.#next);
    if (!isExpected || this.#next < this.#chunks) return null;
    const state = this.#state;
    this.#index = 0;
    this.#state = new Uint8Array(0);
    return state;
  }

  #ack(to: number, index: number, term: number, next: number): void {
    this.#answer(to, encodeAck({ from: this.#self, to, index, term, next }));
  }
}
