/**
 * The DNS server of a node: listens on the gateway of every task network and, if asked to, on one address for the
 * host; answers names of the cluster from the routing state and forwards the rest. The only importer of `dns2`, of
 * which it uses the message codec: its servers neither bound connections nor take listeners that come and go.
 *
 * Owns the listeners and the name table. Invariants: no message, whatever it holds, makes the server throw; a
 * listener that cannot bind is reported by `status` and tried again; answers follow the last `update`.
 */
import { readFile } from 'node:fs/promises';
import { Packet } from 'dns2';
import type { Clock, Timer } from '../base/clock.ts';
import { errorMessage, type SwarmdError, toSwarmdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { RoutingState } from '../worker/types.ts';
import { DnsForwarder, type ForwarderOptions, parseResolvConf, type Upstream } from './forwarder.ts';
import { DnsListener, type MessageOrigin } from './listener.ts';
import { MessageWriter } from './message-writer.ts';
import { type AnswerRecord, ANSWER_TTL_S, type Asker, recordTypes, resolveName } from './resolve.ts';
import { buildNameTable, type NameTable } from './table.ts';

/** Options of {@link DnsServer}. Times are milliseconds. */
export interface DnsOptions {
  /** Address for programs on the host, besides the networks' gateways; null: none. Port 0: any free one. */
  readonly host: { readonly host: string; readonly port: number } | null;
  /** Whether to answer on the networks' gateways. Default true. */
  readonly gateways?: boolean;
  /** Port on the gateways. Default 53, where containers ask. */
  readonly gatewayPort?: number;
  /** Servers for names that are not ours. Default: those of `resolvConfPath`. */
  readonly upstreams?: readonly Upstream[];
  /** Default /etc/resolv.conf; read once, at the start. */
  readonly resolvConfPath?: string;
  readonly forwarder?: ForwarderOptions;
  /** Time between tries to listen where it failed. Default 1,000; 200 while the address does not exist yet. */
  readonly retryMs?: number;
}

/** What {@link DnsServer} works with. */
export interface DnsDependencies {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** Network ids of the local task with an address, or null: tasks that have no endpoint record yet ask, too. */
  readonly networksOf?: (address: string) => readonly string[] | null;
}

/** One address the server listens on, or tries to. */
export interface DnsListenerStatus {
  readonly host: string;
  /** The bound port once it listens. */
  readonly port: number;
  /** Null: the host's own listener. */
  readonly networkId: string | null;
  readonly state: 'listening' | 'failed' | 'starting';
  readonly error: string;
}

interface Binding {
  readonly networkId: string | null;
  readonly host: string;
  readonly port: number;
  listener: DnsListener | null;
  error: SwarmdError | null;
  opening: Promise<void> | null;
  timer: Timer | null;
  closed: boolean;
}

const MISSING_ADDRESS_RETRY_MS = 200;
const HEADER_BYTES = 12;
/** Largest answer over UDP, bytes: without EDNS, and the most that is never fragmented. */
const UDP_BYTES = 512;
const UDP_BYTES_MAX = 1_232;
const TCP_BYTES_MAX = 65_535;
/** Fewest bytes a record takes: a pointer to the name, type, class, TTL, length and an IPv4 address. */
const RECORD_BYTES_MIN = 16;
const EMPTY_ROUTING: RoutingState = { networks: new Map(), services: new Map(), endpoints: new Map() };

/** The DNS server. `start` it, give it every routing state, `close` it. */
export class DnsServer {
  readonly #options: DnsOptions;
  readonly #deps: DnsDependencies;
  readonly #forwarder: DnsForwarder;
  /** By `host:port`. */
  readonly #bindings = new Map<string, Binding>();
  #upstreams: readonly Upstream[] = [];
  #routing: RoutingState = EMPTY_ROUTING;
  /** Null: to be built from the routing state at the next question. */
  #table: NameTable | null = null;
  #closed = false;

  constructor(options: DnsOptions, deps: DnsDependencies) {
    this.#options = options;
    this.#deps = deps;
    this.#forwarder = new DnsForwarder(options.forwarder ?? {}, deps);
  }

  /** Reads the resolvers and binds the host's address. Rejects with PORT_IN_USE or PERMISSION_DENIED naming it. */
  async start(): Promise<void> {
    this.#upstreams = this.#options.upstreams ?? (await this.#readUpstreams());
    const { host } = this.#options;
    if (host === null) return;
    const binding = this.#bind(null, host.host, host.port);
    await binding.opening;
    if (binding.error !== null) throw binding.error;
  }

  /** Takes the new routing state: answers follow it at once, listeners as the addresses come to exist. */
  update(routing: RoutingState): void {
    this.#routing = routing;
    this.#table = null;
    if (this.#closed || this.#options.gateways === false) return;
    const wanted = new Map<string, { readonly host: string; readonly networkId: string }>();
    for (const network of routing.networks.values()) {
      const host = network.gateway.split('/', 1)[0] as string;
      if (host !== '') wanted.set(host, { host, networkId: network.id });
    }
    for (const [key, binding] of this.#bindings) {
      if (binding.networkId === null || wanted.get(binding.host)?.networkId === binding.networkId) continue;
      this.#bindings.delete(key);
      void this.#unbind(binding);
    }
    const port = this.#options.gatewayPort ?? 53;
    for (const { host, networkId } of wanted.values()) {
      if (!this.#bindings.has(`${host}:${port}`)) this.#bind(networkId, host, port);
    }
  }

  /** Tries at once what failed to listen, as after networks were made. */
  retry(): void {
    for (const binding of this.#bindings.values()) {
      if (binding.timer === null) continue;
      binding.timer.cancel();
      this.#open(binding);
    }
  }

  /** Every address with its state. */
  status(): DnsListenerStatus[] {
    return [...this.#bindings.values()].map(({ networkId, host, port, listener, error }) => ({
      host,
      port: listener?.port ?? port,
      networkId,
      state: listener !== null ? 'listening' : error !== null ? 'failed' : 'starting',
      error: error?.message ?? '',
    }));
  }

  /** Closes every listener and ends what is being forwarded. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#forwarder.close();
    await Promise.all([...this.#bindings.values()].map((binding) => this.#unbind(binding)));
    this.#bindings.clear();
  }

  async #readUpstreams(): Promise<Upstream[]> {
    const path = this.#options.resolvConfPath ?? '/etc/resolv.conf';
    try {
      return parseResolvConf(await readFile(path, 'utf8'));
    } catch (error) {
      this.#deps.logger.warn('no resolvers: names outside the cluster cannot be answered', { path, error });
      return [];
    }
  }

  #bind(networkId: string | null, host: string, port: number): Binding {
    const binding: Binding = {
      networkId,
      host,
      port,
      listener: null,
      error: null,
      opening: null,
      timer: null,
      closed: false,
    };
    this.#bindings.set(`${host}:${port}`, binding);
    this.#open(binding);
    return binding;
  }

  #open(binding: Binding): void {
    const { logger, clock } = this.#deps;
    const { host, port, networkId } = binding;
    binding.timer = null;
    const open = async (): Promise<void> => {
      try {
        const listener = await DnsListener.open(host, port, (message, origin) =>
          this.#handle(message, origin, networkId),
        );
        if (binding.closed) await listener.close();
        else binding.listener = listener;
        binding.error = null;
        logger.info('DNS server listens', { host, port: listener.port });
      } catch (cause) {
        const error = toSwarmdError(cause);
        const missing = error.code === 'UNAVAILABLE';
        if (!missing && binding.error?.message !== error.message) {
          logger.warn('DNS server cannot listen', { host, port, code: error.code, error });
        }
        binding.error = error;
        if (binding.closed) return;
        const delayMs = missing ? MISSING_ADDRESS_RETRY_MS : (this.#options.retryMs ?? 1_000);
        binding.timer = clock.setTimer(delayMs, () => this.#open(binding));
      }
    };
    binding.opening = open().finally(() => {
      binding.opening = null;
    });
  }

  async #unbind(binding: Binding): Promise<void> {
    binding.closed = true;
    binding.timer?.cancel();
    binding.timer = null;
    await binding.opening;
    await binding.listener?.close();
    binding.listener = null;
  }

  /** Answers one raw message. Never rejects. */
  async #handle(message: Buffer, origin: MessageOrigin, networkId: string | null): Promise<Buffer | null> {
    const refusal = screen(message);
    if (refusal === 'ignore') return null;
    if (refusal !== null) return bareAnswer(message, refusal);
    try {
      const query = Packet.parse(message);
      const question = query.questions[0];
      if (question === undefined || query.errors.length > 0) return bareAnswer(message, 'FORMERR');
      if (question.class !== Packet.CLASS.IN && question.class !== Packet.CLASS.ANY) {
        return bareAnswer(message, 'REFUSED');
      }
      this.#table ??= buildNameTable(this.#routing);
      const asker = this.#asker(origin, networkId);
      const resolution = resolveName(this.#table, asker, question, this.#deps.random);
      switch (resolution.kind) {
        case 'answer':
          return encodeAnswer(query, 'NOERROR', resolution.records, resolution.extra, origin);
        case 'unknown-name':
          return encodeAnswer(query, 'NXDOMAIN', [], [], origin);
        case 'forward':
          return await this.#forward(message, question.name, origin);
      }
    } catch (error) {
      this.#deps.logger.debug('a DNS message could not be answered', { error: errorMessage(error) });
      return bareAnswer(message, 'SERVFAIL');
    }
  }

  #asker({ address }: MessageOrigin, networkId: string | null): Asker {
    if (networkId === null) return { kind: 'host' };
    return { kind: 'container', networkId, address, networkIds: this.#deps.networksOf?.(address) ?? null };
  }

  async #forward(message: Buffer, name: string, origin: MessageOrigin): Promise<Buffer> {
    const upstreams = this.#upstreams.filter((upstream) => !this.#isOwn(upstream));
    // Without anyone to ask, a single label can only have been meant for us.
    if (upstreams.length === 0) return bareAnswer(message, name.includes('.') ? 'SERVFAIL' : 'NXDOMAIN');
    const answer = await this.#forwarder.forward(message, origin.transport, upstreams);
    return answer ?? bareAnswer(message, 'SERVFAIL');
  }

  /** Whether a question sent there would come back to this server. */
  #isOwn(upstream: Upstream): boolean {
    return [...this.#bindings.values()].some(({ host, port, listener }) => {
      if ((listener?.port ?? port) !== upstream.port) return false;
      return host === upstream.host || ((host === '0.0.0.0' || host === '::') && isLoopback(upstream.host));
    });
  }
}

function isLoopback(host: string): boolean {
  return host.startsWith('127.') || host === '::1';
}

type Rcode = 'NOERROR' | 'FORMERR' | 'SERVFAIL' | 'NXDOMAIN' | 'NOTIMP' | 'REFUSED';

/**
 * Judges a message by its header before anything is decoded: one question and at most two additional records, so
 * that decoding is short whatever the rest says. Null: it may be decoded.
 */
function screen(message: Buffer): 'ignore' | Rcode | null {
  if (message.length < HEADER_BYTES) return 'ignore';
  const flags = message.readUInt8(2);
  // An answer that is answered could go to and fro for ever.
  if ((flags & 0x80) !== 0) return 'ignore';
  if ((flags & 0x78) !== 0) return 'NOTIMP';
  const [questions, answers, authorities, additionals] = [4, 6, 8, 10].map((at) => message.readUInt16BE(at));
  if (questions !== 1 || answers !== 0 || authorities !== 0 || (additionals ?? 0) > 2) return 'FORMERR';
  return null;
}

/** An answer that holds nothing but the code; it carries the question back when that is plain. */
function bareAnswer(message: Buffer, rcode: Rcode): Buffer {
  const question = rcode === 'FORMERR' || rcode === 'NOTIMP' ? null : questionBytes(message);
  const answer = Buffer.concat([Buffer.alloc(HEADER_BYTES), question ?? Buffer.alloc(0)]);
  message.copy(answer, 0, 0, 2);
  const recursionDesired = message.readUInt8(2) & 0x01;
  answer.writeUInt8(0x80 | (message.readUInt8(2) & 0x78) | recursionDesired, 2);
  answer.writeUInt8(0x80 | Packet.RCODE[rcode], 3);
  answer.writeUInt16BE(question === null ? 0 : 1, 4);
  return answer;
}

/** The first question as it came, null when its name is compressed or cut short. */
function questionBytes(message: Buffer): Buffer | null {
  let at = HEADER_BYTES;
  for (;;) {
    const length = message[at];
    if (length === undefined || length > 63) return null;
    at += length + 1;
    if (length === 0) break;
  }
  return at + 4 <= message.length ? message.subarray(HEADER_BYTES, at + 4) : null;
}

/** Encodes an answer within the size the client takes; where records had to go, the truncation bit says so. */
function encodeAnswer(
  query: Packet,
  rcode: Rcode,
  records: readonly AnswerRecord[],
  extra: readonly AnswerRecord[],
  origin: MessageOrigin,
): Buffer {
  const edns = query.additionals.find((record) => record.type === Packet.TYPE.EDNS);
  const bytesMax =
    origin.transport === 'tcp'
      ? TCP_BYTES_MAX
      : edns === undefined
        ? UDP_BYTES
        : Math.min(Math.max(edns.class, UDP_BYTES), UDP_BYTES_MAX);
  const encode = (count: number, withExtra: boolean): Buffer => {
    const answer = new Packet();
    answer.header = new Packet.Header({
      id: query.header.id,
      qr: 1,
      aa: 1,
      tc: count < records.length ? 1 : 0,
      rd: query.header.rd,
      ra: 1,
      rcode: Packet.RCODE[rcode],
    });
    answer.questions = query.questions;
    answer.answers = records.slice(0, count).map(toResource);
    answer.additionals = withExtra ? extra.map(toResource) : [];
    if (edns !== undefined) {
      answer.additionals.push(Packet.Resource.EDNS([], { udpPayloadSize: UDP_BYTES_MAX }));
    }
    return (answer.toBuffer as (writer: MessageWriter) => Buffer).call(answer, new MessageWriter());
  };
  const whole = encode(Math.min(records.length, Math.floor(bytesMax / RECORD_BYTES_MIN)), extra.length > 0);
  if (whole.length <= bytesMax && whole.length > 0) return whole;
  let count = Math.min(records.length, Math.floor(bytesMax / RECORD_BYTES_MIN));
  for (;;) {
    const cut = encode(count, false);
    if (cut.length <= bytesMax || count === 0) return cut;
    count = Math.max(0, count - Math.max(1, Math.ceil((cut.length - bytesMax) / RECORD_BYTES_MIN / 2)));
  }
}

function toResource(record: AnswerRecord): Packet['answers'][number] {
  const base = { name: record.name, class: Packet.CLASS.IN, ttl: ANSWER_TTL_S };
  switch (record.type) {
    case 'A':
    case 'AAAA':
      return new Packet.Resource({ ...base, type: recordTypes[record.type], address: record.address });
    case 'PTR':
      return new Packet.Resource({ ...base, type: recordTypes.PTR, domain: record.target });
    case 'SRV': {
      const place = { priority: 0, weight: 0, port: record.port, target: record.target };
      return new Packet.Resource({ ...base, type: recordTypes.SRV, ...place });
    }
  }
}
