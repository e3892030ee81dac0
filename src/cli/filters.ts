/** `--filter key=value`: parsing and matching shared by the listings. */
import type { Labels } from '../model/spec.ts';
import { UsageError } from './command.ts';

/** Values by key; several values of one key are alternatives (for labels: all must hold). */
export type Filters = ReadonlyMap<string, readonly string[]>;

/** Parses `--filter` values; refuses keys that the listing does not have. */
export function parseFilters(values: readonly string[], known: readonly string[]): Filters {
  const filters = new Map<string, string[]>();
  for (const value of values) {
    const equals = value.indexOf('=');
    const key = (equals < 0 ? value : value.slice(0, equals)).trim().toLowerCase();
    if (equals < 0) throw new UsageError(`the filter "${value}" is not KEY=VALUE`);
    if (!known.includes(key))
      throw new UsageError(`"${key}" is not a filter here; known: ${known.join(', ')}`);
    filters.set(key, [...(filters.get(key) ?? []), value.slice(equals + 1).trim()]);
  }
  return filters;
}

/** Whether any value of `key` satisfies `test`; true when the filter was not given. */
export function matchesFilter(filters: Filters, key: string, test: (value: string) => boolean): boolean {
  const values = filters.get(key);
  return values === undefined || values.some(test);
}

/** Whether all `label=name` or `label=name=value` filters hold. */
export function matchesLabels(filters: Filters, key: string, labels: Labels): boolean {
  return (filters.get(key) ?? []).every((wanted) => {
    const equals = wanted.indexOf('=');
    const name = equals < 0 ? wanted : wanted.slice(0, equals);
    return Object.hasOwn(labels, name) && (equals < 0 || labels[name] === wanted.slice(equals + 1));
  });
}
