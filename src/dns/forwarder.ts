/**
 * Passes questions that are not ours to the machine's own resolvers, as raw messages.
 *
 * Owns one socket a question. Invariants: at most `inFlightMax` questions at a time, each bounded in time; an answer
 * counts only from the asked server, with the random id that was sent; the client's own id is put back.
 */
import { createSocket } from 'node:dgram';
import { connect, isIP, isIPv6 } from 'node:net';
import type { Clock } from '../base/clock.ts';
import { type Random, randomBelow } from '../base/random.ts';
import { frame, type Transport } from './listener.ts';

export interface Upstream {
  readonly host: string;
  readonly port: number;
}

/** Options of {@link DnsForwarder}. */
export interface ForwarderOptions {
  /** Time each upstream server has, milliseconds. Default 2,000. */
  readonly timeoutMs?: number;
  /** Questions under way; more are refused with SERVFAIL. Default 512. */
  readonly inFlightMax?: number;
}

const HEADER_BYTES = 12;
/** Servers of resolv.conf that are asked, as resolvers do. */
const UPSTREAMS_MAX = 3;

/** The servers a resolv.conf names: addresses only, in order, three at most. */
export function parseResolvConf(text: string): Upstream[] {
  return text
    .split('\n')
    .flatMap((line) => /^\s*nameserver\s+([^\s#;]+)/.exec(line)?.[1] ?? [])
    .filter((host) => isIP(host) !== 0)
    .slice(0, UPSTREAMS_MAX)
    .map((host) => ({ host, port: 53 }));
}

/** Forwards raw DNS messages. */
export class DnsForwarder {
  readonly #timeoutMs: number;
  readonly #inFlightMax: number;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #closing = new AbortController();
  #inFlight = 0;

  constructor(options: ForwarderOptions, deps: { readonly clock: Clock; readonly random: Random }) {
    this.#timeoutMs = options.timeoutMs ?? 2_000;
    this.#inFlightMax = options.inFlightMax ?? 512;
    this.#clock = deps.clock;
    this.#random = deps.random;
  }

  /** The first answer of `upstreams`, asked one after the other; null when none gives one. Never rejects. */
  async forward(query: Buffer, transport: Transport, upstreams: readonly Upstream[]): Promise<Buffer | null> {
    if (this.#inFlight >= this.#inFlightMax) return null;
    this.#inFlight++;
    try {
      const id = randomBelow(this.#random, 65_536);
      const message = Buffer.from(query);
      message.writeUInt16BE(id, 0);
      for (const upstream of upstreams) {
        if (this.#closing.signal.aborted) return null;
        const answer = await this.#ask(message, transport, upstream);
        if (answer === null) continue;
        query.copy(answer, 0, 0, 2);
        return answer;
      }
      return null;
    } finally {
      this.#inFlight--;
    }
  }

  /** Ends every question under way. */
  close(): void {
    this.#closing.abort();
  }

  #ask(message: Buffer, transport: Transport, upstream: Upstream): Promise<Buffer | null> {
    return new Promise((resolve) => {
      const finish = (answer: Buffer | null): void => {
        timer.cancel();
        this.#closing.signal.removeEventListener('abort', abort);
        end();
        resolve(answer);
      };
      const abort = (): void => finish(null);
      const timer = this.#clock.setTimer(this.#timeoutMs, abort);
      this.#closing.signal.addEventListener('abort', abort, { once: true });
      const end = transport === 'udp' ? askUdp(message, upstream, finish) : askTcp(message, upstream, finish);
    });
  }
}

function answers(query: Buffer, answer: Buffer): boolean {
  if (answer.length < HEADER_BYTES || (answer.readUInt8(2) & 0x80) === 0) return false;
  return answer.readUInt16BE(0) === query.readUInt16BE(0);
}

/** Asks once; calls `finish` with the answer or null. Returns how to end it. */
function askUdp(
  message: Buffer,
  { host, port }: Upstream,
  finish: (answer: Buffer | null) => void,
): () => void {
  let ended = false;
  const socket = createSocket(isIPv6(host) ? 'udp6' : 'udp4');
  socket.on('error', () => finish(null));
  socket.on('message', (answer) => {
    if (answers(message, answer)) finish(answer);
  });
  socket.connect(port, host, () => {
    if (!ended) socket.send(message, () => {});
  });
  return () => {
    if (!ended) socket.close();
    ended = true;
  };
}

function askTcp(
  message: Buffer,
  { host, port }: Upstream,
  finish: (answer: Buffer | null) => void,
): () => void {
  const socket = connect({ host, port, noDelay: true }, () => socket.write(frame(message)));
  let received: Buffer = Buffer.alloc(0);
  socket.on('error', () => finish(null));
  socket.on('close', () => finish(null));
  socket.on('data', (chunk: Buffer) => {
    received = Buffer.concat([received, chunk]);
    if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return;
    const answer = received.subarray(2, 2 + received.readUInt16BE(0));
    finish(answers(message, answer) ? answer : null);
  });
  return () => socket.destroy();
}
