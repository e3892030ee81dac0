/** The import table holds in src, and each of its rules fires on a source that breaks it. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { importViolations, importsOf, projectFolder, readSources } from '../../support/imports.ts';
import { lintConfig } from '../../support/lint-config.ts';

function judge(path: string, text: string): string[] {
  return importViolations({ path, text });
}

test('every import of src keeps the table', () => {
  const sources = readSources('src/**/*.ts');
  assert.ok(sources.length > 0);
  assert.deepEqual(sources.flatMap(importViolations), []);
});

test('the shim in bin imports nothing but the command line', () => {
  const imported = readSources('bin/*.ts').flatMap((file) => importsOf(file.text));
  assert.deepEqual(
    imported.map((one) => one.specifier),
    ['../src/cli/main.ts'],
  );
});

test('imports are found in every form, and not in comments', () => {
  const text = [
    "import { a, type B } from './one.ts';",
    'import {\n  c as d,\n} from "./ignored-quotes.ts";',
    "import type { E } from './two.ts';",
    "export { f } from './three.ts';",
    "import * as all from 'four';",
    "import './five.ts';",
    "// import { no } from './six.ts';",
    "/* import './seven.ts'; */",
    "const lazy = await import('./eight.ts');",
    "import {\n  g,\n  type H,\n} from './nine.ts';",
    "import only, { i } from './ten.ts';",
    "export * from './eleven.ts';",
    "import { type J } from './twelve.ts';",
  ].join('\n');
  const found = importsOf(text);
  assert.deepEqual(
    found.map((one) => one.specifier).toSorted(),
    [
      './one.ts',
      './two.ts',
      './three.ts',
      'four',
      './five.ts',
      './eight.ts',
      './nine.ts',
      './ten.ts',
      './eleven.ts',
      './twelve.ts',
    ].toSorted(),
  );
  assert.deepEqual(found[0], { specifier: './one.ts', names: ['a', 'B'], typesOnly: false });
  assert.deepEqual(
    found.filter((one) => one.typesOnly).map((one) => one.specifier),
    ['./two.ts', './twelve.ts'],
  );
});

const refused: readonly (readonly [path: string, source: string])[] = [
  ['src/base/errors.ts', "import type { Task } from '../model/objects.ts';"],
  ['src/model/spec.ts', "import { x } from '../manager/state/store.ts';"],
  ['src/raft/core/step.ts', "import { x } from '../driver.ts';"],
  ['src/raft/core/step.ts', "import { x } from '../../model/ids.ts';"],
  ['src/raft/driver.ts', "import { x } from '../manager/manager.ts';"],
  ['src/manager/state/store.ts', "import { x } from '../api/services.ts';"],
  ['src/manager/orchestrator/global.ts', "import { x } from '../scheduler/filters.ts';"],
  ['src/manager/orchestrator/global.ts', "import { x } from '../../rpc/types.ts';"],
  ['src/manager/dispatcher/core.ts', "import { x } from './server.ts';"],
  ['src/manager/api/services.ts', "import type { X } from '../../raft/driver.ts';"],
  ['src/manager/control-loop.ts', "import { x } from './manager.ts';"],
  ['src/worker/agent.ts', "import { x } from '../manager/state/store.ts';"],
  ['src/worker/agent.ts', "import type { x } from '../raft/types.ts';"],
  ['src/worker/agent.ts', "import { x } from '../network/driver.ts';"],
  ['src/worker/core/step.ts', "import { x } from '../agent.ts';"],
  ['src/network/plan.ts', "import { x } from './apply.ts';"],
  ['src/dns/resolve.ts', "import { x } from './server.ts';"],
  ['src/ingress/balance.ts', "import { x } from './proxy.ts';"],
  ['src/stack/parse.ts', "import { x } from '../rpc/types.ts';"],
  ['src/http/server.ts', "import { x } from '../manager/api/services.ts';"],
  ['src/node/node.ts', "import { x } from '../cli/main.ts';"],
  ['src/cli/main.ts', "import { x } from '../manager/manager.ts';"],
  ['src/cli/main.ts', "import { x } from '../../test/support/imports.ts';"],
  ['src/pki/authority.ts', "import { x } from '../model/ids.ts';"],
  ['src/newcomer/file.ts', ''],
  ['src/raft/driver.ts', "import { Level } from 'level';"],
  ['src/worker/agent.ts', "import Docker from 'dockerode';"],
  ['src/dns/zone.ts', "import dns from 'dns2';"],
  ['src/http/server.ts', "import { WebSocket } from 'ws';"],
  ['src/rpc/tls.ts', "import * as x509 from '@peculiar/x509';"],
  ['src/rpc/tls.ts', "import fastify from 'fastify';"],
  ['src/stack/parse.ts', "import { Command } from 'commander';"],
  ['src/cli/main.ts', "import * as yaml from 'js-yaml';"],
  ['src/worker/agent.ts', "const { pack } = await import('msgpackr/pack');"],
  ['src/cli/main.ts', "import chalk from 'chalk';"],
  ['src/manager/state/store.ts', "import { readFileSync } from 'node:fs';"],
  ['src/manager/state/store.ts', "import { randomBytes } from 'node:crypto';"],
  ['src/network/plan.ts', "import * as net from 'node:net';"],
];

for (const [path, source] of refused) {
  test(`refused: ${path}: ${source}`, () => {
    assert.equal(judge(path, source).length, 1);
  });
}

const accepted: readonly (readonly [path: string, source: string])[] = [
  ['src/model/spec.ts', "import { ok } from '../base/result.ts';"],
  ['src/raft/driver.ts', "import { step } from './core/step.ts';"],
  ['src/raft/core/step.ts', "import { quorum } from './quorum.ts';"],
  ['src/raft/level-database.ts', "import { Level } from 'level';"],
  ['src/manager/scheduler/schedule.ts', "import { tasks } from '../state/store.ts';"],
  ['src/manager/dispatcher/core.ts', "import { changes } from '../state/feed.ts';"],
  ['src/manager/dispatcher/server.ts', "import { step } from './core.ts';"],
  ['src/manager/manager.ts', "import { RaftDriver } from '../raft/driver.ts';"],
  ['src/manager/manager.ts', "import { plan } from './orchestrator/global.ts';"],
  ['src/worker/core/step.ts', "import type { Task } from '../../model/objects.ts';"],
  ['src/worker/agent.ts', "import type { X } from '../network/types.ts';"],
  ['src/worker/docker-runtime.ts', "import Docker from 'dockerode';"],
  ['src/network/plan.ts', "import { isIPv4 } from 'node:net';"],
  ['src/http/server.ts', "import type { Api } from '../manager/api/services.ts';"],
  ['src/node/node.ts', "import { Manager } from '../manager/manager.ts';"],
  ['src/cli/main.ts', "import { Client } from '../http/client.ts';"],
  ['src/worker/agent.ts', "import { readFile } from 'node:fs/promises';"],
];

for (const [path, source] of accepted) {
  test(`accepted: ${path}: ${source}`, () => {
    assert.deepEqual(judge(path, source), []);
  });
}

test('the configuration of the linter is the one made from the table', () => {
  const [file] = readSources('.oxlintrc.json');
  assert.deepEqual(
    JSON.parse(file?.text ?? '{}'),
    JSON.parse(JSON.stringify(lintConfig())),
    'run: node test/support/lint-config.ts',
  );
});

const lintSamples: readonly (readonly [path: string, source: string, rule: string])[] = [
  ['src/raft/core/a.ts', "import '../../manager/state/store.ts';", 'no-restricted-imports'],
  ['src/raft/driver.ts', "import 'level';", 'no-restricted-imports'],
  ['src/worker/agent.ts', "import '../../test/support/imports.ts';", 'no-restricted-imports'],
  ['src/manager/state/b.ts', 'export const now = Date.now();', 'no-restricted-globals'],
  ['src/manager/update/c.ts', 'setTimeout(() => {}, 1);', 'no-restricted-globals'],
  ['src/worker/core/d.ts', 'export const pid = process.pid;', 'no-restricted-globals'],
  ['src/stack/e.ts', 'console.log(1);', 'no-restricted-globals'],
  ['src/model/f.ts', 'export const die = Math.random();', 'no-restricted-properties'],
  ['src/dns/table.ts', 'export async function wait(): Promise<void> {}', 'no-async-await'],
  ['src/node/g.ts', 'async function go(): Promise<void> {}\ngo();', 'no-floating-promises'],
  [
    'src/node/h.ts',
    "export function f(x: 'a' | 'b'): void { switch (x) { case 'a': break; } }",
    'switch-exhaustiveness-check',
  ],
  ['src/node/i.ts', 'export const loose: any = 1;', 'no-explicit-any'],
  ['src/http/j.ts', "import { k } from './k.ts';\nexport const j: number = k;", 'no-cycle'],
  ['src/http/k.ts', "import { j } from './j.ts';\nexport const k: number = j;", 'no-cycle'],
  ['src/raft/level-database.ts', "import 'level';", ''],
  ['src/base/clock.ts', 'export const now = Date.now();', ''],
];

test('the linter finds each kind of violation', () => {
  const folder = mkdtempSync(join(tmpdir(), 'swarmd-lint-'));
  try {
    for (const name of ['.oxlintrc.json', 'tsconfig.json', 'package.json']) {
      cpSync(join(projectFolder, name), join(folder, name));
    }
    symlinkSync(join(projectFolder, 'node_modules'), join(folder, 'node_modules'));
    for (const [path, source] of lintSamples) {
      mkdirSync(join(folder, dirname(path)), { recursive: true });
      writeFileSync(join(folder, path), `${source}\n`);
    }
    const run = spawnSync(
      join(projectFolder, 'node_modules/.bin/oxlint'),
      ['--type-aware', '--format=unix', 'src'],
      { cwd: folder, encoding: 'utf8' },
    );
    for (const [path, source, rule] of lintSamples) {
      const lines = run.stdout.split('\n').filter((line) => line.startsWith(`${path}:`));
      if (rule === '') assert.deepEqual(lines, [], source);
      else
        assert.ok(
          lines.some((line) => line.includes(`(${rule})`)),
          `${rule} on ${path}:\n${run.stdout}${run.stderr}`,
        );
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});
