/** Proposes batches to the log and says how they ended. Invariant: every call ends with exactly one outcome. */
import type { Clock } from '../base/clock.ts';
import type { ProposeOutcome } from '../raft/types.ts';
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
      if (data.length > BATCH_BYTES_MAX) {
        return {
          kind: 'unavailable',
          reason: `a change of ${data.length} bytes is over the limit of ${BATCH_BYTES_MAX}`,
        };
      }
      const outcome = await log.propose(data, signal);
      switch (outcome.kind) {
        case 'committed': {
          const result = outcome.result as ApplyResult;
          return result.ok
            ? { kind: 'applied', index: result.index }
            : { kind: 'refused', refusal: result.refusal };
        }
        case 'refused':
          return outcome.reason === 'not-leader'
            ? { kind: 'not-leader' }
            : { kind: 'unavailable', reason: `the log refused the change: ${outcome.reason}` };
        case 'unknown':
          return { kind: 'unknown', reason: outcome.reason };
      }
    },
  };
}
