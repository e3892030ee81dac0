/**
 * The generated part of docs/LIMITS.md: every exported number of src that bounds or times something.
 *
 * `node test/support/limits-table.ts` rewrites it; a test compares.
 */
import { globSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const page = `${root}docs/LIMITS.md`;
const BEGIN = '<!-- generated: every bound in the code -->';
const END = '<!-- end of the generated part -->';

/** Names that bound or time something: a unit, or max, min, limit and the like. */
const BOUND = /(_|[a-z])(MS|MAX|MIN|BYTES|FIRST|LAST|TTL_S|RETRIES|Ms|Max|Min|Bytes|Limits)$/;
/** An optional docstring of one line (or the first of several), then an exported constant. */
const EXPORT =
  /(?:\/\*\*\s*(?:\*\s*)?([^\n]*?)(?:\s*\*\/|\n(?: \*[^\n]*\n)*? \*\/))?\nexport const ([A-Za-z_]+)\b/g;

function inWords(value: number, name: string): string {
  if (!/bytes/i.test(name)) return String(value);
  if (value >= 2 ** 20 && value % 2 ** 20 === 0) return `${value} (${value / 2 ** 20} Mi)`;
  if (value >= 2 ** 10 && value % 2 ** 10 === 0) return `${value} (${value / 2 ** 10} Ki)`;
  return String(value);
}

/** The table's lines, sorted by file. */
export async function limitsTable(): Promise<string[]> {
  const lines = ['| file | name | value | what |', '|---|---|---|---|'];
  for (const file of globSync('src/**/*.ts', { cwd: root }).sort()) {
    const source = readFileSync(root + file, 'utf8');
    const found = [...source.matchAll(EXPORT)].filter(([, , name = '']) => BOUND.test(name));
    if (found.length === 0) continue;
    const module = (await import(root + file)) as Record<string, unknown>;
    for (const [, doc = '', name = ''] of found) {
      const value = module[name];
      const entries =
        typeof value === 'object' && value !== null ? Object.entries(value) : [['', value] as const];
      for (const [field, number] of entries) {
        if (typeof number !== 'number') continue;
        const what = field === '' ? doc.replaceAll('|', '\\|') : '';
        lines.push(
          `| \`${file.slice(4)}\` | \`${field === '' ? name : `${name}.${field}`}\` | ${inWords(number, name + field)} | ${what} |`,
        );
      }
    }
  }
  return lines;
}

/** The page with the table as it should be now. */
export async function limitsPage(): Promise<{ now: string; wanted: string }> {
  const now = readFileSync(page, 'utf8');
  const begin = now.indexOf(BEGIN);
  const end = now.indexOf(END);
  if (begin < 0 || end < begin)
    throw new Error(`docs/LIMITS.md has no generated part between ${BEGIN} and ${END}`);
  const table = (await limitsTable()).join('\n');
  return { now, wanted: `${now.slice(0, begin)}${BEGIN}\n${table}\n${now.slice(end)}` };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(page, (await limitsPage()).wanted);
