/**
 * Reading unknown JSON into typed data: shape, types, ranges and defaults in one declaration a field.
 *
 * Invariants: a reader never throws; every problem names its field by path; a reader that found a problem returns a
 * stand-in, so reading goes on and the caller sees all problems at once, but must not use the value.
 */
import { ok, refuse, type Result } from '../base/result.ts';

/** Problems of one read: `path: what is wrong and what to write`. */
export type Problems = string[];

/** Reads one value; on a problem adds to `problems` and returns a stand-in. */
export type Reader<T> = (value: unknown, path: string, problems: Problems) => T;

/** A member of an object: how it is read, and what holds when it is absent. */
export interface Field<T> {
  readonly read: Reader<T>;
  readonly absent:
    | { readonly kind: 'refuse' }
    | { readonly kind: 'omit' }
    | { readonly kind: 'default'; readonly value: T };
}

/** Problems shown at most; the rest are counted. */
const PROBLEMS_SHOWN_MAX = 5;

/** The value, or one refusal that lists the problems. */
export function resultOf<T>(value: T, problems: Problems): Result<T> {
  if (problems.length === 0) return ok(value);
  const shown = problems.slice(0, PROBLEMS_SHOWN_MAX).join('; ');
  const rest = problems.length - PROBLEMS_SHOWN_MAX;
  return refuse(rest > 0 ? `${shown}; and ${rest} more` : shown);
}

/** Names a value's type in a problem. */
function describe(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  return typeof value === 'object' ? 'an object' : `${typeof value} ${JSON.stringify(value)}`;
}

/** A member that must be there. */
export function required<T>(read: Reader<T>): Field<T> {
  return { read, absent: { kind: 'refuse' } };
}

/** A member that is left out where absent. */
export function optional<T>(read: Reader<T>): Field<T> {
  return { read, absent: { kind: 'omit' } };
}

/** A member with a default. */
export function withDefault<T>(read: Reader<T>, value: T): Field<T> {
  return { read, absent: { kind: 'default', value } };
}

/** A text without NUL characters. */
export const text: Reader<string> = (value, path, problems) => {
  if (typeof value !== 'string') problems.push(`${path}: expected a text, not ${describe(value)}`);
  else if (value.includes('\0')) problems.push(`${path}: a text cannot hold NUL characters`);
  else return value;
  return '';
};

/** A text that is not empty. */
export const someText: Reader<string> = (value, path, problems) => {
  const result = text(value, path, problems);
  if (value === '') problems.push(`${path}: must not be empty`);
  return result;
};

/** True or false. */
export const boolean: Reader<boolean> = (value, path, problems) => {
  if (typeof value === 'boolean') return value;
  problems.push(`${path}: expected true or false, not ${describe(value)}`);
  return false;
};

/** A whole number in `min` .. `max`. */
export function integer(min: number, max = Number.MAX_SAFE_INTEGER): Reader<number> {
  return (value, path, problems) => {
    if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value;
    const range = max === Number.MAX_SAFE_INTEGER ? `of ${min} or more` : `from ${min} to ${max}`;
    problems.push(`${path}: expected a whole number ${range}, not ${describe(value)}`);
    return min;
  };
}

/** A finite number in `min` .. `max`; durations may have fractions. */
export function number(min: number, max = Number.MAX_SAFE_INTEGER): Reader<number> {
  return (value, path, problems) => {
    if (typeof value === 'number' && value >= min && value <= max) return value;
    const range = max === Number.MAX_SAFE_INTEGER ? `of ${min} or more` : `from ${min} to ${max}`;
    problems.push(`${path}: expected a number ${range}, not ${describe(value)}`);
    return min;
  };
}

/** One of the given texts. */
export function oneOf<const T extends string>(values: readonly [T, ...T[]]): Reader<T> {
  return (value, path, problems) => {
    const found = values.find((candidate) => candidate === value);
    if (found !== undefined) return found;
    problems.push(`${path}: expected ${values.join(', ')}, not ${describe(value)}`);
    return values[0];
  };
}

/** A list of values of one kind. */
export function listOf<T>(read: Reader<T>): Reader<readonly T[]> {
  return (value, path, problems) => {
    if (Array.isArray(value)) return value.map((item, index) => read(item, `${path}[${index}]`, problems));
    problems.push(`${path}: expected a list, not ${describe(value)}`);
    return [];
  };
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** An object with any keys and values of one kind. */
export function recordOf<T>(read: Reader<T>): Reader<Readonly<Record<string, T>>> {
  return (value, path, problems) => {
    if (!isObject(value)) {
      problems.push(`${path}: expected an object, not ${describe(value)}`);
      return {};
    }
    // Built from entries: a key such as __proto__ must become a plain member.
    return Object.fromEntries(
      Object.entries(value)
        .filter(([, item]) => item !== undefined)
        .map(([key, item]) => [key, read(item, `${path}.${key}`, problems)]),
    );
  };
}

/** An object with exactly the given members; others are refused, because they are typos. */
export function object<T extends object>(
  fields: {
    readonly [K in keyof T]-?: Field<Exclude<T[K], undefined>>;
  },
): Reader<T> {
  const declared = Object.entries(fields) as [string, Field<unknown>][];
  const names = new Set(declared.map(([name]) => name));
  return (value, path, problems) => {
    const source = isObject(value) ? value : {};
    if (!isObject(value)) problems.push(`${path}: expected an object, not ${describe(value)}`);
    for (const name of Object.keys(source)) {
      if (names.has(name) || source[name] === undefined) continue;
      problems.push(`${path}.${name}: unknown field; the fields are ${[...names].join(', ')}`);
    }
    const members: [string, unknown][] = [];
    for (const [name, field] of declared) {
      const member = Object.hasOwn(source, name) ? source[name] : undefined;
      const at = path === '' ? name : `${path}.${name}`;
      if (member !== undefined) members.push([name, field.read(member, at, problems)]);
      else if (field.absent.kind === 'default') members.push([name, field.absent.value]);
      else if (field.absent.kind === 'refuse' && isObject(value)) problems.push(`${at}: is missing`);
    }
    return Object.fromEntries(members) as T;
  };
}
