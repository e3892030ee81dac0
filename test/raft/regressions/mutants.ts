/**
 * Proves that every named regression can fail: puts each defect of `mutations.ts` back into a temporary copy of the
 * sources, and runs its test there. `npm run test:mutants [NAME-PART...]`; fails when a test does not.
 */
import { execFile } from 'node:child_process';
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type Mutation, mutations } from './mutations.ts';

const project = resolve(import.meta.dirname, '../../..');
const RUN_MS_MAX = 60_000;

/** A copy of what the tests of consensus need. */
async function copyProject(folder: string): Promise<void> {
  for (const part of ['src/base', 'src/raft', 'test/raft', 'package.json']) {
    await cp(join(project, part), join(folder, part), { recursive: true });
  }
  await symlink(join(project, 'node_modules'), join(folder, 'node_modules'));
}

/** Runs the regression's tests; the titles of those that failed, or null when they could not be run. */
async function failures(folder: string, mutation: Mutation): Promise<readonly string[] | null> {
  const file = join(folder, 'test/raft/regressions', mutation.test);
  const pattern = `^regressions: .* ${mutation.regression.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`)}`;
  const args = ['--test', '--test-reporter=tap', `--test-name-pattern=${pattern}`, file];
  const output = await new Promise<string>((resolveOutput) => {
    execFile(process.execPath, args, { timeout: RUN_MS_MAX }, (_, stdout) => resolveOutput(stdout));
  });
  const ran = [...output.matchAll(/^ {4}(not ok|ok) \d+ - (.*)$/gm)].filter(
    ([, , title]) => title?.startsWith(mutation.regression) === true && !title.includes('# SKIP'),
  );
  if (ran.length === 0) return null;
  return ran.filter(([, verdict]) => verdict === 'not ok').map(([, , title]) => title ?? '');
}

/** Why the mutation proves nothing, or null when its test failed as it should. */
async function survives(folder: string, mutation: Mutation): Promise<string | null> {
  const path = join(folder, 'src/raft', mutation.file);
  const source = await readFile(path, 'utf8');
  const places = source.split(mutation.find).length - 1;
  if (places !== 1)
    return `its text occurs ${places} times in src/raft/${mutation.file}: bring it up to date`;
  const sound = await failures(folder, mutation);
  if (sound === null) return `no test of ${mutation.test} has that name`;
  if (sound.length > 0) return 'its test fails on the sources as they are';
  await writeFile(
    path,
    source.replace(mutation.find, () => mutation.replace),
  );
  try {
    const broken = await failures(folder, mutation);
    if (broken === null) return 'the changed sources do not load';
    return broken.length > 0 ? null : 'its test passes all the same';
  } finally {
    await writeFile(path, source);
  }
}

async function main(filters: readonly string[]): Promise<number> {
  const chosen = mutations.filter(
    ({ regression }) => filters.length === 0 || filters.some((part) => regression.includes(part)),
  );
  const folder = await mkdtemp(join(tmpdir(), 'swarmd-mutants-'));
  let survivors = 0;
  try {
    await copyProject(folder);
    for (const mutation of chosen) {
      const reason = await survives(folder, mutation);
      if (reason !== null) survivors++;
      process.stdout.write(
        `${reason === null ? 'killed  ' : 'SURVIVED'} ${mutation.regression} (${mutation.file})${reason === null ? '' : `: ${reason}`}\n`,
      );
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  process.stdout.write(`${chosen.length - survivors} of ${chosen.length} mutants killed\n`);
  return survivors === 0 && chosen.length > 0 ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
