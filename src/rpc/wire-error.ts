/** Errors as they cross the wire, and the refusals that several parts of this layer share. */
import { AssertionError } from '../base/assert.ts';
import { isErrorCode, SwarmdError, toSwarmdError } from '../base/errors.ts';
import type { WireError } from './frame.ts';
import { errorMessageCharactersMax } from './limits.ts';
import { decodeValue, encodeValue } from './message-pack.ts';

/** Bytes of an error's details on the wire; larger ones are left out. */
const detailBytesMax = 16 * 1024;

/** The error as it travels: code, message and, when they are small plain data, details. */
export function toWireError(error: unknown): WireError {
  const { code, message, details } = toSwarmdError(error);
  return { code, message: message.slice(0, errorMessageCharactersMax), details: plainDetails(details) };
}

function plainDetails(details: Readonly<Record<string, unknown>>): unknown {
  try {
    const bytes = encodeValue(details);
    return bytes.byteLength <= detailBytesMax && decodeValue(bytes).ok ? details : {};
  } catch {
    return {};
  }
}

/** The peer's error as one of ours; a code this version does not know becomes INTERNAL. */
export function fromWireError(error: WireError): SwarmdError {
  const { code, details } = error;
  const message = error.message.slice(0, errorMessageCharactersMax);
  const isRecord = typeof details === 'object' && details !== null && !Array.isArray(details);
  const known = isRecord ? (details as Record<string, unknown>) : {};
  if (isErrorCode(code)) return new SwarmdError(code, message, { details: known });
  return new SwarmdError('INTERNAL', message, { details: { ...known, unknownCode: code.slice(0, 64) } });
}

/** What an aborted signal means to the one who waited: its reason when that is ours, else CANCELLED. */
export function cancelled(signal: AbortSignal, what: string): SwarmdError {
  if (signal.reason instanceof SwarmdError) return signal.reason;
  return new SwarmdError('CANCELLED', `${what} was cancelled by its caller`, { cause: signal.reason });
}

/** RESOURCE_EXHAUSTED for a message over the size limit. */
export function tooLarge(what: string, bytes: number, bytesMax: number): SwarmdError {
  return new SwarmdError(
    'RESOURCE_EXHAUSTED',
    `${what} has ${bytes} bytes, over the limit of ${bytesMax} (messageBytesMax); send it in smaller parts`,
    { details: { bytes, bytesMax, limit: 'messageBytesMax' } },
  );
}

/** RESOURCE_EXHAUSTED for a count or a buffer at its bound. */
export function boundReached(what: string, limit: string, max: number): SwarmdError {
  return new SwarmdError(
    'RESOURCE_EXHAUSTED',
    `${what}: the limit of ${max} (${limit}) is reached; try again later`,
    {
      details: { limit, max },
    },
  );
}

/** Lets a failed assertion in a handler end the process, as assertions must; other errors pass by. */
export function escalateAssertion(error: unknown): void {
  if (!(error instanceof AssertionError)) return;
  queueMicrotask(() => {
    throw error;
  });
}
