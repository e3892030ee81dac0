import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ManualClock, systemClock } from '../../../src/base/clock.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { DockerEngine, engineAddress, engineFacts, parseEvent } from '../../../src/worker/docker-engine.ts';
import { engineError, pullError } from '../../../src/worker/docker-errors.ts';
import { configPath, secretPath, tarArchive } from '../../../src/worker/docker-files.ts';
import { pullFailure, withTag } from '../../../src/worker/docker-image.ts';
import { logRecords, parseStampedLine } from '../../../src/worker/docker-logs.ts';
import { waitFor } from '../../support/wait.ts';

test('engine addresses', () => {
  assert.equal(engineAddress('unix:///run/d.sock').socketPath, '/run/d.sock');
  const { protocol, host, port } = engineAddress('tcp://10.0.0.1:2375');
  assert.deepEqual([protocol, host, port], ['http', '10.0.0.1', 2_375]);
  assert.throws(() => engineAddress('npipe:x'), { code: 'INVALID_ARGUMENT' });
});

test('an engine that accepts and never answers ends each call in its time, as an outage', async (t) => {
  const server = createServer(() => {});
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const engine = new DockerEngine(`tcp://127.0.0.1:${port}`, {
    clock: systemClock(),
    log: silentLogger,
    labels: [],
    onEvent: () => {},
    onConnected: () => {},
  });
  const call = engine.call(
    'look',
    new AbortController().signal,
    (signal) => engine.docker.getContainer('x').inspect({ abortSignal: signal } as object),
    50,
  );
  await assert.rejects(call, (error: { code: string; details: { waits?: boolean } }) => {
    assert.deepEqual([error.code, error.details.waits], ['UNAVAILABLE', true]);
    return true;
  });
});

test('the address given counts, not one of the environment', (t) => {
  process.env['DOCKER_HOST'] = 'tcp://192.0.2.1:2376';
  t.after(() => delete process.env['DOCKER_HOST']);
  const engine = new DockerEngine('unix:///run/own.sock', {
    clock: systemClock(),
    log: silentLogger,
    labels: [],
    onEvent: () => {},
    onConnected: () => {},
  });
  const modem = engine.docker.modem as { host?: string; socketPath?: string };
  assert.deepEqual([modem.host, modem.socketPath], [undefined, '/run/own.sock']);
});

test('an engine that hangs is noticed by its pings, and noticed again when it answers', async (t) => {
  let hangs = false;
  const server = createServer((request, response) => {
    if (hangs) return;
    if (request.url?.startsWith('/events') === true) response.writeHead(200).flushHeaders();
    else response.end(request.url?.startsWith('/info') === true ? '{"ServerVersion":"1"}' : 'OK');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const clock = new ManualClock();
  let connections = 0;
  const engine = new DockerEngine(`tcp://127.0.0.1:${(server.address() as AddressInfo).port}`, {
    clock,
    log: silentLogger,
    labels: [],
    onEvent: () => {},
    onConnected: () => (connections += 1),
  });
  t.after(async () => {
    await engine.close();
    server.closeAllConnections();
    server.close();
  });
  const facts = (wanted: string | undefined): Promise<boolean> =>
    waitFor(`version ${wanted}`, async () => {
      clock.advance(100);
      return (await engine.facts(new AbortController().signal))?.engineVersion === wanted;
    });
  await facts('1');
  const beforeMs = clock.nowMs();
  assert.equal(engine.wasAwayAt(beforeMs), false);
  clock.advance(60_000);
  hangs = true;
  await facts(undefined);
  const awayMs = clock.nowMs();
  assert.equal(engine.wasAwayAt(awayMs), true);
  hangs = false;
  await facts('1');
  assert.equal(connections, 2);
  assert.deepEqual(
    [beforeMs, awayMs, clock.nowMs() + 1].map((atMs) => engine.wasAwayAt(atMs)),
    [false, true, false],
  );
});

test('failures of the engine: outages wait, refusals say what was tried', () => {
  const refused = engineError(
    Object.assign(new Error('x'), { code: 'ECONNREFUSED' }),
    'unix:///s',
    'start it',
  );
  assert.deepEqual([refused.code, refused.details['waits']], ['UNAVAILABLE', true]);
  for (const [statusCode, code] of [
    [400, 'INVALID_ARGUMENT'],
    [404, 'NOT_FOUND'],
    [409, 'CONFLICT'],
    [500, 'RUNTIME'],
  ] as const) {
    const error = Object.assign(new Error('(HTTP code)'), { statusCode, json: { message: 'because' } });
    const mapped = engineError(error, 'unix:///s', 'start it');
    assert.deepEqual([mapped.code, mapped.message], [code, 'start it: because']);
  }
});

test('a registry’s words tell missing, forbidden and unreachable apart', () => {
  for (const [text, code] of [
    ['manifest for nginx:nope not found: manifest unknown: manifest unknown', 'NOT_FOUND'],
    [
      'pull access denied for x, repository does not exist or may require docker login: denied',
      'PERMISSION_DENIED',
    ],
    ['Get "https://r/v2/": unauthorized: authentication required', 'PERMISSION_DENIED'],
    [
      'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host',
      'UNAVAILABLE',
    ],
    ['Get "http://127.0.0.1:9/v2/": dial tcp 127.0.0.1:9: connect: connection refused', 'UNAVAILABLE'],
    ['toomanyrequests: You have reached your pull rate limit', 'UNAVAILABLE'],
    ['invalid reference format', 'INVALID_ARGUMENT'],
    ['no space left on device', 'RUNTIME'],
  ] as const) {
    const error = pullError('img', text);
    assert.equal(error.code, code, text);
    assert.equal(error.details['waits'], undefined);
  }
});

test('a pull’s progress, and references without a tag', () => {
  assert.equal(pullFailure('{"status":"Pulling"}'), null);
  assert.equal(pullFailure('{"errorDetail":{"message":"bad"},"error":"bad"}'), 'bad');
  assert.equal(withTag('host:5000/app'), 'host:5000/app:latest');
  assert.equal(withTag('app:1'), 'app:1');
  assert.equal(withTag('app@sha256:00'), 'app@sha256:00');
});

test('events and facts of the engine', () => {
  const line = '{"Type":"container","Action":"die","Actor":{"Attributes":{"swarmd.task":"t"}}}';
  assert.deepEqual(parseEvent(line), { action: 'die', labels: { 'swarmd.task': 't' } });
  assert.equal(parseEvent('not json'), null);
  const facts = engineFacts({
    OSType: 'linux',
    Architecture: 'x86_64',
    NCPU: 2,
    MemTotal: 5,
    ServerVersion: '20.10',
    Labels: ['a=b=c', 'd'],
    Plugins: { Volume: ['local'], Network: null },
    GenericResources: [
      { DiscreteResourceSpec: { Kind: 'ssd', Value: 3 } },
      { NamedResourceSpec: { Kind: 'gpu', Value: 'u1' } },
      { NamedResourceSpec: { Kind: 'gpu', Value: 'u2' } },
    ],
  });
  assert.deepEqual(facts, {
    platform: { os: 'linux', architecture: 'x86_64' },
    resources: { nanoCpus: 2e9, memoryBytes: 5, generic: { ssd: 3, gpu: 2 } },
    runtimes: ['docker'],
    engineVersion: '20.10',
    engineLabels: { a: 'b=c', d: '' },
    plugins: [{ type: 'Volume', name: 'local' }],
  });
});

function frame(stream: number, text: string): Buffer {
  const payload = Buffer.from(text);
  const head = Buffer.alloc(8);
  head[0] = stream;
  head.writeUInt32BE(payload.length, 4);
  return Buffer.concat([head, payload]);
}

async function* cutInto(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let i = 0; i < bytes.length; i += size) {
    await Promise.resolve();
    yield bytes.subarray(i, i + size);
  }
}

test('log frames are put together whatever the pieces they come in', async () => {
  const stamp = '2026-01-02T03:04:05.678901234Z';
  const bytes = Buffer.concat([
    frame(1, `${stamp} über\n`),
    frame(2, `${stamp} \n`),
    frame(1, `${stamp} end`),
  ]);
  const atMs = Date.UTC(2026, 0, 2, 3, 4, 5, 678);
  for (const size of [1, 3, 7, 1_000]) {
    const records = [];
    for await (const record of logRecords(cutInto(bytes, size), false)) records.push(record);
    assert.deepEqual(records, [
      { stream: 'stdout', atMs, line: 'über' },
      { stream: 'stderr', atMs, line: '' },
      { stream: 'stdout', atMs, line: 'end' },
    ]);
  }
  const tty = Buffer.from(`${stamp} one\r\n${stamp} two`);
  const lines = [];
  for await (const record of logRecords(cutInto(tty, 5), true)) lines.push(record.line);
  assert.deepEqual(lines, ['one', 'two']);
  assert.deepEqual(parseStampedLine('stdout', 'no stamp'), { stream: 'stdout', atMs: 0, line: 'no stamp' });
});

test('an archive is read by tar as it was meant', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'swarmd-tar-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const long = `${'d'.repeat(120)}/${'f'.repeat(60)}`;
  const file = { uid: 0, gid: 0, mode: 0o640 };
  const archive = tarArchive(
    [
      { ...file, path: secretPath('key'), content: Buffer.from('hidden') },
      { ...file, path: configPath(long), content: Buffer.alloc(1_000, 'x') },
    ],
    '/',
  );
  execFileSync('tar', ['-x', '-C', folder], { input: archive });
  assert.equal(readFileSync(join(folder, 'run/secrets/key'), 'utf8'), 'hidden');
  assert.equal(statSync(join(folder, 'run/secrets/key')).mode & 0o777, 0o640);
  assert.equal(readFileSync(join(folder, long), 'utf8'), 'x'.repeat(1_000));
});
