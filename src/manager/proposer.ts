/** Proposes batches to the log and says how they ended. Invariant: every call ends with exactly one outcome. */
import { assertNever } from '../base/assert.ts';
import type { Clock } from '../base/clock.ts';
import type { ProposeOutcome, RefusalReason } from '../raft/types.ts';
import {
  type Action,
  type ApplyResult,
  BATCH_BYTES_MAX,
  type ProposeResult,
  type Proposer,
} from './state/actions.ts';
import { encodeBatch } from './state/codec.ts';

/** The part of the consensus driver a proposer needs. */
export interface LogWriter {
  propose(data: Uint8Array, signal: AbortSignal): Promise<ProposeOutcome>;
}

/** A {@link Proposer} over the log; the leader's clock stamps each batch. */
export function logProposer(log: LogWriter, clock: Clock): Proposer {
  return {
    async propose(actions: readonly Action[], signal: AbortSignal): Promise<ProposeResult> {
      const data = encodeBatch({ at: clock.nowMs(), actions });
      if (data.length > BATCH_BYTES_MAX) return { kind: 'too-large', bytes: data.length };
      const outcome = await log.propose(data, signal);
      switch (outcome.kind) {
        case 'committed': {
          const result = outcome.result as ApplyResult;
          return result.ok
            ? { kind: 'applied', index: result.index }
            : { kind: 'refused', refusal: result.refusal };
        }
        case 'refused':
          return refusedProposal(outcome.reason, data.length);
        case 'unknown':
          return { kind: 'unknown', reason: outcome.reason };
        default:
          return assertNever(outcome);
      }
    },
  };
}

function refusedProposal(reason: RefusalReason, bytes: number): ProposeResult {
  switch (reason) {
    case 'not-leader':
      return { kind: 'not-leader' };
    case 'too-large':
      return { kind: 'too-large', bytes };
    case 'busy':
      return { kind: 'unavailable', reason: 'the log takes no more changes for now; try again later' };
    case 'stopping':
      return { kind: 'unavailable', reason: 'this manager is stopping; ask another one' };
    default:
      return assertNever(reason);
  }
}
