/**
 * Runs the tests: `node test/run.ts [SUITE...] [PATH-PART...] [--name PATTERN]`, all suites without a suite.
 *
 * Test files that need what this machine lacks are left out with a notice that says what to install; with
 * SWARMD_TEST_REQUIRE=all such a lack is a failure. All suites end in one summary.
 */
import { globSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { Transform } from 'node:stream';
import { run } from 'node:test';
import { spec as SpecReporter } from 'node:test/reporters';
import { parseArgs } from 'node:util';
import { projectFolder } from './support/imports.ts';
import { missingFor, type Need, needOf, thisMachine } from './support/needs.ts';

interface Suite {
  readonly name: string;
  /** Test files that run at a time. */
  readonly concurrency: number;
  /** The longest a test file may take. */
  readonly fileTimeoutMs: number;
}

const suites: readonly Suite[] = [
  { name: 'unit', concurrency: Math.min(2, availableParallelism()), fileTimeoutMs: 120_000 },
  { name: 'raft', concurrency: Math.min(2, availableParallelism()), fileTimeoutMs: 120_000 },
  { name: 'sim', concurrency: 1, fileTimeoutMs: 120_000 },
  { name: 'compliance', concurrency: 1, fileTimeoutMs: 180_000 },
  { name: 'integration', concurrency: 2, fileTimeoutMs: 300_000 },
  { name: 'e2e', concurrency: 1, fileTimeoutMs: 600_000 },
];

interface TestEvent {
  readonly type: string;
  readonly data: unknown;
}

const TOTAL = /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) ([\d.]+)$/;

/** The runner's closing figures, summed over suites. */
class Totals {
  readonly #sums = new Map<string, number>();

  /** Whether `event` is a closing figure; then it is added. */
  take(event: TestEvent): boolean {
    if (event.type !== 'test:diagnostic') return false;
    const { message, nesting } = event.data as { message: string; nesting: number };
    const match = nesting === 0 ? TOTAL.exec(message) : null;
    if (match === null) return false;
    const name = match[1] as string;
    this.#sums.set(name, (this.#sums.get(name) ?? 0) + Number(match[2]));
    return true;
  }

  get(name: string): number {
    return this.#sums.get(name) ?? 0;
  }

  /** The figures as the events the runner itself would end with. */
  events(): TestEvent[] {
    return [...this.#sums].map(([name, sum]) => ({
      type: 'test:diagnostic',
      data: { nesting: 0, message: `${name} ${Math.round(sum)}`, level: 'info' },
    }));
  }
}

/** The files of a suite that the filters name, by what they need. */
function filesByNeed(suite: Suite, filters: readonly string[]): Map<Need, string[]> {
  const files = new Map<Need, string[]>();
  const paths = globSync(`test/${suite.name}/**/*.test.ts`, { cwd: projectFolder }).toSorted();
  for (const path of paths.filter(
    (one) => filters.length === 0 || filters.some((part) => one.includes(part)),
  )) {
    const need = needOf(path, readFileSync(`${projectFolder}/${path}`, 'utf8'));
    files.set(need, [...(files.get(need) ?? []), path]);
  }
  return files;
}

/** The files that can run here, and a notice about each need that this machine does not meet. */
function runnable(
  suite: Suite,
  files: ReadonlyMap<Need, readonly string[]>,
): { readonly files: string[]; readonly notices: string[] } {
  const kept: string[] = [];
  const notices: string[] = [];
  for (const [need, paths] of files) {
    const missing = missingFor(need, thisMachine);
    if (missing.length === 0) kept.push(...paths);
    else {
      const lines = [
        `NOTICE: suite ${suite.name}: ${paths.length} test file(s) cannot run on this machine. They need`,
        ...missing.map((line) => `  - ${line}`),
        ...paths.map((path) => `    left out: ${path}`),
      ];
      notices.push(lines.join('\n'));
    }
  }
  return { files: kept.toSorted(), notices };
}

async function runSuite(
  suite: Suite,
  files: readonly string[],
  name: string | undefined,
  output: Transform,
  totals: Totals,
): Promise<void> {
  const events = run({
    files: files.map((path) => `${projectFolder}/${path}`),
    cwd: projectFolder,
    concurrency: suite.concurrency,
    timeout: suite.fileTimeoutMs,
    ...(name === undefined ? {} : { testNamePatterns: [name] }),
  });
  for await (const event of events as AsyncIterable<TestEvent>) {
    if (event.type !== 'test:summary' && !totals.take(event)) output.write(event);
  }
}

async function main(argv: readonly string[]): Promise<number> {
  const { positionals, values } = parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: { name: { type: 'string' } },
  });
  const names = suites.map((suite) => suite.name);
  const chosen = positionals.filter((word) => names.includes(word));
  const filters = positionals.filter((word) => !names.includes(word));
  const totals = new Totals();
  const output = new SpecReporter();
  output.pipe(process.stdout);
  let found = 0;
  const notices: string[] = [];
  for (const suite of suites.filter((one) => chosen.length === 0 || chosen.includes(one.name))) {
    const all = filesByNeed(suite, filters);
    found += all.size;
    const here = runnable(suite, all);
    notices.push(...here.notices);
    if (here.files.length > 0) await runSuite(suite, here.files, values.name, output, totals);
  }
  for (const event of totals.events()) output.write(event);
  await new Promise<void>((resolve) => output.on('end', resolve).end());
  for (const notice of notices) process.stdout.write(`\n${notice}\n`);
  if (found === 0) {
    process.stderr.write(
      `no test file matches ${positionals.join(' ') || 'any suite'}; suites: ${names.join(', ')}\n`,
    );
    return 1;
  }
  if (notices.length > 0 && process.env['SWARMD_TEST_REQUIRE'] === 'all') {
    process.stderr.write(
      'SWARMD_TEST_REQUIRE=all: test files could not run; the notices above say what they need\n',
    );
    return 1;
  }
  return totals.get('fail') + totals.get('cancelled') === 0 ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
