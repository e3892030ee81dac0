/** Environment files: a `NAME=value` a line, `#` comments, a bare name takes its value from the environment. */
import { ok, refuse, type Result } from '../base/result.ts';
import type { Lookup } from './substitute.ts';

/** Parses the bytes of an env file into `NAME=value` pairs, in order. Values are taken as they are, unquoted. */
export function parseEnvFile(content: Uint8Array, lookup: Lookup): Result<[string, string][]> {
  const decoded = decodeUtf8(content);
  if (decoded === null) return refuse('the file is not UTF-8 text');
  const pairs: [string, string][] = [];
  const lines = decoded.replace(/^\uFEFF/, '').split(/\r?\n/);
  for (const [i, raw] of lines.entries()) {
    const line = raw.trimStart();
    if (line === '' || line.startsWith('#')) continue;
    const equals = line.indexOf('=');
    const name = equals < 0 ? line.trimEnd() : line.slice(0, equals);
    if (name === '') return refuse(`line ${i + 1} has no variable name: "${line}"`);
    if (/\s/.test(name)) return refuse(`line ${i + 1}: the variable name "${name}" holds white space`);
    if (equals >= 0) pairs.push([name, line.slice(equals + 1)]);
    else {
      const value = lookup(name);
      if (value !== undefined) pairs.push([name, value]);
    }
  }
  return ok(pairs);
}

/** The text, or null when the bytes are no UTF-8. A byte order mark is kept. */
export function decodeUtf8(content: Uint8Array): string | null {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(content);
  } catch {
    return null;
  }
}
