/**
 * Messages of the core on their way out: encoded, and handed to the transport in one batch a receiver.
 *
 * Invariants: a batch keeps the core's order; a snapshot message becomes a transfer; a receiver that may not
 * know how to answer is told the members' addresses first.
 */
import { encodeContactList, encodeMessage } from './codec.ts';
import type { Core } from './core/state.ts';
import type { Message } from './core/types.ts';
import type { MemberTable } from './members.ts';
import type { SnapshotSender } from './snapshot-transfer.ts';
import type { RaftTransport } from './types.ts';

/** Hands frames for `to` to the transport; without an address they are lost, like any message may be. */
export function transmit(
  transport: RaftTransport,
  members: MemberTable,
  to: number,
  frames: readonly Uint8Array[],
): void {
  const member = members.contact(to);
  if (member !== null) transport.send(member, frames);
}

/** The outgoing mail of one node. */
export class Mail {
  readonly #state: Readonly<Core>;
  readonly #members: MemberTable;
  readonly #transport: RaftTransport;
  readonly #sender: SnapshotSender;

  constructor(state: Readonly<Core>, members: MemberTable, transport: RaftTransport, sender: SnapshotSender) {
    this.#state = state;
    this.#members = members;
    this.#transport = transport;
    this.#sender = sender;
  }

  /** Sends messages for peers. */
  post(messages: readonly Message[]): void {
    const outbox = new Map<number, Uint8Array[]>();
    for (const sent of messages) {
      if (sent.type === 'snapshot') {
        this.#sender.start(sent);
        continue;
      }
      let frames = outbox.get(sent.to);
      if (frames === undefined) {
        frames = this.#needsContacts(sent) ? [this.#contactList(sent.to)] : [];
        outbox.set(sent.to, frames);
      }
      frames.push(encodeMessage(sent));
    }
    for (const [to, frames] of outbox) transmit(this.#transport, this.#members, to, frames);
  }

  /** Who lacks a change of the group cannot know from its own log where the sender is: a joiner, or who was away. */
  #needsContacts(sent: Message): boolean {
    if (sent.type === 'vote' || sent.type === 'pre-vote') return true;
    if (this.#state.role !== 'leader') return false;
    const match = this.#state.tracker.progress.get(sent.to)?.match;
    return match !== undefined && match < this.#members.index;
  }

  #contactList(to: number): Uint8Array {
    return encodeContactList({ to, index: this.#members.index, contacts: this.#members.list });
  }
}
