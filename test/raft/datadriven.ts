/**
 * Reads test scripts in the "datadriven" format: a command line, optional input lines, `----`, and the output
 * expected of it. Comments start with `#`; cases are separated by blank lines.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

/** One argument of a command: `key`, `key=value` or `key=(value, value)`. */
export interface ScriptArgument {
  readonly key: string;
  readonly values: readonly string[];
}

/** One case of a script. */
export interface ScriptCase {
  /** `file:line`, to find it again. */
  readonly place: string;
  readonly command: string;
  readonly args: readonly ScriptArgument[];
  readonly input: string;
  readonly expected: string;
}

/** Where scripts from outside are, if they are. */
const DATA_FOLDER = resolve(import.meta.dirname, '../../../shared/data/etcd-raft');

/** The scripts in a folder of the outside data by name; null (and a printed notice) when it is not there. */
export function scriptsIn(folder: string): ReadonlyMap<string, readonly ScriptCase[]> | null {
  const path = join(DATA_FOLDER, folder);
  if (!existsSync(path)) {
    console.log(`skipped: the etcd-raft scripts (${folder}) are not in ../shared/data/etcd-raft`);
    return null;
  }
  const names = readdirSync(path).filter((name) => name.endsWith('.txt'));
  return new Map(
    names.sort().map((name) => [name, parseScript(name, readFileSync(join(path, name), 'utf8'))]),
  );
}

/** Parses a script. */
export function parseScript(name: string, text: string): readonly ScriptCase[] {
  const lines = text.split('\n');
  const cases: ScriptCase[] = [];
  for (let at = 0; at < lines.length; ) {
    const line = lines[at] as string;
    if (line.trim() === '' || line.startsWith('#')) {
      at++;
      continue;
    }
    const place = `${name}:${at + 1}`;
    const separator = lines.indexOf('----', at);
    if (separator < 0) throw new Error(`${place}: no ---- after the command`);
    const input = lines.slice(at + 1, separator).join('\n');
    const end = lines.indexOf('', separator);
    const stop = end < 0 ? lines.length : end;
    const expected = lines.slice(separator + 1, stop).join('\n');
    cases.push({ place, ...parseCommand(line), input, expected });
    at = stop;
  }
  return cases;
}

/** Splits a command line into the command and its arguments. */
export function parseCommand(line: string): { command: string; args: readonly ScriptArgument[] } {
  const tokens = line.trim().match(/[^\s=]+=\([^)]*\)|\S+/g) ?? [];
  const args = tokens.slice(1).map((token): ScriptArgument => {
    const equals = token.indexOf('=');
    if (equals < 0) return { key: token, values: [] };
    const value = token.slice(equals + 1);
    const list = value.startsWith('(') ? value.slice(1, -1).split(',') : [value];
    return { key: token.slice(0, equals), values: list.map((each) => each.trim()) };
  });
  return { command: tokens[0] ?? '', args };
}

/** Expected output without the lines of etcd's logger, which are no part of the protocol. */
export function withoutLogLines(output: string): string {
  const kept = output.split('\n').filter((line) => !/^\s*(DEBUG|INFO|WARN|ERROR|FATAL) /.test(line));
  const text = kept.join('\n').trimEnd();
  return text === '' ? 'ok' : text;
}
