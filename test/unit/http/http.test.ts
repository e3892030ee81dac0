/** The HTTP server and its client over a real unix socket. */
import assert from 'node:assert/strict';
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { SwarmdError } from '../../../src/base/errors.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { connectApi } from '../../../src/http/client.ts';
import { type ApiEndpoint, HttpServer, REQUEST_BYTES_MAX } from '../../../src/http/server.ts';
import type { ServiceLogRecord } from '../../../src/model/api.ts';
import { waitFor } from '../../support/wait.ts';

const soon = (): { signal: AbortSignal } => ({ signal: AbortSignal.timeout(10_000) });
const notice = (message: string): ServiceLogRecord => ({ kind: 'notice', taskId: 't', nodeId: 'n', message });
const logParams = { ref: 'web', follow: true, tail: null, sinceMs: null };

let folder: string;
let socketPath: string;
let server: HttpServer | null = null;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'swarmd-http-'));
  socketPath = join(folder, 'swarmd.sock');
});
afterEach(async () => {
  await server?.close();
  server = null;
  await rm(folder, { recursive: true, force: true });
});

async function serve(endpoint: Partial<ApiEndpoint>): Promise<void> {
  server = await HttpServer.listen({
    socketPath,
    endpoint: {
      call: () => Promise.resolve(null),
      serviceLogs: async function* () {},
      ...endpoint,
    },
    log: silentLogger,
  });
}

interface Answer {
  readonly status: number;
  readonly body: { readonly code: string; readonly message: string };
}

/** One request as any HTTP client would send it. */
function send(
  path: string,
  body: string | Buffer,
  options: { method?: string; agent?: Agent; type?: string } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': options.type ?? 'application/json' };
    const { method = 'POST', agent } = options;
    const call = request(
      { socketPath, path, method, headers, ...(agent === undefined ? {} : { agent }) },
      (answer) => {
        let text = '';
        answer.setEncoding('utf8');
        answer.on('data', (part: string) => (text += part));
        answer.on('end', () => resolve({ status: answer.statusCode ?? 0, body: JSON.parse(text) }));
      },
    );
    call.on('error', reject);
    call.end(body);
  });
}

describe('HTTP API: calls', () => {
  it('carries parameters and answers', async () => {
    await serve({ call: (method, params) => Promise.resolve({ method, params }) });
    for (const host of [socketPath, `unix://${socketPath}`]) {
      const answer: unknown = await connectApi(host).call('service.inspect', { ref: 'web' }, soon());
      assert.deepEqual(answer, { method: 'service.inspect', params: { ref: 'web' } });
    }
    assert.equal((await stat(socketPath)).mode & 0o777, 0o660);
  });

  it('keeps code, message and details of an error', async () => {
    await serve({
      call: () => Promise.reject(new SwarmdError('CONFLICT', 'read it again', { details: { actual: 7 } })),
    });
    await assert.rejects(connectApi(socketPath).call('service.remove', { ref: 'x' }, soon()), {
      name: 'SwarmdError',
      code: 'CONFLICT',
      message: 'read it again',
      details: { actual: 7 },
    });
    assert.equal((await send('/swarmd/v1/service.remove', '{}')).status, 409);
  });

  it('hides nothing but the cause of an unexpected error', async () => {
    await serve({ call: () => Promise.reject(new TypeError('a defect')) });
    const { status, body } = await send('/swarmd/v1/service.list', '{}');
    assert.deepEqual([status, body.code, body.message], [500, 'INTERNAL', 'a defect']);
  });

  it('refuses bad JSON, a body over the limit, another type, path or verb', async () => {
    await serve({
      call: (method) => Promise.reject(new SwarmdError('NOT_FOUND', `there is no API method ${method}`)),
    });
    const large = `"${'x'.repeat(REQUEST_BYTES_MAX)}"`;
    const cases: readonly (readonly [Promise<Answer>, number, string])[] = [
      [send('/swarmd/v1/service.list', '{"stack":'), 400, 'INVALID_ARGUMENT'],
      [send('/swarmd/v1/service.list', ''), 400, 'INVALID_ARGUMENT'],
      [send('/swarmd/v1/service.list', 'x', { type: 'image/png' }), 400, 'INVALID_ARGUMENT'],
      [send('/swarmd/v1/service.list', large), 429, 'RESOURCE_EXHAUSTED'],
      [send('/swarmd/v1/nothing.here', '{}'), 404, 'NOT_FOUND'],
      [send('/elsewhere', '{}'), 404, 'NOT_FOUND'],
      [send('/swarmd/v1/service.list', '', { method: 'GET' }), 404, 'NOT_FOUND'],
      [send('/swarmd/v1/service.logs', '{"ref":7}'), 400, 'INVALID_ARGUMENT'],
      [send('/swarmd/v1/service.logs', '{"ref":"web","tail":-1}'), 400, 'INVALID_ARGUMENT'],
    ];
    for (const [sent, status, code] of cases) {
      const answer = await sent;
      assert.deepEqual([answer.status, answer.body.code], [status, code]);
      assert.ok(answer.body.message.length > 0);
    }
  });

  it('a client that gives up aborts the signal of its request', async () => {
    const { promise: aborted, resolve } = Promise.withResolvers<unknown>();
    let started = false;
    await serve({
      call: (_method, _params, signal) => {
        started = true;
        return new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => {
            resolve(signal.reason);
            reject(signal.reason as Error);
          });
        });
      },
    });
    const giveUp = new AbortController();
    const call = connectApi(socketPath).call('node.list', {}, { signal: giveUp.signal });
    await waitFor('the request', () => started);
    giveUp.abort();
    await assert.rejects(call, { code: 'CANCELLED' });
    assert.equal(((await aborted) as SwarmdError).code, 'CANCELLED');
  });

  it('stopping ends what is under way with UNAVAILABLE, and an answered request is not aborted', async () => {
    const signals: AbortSignal[] = [];
    await serve({
      call: (method, _params, signal) => {
        signals.push(signal);
        if (method === 'node.list') return Promise.resolve([]);
        return new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason as Error));
        });
      },
    });
    await connectApi(socketPath).call('node.list', {}, soon());
    const pending = connectApi(socketPath).call('service.list', { stack: null }, soon());
    const refused = assert.rejects(pending, { code: 'UNAVAILABLE' });
    await waitFor('the request', () => signals.length === 2);
    await server?.close();
    await refused;
    assert.deepEqual(
      signals.map((signal) => signal.aborted),
      [false, true],
    );
  });

  it('many requests on one connection leave no listeners behind', async () => {
    const warnings: Error[] = [];
    const onWarning = (warning: Error): void => void warnings.push(warning);
    process.on('warning', onWarning);
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    try {
      await serve({ call: () => Promise.resolve([]) });
      for (let i = 0; i < 30; i++) await send('/swarmd/v1/node.list', '{}', { agent });
      await new Promise((resolve) => setImmediate(resolve));
      assert.deepEqual(warnings, []);
    } finally {
      agent.destroy();
      process.off('warning', onWarning);
    }
  });
});

describe('HTTP API: the client and its host', () => {
  it('says what to do when nobody is there', async () => {
    await assert.rejects(connectApi(socketPath).call('node.list', {}, soon()), {
      code: 'UNAVAILABLE',
      message: /cannot connect .* Is it running\? Start it with "swarmd init"/,
    });
    assert.throws(() => connectApi('http://x'), { code: 'INVALID_ARGUMENT' });
  });

  it('does not fail on what is not a daemon, nor when it breaks off', async () => {
    const answers = [
      'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<htm>',
      'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"half":',
      'HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}',
      'nonsense\r\n\r\n',
    ];
    const sockets = new Set<Socket>();
    const fake: Server = createServer((socket) => {
      sockets.add(socket);
      socket.once('data', () => socket.end(answers.shift() ?? ''));
      socket.on('error', () => {});
    });
    await new Promise<void>((resolve) => void fake.listen(socketPath, () => resolve()));
    try {
      const client = connectApi(socketPath);
      const codes: unknown[] = [];
      for (let i = 0; i < 4; i++) {
        await client.call('node.list', {}, soon()).catch((error: unknown) => {
          assert.ok(error instanceof SwarmdError, String(error));
          codes.push(error.code);
        });
      }
      assert.deepEqual(codes, ['UNAVAILABLE', 'UNAVAILABLE', 'INTERNAL', 'UNAVAILABLE']);
    } finally {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => fake.close(resolve));
    }
  });

  it('a log stream cut in the middle is an error, never a hang or a silent end', async () => {
    const record = `${JSON.stringify(notice('one'))}\n`;
    const fake = createServer((socket) => {
      socket.on('error', () => {});
      socket.once('data', () => {
        socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n');
        socket.end(`${record.length.toString(16)}\r\n${record}\r\n`);
      });
    });
    await new Promise<void>((resolve) => void fake.listen(socketPath, () => resolve()));
    try {
      const records = connectApi(socketPath).serviceLogs(logParams, soon())[Symbol.asyncIterator]();
      assert.equal((await records.next()).done, false);
      await assert.rejects(records.next(), { code: 'UNAVAILABLE', message: /broke off/ });
    } finally {
      await new Promise((resolve) => fake.close(resolve));
    }
  });

  it('close ends its calls', async () => {
    await serve({ call: () => new Promise(() => {}) });
    const client = connectApi(socketPath);
    const call = client.call('node.list', {}, soon());
    client.close();
    await assert.rejects(call, { code: 'CANCELLED' });
  });
});

describe('HTTP API: logs', () => {
  async function collect(records: AsyncIterable<ServiceLogRecord>): Promise<string[]> {
    const out: string[] = [];
    for await (const record of records) out.push(record.kind === 'notice' ? record.message : record.line);
    return out;
  }

  it('streams records, also with line breaks and letters of several bytes', async () => {
    const messages = ['one', 'two\nlines', 'ü'.repeat(100_000), ''];
    await serve({
      serviceLogs: async function* () {
        for (const message of messages) yield notice(message);
      },
    });
    assert.deepEqual(await collect(connectApi(socketPath).serviceLogs(logParams, soon())), messages);
  });

  it('a wrong name is an error at once; a break in the middle is an error after what came', async () => {
    await serve({
      // oxlint-disable-next-line require-yield -- it fails before the first record
      serviceLogs: async function* () {
        throw new SwarmdError('NOT_FOUND', 'service web not found');
      },
    });
    await assert.rejects(collect(connectApi(socketPath).serviceLogs(logParams, soon())), {
      code: 'NOT_FOUND',
    });
    assert.equal((await send('/swarmd/v1/service.logs', JSON.stringify(logParams))).status, 404);
    await server?.close();
    await serve({
      serviceLogs: async function* () {
        yield notice('one');
        throw new SwarmdError('UNAVAILABLE', 'the leader changed', { details: { term: 3 } });
      },
    });
    const seen: string[] = [];
    await assert.rejects(
      async () => {
        for await (const record of connectApi(socketPath).serviceLogs(logParams, soon()))
          seen.push(record.kind);
      },
      { code: 'UNAVAILABLE', message: 'the leader changed', details: { term: 3 } },
    );
    assert.deepEqual(seen, ['notice']);
  });

  it('a reader that leaves ends the source; one that is slow slows it down', async () => {
    let produced = 0;
    let ended = false;
    await serve({
      serviceLogs: async function* (_params, signal) {
        try {
          while (!signal.aborted) {
            produced += 1;
            yield notice('x'.repeat(10_000));
          }
        } finally {
          ended = true;
        }
      },
    });
    for await (const record of connectApi(socketPath).serviceLogs(logParams, soon())) {
      assert.equal(record.kind, 'notice');
      break;
    }
    await waitFor('the end of the source', () => ended);
    assert.ok(produced < 5_000, `${produced} records were made for a reader of one`);
  });

  it('stopping the daemon ends a followed stream with an error, not as if it were complete', async () => {
    await serve({
      serviceLogs: async function* (_params, signal) {
        yield notice('one');
        await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
      },
    });
    const records = connectApi(socketPath).serviceLogs(logParams, soon())[Symbol.asyncIterator]();
    assert.equal((await records.next()).done, false);
    const next = assert.rejects(records.next(), { code: 'UNAVAILABLE' });
    await server?.close();
    await next;
  });
});

describe('HTTP API: the socket file', () => {
  it('replaces the socket of a dead daemon, and is refused that of a live one', async () => {
    const { spawnSync } = await import('node:child_process');
    const script = `require('node:net').createServer().listen(${JSON.stringify(socketPath)}, () => process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', script]);
    assert.ok((await stat(socketPath)).isSocket(), 'the dead process left its socket');
    await serve({ call: () => Promise.resolve([]) });
    assert.deepEqual(await connectApi(socketPath).call('node.list', {}, soon()), []);
    const options = {
      socketPath,
      endpoint: { call: () => Promise.resolve(null), serviceLogs: async function* () {} },
      log: silentLogger,
    };
    await assert.rejects(HttpServer.listen(options), {
      code: 'LOCKED',
      message: /another daemon answers on .*--socket/,
    });
    assert.deepEqual(await connectApi(socketPath).call('node.list', {}, soon()), [], 'it still serves');
  });

  it('never removes a file that is no socket', async () => {
    await writeFile(socketPath, 'precious');
    await assert.rejects(serve({}), { code: 'INVALID_ARGUMENT', message: /is not a socket; choose another/ });
    assert.equal(await readFile(socketPath, 'utf8'), 'precious');
    await chmod(socketPath, 0o600);
  });

  it('refuses a path that is too long, and one in no folder', async () => {
    socketPath = join(folder, 'x'.repeat(120));
    await assert.rejects(serve({}), { code: 'INVALID_ARGUMENT', message: /longer than 107 bytes.*--socket/ });
    socketPath = join(folder, 'missing', 's.sock');
    await assert.rejects(serve({}), { code: 'UNAVAILABLE', message: /cannot be made/ });
  });
});
