/**
 * Typed readers over YAML nodes. Each takes the path of the value for its error, which names file, line and key.
 *
 * They accept what the Compose specification allows a value to be written as: numbers and booleans also as quoted
 * texts (variables always give texts), lists of `NAME=value` for mappings.
 */
import type { Result } from '../base/result.ts';
import { composeError, didYouMean } from './compose-error.ts';
import { parseBytes, parseDurationMs, parseNanoCpus } from './quantities.ts';
import { splitShellWords } from './shell-words.ts';
import type { MappingNode, Mark, ScalarNode, YamlNode } from './yaml-tree.ts';

/** Something in a file that was accepted but not honoured, or that may not be what was meant. */
export interface StackWarning {
  readonly file: string;
  readonly line: number;
  /** `services.web.build`; '' where no key is at fault. */
  readonly key: string;
  readonly message: string;
}

/** Collects warnings while a file is read. */
export type Warnings = StackWarning[];

export function warn(warnings: Warnings, mark: Mark, key: string, message: string): void {
  warnings.push({ file: mark.file, line: mark.line, key, message });
}

type WithoutUndefined<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>;
};

/** The object without its members of value undefined. */
export function compact<T extends object>(value: T): WithoutUndefined<T> {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined)) as WithoutUndefined<T>;
}

export function isNull(node: YamlNode | undefined): boolean {
  return node === undefined || (node.kind === 'scalar' && node.value === null);
}

/** The value of `key`, undefined when absent or null. */
export function get(mapping: MappingNode, key: string): YamlNode | undefined {
  const value = mapping.entries.get(key)?.value;
  return isNull(value) ? undefined : value;
}

/** Reads `key` with `read` when it is there. */
export function optional<T>(
  mapping: MappingNode,
  path: string,
  key: string,
  read: (node: YamlNode, path: string) => T,
): T | undefined {
  const value = get(mapping, key);
  return value === undefined ? undefined : read(value, `${path}.${key}`);
}

/** What a mapping may hold: keys that are read, and keys that are known but have no effect (with the reason). */
export interface KeyTable {
  readonly known: readonly string[];
  readonly ignored?: Readonly<Record<string, string>>;
  /** Keys that would change the meaning of the file if they were ignored. */
  readonly refused?: Readonly<Record<string, string>>;
}

/** Refuses unknown keys, naming the nearest known one, and warns of those that have no effect. */
export function checkKeys(mapping: MappingNode, path: string, table: KeyTable, warnings: Warnings): void {
  for (const [key, entry] of mapping.entries) {
    if (key.startsWith('x-') || table.known.includes(key)) continue;
    const full = path === '' ? key : `${path}.${key}`;
    const refusal = own(table.refused, key);
    if (refusal !== undefined) throw composeError(entry.mark, `${full} is not supported: ${refusal}`);
    const reason = own(table.ignored, key);
    if (reason !== undefined) {
      if (!isNull(entry.value) && !isFalse(entry.value)) warn(warnings, entry.mark, full, reason);
      continue;
    }
    const all = [...table.known, ...Object.keys(table.ignored ?? {})];
    const hint = didYouMean(key, all) || ` Known keys: ${table.known.join(', ')}.`;
    throw composeError(entry.mark, `unknown key "${full}".${hint}`);
  }
}

function own(record: Readonly<Record<string, string>> | undefined, key: string): string | undefined {
  return record !== undefined && Object.hasOwn(record, key) ? record[key] : undefined;
}

function isFalse(node: YamlNode): boolean {
  return node.kind === 'scalar' && node.value === false;
}

function kindName(node: YamlNode): string {
  if (node.kind === 'mapping') return 'a mapping';
  if (node.kind === 'sequence') return 'a list';
  return node.value === null ? 'empty' : `"${node.text}"`;
}

/** An error saying what the value must be and what it is. */
export function wrongKind(node: YamlNode, path: string, wanted: string): Error {
  return composeError(node.mark, `${path} must be ${wanted}, but is ${kindName(node)}`);
}

/** A mapping; null reads as an empty one. */
export function mapping(node: YamlNode, path: string): MappingNode {
  if (node.kind === 'mapping') return node;
  if (isNull(node)) return { kind: 'mapping', entries: new Map(), mark: node.mark, tag: '' };
  throw wrongKind(node, path, 'a mapping');
}

export function sequence(node: YamlNode, path: string): readonly YamlNode[] {
  if (node.kind !== 'sequence') throw wrongKind(node, path, 'a list');
  return node.items;
}

function scalar(node: YamlNode, path: string, wanted: string): ScalarNode {
  if (node.kind !== 'scalar' || node.value === null) throw wrongKind(node, path, wanted);
  return node;
}

/** How a scalar reads as text: numbers and booleans in their normal form. */
export function scalarText(node: ScalarNode): string {
  return typeof node.value === 'string' ? node.value : node.value === null ? '' : String(node.value);
}

export function text(node: YamlNode, path: string): string {
  return scalarText(scalar(node, path, 'a text'));
}

/** Text as written: `0.10` and `3.0` keep their digits. */
export function writtenText(node: YamlNode, path: string): string {
  return scalar(node, path, 'a text').text;
}

export function bool(node: YamlNode, path: string): boolean {
  const { value } = scalar(node, path, 'true or false');
  if (typeof value === 'boolean') return value;
  const word = String(value).toLowerCase();
  if (['true', 'yes', 'y', 'on', '1'].includes(word)) return true;
  if (['false', 'no', 'n', 'off', '0'].includes(word)) return false;
  throw wrongKind(node, path, 'true or false');
}

export function decimal(node: YamlNode, path: string): number {
  const { value } = scalar(node, path, 'a number');
  const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : value;
  if (typeof number !== 'number' || !Number.isFinite(number)) throw wrongKind(node, path, 'a number');
  return number;
}

/** A whole number of at least `min`. A text with a leading 0 is octal, as file modes are written. */
export function integer(min: number): (node: YamlNode, path: string) => number {
  return (node, path) => {
    const { value } = scalar(node, path, 'a whole number');
    const number =
      typeof value === 'string' && /^0[0-7]+$/.test(value) ? Number.parseInt(value, 8) : decimal(node, path);
    if (!Number.isSafeInteger(number)) throw wrongKind(node, path, 'a whole number');
    if (number < min) throw composeError(node.mark, `${path} must be ${min} or more, but is ${number}`);
    return number;
  };
}

/** One of `choices`. */
export function choice<const T extends string>(choices: readonly T[]): (node: YamlNode, path: string) => T {
  return (node, path) => {
    const value = text(node, path);
    const found = choices.find((candidate) => candidate === value);
    if (found !== undefined) return found;
    const shown = choices.filter((candidate) => candidate !== '').join(', ');
    throw composeError(node.mark, `${path} must be one of ${shown}, but is "${value}"`);
  };
}

/** Unwraps a parser's result, adding file, line and key to a refusal. */
export function parsed<T>(result: Result<T>, mark: Mark, path: string): T {
  if (result.ok) return result.value;
  throw composeError(mark, `${path}: ${result.reason}`);
}

export function durationMs(node: YamlNode, path: string): number {
  const value = parsed(parseDurationMs(text(node, path)), node.mark, path);
  if (value < 0) throw composeError(node.mark, `${path} must not be negative`);
  return value;
}

export function bytes(node: YamlNode, path: string): number {
  return parsed(parseBytes(text(node, path)), node.mark, path);
}

export function nanoCpus(node: YamlNode, path: string): number {
  return parsed(parseNanoCpus(writtenText(node, path)), node.mark, path);
}

export function textList(node: YamlNode, path: string): string[] {
  return sequence(node, path).map((item, i) => text(item, `${path}[${i}]`));
}

/** One text or a list of them. */
export function textOrList(node: YamlNode, path: string): string[] {
  return node.kind === 'sequence' ? textList(node, path) : [text(node, path)];
}

/** Labels, options: a mapping, or a list of `name=value` (without `=`: an empty value). */
export function textMap(node: YamlNode, path: string): Record<string, string> {
  return Object.fromEntries([...nullableMap(node, path)].map(([key, value]) => [key, value ?? '']));
}

/** Environment: like {@link textMap}, but a name without a value is null. */
export function nullableMap(node: YamlNode, path: string): Map<string, string | null> {
  const result = new Map<string, string | null>();
  if (node.kind === 'sequence') {
    node.items.forEach((item, i) => {
      const entry = text(item, `${path}[${i}]`);
      const equals = entry.indexOf('=', 1);
      result.set(equals < 0 ? entry : entry.slice(0, equals), equals < 0 ? null : entry.slice(equals + 1));
    });
    return result;
  }
  if (node.kind === 'scalar') throw wrongKind(node, path, 'a mapping or a list of NAME=value');
  for (const [key, { value, mark }] of node.entries) {
    if (key === '') throw composeError(mark, `${path}: a name is empty`);
    result.set(key, isNull(value) ? null : text(value, `${path}.${key}`));
  }
  return result;
}

/** A command: a list of words, or a text split as a shell does. */
export function command(node: YamlNode, path: string): string[] {
  if (node.kind === 'sequence') return textList(node, path);
  return parsed(splitShellWords(text(node, path)), node.mark, path);
}
