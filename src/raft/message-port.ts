/**
 * Messages between a node and a driver in different threads: what is said in one turn goes as one structured clone,
 * its bytes in one block that changes hands.
 *
 * Invariants: order is kept; the sender's byte arrays are copied, never taken (they may be views into others).
 */
import { isErrorCode, SwarmdError } from '../base/errors.ts';
import { AssertionError } from '../base/assert.ts';
import type { CommittedEntry, FromDriver, ToDriver } from './messages.ts';

type Message = ToDriver | FromDriver;

/** A turn's messages as they cross. `lengths` cut `block` into the byte arrays, in order. */
export interface PackedMessages {
  readonly messages: readonly unknown[];
  readonly lengths: readonly number[];
  readonly block: Uint8Array<ArrayBuffer>;
}

interface PackedError {
  readonly name: string;
  readonly message: string;
  readonly stack: string | undefined;
  readonly code: string | null;
  readonly details: unknown;
}

/** Packs messages; hand `block.buffer` over with them. */
export function packMessages(messages: readonly Message[]): PackedMessages {
  const parts: Uint8Array[] = [];
  const packed = messages.map((message) => packMessage(message, parts));
  let bytes = 0;
  for (const part of parts) bytes += part.length;
  const block = new Uint8Array(bytes);
  let at = 0;
  for (const part of parts) {
    block.set(part, at);
    at += part.length;
  }
  return { messages: packed, lengths: parts.map((part) => part.length), block };
}

/** What was packed. The byte arrays are views into the block. */
export function unpackMessages<T extends Message>(packed: PackedMessages): T[] {
  const { lengths, block } = packed;
  let nth = 0;
  let at = 0;
  const next = (): Uint8Array => {
    const length = lengths[nth++] ?? 0;
    at += length;
    return block.subarray(at - length, at);
  };
  return packed.messages.map((message) => unpackMessage(message as Message, next) as T);
}

const NONE = new Uint8Array(0);

/** The message without its bytes, which are appended to `parts`; errors as plain data. */
function packMessage(message: Message, parts: Uint8Array[]): unknown {
  switch (message.kind) {
    case 'propose':
      parts.push(message.data);
      return { ...message, data: NONE };
    case 'frame':
      parts.push(message.frame);
      return { ...message, frame: NONE };
    case 'snapshot':
    case 'restore':
      parts.push(message.state);
      return { ...message, state: NONE };
    case 'apply': {
      for (const { data } of message.entries) parts.push(data);
      const first = message.entries[0]?.index ?? 0;
      const proposals = message.entries.map(({ proposal }) => proposal);
      return { kind: 'apply', first, proposals, commitIndex: message.commitIndex };
    }
    case 'failed':
    case 'fatal':
    case 'read-failed':
      return { ...message, error: packError(message.error) };
    case 'called':
      return { ...message, error: message.error === null ? null : packError(message.error) };
    default:
      return message;
  }
}

function unpackMessage(message: Message, next: () => Uint8Array): Message {
  switch (message.kind) {
    case 'propose':
      return { ...message, data: next() };
    case 'frame':
      return { ...message, frame: next() };
    case 'snapshot':
    case 'restore':
      return { ...message, state: next() };
    case 'apply': {
      const { first, proposals, commitIndex } = message as unknown as {
        readonly first: number;
        readonly proposals: readonly number[];
        readonly commitIndex: number;
      };
      const entries = proposals.map(
        (proposal, i): CommittedEntry => ({ index: first + i, data: next(), proposal }),
      );
      return { kind: 'apply', entries, commitIndex };
    }
    case 'failed':
    case 'fatal':
    case 'read-failed':
      return { ...message, error: unpackError(message.error as unknown as PackedError) };
    case 'called':
      return {
        ...message,
        error: message.error === null ? null : unpackError(message.error as unknown as PackedError),
      };
    default:
      return message;
  }
}

/** An error as plain data: its class does not survive a structured clone. */
export function packError(error: Error): PackedError {
  const { name, message, stack } = error;
  const isOurs = error instanceof SwarmdError;
  return { name, message, stack, code: isOurs ? error.code : null, details: isOurs ? error.details : null };
}

/** The error that was packed: a SwarmdError, an AssertionError, or a plain one. */
export function unpackError(packed: PackedError): Error {
  const { name, message, stack, code, details } = packed;
  const error = isErrorCode(code)
    ? new SwarmdError(code, message, { details: details as Record<string, unknown> })
    : name === AssertionError.name
      ? new AssertionError(message)
      : new Error(message);
  if (stack !== undefined) error.stack = stack;
  return error;
}

/** How long "applied" may wait for other messages to go along with, milliseconds. */
const APPLIED_WAIT_MS = 5;

/**
 * Collects what is said in one turn and gives it to `send` packed, in one piece. That something was applied does not
 * wake the other side by itself: it goes along with what is said next, or a little later.
 */
export class MessageBatch {
  readonly #send: (packed: PackedMessages) => void;
  #messages: Message[] = [];
  #isQueued = false;
  #applied: Message | null = null;
  #timer: NodeJS.Timeout | null = null;

  constructor(send: (packed: PackedMessages) => void) {
    this.#send = send;
  }

  post(message: Message): void {
    if (message.kind === 'applied') {
      this.#applied = message;
      this.#timer ??= setTimeout(() => this.#flush(), APPLIED_WAIT_MS);
      return;
    }
    this.#takeApplied();
    this.#messages.push(message);
    // Somebody waits for it, and the turn may have more to do.
    if (message.kind === 'apply') return this.#flush();
    if (this.#isQueued) return;
    this.#isQueued = true;
    queueMicrotask(() => this.#flush());
  }

  /** Each "applied" covers those before it; none may be overtaken by what was said later. */
  #takeApplied(): void {
    if (this.#applied !== null) this.#messages.push(this.#applied);
    this.#applied = null;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #flush(): void {
    this.#takeApplied();
    this.#isQueued = false;
    if (this.#messages.length === 0) return;
    const messages = this.#messages;
    this.#messages = [];
    this.#send(packMessages(messages));
  }
}
