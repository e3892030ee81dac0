/** Turns a change asked for by a caller into a proposal, and its outcome into an answer or an error. */
import { assertNever } from '../../base/assert.ts';
import { SwarmdError } from '../../base/errors.ts';
import type { Random } from '../../base/random.ts';
import { type Action, BATCH_BYTES_MAX, type Proposer, type Refusal } from '../state/actions.ts';
import type { StateView } from '../state/view.ts';
import { AppliedBefore, type CallKey } from './once.ts';

/** What the methods of the API work with. They run on the leader. */
export interface ApiContext {
  readonly view: StateView;
  readonly proposer: Proposer;
  readonly random: Random;
  /** Wall-clock milliseconds. */
  nowMs(): number;
  /** Set on a call that carries a key. */
  readonly call?: CallKey;
}

/** Proposes actions; resolves with the log index, or throws what the caller can act on. */
export async function commit(
  context: ApiContext,
  actions: readonly Action[],
  signal: AbortSignal,
): Promise<number> {
  const { call } = context;
  const once = call === undefined || call.used ? undefined : call.key;
  const result = await context.proposer.propose(actions, signal, once);
  switch (result.kind) {
    case 'applied':
      if (call !== undefined) call.used = true;
      if (result.before !== undefined) throw new AppliedBefore(result.before);
      return result.index;
    case 'refused':
      throw refusalError(result.refusal);
    case 'not-leader':
      throw new SwarmdError('NO_LEADER', 'this manager is not the leader any more; try again');
    case 'too-large':
      throw new SwarmdError(
        'RESOURCE_EXHAUSTED',
        `the change takes ${result.bytes} bytes in the log, over the limit of ${BATCH_BYTES_MAX}; make the object smaller (a service keeps its previous spec beside the new one)`,
        { details: { bytes: result.bytes, limit: BATCH_BYTES_MAX } },
      );
    case 'unavailable':
      throw new SwarmdError('UNAVAILABLE', `the change was not made: ${result.reason}`);
    case 'unknown':
      throw new SwarmdError(
        'OUTCOME_UNKNOWN',
        `the change may or may not have been made (${result.reason}); look at the object before trying again`,
      );
    default:
      return assertNever(result);
  }
}

/** Attempts of a change that was read from the state and lost a race to another writer. */
const ATTEMPTS_MAX = 20;

/** Commits what `build` makes of the current state, again when another change came in between. */
export async function commitLatest(
  context: ApiContext,
  build: () => readonly Action[],
  signal: AbortSignal,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const actions = build();
    if (actions.length === 0) return;
    try {
      await commit(context, actions, signal);
      return;
    } catch (error) {
      const raced = error instanceof SwarmdError && error.code === 'CONFLICT';
      if (!raced || attempt === ATTEMPTS_MAX) throw error;
    }
  }
}

/** What a refused batch means to the caller. */
export function refusalError(refusal: Refusal): SwarmdError {
  switch (refusal.kind) {
    case 'version':
      return outOfSequence(refusal.table, refusal.id, refusal.expected, refusal.actual);
    case 'missing':
      return new SwarmdError('NOT_FOUND', `${refusal.table} ${refusal.id} does not exist any more`);
    case 'exists':
      return new SwarmdError('ALREADY_EXISTS', `${refusal.table} ${refusal.id} exists`);
    case 'name-taken':
      return new SwarmdError(
        'ALREADY_EXISTS',
        `a ${refusal.table} named ${refusal.name} exists; choose another name`,
      );
    case 'undecodable':
      return new SwarmdError('INTERNAL', `the change could not be read back: ${refusal.message}`);
    default:
      return assertNever(refusal);
  }
}

/** The error of an update that was based on an older version. */
export function outOfSequence(kind: string, id: string, expected: number, actual: number): SwarmdError {
  return new SwarmdError(
    'CONFLICT',
    `update out of sequence: ${kind} ${id} is at version ${actual}, the update was based on ${expected}; read it again and repeat the change`,
    { details: { expected, actual } },
  );
}
