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
    async propose(actions: readonly Action[], signal: AbortSignal, once?: string): Promise<ProposeResult> {
      const batch = { at: clock.nowMs(), actions };
      const data = encodeBatch(once === undefined ? batch : { ...batch, once });
      if (data.length > BATCH_BYTES_MAX) return { kind: 'too-large', bytes: data.length };
      const outcome = await log.propose(data, signal);
      switch (outcome.kind) {
        case 'committed': {
          const result = outcome.result as ApplyResult;
          if (!result.ok) return { kind: 'refused', refusal: result.refusal };
          const { index, before } = result;
          return before === undefined ? { kind: 'applied', index } : { kind: 'applied', index, before };
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
