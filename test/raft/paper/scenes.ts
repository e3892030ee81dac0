/**
 * What tests of single rules set up again and again: logs by their terms, one question to one core, a group
 * whose leader has fallen silent.
 */
import type { Entry, Message } from '../../../src/raft/core/types.ts';
import { entry, type Network } from '../network.ts';

/** A log whose entries have these terms, from index 1 on; every payload names its term and index. */
export const logOf = (...terms: number[]): Entry[] =>
  terms.map((term, position) => entry(term, position + 1, `${term}/${position + 1}`));

/** Delivers one message, and returns what its receiver then says to the sender (nothing else is delivered). */
export function ask(network: Network, received: Message): readonly Message[] {
  return sayings(network, received).filter((sent) => sent.to === received.from);
}

/** Delivers one message, and returns everything its receiver then says. */
export function sayings(network: Network, received: Message): readonly Message[] {
  network.core(received.to).receive(received);
  return pending(network, received.to);
}

/** Everything a core wants to say now, undelivered; what it wants persisted and applied is. */
export function pending(network: Network, id: number): readonly Message[] {
  const peer = network.peer(id);
  const sent: Message[] = [];
  while (peer.core.hasReady()) sent.push(...network.handle(peer));
  return sent;
}

/** As if an election timeout had passed for these members without a word from their leader. */
export function lapse(network: Network, ...ids: readonly number[]): void {
  for (const id of ids) network.core(id).forgetLeader();
}

/** Everything that was sent of this type, to `to` when it is given. */
export function sentOf(network: Network, type: Message['type'], to?: number): readonly Message[] {
  return network.sent.filter((sent) => sent.type === type && (to === undefined || sent.to === to));
}

/** The commit index of a member. */
export const committed = (network: Network, id: number): number => network.core(id).state.log.committed;
