/** Waiting for services: polls the daemon and shows the progress view until it settles. */
import { sleep } from '../base/clock.ts';
import { SwarmdError } from '../base/errors.ts';
import type { ServiceView } from '../model/api.ts';
import type { Task } from '../model/objects.ts';
import type { ApiConnection, Outside } from './context.ts';
import { durationWords, printError, printLine } from './output.ts';
import { progressView, type ProgressView } from './progress-view.ts';

/** Time between two looks. */
const POLL_MS = 200;

/** Time a global service without tasks is given to find its nodes. */
const GLOBAL_SETTLE_MS = 3_000;

export interface WaitOptions {
  readonly quiet: boolean;
  /** An automatic rollback counts as failure. */
  readonly strict: boolean;
  /** Watch for the update's monitor time once everything runs. */
  readonly verify: boolean;
  /** Give up after this long; null: never. */
  readonly timeoutMs: number | null;
}

export type WaitOutcome =
  | { readonly kind: 'converged' }
  | { readonly kind: 'rolled-back'; readonly message: string }
  | { readonly kind: 'paused'; readonly message: string }
  | { readonly kind: 'timeout'; readonly message: string }
  | { readonly kind: 'interrupted' };

/** Exit code of an outcome. */
export function exitCodeOf(outcome: WaitOutcome, strict: boolean): number {
  switch (outcome.kind) {
    case 'converged':
    case 'interrupted':
      return 0;
    case 'rolled-back':
      return strict ? 1 : 0;
    default:
      return 1;
  }
}

interface Watch {
  readonly view: ProgressView;
  readonly service: ServiceView;
}

async function look(api: ApiConnection, ref: string, signal: AbortSignal): Promise<Watch> {
  const service = await api.call('service.inspect', { ref }, { signal });
  const [tasks, nodes] = await Promise.all([
    api.call('task.list', { service: service.id, node: null, stack: null }, { signal }),
    api.call('node.list', {}, { signal }),
  ]);
  return { service, view: progressView(service, tasks as readonly Task[], nodes) };
}

/** Waits until the service `ref` has settled and prints how it goes. */
export async function waitForService(
  outside: Outside,
  api: ApiConnection,
  ref: string,
  options: WaitOptions,
): Promise<WaitOutcome> {
  const screen = new ProgressScreen(outside, options.quiet);
  const startedAt = outside.clock.monotonicMs();
  let stableSince: number | null = null;
  try {
    for (;;) {
      const { view, service } = await look(api, ref, outside.interrupt);
      const now = outside.clock.monotonicMs();
      const ended = endOf(view);
      if (ended !== null) {
        screen.finish(
          view,
          ended.kind === 'paused'
            ? `service ${service.spec.name} paused: ${ended.message}`
            : `rolled back: ${ended.message}`,
        );
        return ended;
      }
      const empty =
        view.wanted === 0 && service.spec.mode.kind === 'global' && now - startedAt < GLOBAL_SETTLE_MS;
      if (view.state !== 'converged' || empty) stableSince = null;
      else {
        stableSince ??= now;
        const verifyMs = options.verify ? Math.max(0, service.spec.update.monitorMs) : 0;
        const left = stableSince + verifyMs - now;
        if (left <= 0) {
          screen.finish(view, `verify: service ${service.spec.name} converged`);
          return { kind: 'converged' };
        }
        screen.show(view, `verify: waiting ${durationWords(left + 999)} to see that the tasks are stable`);
      }
      if (stableSince === null) screen.show(view, '');
      if (options.timeoutMs !== null && now - startedAt > options.timeoutMs) {
        const why = view.errors.at(-1) ?? `${view.done} of ${view.wanted} tasks run`;
        return {
          kind: 'timeout',
          message: `service ${service.spec.name} did not settle in ${durationWords(options.timeoutMs)}: ${why}`,
        };
      }
      await sleep(outside.clock, POLL_MS, outside.interrupt);
    }
  } catch (error) {
    if (!outside.interrupt.aborted) throw error;
    screen.detach();
    return { kind: 'interrupted' };
  }
}

function endOf(view: ProgressView): (WaitOutcome & { message: string }) | null {
  switch (view.state) {
    case 'paused':
    case 'rollback-paused':
      return { kind: 'paused', message: view.message };
    case 'rolled-back':
      return { kind: 'rolled-back', message: view.message };
    default:
      return null;
  }
}

/** Draws views: over the last one on a terminal, otherwise only lines that say something new. */
class ProgressScreen {
  readonly #outside: Outside;
  readonly #quiet: boolean;
  readonly #errors = new Set<string>();
  #drawn = 0;
  #last = '';

  constructor(outside: Outside, quiet: boolean) {
    this.#outside = outside;
    this.#quiet = quiet;
  }

  show(view: ProgressView, note: string): void {
    if (this.#quiet) return;
    const { terminal } = this.#outside;
    if (!terminal.isTty) {
      this.#plain(
        view,
        note === '' ? '' : note.replace(/\d+ seconds?|about a minute|\d+ minutes/, 'a moment'),
      );
      return;
    }
    const width = Math.max(20, terminal.columns);
    const lines = [...view.lines, ...(note === '' ? [] : [note])].map((line) => line.slice(0, width - 1));
    const text = `${this.#up()}${lines.map((line) => `\r\u001B[2K${line}\n`).join('')}\u001B[J`;
    this.#drawn = lines.length;
    terminal.stdout.write(text);
  }

  finish(view: ProgressView, note: string): void {
    this.show(view, note);
  }

  /** Ctrl-C: the lines drawn stay. */
  detach(): void {
    this.#drawn = 0;
  }

  #up(): string {
    return this.#drawn === 0 ? '' : `\u001B[${this.#drawn}A`;
  }

  #plain(view: ProgressView, note: string): void {
    for (const line of [view.lines[0] ?? '', note]) {
      if (line === '' || line === this.#last) continue;
      if (line === view.lines[0] && this.#last.startsWith('verify') && note !== '') continue;
      this.#last = line;
      printLine(this.#outside, line);
    }
    for (const error of view.errors) {
      if (this.#errors.has(error)) continue;
      this.#errors.add(error);
      printLine(this.#outside, `  ${error}`);
    }
  }
}

/** Prints what came out of a wait and gives the exit code. */
export function reportOutcome(
  outside: Outside,
  outcome: WaitOutcome,
  strict: boolean,
  again: string,
): number {
  if (outcome.kind === 'interrupted') {
    printError(outside, `The work goes on without this command. To look: ${again}`);
  } else if (outcome.kind !== 'converged') printError(outside, `Error: ${outcome.message}`);
  return exitCodeOf(outcome, strict);
}

/** Waits for several services at once; the worst outcome's exit code. */
export async function waitForServices(
  outside: Outside,
  api: ApiConnection,
  refs: readonly string[],
  options: WaitOptions,
): Promise<readonly { readonly ref: string; readonly outcome: WaitOutcome }[]> {
  const quiet = { ...options, quiet: true };
  return Promise.all(
    refs.map(async (ref) => {
      try {
        const outcome = await waitForService(outside, api, ref, quiet);
        if (!options.quiet)
          printLine(outside, `${ref}: ${outcome.kind === 'converged' ? 'running' : outcome.kind}`);
        return { ref, outcome };
      } catch (error) {
        if (!(error instanceof SwarmdError) || error.code !== 'NOT_FOUND') throw error;
        return {
          ref,
          outcome: { kind: 'timeout', message: `service ${ref} was removed meanwhile` } as const,
        };
      }
    }),
  );
}
