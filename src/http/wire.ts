/** How errors and streams of swarmd's own API look over HTTP, shared by server and client. */
import type { ErrorCode } from '../base/errors.ts';

/** Every method is `POST /swarmd/v1/<method>` with its parameters as a JSON object. */
export const API_PREFIX = '/swarmd/v1';
/** Streams newline-delimited JSON: one record a line, an `{"error": ...}` line when it breaks off. */
export const LOGS_METHOD = 'service.logs';

export interface ErrorBody {
  readonly code: ErrorCode;
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>>;
}

/** HTTP status of each error code. */
export const statusOfCode: Readonly<Record<ErrorCode, number>> = {
  INVALID_ARGUMENT: 400,
  COMPOSE: 400,
  UNAUTHENTICATED: 401,
  PERMISSION_DENIED: 403,
  NOT_FOUND: 404,
  AMBIGUOUS: 400,
  ALREADY_EXISTS: 409,
  CONFLICT: 409,
  FAILED_PRECONDITION: 412,
  RESOURCE_EXHAUSTED: 429,
  CANCELLED: 499,
  NOT_A_MANAGER: 503,
  NO_LEADER: 503,
  UNAVAILABLE: 503,
  LOCKED: 503,
  PORT_IN_USE: 503,
  OUTCOME_UNKNOWN: 504,
  TIMEOUT: 504,
  CORRUPT: 500,
  RUNTIME: 500,
  INTERNAL: 500,
};
