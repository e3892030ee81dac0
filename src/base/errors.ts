/**
 * The one operational error of swarmd. Its message says what failed, on what, and what to do.
 *
 * Invariant: every code here has a row in docs/ERRORS.md (a test compares the two).
 */

/** Every error code, with what it means. HTTP statuses and exit codes derive from it at the edges. */
export const errorCodes = {
  INVALID_ARGUMENT: 'A value given by the caller is malformed or out of range.',
  NOT_FOUND: 'The named object does not exist.',
  AMBIGUOUS: 'An id prefix or name matches more than one object.',
  ALREADY_EXISTS: 'An object with that name exists.',
  CONFLICT: 'The object changed since it was read; read it again.',
  FAILED_PRECONDITION: 'The object is in a state that forbids the operation.',
  NOT_A_MANAGER: 'The node is a worker, or not part of a cluster.',
  NO_LEADER: 'No leader is known; the cluster cannot accept changes now.',
  OUTCOME_UNKNOWN: 'Leadership was lost while a change was in flight; it may or may not have been applied.',
  UNAVAILABLE: 'A peer, engine or daemon cannot be reached.',
  TIMEOUT: 'The operation did not finish in its time.',
  CANCELLED: 'The caller gave up.',
  UNAUTHENTICATED: 'No valid certificate or token was shown.',
  PERMISSION_DENIED: 'The identity shown may not do this.',
  RESOURCE_EXHAUSTED: 'A bound was reached (queue, message size, address pool, disk).',
  CORRUPT: 'Stored or received data fails its check.',
  LOCKED: 'The data folder is in use by another process.',
  PORT_IN_USE: 'An address to listen on is taken.',
  RUNTIME: 'The container engine or the process runtime refused.',
  COMPOSE: 'A compose file cannot be used; the message names the file, line and key.',
  INTERNAL: 'A defect in swarmd.',
} as const;

/** One of the codes of {@link errorCodes}. */
export type ErrorCode = keyof typeof errorCodes;

/** An operational failure with a code for programs and a message for people. */
export class SwarmdError extends Error {
  override readonly name = 'SwarmdError';
  readonly code: ErrorCode;
  /** Facts for programs; never a secret. JSON-serialisable. */
  readonly details: Readonly<Record<string, unknown>>;

  constructor(
    code: ErrorCode,
    message: string,
    options: { details?: Record<string, unknown>; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.details = options.details ?? {};
  }
}

/** Whether `code` is one of the known codes (for values read from a peer). */
export function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === 'string' && Object.hasOwn(errorCodes, code);
}

/** Wraps anything thrown as a SwarmdError; one that already is passes unchanged. */
export function toSwarmdError(error: unknown, code: ErrorCode = 'INTERNAL'): SwarmdError {
  if (error instanceof SwarmdError) return error;
  if (error instanceof Error && error.name === 'AbortError') {
    return new SwarmdError('CANCELLED', 'the operation was cancelled', { cause: error });
  }
  return new SwarmdError(code, errorMessage(error), { cause: error });
}

/** The message of anything thrown. */
export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The `code` property of a Node system error (`ENOENT`, `EADDRINUSE`), or undefined. */
export function systemErrorCode(error: unknown): string | undefined {
  if (typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'string')
    return error.code;
  return undefined;
}
