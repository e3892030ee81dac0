/**
 * The type of a plain YAML scalar, as the tools people write compose files for see it: YAML 1.2 words for null
 * and booleans (`yes` and `no` stay texts), and octal numbers with a leading 0 as in file modes.
 */

export type ScalarValue = string | number | boolean | null;

const NULLS = new Set(['', '~', 'null', 'Null', 'NULL']);
const TRUES = new Set(['true', 'True', 'TRUE']);
const FALSES = new Set(['false', 'False', 'FALSE']);

/** Gives an unquoted scalar its type. */
export function resolvePlainScalar(text: string): ScalarValue {
  if (NULLS.has(text)) return null;
  if (TRUES.has(text)) return true;
  if (FALSES.has(text)) return false;
  return resolveNumber(text) ?? text;
}

function resolveNumber(text: string): number | null {
  if (!/^[-+.0-9]/.test(text)) return null;
  const match = /^([-+]?)(.*)$/.exec(text);
  const sign = match?.[1] === '-' ? -1 : 1;
  const digits = match?.[2] ?? '';
  if (/^0[0-7_]+$/.test(digits)) return sign * Number.parseInt(digits.replaceAll('_', ''), 8);
  if (/^0o[0-7]+$/.test(digits)) return sign * Number.parseInt(digits.slice(2), 8);
  if (/^0x[0-9a-fA-F_]+$/.test(digits))
    return sign * Number.parseInt(digits.slice(2).replaceAll('_', ''), 16);
  if (/^0b[01_]+$/.test(digits)) return sign * Number.parseInt(digits.slice(2).replaceAll('_', ''), 2);
  if (/^[0-9][0-9_]*$/.test(digits)) return sign * Number(digits.replaceAll('_', ''));
  if (/^\.(inf|Inf|INF)$/.test(digits)) return sign * Number.POSITIVE_INFINITY;
  if (/^\.(nan|NaN|NAN)$/.test(text)) return Number.NaN;
  if (/^([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9_]+)([eE][-+]?[0-9]+)?$/.test(digits)) {
    return sign * Number(digits.replaceAll('_', ''));
  }
  return null;
}
