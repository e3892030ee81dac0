/**
 * A connection to another service that comes back by itself.
 *
 * Each attempt asks for the service's name anew, because the service may have moved. Attempts are spaced 0.1 s to 2 s.
 * Requests are answered in order, one at a time; a request in flight when the connection breaks is refused, and the
 * caller decides whether to repeat it.
 */
import { connect, type Socket } from 'node:net';
import { log } from './service.ts';

const DELAY_MIN_MS = 100;
const DELAY_MAX_MS = 2_000;

/** Takes one whole answer from the start of `data`, or null when it is not all there. */
export type AnswerParser<T> = (data: string) => { readonly answer: T; readonly rest: string } | null;

interface Waiting<T> {
  readonly resolve: (answer: T) => void;
  readonly reject: (error: Error) => void;
}

/** A line of requests to `host:port` that survives the restart of what answers there. */
export class Link<T> {
  readonly #host: string;
  readonly #port: number;
  readonly #parse: AnswerParser<T>;
  #socket: Socket | null = null;
  #open = false;
  #received = '';
  #delayMs = DELAY_MIN_MS;
  #closed = false;
  #waiting: Waiting<T>[] = [];
  #retry: NodeJS.Timeout | null = null;

  constructor(host: string, port: number, parse: AnswerParser<T>) {
    this.#host = host;
    this.#port = port;
    this.#parse = parse;
    this.#connect();
  }

  /** Sends `text` and resolves with its answer. Rejects when there is no connection or it breaks before. */
  request(text: string): Promise<T> {
    const socket = this.#socket;
    if (socket === null || !this.#open) {
      return Promise.reject(new Error(`${this.#host}:${this.#port} cannot be reached now`));
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      socket.write(text);
    });
  }

  close(): void {
    this.#closed = true;
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#socket?.destroy();
  }

  #connect(): void {
    const socket = connect({ host: this.#host, port: this.#port });
    this.#socket = socket;
    socket.setEncoding('utf8').setNoDelay(true);
    socket.setTimeout(5_000, () => {
      // Only the making of a connection is bounded: an answer may be long in coming.
      if (!this.#open) socket.destroy(new Error('no answer to the connection'));
    });
    socket.on('connect', () => {
      this.#open = true;
      this.#delayMs = DELAY_MIN_MS;
      log(`connected to ${this.#host} at ${socket.remoteAddress}`);
    });
    socket.on('data', (data: string) => this.#take(data));
    socket.on('error', (error) => log(`${this.#host}: ${error.message}`));
    socket.on('close', () => this.#lost());
  }

  #take(data: string): void {
    this.#received += data;
    for (let parsed = this.#parse(this.#received); parsed !== null; parsed = this.#parse(this.#received)) {
      this.#received = parsed.rest;
      this.#waiting.shift()?.resolve(parsed.answer);
    }
  }

  #lost(): void {
    this.#open = false;
    this.#received = '';
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const one of waiting) one.reject(new Error(`the connection to ${this.#host} was lost`));
    if (this.#closed) return;
    this.#retry = setTimeout(() => this.#connect(), this.#delayMs);
    this.#delayMs = Math.min(this.#delayMs * 2, DELAY_MAX_MS);
  }
}

/** Repeats `request` until it succeeds or `isStopped` says so; then it resolves with undefined. */
export async function untilDone<T>(
  request: () => Promise<T>,
  isStopped: () => boolean,
): Promise<T | undefined> {
  while (!isStopped()) {
    try {
      return await request();
    } catch {
      await new Promise((resolve) => setTimeout(resolve, DELAY_MIN_MS));
    }
  }
  return undefined;
}
