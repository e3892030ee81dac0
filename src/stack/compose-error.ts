/** Errors and warnings about compose files: always with the file, the line and what to do. */
import { SwarmdError } from '../base/errors.ts';

interface MarkLike {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

/** An error of code COMPOSE whose message starts with `file:line:`. */
export function composeError(
  mark: MarkLike,
  message: string,
  options: { cause?: unknown } = {},
): SwarmdError {
  return new SwarmdError('COMPOSE', `${mark.file}:${mark.line}: ${message}`, {
    details: { file: mark.file, line: mark.line, column: mark.column },
    ...options,
  });
}

/** The entry of `known` nearest to `given` by edit distance, or null when none is near enough to be meant. */
export function nearestName(given: string, known: Iterable<string>): string | null {
  let best: string | null = null;
  let bestDistance = Math.max(1, Math.floor(given.length / 3)) + 1;
  for (const name of known) {
    const distance = editDistance(given.toLowerCase(), name.toLowerCase());
    if (distance < bestDistance) {
      best = name;
      bestDistance = distance;
    }
  }
  return best;
}

/** `did you mean "x"?` with a leading space, or '' when nothing is near. */
export function didYouMean(given: string, known: Iterable<string>): string {
  const near = nearestName(given, known);
  return near === null ? '' : ` Did you mean "${near}"?`;
}

/** Edits (insert, delete, replace, swap of neighbours) that turn `a` into `b`. */
function editDistance(a: string, b: string): number {
  let beforePrevious: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      let value = Math.min(
        (previous[j] as number) + 1,
        (row[j - 1] as number) + 1,
        (previous[j - 1] as number) + cost,
      );
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        value = Math.min(value, (beforePrevious[j - 2] as number) + 1);
      }
      row.push(value);
    }
    beforePrevious = previous;
    previous = row;
  }
  return previous[b.length] as number;
}
