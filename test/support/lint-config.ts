/**
 * The linter's configuration, made from the table of import-rules.ts: `node test/support/lint-config.ts` writes
 * .oxlintrc.json. A test compares the two.
 *
 * The linter's patterns see an import as it is written, not the file it leads to. So it holds the coarse rules, which
 * top-level folder and which package; the test of the import table holds the fine ones.
 */
import { matchesGlob } from 'node:path';
import { writeFileSync } from 'node:fs';
import { type ImportRule, impureGlobals, importRules, packageDoors } from './import-rules.ts';

const TOP_FOLDERS = [
  ...new Set(importRules.flatMap((rule) => rule.files.map((glob) => glob.split('/')[0] as string))),
].toSorted();

interface RestrictedImports {
  readonly paths: readonly { readonly name: string; readonly message: string }[];
  readonly patterns: readonly { readonly regex: string; readonly message: string }[];
}

function forbiddenFolders(rule: ImportRule): string[] {
  const own = rule.files.map((glob) => glob.split('/')[0]);
  const allowed = [...rule.mayImport, ...(rule.mayImportTypes ?? [])];
  return TOP_FOLDERS.filter(
    (folder) =>
      !own.includes(folder) &&
      !allowed.some((glob) => glob.startsWith(`${folder}/`) || matchesGlob(`${folder}/file.ts`, glob)),
  );
}

/** Whether every file that `rule` speaks of is in a folder all of whose files are doors. */
function inDoorFolder(rule: ImportRule, doors: readonly string[]): boolean {
  return rule.files.every((glob) =>
    doors.some((door) => door.endsWith('/**') && glob.startsWith(door.slice(0, -2))),
  );
}

function restrictedImports(rule: ImportRule, allowedPackages: readonly string[]): RestrictedImports {
  const folders = forbiddenFolders(rule);
  return {
    paths: Object.entries(packageDoors)
      .filter(([name, doors]) => !allowedPackages.includes(name) && !inDoorFolder(rule, doors))
      .map(([name, doors]) => ({ name, message: `only ${doors.join(', ')} may import it` })),
    patterns: [
      {
        regex: '^(\\.\\./)+(test|bench|bin|examples)/',
        message: 'src never imports tests, benchmarks or examples',
      },
      ...(folders.length === 0
        ? []
        : [
            {
              regex: `^(\\.\\./)+(${folders.join('|')})/`,
              message: `${rule.files.join(', ')} may not import it`,
            },
          ]),
    ],
  };
}

function override(rule: ImportRule, files = rule.files, allowedPackages: readonly string[] = []): unknown {
  return {
    files: files.map((glob) => `src/${glob}`),
    rules: {
      'no-restricted-imports': ['error', restrictedImports(rule, allowedPackages)],
      'no-restricted-globals': rule.pure ? ['error', ...impureGlobals] : 'off',
      'no-restricted-properties': rule.pure
        ? ['error', { object: 'Math', property: 'random', message: 'randomness is an argument' }]
        : 'off',
      'oxc/no-async-await': rule.pure ? 'error' : 'off',
    },
  };
}

/** An override for each door that is one file of a folder whose other files may not import the package. */
function doorOverrides(): unknown[] {
  return Object.entries(packageDoors).flatMap(([name, doors]) =>
    doors
      .filter((door) => !door.endsWith('/**'))
      .map((door) => {
        const rule = importRules.findLast((candidate) =>
          candidate.files.some((glob) => matchesGlob(door.replace('*', 'x'), glob)),
        );
        if (rule === undefined) throw new Error(`no import rule speaks of ${door}, the door of ${name}`);
        return override(rule, [door], [name]);
      }),
  );
}

/** The content of .oxlintrc.json. */
export function lintConfig(): unknown {
  return {
    plugins: ['typescript', 'oxc', 'unicorn', 'import', 'node'],
    categories: { correctness: 'error' },
    options: { typeAware: true },
    ignorePatterns: ['node_modules', 'dist'],
    rules: {
      eqeqeq: 'error',
      'no-var': 'error',
      'prefer-const': 'error',
      'import/no-cycle': 'error',
      'import/no-default-export': 'error',
      'typescript/consistent-type-imports': 'error',
      'typescript/no-explicit-any': 'error',
      'typescript/no-misused-spread': 'off',
      'typescript/unbound-method': 'off',
      // A copy taken before a loop that changes the original is not useless.
      'unicorn/no-useless-spread': 'off',
      'unicorn/no-useless-fallback-in-spread': 'off',
      'typescript/no-floating-promises': [
        'error',
        {
          allowForKnownSafeCalls: [
            { from: 'package', name: ['test', 'describe', 'it', 'suite'], package: 'node:test' },
          ],
        },
      ],
      'typescript/no-misused-promises': ['error', { checksVoidReturn: false }],
      'typescript/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
    },
    overrides: [...importRules.map((rule) => override(rule)), ...doorOverrides()],
  };
}

if (import.meta.main) {
  writeFileSync(
    new URL('../../.oxlintrc.json', import.meta.url),
    `${JSON.stringify(lintConfig(), null, 2)}\n`,
  );
}
