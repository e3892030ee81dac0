/**
 * Reads the imports of the project's sources and judges them by the table of import-rules.ts.
 *
 * It does not parse TypeScript: it blanks comments and then looks for the forms of an import, which is exact for
 * code that the formatter has laid out.
 */
import { readFileSync, globSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { matchesGlob, posix } from 'node:path';
import { type ImportRule, importRules, packageDoors, pureBuiltins } from './import-rules.ts';

/** The project's folder, without a trailing slash. */
export const projectFolder = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');

/** One import of a file. `names` is null for a namespace, a default, a dynamic or a bare import. */
export interface Import {
  readonly specifier: string;
  readonly names: readonly string[] | null;
  readonly typesOnly: boolean;
}

/** A source file: its path below the project's folder, and its text. */
export interface SourceFile {
  readonly path: string;
  readonly text: string;
}

/** Every file of the project that matches `globs`, in order of path. */
export function readSources(...globs: readonly string[]): SourceFile[] {
  return globSync(globs, { cwd: projectFolder, exclude: ['node_modules/**', '.git/**'] })
    .toSorted()
    .map((path) => ({ path, text: readFileSync(`${projectFolder}/${path}`, 'utf8') }));
}

const TOKENS = /\/\*[\s\S]*?\*\/|\/\/[^\n]*|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`/g;

function withoutComments(text: string): string {
  return text.replaceAll(TOKENS, (token) => (token.startsWith('/*') || token.startsWith('//') ? ' ' : token));
}

const STATIC =
  /^[ \t]*(?:import|export)\s+(type\s+)?(?:([\w$]+|\*(?:\s+as\s+[\w$]+)?|\{[^}]*\}|[\w$]+\s*,\s*\{[^}]*\})\s*from\s*)?'([^']+)'/gm;
const DYNAMIC = /\bimport\(\s*'([^']+)'/g;

function namesOf(clause: string | undefined): { names: string[] | null; typesOnly: boolean } {
  if (clause === undefined || !clause.startsWith('{')) return { names: null, typesOnly: false };
  const items = clause
    .slice(1, -1)
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');
  return {
    names: items.map((item) => item.replace(/^type\s+/, '').split(/\s+as\s+/)[0] as string),
    typesOnly: items.length > 0 && items.every((item) => item.startsWith('type ')),
  };
}

/** The imports and re-exports of a source text, static and dynamic. */
export function importsOf(text: string): Import[] {
  const code = withoutComments(text);
  const found: Import[] = [];
  for (const match of code.matchAll(STATIC)) {
    const [, type, clause, specifier] = match;
    const { names, typesOnly } = namesOf(clause);
    found.push({ specifier: specifier as string, names, typesOnly: type !== undefined || typesOnly });
  }
  for (const match of code.matchAll(DYNAMIC)) {
    found.push({ specifier: match[1] as string, names: null, typesOnly: false });
  }
  return found;
}

function matchesAny(path: string, globs: readonly string[]): boolean {
  return globs.some((glob) => matchesGlob(path, glob));
}

/** The rule that holds for a file, by its path below src, or undefined. */
export function ruleFor(path: string): ImportRule | undefined {
  return importRules.findLast((rule) => matchesAny(path, rule.files));
}

function packageName(specifier: string): string {
  const parts = specifier.split('/');
  return specifier.startsWith('@') ? parts.slice(0, 2).join('/') : (parts[0] as string);
}

function builtinViolation(rule: ImportRule, imported: Import): string | null {
  if (!rule.pure || imported.typesOnly) return null;
  const allowed = pureBuiltins[imported.specifier];
  if (allowed === undefined) return `a pure file may not use ${imported.specifier}`;
  if (allowed === null) return null;
  const refused =
    imported.names === null ? ['all of it'] : imported.names.filter((name) => !allowed.includes(name));
  return refused.length === 0
    ? null
    : `a pure file may not use ${refused.join(', ')} of ${imported.specifier}`;
}

function packageViolation(path: string, imported: Import): string | null {
  const name = packageName(imported.specifier);
  const doors = packageDoors[name];
  if (doors === undefined) return `${name} has no door: name the files that may import it in import-rules.ts`;
  return matchesAny(path, doors) ? null : `only ${doors.join(', ')} may import ${name}`;
}

function fileViolation(path: string, rule: ImportRule, imported: Import): string | null {
  const target = posix.normalize(`src/${posix.dirname(path)}/${imported.specifier}`);
  if (!target.startsWith('src/')) return `src may not import ${target}`;
  const inside = target.slice('src/'.length);
  const own = `${posix.dirname(path)}/`;
  const isOwn = inside.startsWith(own) && !(rule.mayNotImport ?? []).includes(inside);
  const ownerRule = ruleFor(inside);
  const inPart =
    ownerRule === rule && rule.files.some((glob) => matchesGlob(path, glob) && matchesGlob(inside, glob));
  const allowed = isOwn || inPart || matchesAny(inside, rule.mayImport);
  const asTypes = imported.typesOnly && matchesAny(inside, rule.mayImportTypes ?? []);
  if ((!allowed && !asTypes) || (rule.mayNotImport ?? []).includes(inside))
    return `it may not import ${target}`;
  if (rule.pure && !imported.typesOnly && !ownerRule?.pure && !inside.startsWith('base/')) {
    return `it is pure and ${target} is not`;
  }
  return null;
}

/** What a file of src imports against the rules: one sentence each, empty when it keeps them. */
export function importViolations(file: SourceFile): string[] {
  const path = file.path.replace(/^src\//, '');
  const rule = ruleFor(path);
  if (rule === undefined) return [`${file.path}: no rule of import-rules.ts speaks of this file`];
  return importsOf(file.text).flatMap((imported) => {
    const { specifier } = imported;
    const violation = specifier.startsWith('.')
      ? fileViolation(path, rule, imported)
      : specifier.startsWith('node:')
        ? builtinViolation(rule, imported)
        : packageViolation(path, imported);
    return violation === null ? [] : [`${file.path}: ${violation}`];
  });
}
