/**
 * Figures of several runs, and how they are printed: every benchmark reports medians with the least and the most.
 */
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release } from 'node:os';

/** Median, least and most of several runs. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly runs: number;
}

/** The spread of one or more samples. Throws on none. */
export function spreadOf(samples: readonly number[]): Spread {
  const sorted = samples.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle];
  if (upper === undefined) throw new Error('a spread needs at least one sample');
  const median = sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? upper)) / 2;
  return { median, min: sorted[0] ?? median, max: sorted.at(-1) ?? median, runs: sorted.length };
}

const DIGITS = (value: number): number => (Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2);

/** `123 ms (110..140, 3 runs)`; with one run the figure alone. `scale` divides before printing. */
export function spreadText(spread: Spread, unit: string, scale = 1): string {
  const [median, min, max] = [spread.median, spread.min, spread.max].map((value) => value / scale);
  const text = (value = 0): string => value.toFixed(DIGITS(median ?? 0));
  if (spread.runs === 1) return `${text(median)} ${unit}`;
  return `${text(median)} ${unit} (${text(min)}..${text(max)}, ${spread.runs} runs)`;
}

/** Milliseconds as `ms`, from ten seconds on as `s`. */
export function msText(spread: Spread): string {
  return spread.median >= 10_000 ? spreadText(spread, 's', 1_000) : spreadText(spread, 'ms');
}

/** `1.25` for how many times `spread` is `base`, by the medians. */
export function ratioText(spread: Spread, base: Spread): string {
  return (spread.median / base.median).toFixed(2);
}

/** Prints rows in columns as wide as their widest cell; the first row is the heading. */
export function printTable(rows: readonly (readonly string[])[]): void {
  const widths: number[] = [];
  for (const row of rows)
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  for (const row of rows) {
    const line = row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('   ');
    process.stdout.write(`${line.trimEnd()}\n`);
  }
}

/** Prints a line. */
export function print(line = ''): void {
  process.stdout.write(`${line}\n`);
}

/** Load above which figures say more of the machine's other work than of what is measured. */
const QUIET_LOAD_MAX = 1.5;

/** Prints what is measured and on what machine, with a warning when the machine is busy already. */
export function printHeading(title: string): void {
  const model = cpus()[0]?.model.trim() ?? 'unknown';
  const [load = 0] = loadavg();
  print(`== ${title}`);
  print(
    `   ${availableParallelism()} cores (${model}), Linux ${release()}, Node ${process.versions.node}, ` +
      `load ${load.toFixed(2)}, ${new Date().toISOString().slice(0, 16)}Z`,
  );
  if (load > QUIET_LOAD_MAX)
    print('   BUSY MACHINE: these figures are taken under load; repeat them on a quiet one.');
  print();
}

/** Resident memory of a process in bytes: all of it, and what is its own rather than mapped files. */
export function memoryOf(pid: number): { readonly rss: number; readonly anonymous: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const bytes = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0) * 1024;
  return { rss: bytes('VmRSS'), anonymous: bytes('RssAnon') };
}

/** Processor seconds a process has used so far, its own and the kernel's for it. */
export function processorSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  // Clock ticks are hundredths of a second on Linux.
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
