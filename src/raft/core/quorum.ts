/**
 * Majorities, single and joint: what is committed, and how a vote stands.
 *
 * Invariant: a joint decision needs a majority of both halves; an empty half always agrees.
 * @see Raft dissertation §4.3
 */

/** How a vote stands: `pending` may still become either. */
export type VoteResult = 'won' | 'lost' | 'pending';

/** The index that a majority of `voters` has acknowledged; Infinity for no voters (it restricts nothing). */
export function majorityCommitted(voters: Iterable<number>, ackedIndex: (id: number) => number): number {
  const acked: number[] = [];
  for (const id of voters) acked.push(ackedIndex(id));
  const count = acked.length;
  if (count === 0) return Number.POSITIVE_INFINITY;
  if (count === 1) return acked[0] as number;
  acked.sort((a, b) => a - b);
  // Position of the smallest index among the largest majority.
  return acked[count - (Math.floor(count / 2) + 1)] as number;
}

/** How a vote among `voters` stands; `votes` maps a member to its answer, absent while unknown. */
export function majorityVote(voters: Iterable<number>, votes: ReadonlyMap<number, boolean>): VoteResult {
  let count = 0;
  let granted = 0;
  let missing = 0;
  for (const id of voters) {
    count++;
    const vote = votes.get(id);
    if (vote === undefined) missing++;
    else if (vote) granted++;
  }
  if (count === 0) return 'won';
  const needed = Math.floor(count / 2) + 1;
  if (granted >= needed) return 'won';
  return granted + missing >= needed ? 'pending' : 'lost';
}

/** The index committed under both halves. */
export function jointCommitted(
  incoming: Iterable<number>,
  outgoing: Iterable<number>,
  ackedIndex: (id: number) => number,
): number {
  return Math.min(majorityCommitted(incoming, ackedIndex), majorityCommitted(outgoing, ackedIndex));
}

/** How a vote under both halves stands. */
export function jointVote(
  incoming: Iterable<number>,
  outgoing: Iterable<number>,
  votes: ReadonlyMap<number, boolean>,
): VoteResult {
  const a = majorityVote(incoming, votes);
  const b = majorityVote(outgoing, votes);
  if (a === b) return a;
  if (a === 'lost' || b === 'lost') return 'lost';
  return 'pending';
}
