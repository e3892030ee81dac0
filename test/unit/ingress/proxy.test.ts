import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../../src/base/clock.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { type IngressOptions, IngressProxy } from '../../../src/ingress/proxy.ts';
import type { EndpointRecord } from '../../../src/model/wire.ts';
import { freePort } from '../../support/free-port.ts';
import { endpoint, routing, service } from '../../support/routing.ts';
import { waitFor } from '../../support/wait.ts';

const TARGET = 80;

/** A task on this node that answers on `port`. */
function localTask(slot: number, port: number): EndpointRecord {
  const ports = (['tcp', 'udp'] as const).map((protocol) => ({
    protocol,
    targetPort: TARGET,
    hostPort: port,
  }));
  return endpoint('web', slot, { ports });
}

async function startBackend(
  t: TestContext,
  serve: (socket: Socket) => void,
): Promise<{ readonly server: Server; readonly port: number }> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {});
    serve(socket);
  });
  server.listen({ port: 0, host: '127.0.0.1', backlog: 2_048 });
  await once(server, 'listening');
  t.after(() => server.close());
  return { server, port: (server.address() as AddressInfo).port };
}

/** A port whose connections are neither accepted nor refused: its process is stopped and its queue is full. */
async function startSilentBackend(t: TestContext): Promise<number> {
  const program = `require('node:net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, function () {
    console.log(this.address().port);
  });`;
  const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = await once(child.stdout, 'data');
  const port = Number(String(line));
  child.kill('SIGSTOP');
  const fillers: Socket[] = [];
  t.after(() => {
    for (const filler of fillers) filler.destroy();
    child.kill('SIGKILL');
  });
  await waitFor('the queue to be full', async () => {
    const filler = connect({ port, host: '127.0.0.1' });
    filler.on('error', () => {});
    fillers.push(filler);
    const signal = AbortSignal.timeout(1_000);
    return await once(filler, 'connect', { signal }).then(
      () => false,
      () => true,
    );
  });
  return port;
}

/** A proxy with one published port and a way to replace the tasks behind it. */
async function startProxy(
  t: TestContext,
  tasks: readonly EndpointRecord[],
  options: Partial<IngressOptions> = {},
  protocol: 'tcp' | 'udp' = 'tcp',
): Promise<{ proxy: IngressProxy; port: number; set: (tasks: readonly EndpointRecord[]) => void }> {
  const port = await freePort();
  const proxy = new IngressProxy(
    { nodeId: 'node-a', overlay: true, ...options },
    { clock: systemClock(), logger: silentLogger },
  );
  t.after(() => proxy.close());
  const config = { protocol, publishedPort: port, targetPort: TARGET, publishMode: 'ingress' } as const;
  const set = (endpoints: readonly EndpointRecord[]): void =>
    proxy.update(routing({ services: [service('web', { ports: [config] })], endpoints }));
  set(tasks);
  await waitFor('the port to listen', () => proxy.status()[0]?.state === 'listening');
  return { proxy, port, set };
}

/** Sends `text`, ends, and returns all that comes back; rejects when the connection is reset. */
async function exchange(port: number, text: string, host = '127.0.0.1'): Promise<string> {
  const socket = connect({ port, host, allowHalfOpen: true });
  socket.end(text);
  let answer = '';
  for await (const chunk of socket) answer += String(chunk);
  return answer;
}

test('connections go to each task in turn, over IPv4 and IPv6', async (t) => {
  const one = await startBackend(t, (socket) => socket.end('one'));
  const two = await startBackend(t, (socket) => socket.end('two'));
  const { port } = await startProxy(t, [localTask(1, one.port), localTask(2, two.port)]);
  const answers: string[] = [];
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  const other = addresses.some(({ address }) => address === '::1') ? '::1' : '127.0.0.1';
  for (let i = 0; i < 6; i++) answers.push(await exchange(port, '', i % 2 === 0 ? '127.0.0.1' : other));
  assert.deepEqual(answers, ['one', 'two', 'one', 'two', 'one', 'two']);
});

test('each direction ends on its own', async (t) => {
  // Answers only once the client has ended its side; then the client still reads.
  const backend = await startBackend(t, (socket) => {
    let got = '';
    socket.on('data', (chunk) => {
      got += String(chunk);
    });
    socket.on('end', () => socket.end(`got ${got}`));
  });
  const { port } = await startProxy(t, [localTask(1, backend.port)]);
  assert.equal(await exchange(port, 'all of it'), 'got all of it');

  // The other way round: the task ends first and goes on reading.
  const received = Promise.withResolvers<string>();
  const early = await startBackend(t, (socket) => {
    socket.end('done');
    let got = '';
    socket.on('data', (chunk) => {
      got += String(chunk);
    });
    socket.on('end', () => received.resolve(got));
  });
  const second = await startProxy(t, [localTask(1, early.port)]);
  const client = connect({ port: second.port, allowHalfOpen: true });
  const [first] = await once(client, 'data');
  assert.equal(String(first), 'done');
  await once(client, 'end');
  client.end('late words');
  assert.equal(await received.promise, 'late words');
});

test('100 MB arrive intact in both directions', async (t) => {
  const backend = await startBackend(t, (socket) => socket.pipe(socket));
  const { port } = await startProxy(t, [localTask(1, backend.port)]);
  const chunk = randomBytes(1024 * 1024);
  const chunks = 100;
  const sent = createHash('sha256');
  const got = createHash('sha256');
  const client = connect({ port, allowHalfOpen: true });
  const write = async (): Promise<void> => {
    for (let i = 0; i < chunks; i++) {
      chunk.writeUInt32BE(i, 0);
      const copy = Buffer.from(chunk);
      sent.update(copy);
      if (!client.write(copy)) await once(client, 'drain');
    }
    client.end();
  };
  const writing = write();
  let bytes = 0;
  for await (const data of client as AsyncIterable<Buffer>) {
    bytes += data.length;
    got.update(data);
  }
  await writing;
  assert.equal(bytes, chunks * chunk.length);
  assert.equal(got.digest('hex'), sent.digest('hex'));
});

test('a client that does not read stops the task, not the memory', async (t) => {
  let written = 0;
  const backend = await startBackend(t, (socket) => {
    const block = Buffer.alloc(64 * 1024);
    const fill = (): void => {
      while (!socket.destroyed && socket.write(block)) written += block.length;
    };
    socket.on('drain', fill);
    fill();
  });
  const { port } = await startProxy(t, [localTask(1, backend.port)]);
  const client = connect({ port });
  client.pause();
  await once(client, 'connect');
  let last = -1;
  await waitFor(
    'the task to be held back',
    () => {
      const still = written === last && written > 0;
      last = written;
      return still;
    },
    { everyMs: 150 },
  );
  // Kernel buffers of four sockets, and the proxy's own two of 64 KiB.
  assert.ok(written < 32 * 1024 * 1024, `${written} bytes were taken`);
  client.destroy();
});

test('a reset on one side is a reset on the other', async (t) => {
  const backend = await startBackend(t, (socket) => {
    socket.write('half of');
    socket.on('data', () => socket.resetAndDestroy());
  });
  const { port } = await startProxy(t, [localTask(1, backend.port)]);
  const client = connect({ port });
  await once(client, 'data');
  client.write('go on');
  const [error] = await once(client, 'error');
  assert.equal((error as NodeJS.ErrnoException).code, 'ECONNRESET');
});

test('1,000 connections at a time', async (t) => {
  const backend = await startBackend(t, (socket) => socket.pipe(socket));
  const { port, proxy } = await startProxy(t, [localTask(1, backend.port)]);
  const clients = Array.from({ length: 1_000 }, () => connect({ port, allowHalfOpen: true }));
  await Promise.all(clients.map((client) => once(client, 'connect')));
  await waitFor('all to be accepted', () => proxy.status()[0]?.connections === 1_000);
  const answers = clients.map(async (client, index) => {
    client.end(`client ${index}`);
    let answer = '';
    for await (const chunk of client) answer += String(chunk);
    return answer;
  });
  for (const [index, answer] of (await Promise.all(answers)).entries()) {
    assert.equal(answer, `client ${index}`);
  }
  await waitFor('all to be let go', () => proxy.status()[0]?.connections === 0);
});

test('a task that refuses is skipped before the client sees anything', async (t) => {
  const good = await startBackend(t, (socket) => socket.end('good'));
  const deadPort = await freePort();
  const { port } = await startProxy(t, [localTask(1, deadPort), localTask(2, good.port)]);
  for (let i = 0; i < 10; i++) assert.equal(await exchange(port, ''), 'good');
});

test('a task whose node is silent costs a moment, once', async (t) => {
  const good = await startBackend(t, (socket) => socket.end('good'));
  const silentPort = await startSilentBackend(t);
  const patience = { connectMs: 20_000, waitMs: 20_000, restMs: 60_000 };
  const { port } = await startProxy(t, [localTask(1, silentPort), localTask(2, good.port)], patience);
  const startMs = performance.now();
  assert.equal(await exchange(port, ''), 'good');
  assert.ok(
    performance.now() - startMs < 15_000,
    'the next one is tried long before the time to connect is over',
  );
  // Left out from now on: if every other connection tried it first, this would take 5 s.
  const restMs = performance.now();
  for (let i = 0; i < 40; i++) assert.equal(await exchange(port, ''), 'good');
  assert.ok(performance.now() - restMs < 4_000, 'the silent task is left out');
});

test('a connection waits for the first task, and is reset when none comes', async (t) => {
  const late = await startBackend(t, (socket) => socket.end('late'));
  const { port, set, proxy } = await startProxy(t, [], { waitMs: 5_000 });
  const answer = exchange(port, '');
  await waitFor('the connection', () => proxy.status()[0]?.connections === 1);
  set([localTask(1, late.port)]);
  assert.equal(await answer, 'late');

  const impatient = await startProxy(t, [], { waitMs: 50 });
  await assert.rejects(exchange(impatient.port, ''), { code: 'ECONNRESET' });
});

test('one connection more than the bound is closed, and the rest go on', async (t) => {
  const backend = await startBackend(t, (socket) => socket.pipe(socket));
  const { port, proxy } = await startProxy(t, [localTask(1, backend.port)], { connectionsMax: 2 });
  const held = [connect({ port }), connect({ port })];
  await Promise.all(held.map((client) => once(client, 'connect')));
  await waitFor('two connections', () => proxy.status()[0]?.connections === 2);
  const outcome = await exchange(port, 'x').catch((error: NodeJS.ErrnoException) => error.code);
  assert.ok(outcome === '' || outcome === 'ECONNRESET' || outcome === 'EPIPE', `got ${outcome}`);
  held[0]?.write('still here');
  const [echo] = await once(held[0] as Socket, 'data');
  assert.equal(String(echo), 'still here');
  for (const client of held) client.destroy();
});

test('a removed task keeps its connections; new ones go elsewhere', async (t) => {
  const old = await startBackend(t, (socket) =>
    socket.on('data', (chunk) => socket.write(`old ${String(chunk)}`)),
  );
  const young = await startBackend(t, (socket) => socket.end('young'));
  const { port, set, proxy } = await startProxy(t, [localTask(1, old.port)]);
  const client = connect({ port });
  client.write('a');
  assert.equal(String((await once(client, 'data'))[0]), 'old a');
  set([localTask(2, young.port)]);
  assert.equal(await exchange(port, ''), 'young');
  client.write('b');
  assert.equal(String((await once(client, 'data'))[0]), 'old b');
  // The service itself goes: the port is free at once, the connection still lives.
  proxy.update(routing({}));
  await waitFor('the port to be free', async () => {
    const code = await exchange(port, '').catch((error: NodeJS.ErrnoException) => error.code);
    return code === 'ECONNREFUSED';
  });
  client.write('c');
  assert.equal(String((await once(client, 'data'))[0]), 'old c');
  client.destroy();
});

test('tasks come and go under load without an error', async (t) => {
  const backends = await Promise.all(
    Array.from({ length: 4 }, (_, index) => startBackend(t, (socket) => socket.end(`task ${index}`))),
  );
  const tasks = backends.map(({ port }, index) => localTask(index + 1, port));
  const { port, set } = await startProxy(t, tasks);
  let going = true;
  const counts = { done: 0 };
  const load = Array.from({ length: 16 }, async () => {
    while (going) {
      assert.match(await exchange(port, ''), /^task \d$/);
      counts.done++;
    }
  });
  for (let round = 0; round < 60; round++) {
    const target = counts.done + 20;
    await waitFor('some answers', () => counts.done >= target, { everyMs: 1 });
    set(tasks.filter((_, index) => index !== round % 4 && index !== (round + 1) % 4));
  }
  going = false;
  await Promise.all(load);
  assert.ok(counts.done >= 1_200);
});

test('a port that is taken is reported, retried, and harms no other', async (t) => {
  const backend = await startBackend(t, (socket) => socket.end('ok'));
  const [taken, free] = [await freePort(), await freePort()];
  const occupant = createServer().unref();
  occupant.listen({ port: taken, host: '0.0.0.0' });
  await once(occupant, 'listening');
  const proxy = new IngressProxy(
    { nodeId: 'node-a', overlay: true, retryMs: 20 },
    { clock: systemClock(), logger: silentLogger },
  );
  t.after(() => proxy.close());
  const services = [
    service('web', {
      tcp: [
        [taken, TARGET],
        [free, TARGET],
      ],
    }),
  ];
  proxy.update(routing({ services, endpoints: [localTask(1, backend.port)] }));
  const state = (port: number): string | undefined => proxy.status().find((one) => one.port === port)?.state;
  await waitFor('both outcomes', () => state(taken) === 'failed' && state(free) === 'listening');
  const failed = proxy.status().find((one) => one.port === taken);
  assert.match(failed?.error ?? '', new RegExp(`tcp/${taken} of service web is in use`));
  assert.equal(await exchange(free, ''), 'ok');
  await new Promise((resolve) => occupant.close(resolve));
  await waitFor('the port to be taken after all', () => state(taken) === 'listening');
  assert.equal(await exchange(taken, ''), 'ok');
});

/** A UDP task that answers `name: datagram`. */
async function startUdpBackend(t: TestContext, name: string): Promise<number> {
  const socket = createSocket('udp4');
  socket.on('message', (datagram, from) =>
    socket.send(`${name}: ${String(datagram)}`, from.port, from.address),
  );
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  t.after(() => socket.close());
  return socket.address().port;
}

test('udp: a client stays with one task; a removed task gives its clients to another', async (t) => {
  const [one, two] = [await startUdpBackend(t, 'one'), await startUdpBackend(t, 'two')];
  const { port, set, proxy } = await startProxy(t, [localTask(1, one), localTask(2, two)], {}, 'udp');
  const client = createSocket('udp4');
  t.after(() => client.close());
  const ask = async (text: string): Promise<string> => {
    client.send(text, port, '127.0.0.1');
    const [answer] = await once(client, 'message');
    return String(answer);
  };
  assert.equal(await ask('a'), 'one: a');
  assert.equal(await ask('b'), 'one: b');
  assert.equal(proxy.status()[0]?.connections, 1);
  set([localTask(2, two)]);
  assert.equal(await ask('c'), 'two: c');
});

test('udp: sessions are bounded and end when idle', async (t) => {
  const backend = await startUdpBackend(t, 'task');
  const { port, proxy } = await startProxy(
    t,
    [localTask(1, backend)],
    { sessionsMax: 3, sessionIdleMs: 200 },
    'udp',
  );
  const clients = Array.from({ length: 5 }, () => createSocket('udp4'));
  t.after(() => clients.map((client) => client.close()));
  for (const client of clients) {
    client.send('x', port, '127.0.0.1');
    await once(client, 'message');
    assert.ok((proxy.status()[0]?.connections ?? 0) <= 3);
  }
  await waitFor('the sessions to end', () => proxy.status()[0]?.connections === 0);
});
