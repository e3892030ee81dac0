/**
 * Join tokens: `SWMTKN-1-<digest>-<secret>`.
 *
 * The digest (50 base36 digits of the SHA-256 of the root certificate's DER) lets a joiner recognise the
 * cluster before it sends anything; the secret (25 base36 digits) lets the cluster recognise the joiner and
 * says, by which of the two secrets it is, whether it joins as worker or manager.
 *
 * Invariant: no message here ever contains a token or a secret.
 */
import { createHash, timingSafeEqual, X509Certificate } from 'node:crypto';
import { assert, assertNever } from '../base/assert.ts';
import { type Random, randomBase36 } from '../base/random.ts';
import { ok, type Result, refuse } from '../base/result.ts';

/** Digits of the root digest: 36^50 is the first power of 36 above 2^256. */
export const digestDigits = 50;
/** Digits of the secret: about 129 bits. */
export const secretDigits = 25;

const prefix = 'SWMTKN';
const version = '1';
const base36 = /^[0-9a-z]+$/;

/** The two parts of a join token. `secret` must never be logged. */
export interface JoinToken {
  readonly digest: string;
  readonly secret: string;
}

/** Why a text is not a join token. */
export type JoinTokenRefusal =
  | { readonly kind: 'empty' }
  | { readonly kind: 'not-a-token' }
  | { readonly kind: 'unlock-key' }
  | { readonly kind: 'unknown-version'; readonly version: string }
  | { readonly kind: 'wrong-parts'; readonly parts: number }
  | {
      readonly kind: 'wrong-length';
      readonly part: 'digest' | 'secret';
      readonly length: number;
      readonly expected: number;
    }
  | { readonly kind: 'bad-character'; readonly part: 'digest' | 'secret'; readonly position: number };

/** The 50 base36 digits that identify a root certificate, given in PEM or DER. */
export function rootDigest(root: string | Uint8Array): string {
  const der = new X509Certificate(root).raw;
  const value = BigInt(`0x${createHash('sha256').update(der).digest('hex')}`);
  return value.toString(36).padStart(digestDigits, '0');
}

/** A fresh secret for a join token: 25 base36 digits from `random`, which must be the kernel's. */
export function createJoinSecret(random: Random): string {
  return randomBase36(random, secretDigits);
}

/** The token text of its parts, as {@link parseJoinToken} reads it. */
export function formatJoinToken(token: JoinToken): string {
  assert(
    token.digest.length === digestDigits && base36.test(token.digest),
    'a token digest is 50 base36 digits',
  );
  assert(
    token.secret.length === secretDigits && base36.test(token.secret),
    'a token secret is 25 base36 digits',
  );
  return `${prefix}-${version}-${token.digest}-${token.secret}`;
}

/** Reads a token (surrounding white space is ignored), or says what is wrong with it. */
export function parseJoinToken(text: string): Result<JoinToken, JoinTokenRefusal> {
  const trimmed = text.trim();
  if (trimmed === '') return refuse({ kind: 'empty' });
  const parts = trimmed.split('-');
  if (parts[0] === 'SWMKEY') return refuse({ kind: 'unlock-key' });
  if (parts[0] !== prefix) return refuse({ kind: 'not-a-token' });
  if (parts.length >= 2 && parts[1] !== version) {
    return refuse({ kind: 'unknown-version', version: (parts[1] ?? '').slice(0, 8) });
  }
  const [, , digest, secret] = parts;
  if (digest === undefined || secret === undefined || parts.length !== 4) {
    return refuse({ kind: 'wrong-parts', parts: parts.length });
  }
  const refusal = checkPart('digest', digest, digestDigits) ?? checkPart('secret', secret, secretDigits);
  return refusal === null ? ok({ digest, secret }) : refuse(refusal);
}

function checkPart(part: 'digest' | 'secret', text: string, expected: number): JoinTokenRefusal | null {
  if (text.length !== expected) return { kind: 'wrong-length', part, length: text.length, expected };
  const position = [...text].findIndex((digit) => !base36.test(digit));
  return position === -1 ? null : { kind: 'bad-character', part, position: position + 1 };
}

/** A sentence that says what is wrong with the token and where to get a right one. */
export function describeJoinTokenRefusal(refusal: JoinTokenRefusal): string {
  return `${whatIsWrong(refusal)}; print the right one with "swarmd join-token worker" (or manager) on a manager`;
}

function whatIsWrong(refusal: JoinTokenRefusal): string {
  switch (refusal.kind) {
    case 'empty':
      return 'the join token is empty';
    case 'not-a-token':
      return `the join token does not begin with ${prefix}-`;
    case 'unlock-key':
      return 'this is an unlock key (SWMKEY), not a join token (SWMTKN)';
    case 'unknown-version':
      return `the join token has version "${refusal.version}", this swarmd knows version ${version}`;
    case 'wrong-parts':
      return `the join token has ${refusal.parts} parts between dashes instead of 4 (was it cut when copied?)`;
    case 'wrong-length':
      return `the ${refusal.part} in the join token has ${refusal.length} digits instead of ${refusal.expected} (was it cut when copied?)`;
    case 'bad-character':
      return `the ${refusal.part} in the join token has a character that is not 0-9 or a-z at position ${refusal.position}`;
    default:
      return assertNever(refusal);
  }
}

/** Whether two secrets are equal, in a time that does not depend on where they differ. */
export function secretsEqual(a: string, b: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text, 'utf8').digest();
  return timingSafeEqual(digest(a), digest(b));
}

/** The role that `secret` admits to, or null when it is neither of the cluster's two secrets. */
export function roleOfSecret(
  secret: string,
  secrets: { readonly manager: string; readonly worker: string },
): 'manager' | 'worker' | null {
  const manager = secretsEqual(secret, secrets.manager);
  const worker = secretsEqual(secret, secrets.worker);
  if (manager) return 'manager';
  return worker ? 'worker' : null;
}
