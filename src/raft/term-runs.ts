/**
 * The terms of a log's entries, in as much space as the log has terms.
 *
 * Invariant: runs are in order of their first index, and no two neighbours have the same term.
 */

interface Run {
  readonly from: number;
  readonly term: number;
}

/** Which term the entry at an index has. */
export class TermRuns {
  readonly #runs: Run[] = [];

  /** The log's entry at `index` has `term`; what was known of later ones is void. */
  set(index: number, term: number): void {
    while ((this.#runs.at(-1)?.from ?? -1) >= index) this.#runs.pop();
    if (this.#runs.at(-1)?.term !== term) this.#runs.push({ from: index, term });
  }

  /** The term at `index`, as set there or before; 0 before the first. */
  at(index: number): number {
    for (let i = this.#runs.length - 1; i >= 0; i--) {
      const run = this.#runs[i] as Run;
      if (run.from <= index) return run.term;
    }
    return 0;
  }

  /** Forgets the terms before `index`. */
  forgetBefore(index: number): void {
    let count = 0;
    while ((this.#runs[count + 1]?.from ?? Number.POSITIVE_INFINITY) <= index) count++;
    this.#runs.splice(0, count);
  }
}
