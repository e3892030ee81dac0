/** Printing: tables, `--format`, ids, times and the other small forms every listing shares. */
import type { Outside } from './context.ts';
import { renderTemplate, templateFields } from './template.ts';

/** A row of a listing by field name, such as `{ID: '…', Name: 'web'}`. */
export type Row = Readonly<Record<string, string>>;

/** A column: header and the row's field. */
export type Column = readonly [header: string, field: string];

/** How a listing is asked for. */
export interface ListOptions {
  readonly format?: string | undefined;
  readonly quiet?: boolean | undefined;
}

export function printLine(outside: Outside, line: string): void {
  outside.terminal.stdout.write(`${line}\n`);
}

export function printError(outside: Outside, line: string): void {
  outside.terminal.stderr.write(`${line}\n`);
}

/** Columns padded to their widest cell, three blanks between them. */
export function formatTable(headers: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = headers.map((header, i) =>
    Math.max(header.length, ...rows.map((row) => (row[i] ?? '').length)),
  );
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => (i === headers.length - 1 ? cell : cell.padEnd((widths[i] ?? 0) + 3)))
      .join('')
      .trimEnd();
  return [line(headers), ...rows.map(line)].map((text) => `${text}\n`).join('');
}

/** Prints a listing as `--format` and `--quiet` ask. `quietField` is what `-q` prints. */
export function printList(
  outside: Outside,
  rows: readonly Row[],
  columns: readonly Column[],
  options: ListOptions,
  quietField = 'ID',
): void {
  const { stdout } = outside.terminal;
  const format = options.format ?? 'table';
  if (options.quiet === true && (format === 'table' || format === '')) {
    for (const row of rows) printLine(outside, row[quietField] ?? '');
  } else if (format === 'table' || format === '') {
    stdout.write(
      formatTable(
        columns.map(([header]) => header),
        rows.map((row) => columns.map(([, field]) => row[field] ?? '')),
      ),
    );
  } else if (format === 'json') {
    for (const row of rows) printLine(outside, JSON.stringify(row));
  } else if (format.startsWith('table ')) {
    printTemplateTable(outside, rows, columns, format.slice('table '.length));
  } else {
    for (const row of rows) printLine(outside, renderTemplate(format, row));
  }
}

function printTemplateTable(
  outside: Outside,
  rows: readonly Row[],
  columns: readonly Column[],
  template: string,
): void {
  const headers = Object.fromEntries(
    templateFields(template).map((field) => {
      const column = columns.find(([, name]) => name.toLowerCase() === field.toLowerCase());
      return [field, column?.[0] ?? field.replace(/([a-z])([A-Z])/g, '$1 $2').toUpperCase()];
    }),
  );
  const cells = (row: Row): string[] => renderTemplate(template, row).split('\t');
  outside.terminal.stdout.write(formatTable(cells(headers), rows.map(cells)));
}

/** Prints objects as `inspect` does: a JSON list, one JSON object a line, or a template for each. */
export function printInspect(
  outside: Outside,
  objects: readonly unknown[],
  format: string | undefined,
): void {
  if (format === undefined || format === '') printLine(outside, JSON.stringify(objects, null, 4));
  else if (format === 'json') for (const object of objects) printLine(outside, JSON.stringify(object));
  else for (const object of objects) printLine(outside, renderTemplate(format, object));
}

/** Characters of an id shown unless `--no-trunc`. */
export const SHORT_ID_LENGTH = 12;

export function shortId(id: string, full = false): string {
  return full ? id : id.slice(0, SHORT_ID_LENGTH);
}

/** `3 minutes`, `about an hour`: how long, in words. */
export function durationWords(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 1) return 'less than a second';
  if (seconds === 1) return '1 second';
  if (seconds < 60) return `${seconds} seconds`;
  const minutes = Math.floor(seconds / 60);
  if (minutes === 1) return 'about a minute';
  if (minutes < 60) return `${minutes} minutes`;
  const hours = Math.round(minutes / 60);
  if (hours === 1) return 'about an hour';
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 14) return `${Math.floor(hours / 24)} days`;
  if (hours < 24 * 60) return `${Math.floor(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.floor(hours / 24 / 30)} months`;
  return `${Math.floor(hours / 24 / 365)} years`;
}

/** `1m30s`, `500ms`: a duration as flags and compose files write it. */
export function durationText(ms: number): string {
  if (ms === 0) return '0s';
  if (ms < 1000) return `${ms}ms`;
  const hours = Math.floor(ms / 3_600_000);
  const minutes = Math.floor((ms % 3_600_000) / 60_000);
  const seconds = (ms % 60_000) / 1000;
  const parts = [
    hours > 0 ? `${hours}h` : '',
    minutes > 0 ? `${minutes}m` : '',
    seconds > 0 ? `${seconds}s` : '',
  ];
  return parts.join('');
}

/** `64MiB`: a size in the unit that fits. */
export function bytesText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number(value.toPrecision(4))}${units[unit] ?? ''}`;
}

/** Names in the order people expect: web.2 before web.10. */
export function naturalCompare(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true });
}

/** The short form of an image people read: without `docker.io/`, `library/` and the digest. */
export function familiarImage(image: string): string {
  const withoutDigest = image.split('@')[0] ?? '';
  return withoutDigest.replace(/^docker\.io\//, '').replace(/^library\//, '');
}
