/** Small syntaxes of compose files and flags, against the answers of the parsers people's files were written for. */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { Result } from '../../src/base/result.ts';
import { changeCapabilities, effectiveCapabilities } from '../../src/stack/capabilities.ts';
import { parseEnvFile } from '../../src/stack/env-file.ts';
import { parsePortShort } from '../../src/stack/ports.ts';
import { parseBytes, parseDurationMs, parseNanoCpus } from '../../src/stack/quantities.ts';
import { splitShellWords } from '../../src/stack/shell-words.ts';
import { substitute } from '../../src/stack/substitute.ts';
import { parseVolumeShort } from '../../src/stack/volume-syntax.ts';
import type { Json } from '../support/docker-requests.ts';
import { readVectorFile } from '../support/stack-files.ts';

interface VectorCase {
  readonly in: Json;
  readonly env?: Record<string, string | null>;
  readonly out?: Json;
  readonly after?: Json;
  readonly error?: string;
}
interface VectorFile {
  readonly env?: Record<string, string>;
  readonly cases: readonly VectorCase[];
}

/** Runs `check` over the cases of a vector file, or skips where the file is absent. */
function suite(title: string, name: string, check: (vector: VectorCase, file: VectorFile) => void): void {
  const file = readVectorFile<VectorFile>(name);
  test(title, { skip: file === null ? 'vectors are not here' : false }, () => {
    for (const vector of file?.cases ?? []) check(vector, file as VectorFile);
  });
}

/** Compares a result; `different` lists inputs that swarmd takes otherwise, with why. */
function agree<T>(
  input: string,
  result: Result<T>,
  wanted: T | undefined,
  different: Readonly<Record<string, string>>,
): void {
  if (Object.hasOwn(different, input)) {
    const same = result.ok
      ? wanted !== undefined && JSON.stringify(result.value) === JSON.stringify(wanted)
      : wanted === undefined;
    assert.ok(!same, `${JSON.stringify(input)} is listed as different but is the same`);
    return;
  }
  if (wanted === undefined) assert.equal(result.ok, false, JSON.stringify(input));
  else assert.deepEqual(result.ok ? result.value : result.reason, wanted, JSON.stringify(input));
}

const NESTED = 'the Compose specification fills in variables inside defaults';
const ALTERNATIVE = 'the Compose specification has alternatives';

suite('variables', 'interpolation-table', ({ in: input, out, error }, { env = {} }) => {
  const result = substitute(input, (name) => (Object.hasOwn(env, name) ? env[name] : undefined));
  const text: Result<string> = result.ok ? { ok: true, value: result.value.text } : result;
  agree(input, text, error === undefined ? out : undefined, {
    '${MISSING:-$FOO}': NESTED,
    '${MISSING:-${FOO}}': NESTED,
    '${MISSING:-${BAR:-x}}': NESTED,
    '$FOO-x': 'a default needs braces',
    '${FOO:+a}': ALTERNATIVE,
    '${FOO+a}': ALTERNATIVE,
    '${MISSING:+a}': ALTERNATIVE,
  });
});

suite('durations', 'go-duration', ({ in: input, out }) => {
  agree(input, parseDurationMs(input), out === undefined ? undefined : Number(out.ns) / 1e6, {});
});

suite('sizes', 'ram-in-bytes', ({ in: input, out }) => {
  agree(input, parseBytes(input), out === undefined ? undefined : Number(out), {
    '9999999p': 'the reference overflows to a negative size',
  });
});

suite('CPU counts', 'parse-cpus', ({ in: input, out }) => {
  const SENSELESS = 'no such number of CPUs can be had';
  agree(input, parseNanoCpus(input), out === undefined ? undefined : Number(out), {
    '1/2': 'a fraction is a typing mistake more often than not',
    '-1': SENSELESS,
    '0x1': 'hexadecimal is a typing mistake more often than not',
    ' 1': 'blanks around a number do no harm',
    '1 ': 'blanks around a number do no harm',
    '10000000000000': SENSELESS,
  });
});

suite('shell words', 'shell-command-split', ({ in: input, out, error }) => {
  agree(input, splitShellWords(input), error === undefined && Array.isArray(out) ? out : undefined, {});
});

suite('env files', 'ut-env-file-parse', ({ in: { content }, env = {}, out, error }) => {
  // Bytes that are no text cannot be written down in JSON; the reference limits the length of a line.
  if (content.includes('\uFFFD') || content.length > 65_000) return;
  const result = parseEnvFile(Buffer.from(content), (name) => env[name] ?? undefined);
  const lines: Result<string[]> = result.ok
    ? { ok: true, value: result.value.map(([name, value]) => `${name}=${value}`) }
    : result;
  agree(content, lines, error === undefined ? out : undefined, {});
});

suite('ports', 'ut-compose-port-short-syntax', ({ in: { value }, out }) => {
  const result = parsePortShort(value);
  const ports = result.ok
    ? result.value.ports.map((port) => ({
        mode: port.publishMode,
        target: port.targetPort,
        ...(port.publishedPort === 0 ? {} : { published: port.publishedPort }),
        protocol: port.protocol,
      }))
    : result.reason;
  assert.deepEqual(ports, out, value);
});

suite('volumes', 'ut-compose-volume-short-syntax', ({ in: { spec }, out }) => {
  const result = parseVolumeShort(spec);
  const volume: Result<unknown> = result.ok
    ? {
        ok: true,
        value: {
          type: result.value.type,
          ...(result.value.source === undefined ? {} : { source: result.value.source }),
          target: result.value.target,
          ...(result.value.readOnly ? { read_only: true } : {}),
          ...(result.value.propagation === undefined
            ? {}
            : { bind: { propagation: result.value.propagation } }),
          ...(result.value.noCopy === undefined ? {} : { volume: { nocopy: true } }),
        },
      }
    : result;
  agree(spec, volume, out, {});
});
suite('capabilities', 'ut-opt-effective-caps', ({ in: { add, drop }, out }) => {
  const result = effectiveCapabilities({ add: add ?? [], drop: drop ?? [] });
  // The reference leaves out what is empty at the end.
  const wanted = out === null ? [] : Array.isArray(out[0]) || out[0] === null ? out : [out];
  assert.deepEqual([result.add, result.drop], [wanted[0] ?? [], wanted[1] ?? []]);
});

suite('changed capabilities', 'ut-service-update-capabilities', ({ in: { before, flags }, after }) => {
  const result = changeCapabilities(
    { add: before.CapabilityAdd ?? [], drop: before.CapabilityDrop ?? [] },
    { add: flags['cap-add'] ?? [], drop: flags['cap-drop'] ?? [] },
  );
  assert.deepEqual(
    [result.add, result.drop],
    [after.CapabilityAdd ?? [], after.CapabilityDrop ?? []],
    JSON.stringify(flags),
  );
});
