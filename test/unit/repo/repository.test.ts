/** Rules of the repository that no compiler or linter holds. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errorCodes } from '../../../src/base/errors.ts';
import { readSources, type SourceFile } from '../../support/imports.ts';
import { completeLockfile, type Lockfile, missingOptionalPackages } from '../../support/complete-lockfile.ts';

const LINES_MAX = 500;
const text = readSources(
  '{bin,src,test,bench,examples,docs}/**/*.{ts,js,json,yml,md}',
  '*.{md,json}',
  '.ci/*',
);

function linesOf(file: SourceFile): number {
  return file.text.split('\n').length - (file.text.endsWith('\n') ? 1 : 0);
}

/** `path:line: text` of each line of `files` that `pattern` finds. */
function find(files: readonly SourceFile[], pattern: RegExp): string[] {
  return files.flatMap((file) =>
    file.text
      .split('\n')
      .map((line, index) => ({ line, number: index + 1 }))
      .filter(({ line }) => pattern.test(line))
      .map(({ line, number }) => `${file.path}:${number}: ${line.trim()}`),
  );
}

/** The codes of the rows of the table in docs/ERRORS.md, in order. */
function documentedCodes(page: string): string[] {
  return [...page.matchAll(/^\| `([A-Z_]+)` \|(?:[^|]+\|){3}$/gm)].map((match) => match[1] as string);
}

test('docs/ERRORS.md has one full row for each error code, and no other', () => {
  const [page] = readSources('docs/ERRORS.md');
  assert.deepEqual(documentedCodes(page?.text ?? '').toSorted(), Object.keys(errorCodes).toSorted());
});

test('docs/ERRORS.md gives each code the meaning the source gives it', () => {
  const [page] = readSources('docs/ERRORS.md');
  for (const [code, meaning] of Object.entries(errorCodes)) {
    assert.ok(page?.text.includes(`| \`${code}\` | ${meaning} |`), `docs/ERRORS.md: meaning of ${code}`);
  }
});

test('a row that lacks a column does not count as documentation', () => {
  assert.deepEqual(documentedCodes('| `NOT_FOUND` | It is not there. |'), []);
  assert.deepEqual(documentedCodes('| `NOT_FOUND` | It is not there. | Look again. | 1 |'), ['NOT_FOUND']);
});

test(`no source file has more than ${LINES_MAX} lines`, () => {
  const long = readSources('{bin,src}/**/*.ts').filter((file) => linesOf(file) > LINES_MAX);
  assert.deepEqual(
    long.map((file) => `${file.path}: ${linesOf(file)} lines`),
    [],
  );
});

// The patterns are put together here so that this file does not contain what it looks for.
const skipMark = new RegExp(
  `\\b(it|test|describe|suite)\\.(${'skip'}|${'todo'}|${'only'})\\b|\\b(${'skip'}|${'todo'}|${'only'}): *true`,
);
const unfinishedMark = new RegExp(
  `\\b(${['TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X', 'HA' + 'CK'].join('|')})\\b`,
);
const machinePath = new RegExp(
  ['/wo' + 'rk/', '/fa' + 'rm/', 'registry\\.npm' + 'js', 'deb\\.debian' + '\\.org'].join('|'),
);

test('every test file is in a suite that test/run.ts runs', () => {
  const suite = /^test\/(unit|raft|sim|compliance|integration|e2e)\//;
  const strays = readSources('{bin,src,test,bench,examples}/**/*.test.ts').filter(
    (file) => !suite.test(file.path),
  );
  assert.deepEqual(
    strays.map((file) => file.path),
    [],
  );
});

test('no test is skipped, left for later or run alone', () => {
  assert.deepEqual(find(readSources('test/**/*.ts'), skipMark), []);
});

test('no source carries an unfinished mark', () => {
  assert.deepEqual(find(text, unfinishedMark), []);
});

test('no file names a path or a host of the machine it was made on', () => {
  assert.deepEqual(find(text, machinePath), []);
});

test('the searches find what they look for', () => {
  const sample = (line: string): SourceFile[] => [{ path: 'sample.ts', text: line }];
  assert.equal(find(sample(`test.${'skip'}('x', () => {});`), skipMark).length, 1);
  assert.equal(find(sample(`test('x', { ${'todo'}: true }, () => {});`), skipMark).length, 1);
  assert.equal(find(sample(`// ${'TO' + 'DO'}: later`), unfinishedMark).length, 1);
  assert.equal(find(sample(`const path = '/wo${'rk'}/main';`), machinePath).length, 1);
});

test('package-lock.json has an entry for every optional package, so that npm ci accepts it', () => {
  const [file] = readSources('package-lock.json');
  const lock = JSON.parse(file?.text ?? '') as Lockfile;
  assert.deepEqual(missingOptionalPackages(lock), [], 'run: node test/support/complete-lockfile.ts');
});

test('a completed lock file knows the platform of each package it adds', () => {
  const lock: Lockfile = {
    packages: {
      'node_modules/tool': {
        version: '1.0.0',
        dev: true,
        optionalDependencies: { '@tool/linux-x64-musl': '1.0.0', '@tool/darwin-arm64': '1.0.0' },
      },
    },
  };
  assert.deepEqual(missingOptionalPackages(completeLockfile(lock)), []);
  assert.deepEqual(completeLockfile(lock).packages['node_modules/@tool/linux-x64-musl'], {
    version: '1.0.0',
    dev: true,
    optional: true,
    os: ['linux'],
    cpu: ['x64'],
    libc: ['musl'],
  });
});
