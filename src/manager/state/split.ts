/** PURE: cuts actions into batches that the log takes. Invariant: order is kept, nothing is lost. */
import { type Action, BATCH_ACTIONS_MAX } from './actions.ts';
import { encodeBatch } from './codec.ts';

/** Bytes of one proposal of several actions; well under the limit of an entry. */
const PROPOSAL_BYTES_TARGET = 1_000_000;

/** Batches bounded in number and bytes; a single action over the bytes is a batch of its own. */
export function splitActions(actions: readonly Action[]): Action[][] {
  const batches: Action[][] = [];
  for (let from = 0; from < actions.length; from += BATCH_ACTIONS_MAX) {
    splitByBytes(actions.slice(from, from + BATCH_ACTIONS_MAX), batches);
  }
  return batches;
}

function splitByBytes(batch: Action[], into: Action[][]): void {
  if (batch.length > 1 && encodeBatch({ at: 0, actions: batch }).length > PROPOSAL_BYTES_TARGET) {
    const middle = batch.length >> 1;
    splitByBytes(batch.slice(0, middle), into);
    splitByBytes(batch.slice(middle), into);
    return;
  }
  into.push(batch);
}
