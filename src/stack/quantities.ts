/** Quantities as people write them: durations, byte sizes, CPU counts. Pure parsers; a refusal says why. */
import { ok, refuse, type Result } from '../base/result.ts';

const DURATION_UNITS_NS: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  μs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};

/** Largest duration a 64-bit count of nanoseconds holds, in milliseconds (about 292 years). */
const DURATION_MAX_MS = 9_223_372_036_854.775;

/** Parses `1m30s`, `1.5h`, `200ms`, `-1s` or `0` into milliseconds (fractions possible). */
export function parseDurationMs(text: string): Result<number> {
  const bad = refuse(`"${text}" is not a duration; write it like 30s, 1m30s or 500ms`);
  const sign = text.startsWith('-') ? -1 : 1;
  let rest = /^[-+]/.test(text) ? text.slice(1) : text;
  if (rest === '0') return ok(0);
  if (rest === '') return bad;
  let ns = 0;
  while (rest !== '') {
    const match = /^([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)/.exec(rest);
    const unit = DURATION_UNITS_NS[match?.[2] ?? ''];
    if (match === null || unit === undefined) return bad;
    ns += Number(match[1]) * unit;
    rest = rest.slice(match[0].length);
  }
  const ms = ns / 1e6;
  if (ms > DURATION_MAX_MS) return refuse(`"${text}" is too long a duration`);
  return ok(sign * ms);
}

const BYTE_UNITS: Readonly<Record<string, number>> = {
  '': 1,
  k: 1024,
  m: 1024 ** 2,
  g: 1024 ** 3,
  t: 1024 ** 4,
  p: 1024 ** 5,
};

/** Parses `50M`, `1.5g`, `64KiB`, `1024` (powers of 1024, any case) into bytes. */
export function parseBytes(text: string): Result<number> {
  const match = /^([0-9]+(?:\.[0-9]*)?(?:[eE][0-9]+)?|\.[0-9]+) ?(?:([kmgtpKMGTP])(?:i?[bB])?|[bB])?$/.exec(
    text,
  );
  const unit = BYTE_UNITS[(match?.[2] ?? '').toLowerCase()];
  if (match === null || unit === undefined) {
    return refuse(`"${text}" is not a size in bytes; write it like 64M, 1.5G or 1073741824`);
  }
  const bytes = Math.floor(Number(match[1]) * unit);
  if (!Number.isSafeInteger(bytes)) return refuse(`"${text}" is too large`);
  return ok(bytes);
}

/** Parses a CPU count such as `0.5` or `2` into billionths of a core. */
export function parseNanoCpus(text: string): Result<number> {
  const bad = refuse(`"${text}" is not a number of CPUs; write it like 0.5 or 2`);
  const match = /^([0-9]*)(?:\.([0-9]*))?(?:[eE]([-+]?[0-9]+))?$/.exec(text.trim());
  if (match === null || ((match[1] ?? '') === '' && (match[2] ?? '') === '')) return bad;
  const exponent = Number(match[3] ?? 0);
  const fraction = (match[2] ?? '').replace(/0+$/, '');
  if (fraction.length - exponent > 9) return refuse(`"${text}" is too precise; a CPU is split in billionths`);
  const nano = Math.round(Number(`${match[1] ?? '0'}.${fraction === '' ? '0' : fraction}e${exponent}`) * 1e9);
  if (!Number.isSafeInteger(nano)) return refuse(`"${text}" is too many CPUs`);
  return ok(nano);
}
