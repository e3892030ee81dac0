/**
 * A linearizability checker after Wing & Gong with Lowe's cache (WGL): does some order of the operations, each between
 * its call and its return, explain every answer?
 *
 * Invariants: total and deterministic; an operation without an outcome (crash, time-out) may take effect at any time
 * after its call, or never; a history is cut by key first where the model says that keys do not touch one another.
 */

/** One operation of a history. Times only need an order; `returnedAt` is Infinity while the outcome is unknown. */
export interface Operation<Input, Output> {
  readonly input: Input;
  /** null: the outcome is unknown; any is possible. */
  readonly output: Output | null;
  readonly calledAt: number;
  readonly returnedAt: number;
}

/** A sequential specification. States are compared by `key`. */
export interface Model<State, Input, Output> {
  readonly initial: State;
  /** The state after the operation, or null when it could not have given this output in this state. */
  step(state: State, input: Input, output: Output | null): State | null;
  /** Equal exactly for equal states. */
  key(state: State): string;
}

export type Verdict =
  | { readonly linearizable: true }
  /** `prefix`: the largest number of operations that could be put in order. */
  | { readonly linearizable: false; readonly prefix: number }
  | { readonly linearizable: 'unknown'; readonly steps: number };

/** A node of the doubly linked list of calls and returns, in time order. */
interface Event {
  readonly operation: number;
  /** The return of a call; null for a return. */
  match: Event | null;
  previous: Event | null;
  next: Event | null;
}

/** Bits of the operations put in order so far. */
class BitSet {
  readonly words: Uint32Array;

  constructor(size: number) {
    this.words = new Uint32Array((size >> 5) + 1);
  }

  set(bit: number): void {
    this.words[bit >> 5] = (this.words[bit >> 5] as number) | (1 << (bit & 31));
  }

  clear(bit: number): void {
    this.words[bit >> 5] = (this.words[bit >> 5] as number) & ~(1 << (bit & 31));
  }

  key(): string {
    return String.fromCharCode(...new Uint16Array(this.words.buffer));
  }
}

/** Steps tried before the answer is "unknown": the search is exponential in the worst case. */
const STEPS_MAX = 50_000_000;

/** Judges one history. `stepsMax` bounds the search. */
export function checkLinearizable<State, Input, Output>(
  model: Model<State, Input, Output>,
  history: readonly Operation<Input, Output>[],
  stepsMax = STEPS_MAX,
): Verdict {
  const head = linkEvents(history);
  const done = new BitSet(history.length);
  const seen = new Set<string>();
  const stack: { call: Event; state: State }[] = [];
  let state = model.initial;
  let event = head.next;
  let longest = 0;
  let steps = 0;
  // Operations with a known return that are not in order yet; when none is left, the rest may never have happened.
  let open = history.filter((operation) => operation.returnedAt !== Number.POSITIVE_INFINITY).length;
  while (open > 0) {
    if (++steps > stepsMax) return { linearizable: 'unknown', steps };
    if (event !== null && event.match !== null) {
      const operation = history[event.operation] as Operation<Input, Output>;
      const next = model.step(state, operation.input, operation.output);
      if (next !== null) {
        done.set(event.operation);
        const key = `${done.key()}|${model.key(next)}`;
        if (!seen.has(key)) {
          seen.add(key);
          stack.push({ call: event, state });
          state = next;
          if (operation.returnedAt !== Number.POSITIVE_INFINITY) open -= 1;
          lift(event);
          longest = Math.max(longest, stack.length);
          event = head.next;
          continue;
        }
        done.clear(event.operation);
      }
      event = event.next;
      continue;
    }
    // A return whose call is not in order yet, or the end: the last choice was wrong.
    const last = stack.pop();
    if (last === undefined) return { linearizable: false, prefix: longest };
    state = last.state;
    done.clear(last.call.operation);
    if ((history[last.call.operation] as Operation<Input, Output>).returnedAt !== Number.POSITIVE_INFINITY)
      open += 1;
    unlift(last.call);
    event = last.call.next;
  }
  return { linearizable: true };
}

/** Judges each part of a history that touches others in no way; the first that fails decides. */
export function checkPartitioned<State, Input, Output>(
  model: Model<State, Input, Output>,
  history: readonly Operation<Input, Output>[],
  partOf: (input: Input) => string,
): Verdict & { readonly part?: string } {
  for (const [part, operations] of Map.groupBy(history, (operation) => partOf(operation.input))) {
    const verdict = checkLinearizable(model, operations);
    if (verdict.linearizable !== true) return { ...verdict, part };
  }
  return { linearizable: true };
}

function linkEvents(history: readonly Operation<unknown, unknown>[]): Event {
  const points: { at: number; isReturn: boolean; event: Event }[] = [];
  history.forEach((operation, index) => {
    const back: Event = { operation: index, match: null, previous: null, next: null };
    const call: Event = { operation: index, match: back, previous: null, next: null };
    points.push({ at: operation.calledAt, isReturn: false, event: call });
    points.push({ at: operation.returnedAt, isReturn: true, event: back });
  });
  // At equal times a call comes first: the two operations overlap, which allows more orders, never fewer.
  points.sort((a, b) => a.at - b.at || Number(a.isReturn) - Number(b.isReturn));
  const head: Event = { operation: -1, match: null, previous: null, next: null };
  let tail = head;
  for (const { event } of points) {
    tail.next = event;
    event.previous = tail;
    tail = event;
  }
  return head;
}

/** Takes a call and its return out of the list. */
function lift(call: Event): void {
  for (const event of [call, call.match as Event]) {
    if (event.previous !== null) event.previous.next = event.next;
    if (event.next !== null) event.next.previous = event.previous;
  }
}

/** Puts them back, in the opposite order. */
function unlift(call: Event): void {
  for (const event of [call.match as Event, call]) {
    if (event.previous !== null) event.previous.next = event;
    if (event.next !== null) event.next.previous = event;
  }
}

/** A register with read, write and compare-and-set. Values are text; null: nothing written yet. */
export type RegisterInput =
  | { readonly kind: 'read' }
  | { readonly kind: 'write'; readonly value: string }
  | { readonly kind: 'cas'; readonly from: string; readonly to: string };

/** What came back: the value read, or whether the compare-and-set took place. */
export type RegisterOutput = { readonly value: string | null } | { readonly done: boolean };

/** null: nothing was written yet. */
export interface RegisterState {
  readonly value: string | null;
}

export const registerModel: Model<RegisterState, RegisterInput, RegisterOutput> = {
  initial: { value: null },
  step(state, input, output) {
    switch (input.kind) {
      case 'read':
        return output === null || !('value' in output) || output.value === state.value ? state : null;
      case 'write':
        return { value: input.value };
      case 'cas': {
        const matches = state.value === input.from;
        if (output !== null && 'done' in output && output.done !== matches) return null;
        return matches ? { value: input.to } : state;
      }
    }
  },
  key: ({ value }) => (value === null ? 'nil' : `=${value}`),
};
