/**
 * API calls that carry a key: made again after an unknown outcome, they apply at most once.
 *
 * The key travels in the parameters (`once`) of every method that changes something, into the log with the call's
 * first change. Invariant: a call whose change was applied before answers as the first one did, or would now.
 */
import { SwarmdError } from '../../base/errors.ts';
import { isOutcomeKey, type Outcome } from '../state/outcomes.ts';
import type { StateView } from '../state/view.ts';

/** The key of one call; the first change of the call uses it up. */
export interface CallKey {
  readonly key: string;
  used: boolean;
}

/** Thrown by `commit` when the change with the call's key was applied before; `runMethod` turns it into the answer. */
export class AppliedBefore extends Error {
  override readonly name = 'AppliedBefore';
  readonly outcome: Outcome;

  constructor(outcome: Outcome) {
    super(`the change was made before, by entry ${outcome.index}`);
    this.outcome = outcome;
  }
}

/** The key in the parameters of a call; null when there is none. INVALID_ARGUMENT for one of another form. */
export function callKey(once: unknown): CallKey | null {
  if (once === null || once === undefined) return null;
  if (isOutcomeKey(once)) return { key: once, used: false };
  throw new SwarmdError(
    'INVALID_ARGUMENT',
    'the parameter once is not a key: 16 to 64 characters of 0-9, A-Z, a-z, _ and -',
  );
}

/**
 * Runs a call with a key, or answers it with what the first one with that key did.
 * @param answer what a call answers whose change was applied to the object `id`.
 */
export async function atMostOnce(
  view: StateView,
  { key }: CallKey,
  kind: string,
  run: () => Promise<unknown>,
  answer: (id: string) => unknown,
): Promise<unknown> {
  const earlier = view.outcome(key);
  if (earlier !== undefined) return answerOf(earlier, kind, answer);
  try {
    return await run();
  } catch (error) {
    // It may have been applied while this one was being checked against the state without it.
    const outcome = error instanceof AppliedBefore ? error.outcome : view.outcome(key);
    if (outcome === undefined) throw error;
    return answerOf(outcome, kind, answer);
  }
}

function answerOf(outcome: Outcome, kind: string, answer: (id: string) => unknown): unknown {
  if (outcome.table !== kind) {
    throw new SwarmdError(
      'INVALID_ARGUMENT',
      `the key of this call was used for a change of a ${outcome.table}; every change needs a key of its own`,
    );
  }
  return answer(outcome.objectId);
}
