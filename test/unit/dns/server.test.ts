import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { systemClock } from '../../../src/base/clock.ts';
import { SwarmdError } from '../../../src/base/errors.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { seededRandom } from '../../../src/base/random.ts';
import { parseResolvConf } from '../../../src/dns/forwarder.ts';
import { type DnsDependencies, type DnsOptions, DnsServer } from '../../../src/dns/server.ts';
import { freePort } from '../../support/free-port.ts';
import { endpoint, network, routing, service } from '../../support/routing.ts';
import { waitFor } from '../../support/wait.ts';

const TYPE_A = 1;
const TYPE_AAAA = 28;

interface Answer {
  readonly id: number;
  readonly rcode: number;
  readonly truncated: boolean;
  readonly authoritative: boolean;
  readonly addresses: string[];
  readonly ttls: number[];
}

/** A question as a resolver sends it; `ednsBytes` adds an OPT record. */
function question(name: string, type = TYPE_A, ednsBytes = 0, id = 4711): Buffer {
  const header = Buffer.alloc(12);
  header.writeUInt16BE(id, 0);
  header.writeUInt16BE(0x0100, 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(ednsBytes === 0 ? 0 : 1, 10);
  const labels = name.split('.').filter((label) => label !== '');
  const encoded = labels.flatMap((label) => [Buffer.from([label.length]), Buffer.from(label, 'latin1')]);
  const tail = Buffer.from([0, type >> 8, type & 255, 0, 1]);
  const opt = Buffer.from([0, 0, 41, ednsBytes >> 8, ednsBytes & 255, 0, 0, 0, 0, 0, 0]);
  return Buffer.concat([header, ...encoded, tail, ...(ednsBytes === 0 ? [] : [opt])]);
}

/** Reads an answer whose names are compressed or literal. */
function parse(message: Buffer): Answer {
  const skipName = (at: number): number => {
    for (;;) {
      const length = message.readUInt8(at);
      if (length >= 0xc0) return at + 2;
      at += length + 1;
      if (length === 0) return at;
    }
  };
  const flags = message.readUInt16BE(2);
  let at = 12;
  for (let i = 0; i < message.readUInt16BE(4); i++) at = skipName(at) + 4;
  const addresses: string[] = [];
  const ttls: number[] = [];
  for (let i = 0; i < message.readUInt16BE(6); i++) {
    at = skipName(at);
    const length = message.readUInt16BE(at + 8);
    ttls.push(message.readUInt32BE(at + 4));
    if (message.readUInt16BE(at) === TYPE_A) addresses.push(message.subarray(at + 10, at + 14).join('.'));
    at += 10 + length;
  }
  return {
    id: message.readUInt16BE(0),
    rcode: flags & 15,
    truncated: (flags & 0x0200) !== 0,
    authoritative: (flags & 0x0400) !== 0,
    addresses,
    ttls,
  };
}

async function udpExchange(
  port: number,
  message: Buffer,
  host = '127.0.0.1',
  from?: string,
): Promise<Buffer> {
  const socket = createSocket('udp4');
  try {
    if (from !== undefined) {
      socket.bind(0, from);
      await once(socket, 'listening');
    }
    socket.send(message, port, host);
    const [answer] = await once(socket, 'message', { signal: AbortSignal.timeout(5_000) });
    return answer as Buffer;
  } finally {
    socket.close();
  }
}

/** Sends framed messages on one connection, in pieces of `pieceBytes`, and reads as many answers. */
async function tcpExchange(port: number, messages: readonly Buffer[], pieceBytes = 1_000): Promise<Buffer[]> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  const framed = Buffer.concat(
    messages.map((message) =>
      Buffer.concat([Buffer.from([message.length >> 8, message.length & 255]), message]),
    ),
  );
  for (let at = 0; at < framed.length; at += pieceBytes) {
    await new Promise((resolve) => socket.write(framed.subarray(at, at + pieceBytes), resolve));
  }
  socket.end();
  const chunks: Buffer[] = [];
  for await (const chunk of socket as AsyncIterable<Buffer>) chunks.push(chunk);
  const all = Buffer.concat(chunks);
  const answers: Buffer[] = [];
  for (let at = 0; at < all.length; at += 2 + all.readUInt16BE(at)) {
    answers.push(all.subarray(at + 2, at + 2 + all.readUInt16BE(at)));
  }
  return answers;
}

async function startServer(
  t: TestContext,
  options: Partial<DnsOptions> = {},
  deps: Partial<DnsDependencies> = {},
): Promise<{ readonly server: DnsServer; readonly port: number }> {
  const server = new DnsServer(
    { host: { host: '127.0.0.1', port: 0 }, gateways: false, upstreams: [], ...options },
    { clock: systemClock(), random: seededRandom(1), logger: silentLogger, ...deps },
  );
  t.after(() => server.close());
  await server.start();
  return { server, port: server.status().find(({ networkId }) => networkId === null)?.port ?? 0 };
}

/** A service `web` with `count` tasks on one network. */
function webTasks(count: number): Parameters<typeof routing>[0] {
  const app = network('app', 4097, { subnet: '10.16.0.0/16', gateway: '10.16.255.1/16' });
  return {
    networks: [app],
    services: [service('web')],
    endpoints: Array.from({ length: count }, (_, index) =>
      endpoint('web', index + 1, { on: [[app, `10.16.${Math.floor(index / 250)}.${(index % 250) + 1}`]] }),
    ),
  };
}

test('answers over UDP and TCP follow every update', async (t) => {
  const { server, port } = await startServer(t);
  server.update(routing(webTasks(2)));
  const answer = parse(await udpExchange(port, question('web')));
  assert.deepEqual(answer.addresses.toSorted(), ['10.16.0.1', '10.16.0.2']);
  assert.deepEqual([answer.id, answer.rcode, answer.authoritative], [4711, 0, true]);
  assert.deepEqual(answer.ttls, [1, 1]);
  server.update(routing(webTasks(3)));
  const [overTcp] = await tcpExchange(port, [question('tasks.web')]);
  assert.equal(parse(overTcp as Buffer).addresses.length, 3);
  server.update(routing(webTasks(0)));
  assert.deepEqual(parse(await udpExchange(port, question('web'))).addresses, []);
});

test('AAAA of a known name is an empty NOERROR, an unknown name of ours NXDOMAIN', async (t) => {
  const { server, port } = await startServer(t);
  server.update(routing(webTasks(1)));
  const empty = parse(await udpExchange(port, question('web', TYPE_AAAA)));
  assert.deepEqual([empty.rcode, empty.addresses], [0, []]);
  assert.equal(parse(await udpExchange(port, question('tasks.nobody'))).rcode, 3);
});

test('an answer that does not fit is cut and marked; TCP gives all of it', async (t) => {
  const { server, port } = await startServer(t);
  server.update(routing(webTasks(600)));
  for (const [ednsBytes, limit] of [
    [0, 512],
    [100, 512],
    [1_000, 1_000],
    [4_096, 1_232],
  ] as const) {
    const message = await udpExchange(port, question('web', TYPE_A, ednsBytes));
    assert.ok(message.length <= limit, `${message.length} > ${limit}`);
    assert.ok(message.length > limit - 32, `${message.length} bytes leave room in ${limit}`);
    assert.ok(parse(message).truncated);
  }
  const [whole] = await tcpExchange(port, [question('web')]);
  const answer = parse(whole as Buffer);
  assert.equal(new Set(answer.addresses).size, 600);
  assert.equal(answer.truncated, false);
});

test('TCP: many questions on one connection, in pieces of any size', async (t) => {
  const { server, port } = await startServer(t);
  server.update(routing(webTasks(2)));
  const questions = Array.from({ length: 40 }, (_, index) => question('web', TYPE_A, 0, index));
  for (const pieceBytes of [7, 10_000]) {
    const answers = await tcpExchange(port, questions, pieceBytes);
    assert.deepEqual(
      answers.map((answer) => parse(answer).id).toSorted((a, b) => a - b),
      questions.map((_, index) => index),
    );
  }
});

test('whatever bytes arrive, the server goes on answering', async (t) => {
  const { server, port } = await startServer(t);
  server.update(routing(webTasks(2)));
  const random = seededRandom(99);
  const valid = question('web', TYPE_A, 1_232);
  const socket = createSocket('udp4');
  t.after(() => socket.close());
  const fuzzed = Array.from({ length: 3_000 }, (_, round): Buffer => {
    if (round % 3 === 0)
      return Buffer.from(Array.from({ length: random.uint32() % 600 }, () => random.uint32() & 255));
    const message = Buffer.from(
      valid.subarray(0, round % 3 === 1 ? valid.length : random.uint32() % valid.length),
    );
    for (let i = 0; i < 1 + (random.uint32() % 4); i++) {
      if (message.length > 0) message[random.uint32() % message.length] = random.uint32() & 255;
    }
    return message;
  });
  for (const [index, message] of fuzzed.entries()) {
    socket.send(message, port, '127.0.0.1');
    // A full receive buffer would drop what is to be tested: let the server read.
    if (index % 8 === 0) await nextTurn();
    if (index % 200 === 0) assert.equal(parse(await udpExchange(port, question('web'))).addresses.length, 2);
  }
  // A name that points at itself, and one made of pointers only.
  for (const tail of [
    [0xc0, 12, 0, 1, 0, 1],
    [0xc0, 14, 0xc0, 12, 0, 1, 0, 1],
  ]) {
    const message = Buffer.concat([valid.subarray(0, 10), Buffer.from([0, 0]), Buffer.from(tail)]);
    assert.equal(parse(await udpExchange(port, message)).rcode, 1);
  }
  // TCP: noise, a length that is never reached, and one that is too long.
  for (const bytes of [
    [0, 5, 1, 2, 3, 4, 5],
    [0, 200, 1],
    [255, 255, 0, 0],
  ]) {
    const client = connect({ port, host: '127.0.0.1' });
    client.on('error', () => {});
    client.end(Buffer.from(bytes));
    await once(client.resume(), 'close');
  }
  assert.equal(parse(await udpExchange(port, question('web'))).addresses.length, 2);
});

test('what is not a plain question is refused with the right code', async (t) => {
  const { port } = await startServer(t);
  const change = (at: number, value: number): Buffer => {
    const message = question('web');
    message.writeUInt8(value, at);
    return message;
  };
  assert.equal(parse(await udpExchange(port, change(2, 0x28))).rcode, 4);
  assert.equal(parse(await udpExchange(port, change(5, 2))).rcode, 1);
  assert.equal(parse(await udpExchange(port, change(7, 1))).rcode, 1);
  const chaos = question('version.bind');
  chaos.writeUInt16BE(3, chaos.length - 2);
  assert.equal(parse(await udpExchange(port, chaos)).rcode, 5);
});

/** An upstream resolver on UDP and TCP that answers every question with one address. */
async function startUpstream(
  t: TestContext,
): Promise<{ readonly port: number; readonly seen: readonly string[] }> {
  const seen: string[] = [];
  const reply = (message: Buffer): Buffer => {
    const answer = Buffer.from(message);
    answer.writeUInt8(0x81, 2);
    answer.writeUInt8(0x80, 3);
    answer.writeUInt16BE(1, 6);
    const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 9]);
    return Buffer.concat([answer, record]);
  };
  const port = await freePort();
  const udp = createSocket('udp4');
  t.after(() => udp.close());
  udp.bind(port, '127.0.0.1');
  await once(udp, 'listening');
  udp.on('message', (message, from) => {
    seen.push(`udp ${message.readUInt16BE(0)}`);
    // A forged answer with another id comes first and must not count.
    const forged = reply(message);
    forged.writeUInt16BE((forged.readUInt16BE(0) + 1) & 0xffff, 0);
    udp.send(forged, from.port, from.address);
    udp.send(reply(message), from.port, from.address);
  });
  const tcp = createServer((socket) =>
    socket.once('data', (chunk: Buffer) => {
      seen.push('tcp');
      const answer = reply(chunk.subarray(2));
      socket.end(Buffer.concat([Buffer.from([answer.length >> 8, answer.length & 255]), answer]));
    }),
  );
  t.after(() => tcp.close());
  tcp.listen({ port, host: '127.0.0.1' });
  await once(tcp, 'listening');
  return { port, seen };
}

test('other names go to the resolvers of the machine, over the protocol they came by', async (t) => {
  const upstream = await startUpstream(t);
  const { port } = await startServer(t, { upstreams: [{ host: '127.0.0.1', port: upstream.port }] });
  const overUdp = parse(await udpExchange(port, question('example.com')));
  assert.deepEqual([overUdp.id, overUdp.rcode, overUdp.addresses], [4711, 0, ['203.0.113.9']]);
  const [overTcp] = await tcpExchange(port, [question('example.com')]);
  assert.deepEqual(parse(overTcp as Buffer).addresses, ['203.0.113.9']);
  assert.equal(upstream.seen.length, 2);
  assert.notEqual(upstream.seen[0], 'udp 4711', 'the id sent on is our own');
});

test('a silent resolver is passed over; none left is SERVFAIL', async (t) => {
  const silent = createSocket('udp4');
  t.after(() => silent.close());
  silent.bind(0, '127.0.0.1');
  await once(silent, 'listening');
  const upstream = await startUpstream(t);
  const dead = { host: '127.0.0.1', port: silent.address().port };
  const forwarder = { timeoutMs: 500 };
  const first = await startServer(t, {
    upstreams: [dead, { host: '127.0.0.1', port: upstream.port }],
    forwarder,
  });
  assert.equal(parse(await udpExchange(first.port, question('example.com'))).rcode, 0);
  const second = await startServer(t, { upstreams: [dead], forwarder });
  assert.equal(parse(await udpExchange(second.port, question('example.com'))).rcode, 2);
});

test('questions being forwarded are bounded', async (t) => {
  const silent = createSocket('udp4');
  t.after(() => silent.close());
  silent.bind(0, '127.0.0.1');
  await once(silent, 'listening');
  const { port, server } = await startServer(t, {
    upstreams: [{ host: '127.0.0.1', port: silent.address().port }],
    forwarder: { timeoutMs: 60_000, inFlightMax: 2 },
  });
  const arrived: unknown[] = [];
  silent.on('message', (message) => arrived.push(message));
  const client = createSocket('udp4');
  t.after(() => client.close());
  for (let i = 0; i < 2; i++) client.send(question('example.com'), port, '127.0.0.1');
  await waitFor('two questions upstream', () => arrived.length === 2);
  assert.equal(parse(await udpExchange(port, question('example.com'))).rcode, 2);
  await server.close();
});

test('a resolver that is this server itself is not asked', async (t) => {
  const port = await freePort();
  await startServer(t, { host: { host: '127.0.0.1', port }, upstreams: [{ host: '127.0.0.1', port }] });
  assert.equal(parse(await udpExchange(port, question('example.com'))).rcode, 2);
  assert.equal(parse(await udpExchange(port, question('nobody'))).rcode, 3);
});

test('resolv.conf: addresses in order, three at most', () => {
  const text =
    '# c\nnameserver 10.0.0.1\nsearch x\n nameserver\t::1 # y\nnameserver bad.name\nnameserver 1.1.1.1\nnameserver 8.8.8.8\n';
  assert.deepEqual(
    parseResolvConf(text).map(({ host }) => host),
    ['10.0.0.1', '::1', '1.1.1.1'],
  );
});

test('an address in use is PORT_IN_USE and named', async (t) => {
  const { port } = await startServer(t);
  const second = new DnsServer(
    { host: { host: '127.0.0.1', port }, upstreams: [] },
    { clock: systemClock(), random: seededRandom(1), logger: silentLogger },
  );
  t.after(() => second.close());
  await assert.rejects(second.start(), (error) => {
    assert.ok(error instanceof SwarmdError);
    assert.equal(error.code, 'PORT_IN_USE');
    assert.match(error.message, new RegExp(`127\\.0\\.0\\.1:${port}`));
    return true;
  });
});

test('each gateway answers for its own network; listeners come and go with the networks', async (t) => {
  const gatewayPort = await freePort();
  const front = network('front', 4097, { gateway: '127.11.0.1/24', subnet: '127.11.0.0/24' });
  const back = network('back', 4098, { gateway: '127.12.0.1/24', subnet: '127.12.0.0/24' });
  const both = (address: string): readonly string[] | null =>
    address === '127.11.0.77' ? [front.id, back.id] : null;
  const { server } = await startServer(t, { gateways: true, gatewayPort }, { networksOf: both });
  const parts = {
    services: [service('web'), service('db')],
    endpoints: [
      endpoint('web', 1, { on: [[front, '127.11.0.5']] }),
      endpoint('db', 1, { on: [[back, '127.12.0.5']] }),
    ],
  };
  server.update(routing({ ...parts, networks: [front, back] }));
  const listening = (): number =>
    server.status().filter(({ networkId, state }) => networkId !== null && state === 'listening').length;
  await waitFor('both gateways', () => listening() === 2);
  const rcode = async (host: string, name: string, from?: string): Promise<number> =>
    parse(await udpExchange(gatewayPort, question(name), host, from)).rcode;
  assert.equal(await rcode('127.11.0.1', 'web'), 0);
  assert.equal(await rcode('127.11.0.1', 'db'), 3);
  assert.equal(await rcode('127.12.0.1', 'db'), 0);
  // A task known to be on both networks sees both, whichever gateway it asks.
  assert.equal(await rcode('127.11.0.1', 'db', '127.11.0.77'), 0);
  server.update(routing({ ...parts, networks: [front] }));
  await waitFor('one gateway', () => listening() === 1);
  assert.equal(await rcode('127.11.0.1', 'web'), 0);
});

test('an address that does not exist yet, or is taken, is tried again', async (t) => {
  const gatewayPort = await freePort();
  const occupant = createSocket('udp4').unref();
  occupant.bind(gatewayPort, '127.13.0.1');
  await once(occupant, 'listening');
  const { server } = await startServer(t, { gateways: true, gatewayPort, retryMs: 20 });
  const taken = network('taken', 4097, { gateway: '127.13.0.1/24' });
  const missing = network('missing', 4098, { gateway: '192.0.2.77/24' });
  server.update(routing({ networks: [taken, missing] }));
  const state = (id: string): string | undefined =>
    server.status().find(({ networkId }) => networkId === id)?.state;
  await waitFor('both failures', () => state(taken.id) === 'failed' && state(missing.id) === 'failed');
  await new Promise<void>((resolve) => occupant.close(() => resolve()));
  await waitFor('the address to be taken after all', () => state(taken.id) === 'listening');
});
