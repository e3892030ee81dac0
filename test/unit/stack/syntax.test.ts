import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { nearestName } from '../../../src/stack/compose-error.ts';
import { parsePortShort } from '../../../src/stack/ports.ts';
import { parseBytes, parseDurationMs, parseNanoCpus } from '../../../src/stack/quantities.ts';
import { splitShellWords } from '../../../src/stack/shell-words.ts';
import { substitute } from '../../../src/stack/substitute.ts';
import { resolvePlainScalar } from '../../../src/stack/yaml-scalar.ts';
import { parseYaml } from '../../../src/stack/yaml-tree.ts';
import { SwarmdError } from '../../../src/base/errors.ts';

describe('plain scalars', () => {
  it('are typed as compose files are read', () => {
    const cases: Record<string, unknown> = {
      '': null,
      '~': null,
      null: null,
      true: true,
      False: false,
      yes: 'yes',
      no: 'no',
      on: 'on',
      '0440': 288,
      '0o440': 288,
      '0x1F': 31,
      '10': 10,
      '-3': -3,
      '1_000': 1000,
      '1.50': 1.5,
      '1e3': 1000,
      '.5': 0.5,
      '3.8.1': '3.8.1',
      '80:80': '80:80',
      '089': 89,
      '1.2.3.4': '1.2.3.4',
      '-': '-',
      '.': '.',
      '+': '+',
    };
    for (const [text, value] of Object.entries(cases))
      assert.deepEqual(resolvePlainScalar(text), value, text);
  });
});

describe('shell words', () => {
  it('split again into the words they were quoted from', () => {
    fc.assert(
      fc.property(fc.array(fc.string()), (words) => {
        const line = words.map((word) => `'${word.replaceAll("'", `'"'"'`)}'`).join(' ');
        assert.deepEqual(splitShellWords(line), { ok: true, value: words });
      }),
    );
  });
});

describe('variables', () => {
  it('leave a text without $ alone, and $$ gives it back', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const result = substitute(text.replaceAll('$', '$$$$'), () => undefined);
        assert.deepEqual(result, { ok: true, value: { text, unset: [] } });
      }),
    );
  });
  it('fill in defaults inside defaults', () => {
    const env: Record<string, string> = { B: 'b', EMPTY: '' };
    const filled = (text: string): string => {
      const result = substitute(text, (name) => env[name]);
      return result.ok ? result.value.text : `refused: ${result.reason}`;
    };
    assert.equal(filled('${A:-${B:-c}}'), 'b');
    assert.equal(filled('${A:-${C:-c}}-${B+${B}!}'), 'c-b!');
    assert.equal(filled('${EMPTY-d}${EMPTY:-d}${EMPTY+x}${EMPTY:+y}'), 'dx');
    assert.match(filled('${A:?no $B}'), /refused: .*A.*no b/);
    assert.match(filled('${A'), /refused: malformed/);
  });
});

describe('quantities', () => {
  it('read back what they were made from', () => {
    fc.assert(
      fc.property(fc.nat(10_000), fc.nat(59), fc.nat(59), (h, m, s) => {
        assert.deepEqual(parseDurationMs(`${h}h${m}m${s}s`), {
          ok: true,
          value: ((h * 60 + m) * 60 + s) * 1000,
        });
      }),
    );
    fc.assert(
      fc.property(fc.nat(1_000_000), (k) => {
        assert.deepEqual(parseBytes(`${k}k`), { ok: true, value: k * 1024 });
        assert.deepEqual(parseNanoCpus((k / 1000).toFixed(3)), { ok: true, value: k * 1_000_000 });
      }),
    );
  });
});

describe('ports', () => {
  it('pair ranges of one length and refuse others', () => {
    const ports = (text: string): unknown => {
      const result = parsePortShort(text);
      return result.ok
        ? result.value.ports.map((port) => [port.publishedPort, port.targetPort, port.protocol])
        : null;
    };
    assert.deepEqual(ports('80-81:90-91/udp'), [
      [80, 90, 'udp'],
      [81, 91, 'udp'],
    ]);
    assert.deepEqual(ports('80-81:90'), [
      [80, 90, 'tcp'],
      [81, 90, 'tcp'],
    ]);
    assert.deepEqual(ports('90'), [[0, 90, 'tcp']]);
    for (const bad of ['', 'a', '0', '70000', '80-82:90-91', '82-80', '1:2:3:4', '80/foo', '80:'])
      assert.equal(ports(bad), null, bad);
  });
});

describe('the YAML tree', () => {
  it('never throws anything but a COMPOSE error', () => {
    const text = fc
      .array(
        fc.constantFrom(
          'a',
          ': ',
          '- ',
          '\n',
          '  ',
          '&x ',
          '*x',
          '<<',
          '{',
          '}',
          '[',
          ']',
          '"',
          "'",
          '|',
          '>',
          '#',
          '!t ',
          '\t',
          '---',
          ',',
          '?',
        ),
      )
      .map((parts) => parts.join(''));
    fc.assert(
      fc.property(text, (source) => {
        try {
          parseYaml('f.yml', source);
        } catch (error) {
          assert.ok(
            error instanceof SwarmdError && error.code === 'COMPOSE',
            `${JSON.stringify(source)}: ${String(error)}`,
          );
        }
      }),
      { numRuns: 500 },
    );
  });
  it('knows the place of every key', () => {
    const root = parseYaml('f.yml', 'a:\n  b: 1\nc: [x]\n');
    assert.ok(root?.kind === 'mapping');
    assert.deepEqual(root.entries.get('c')?.mark, { file: 'f.yml', line: 3, column: 1 });
    const a = root.entries.get('a')?.value;
    assert.ok(a?.kind === 'mapping');
    assert.deepEqual(a.entries.get('b')?.mark, { file: 'f.yml', line: 2, column: 3 });
  });
});

describe('nearest names', () => {
  it('find typing mistakes and no far words', () => {
    const keys = ['image', 'command', 'environment', 'replicas'];
    assert.equal(nearestName('imge', keys), 'image');
    assert.equal(nearestName('enviroment', keys), 'environment');
    assert.equal(nearestName('comamnd', keys), 'command');
    assert.equal(nearestName('zzz', keys), null);
  });
});
