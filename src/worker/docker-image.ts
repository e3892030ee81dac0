/**
 * Images: looked for on the engine, pulled only when missing.
 *
 * Invariant: one pull of an image at a time, shared by the tasks that wait for it.
 */
import { SwarmdError } from '../base/errors.ts';
import type { DockerEngine } from './docker-engine.ts';
import { engineText, pullError } from './docker-errors.ts';

/** A pull may take as long as it likes, but not be silent for longer than this. */
export const PULL_SILENCE_MS = 120_000;

/** A reference with the tag the engine would otherwise not assume. */
export function withTag(reference: string): string {
  const name = reference.slice(reference.lastIndexOf('/') + 1);
  return name.includes(':') || name.includes('@') ? reference : `${reference}:latest`;
}

/** What one line of a pull's progress says went wrong, or null. */
export function pullFailure(line: string): string | null {
  try {
    const value = JSON.parse(line) as { error?: unknown; errorDetail?: { message?: unknown } };
    const text = value.errorDetail?.message ?? value.error;
    return typeof text === 'string' ? text : null;
  } catch {
    return null;
  }
}

/** The images of one engine. */
export class DockerImages {
  readonly #engine: DockerEngine;
  readonly #setTimer: (delayMs: number, callback: () => void) => { cancel(): void };
  readonly #pulls = new Map<string, { done: Promise<void>; waiting: number; abort: AbortController }>();

  constructor(
    engine: DockerEngine,
    clock: { setTimer(delayMs: number, callback: () => void): { cancel(): void } },
  ) {
    this.#engine = engine;
    this.#setTimer = (delayMs, callback) => clock.setTimer(delayMs, callback);
  }

  /** Makes sure the image is there. NOT_FOUND, PERMISSION_DENIED or UNAVAILABLE say what to do otherwise. */
  async ensure(image: string, signal: AbortSignal): Promise<void> {
    if (image === '')
      throw new SwarmdError('INVALID_ARGUMENT', 'a container needs an image; its service has none');
    if (await this.#present(image, signal)) return;
    await this.#shared(withTag(image), signal);
  }

  async #present(image: string, signal: AbortSignal): Promise<boolean> {
    try {
      const look = (abortSignal: AbortSignal) =>
        this.#engine.docker.getImage(image).inspect({ abortSignal } as object);
      await this.#engine.call(`look for image ${image}`, signal, look);
      return true;
    } catch (error) {
      if (error instanceof SwarmdError && error.code === 'NOT_FOUND') return false;
      throw error;
    }
  }

  /** The pull goes on for as long as one caller still wants it. */
  async #shared(image: string, signal: AbortSignal): Promise<void> {
    let pull = this.#pulls.get(image);
    if (pull === undefined) {
      const abort = new AbortController();
      const done = this.#pull(image, abort).finally(() => this.#pulls.delete(image));
      done.catch(() => {});
      pull = { done, waiting: 0, abort };
      this.#pulls.set(image, pull);
    }
    const { done, abort } = pull;
    pull.waiting += 1;
    try {
      await new Promise<void>((resolve, reject) => {
        const onAbort = (): void => reject(signal.reason as Error);
        signal.addEventListener('abort', onAbort, { once: true });
        done.then(resolve, reject);
      });
    } finally {
      pull.waiting -= 1;
      if (pull.waiting === 0)
        abort.abort(new SwarmdError('CANCELLED', 'nobody waits for the image any more'));
    }
  }

  async #pull(image: string, abort: AbortController): Promise<void> {
    const what = `pull image ${image}`;
    const request = { method: 'POST' as const, path: '/images/create', query: { fromImage: image } };
    let stream: NodeJS.ReadableStream;
    try {
      stream = await this.#engine.stream(what, abort.signal, request);
    } catch (error) {
      // Some engines answer a failed pull by its status instead of in the stream.
      if (error instanceof SwarmdError && (error.code === 'NOT_FOUND' || error.code === 'RUNTIME')) {
        throw pullError(image, engineText(error.cause ?? error));
      }
      throw error;
    }
    const silence = (): { cancel(): void } =>
      this.#setTimer(PULL_SILENCE_MS, () =>
        abort.abort(new SwarmdError('UNAVAILABLE', `${what}: no progress in ${PULL_SILENCE_MS} ms`)),
      );
    let timer = silence();
    let pending = '';
    try {
      for await (const chunk of stream) {
        timer.cancel();
        timer = silence();
        pending += String(chunk);
        const lines = pending.split('\n');
        pending = lines.pop() ?? '';
        for (const line of lines) failOn(image, line);
      }
      failOn(image, pending);
    } finally {
      timer.cancel();
    }
  }
}

function failOn(image: string, line: string): void {
  const failure = pullFailure(line);
  if (failure !== null) throw pullError(image, failure);
}
