/** The programs of examples/voting work together and survive the loss of one another, as plain processes. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ChildProcess, spawn } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { encodeCommand, encodeValue, parseValue } from '../../../examples/voting/images/resp.ts';
import { projectFolder } from '../../support/imports.ts';
import { waitFor } from '../../support/wait.ts';

interface Program {
  readonly child: ChildProcess;
  readonly port: number;
}

const folder = mkdtempSync(join(tmpdir(), 'swarmd-voting-'));
const running = new Set<ChildProcess>();

/** Starts a program and waits until it says `sign`, from which the port is read. */
async function start(
  name: string,
  env: Record<string, string>,
  sign = /listens on port (\d+)/,
): Promise<Program> {
  const child = spawn(process.execPath, [join(projectFolder, `examples/voting/images/${name}.ts`)], {
    env: { PORT: '0', DATA_DIR: folder, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  running.add(child);
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  const port = await waitFor(
    `${name} to say ${sign}`,
    () => sign.exec(output)?.[1] ?? (sign.test(output) ? '0' : false),
  );
  return { child, port: Number(port) };
}

async function stop(program: Program, signal: NodeJS.Signals): Promise<number | null> {
  const ended = new Promise<number | null>((resolve) => program.child.on('exit', resolve));
  program.child.kill(signal);
  running.delete(program.child);
  return await ended;
}

async function castVote(port: number, choice: string, voter?: string): Promise<string> {
  return await waitFor('the vote to be taken', async () => {
    const response = await fetch(`http://127.0.0.1:${port}/`, {
      method: 'POST',
      body: new URLSearchParams({ vote: choice }),
      headers: voter === undefined ? {} : { Cookie: `voter=${voter}` },
    });
    assert.equal(response.status, 200, await response.text());
    return /voter=([\w-]+)/.exec(response.headers.get('set-cookie') ?? '')?.[1] ?? '';
  });
}

async function expectVotes(port: number, votes: Record<string, number>): Promise<void> {
  await waitFor(`the votes ${JSON.stringify(votes)}`, async () => {
    const response = await fetch(`http://127.0.0.1:${port}/`);
    assert.equal(response.status, 200);
    assert.deepEqual(((await response.json()) as { votes: unknown }).votes, votes);
    return true;
  });
}

describe('the voting programs', () => {
  let programs: Record<'redis' | 'db' | 'worker' | 'vote' | 'result', Program>;
  let links: Record<string, string>;

  before(async () => {
    const redis = await start('redis', {});
    const db = await start('db', {});
    links = {
      REDIS_HOST: 'localhost',
      REDIS_PORT: String(redis.port),
      DB_HOST: 'localhost',
      DB_PORT: String(db.port),
    };
    const worker = await start('worker', links, /connected to localhost[\s\S]*connected to localhost/);
    const vote = await start('vote', { ...links, VERSION: '2' });
    programs = { redis, db, worker, vote, result: await start('result', links) };
  });
  after(() => {
    for (const child of running) child.kill('SIGKILL');
    rmSync(folder, { recursive: true });
  });

  test('a vote is counted, and a voter who changes it is counted once', async () => {
    const voter = await castVote(programs.vote.port, 'a');
    await castVote(programs.vote.port, 'b');
    await expectVotes(programs.result.port, { a: 1, b: 1 });
    await castVote(programs.vote.port, 'b', voter);
    await expectVotes(programs.result.port, { b: 2 });
  });

  test('the page says who serves it and in which version', async () => {
    const base = `http://127.0.0.1:${programs.vote.port}`;
    assert.match(await (await fetch(base)).text(), /Cats or Dogs.*version 2, served by /s);
    assert.equal(await (await fetch(`${base}/whoami`)).text(), `${hostname()}\n`);
    assert.equal(await (await fetch(`${base}/version`)).text(), '2\n');
    assert.equal((await fetch(`${base}/nowhere`)).status, 404);
    const bad = await fetch(base, { method: 'POST', body: new URLSearchParams({ vote: 'c' }) });
    assert.equal(bad.status, 400);
  });

  test('votes taken while the database is down are stored when it is back with what it had', async () => {
    await stop(programs.db, 'SIGKILL');
    await castVote(programs.vote.port, 'a');
    await waitFor('the result to say that it cannot', async () => {
      return (await fetch(`http://127.0.0.1:${programs.result.port}/`)).status === 503;
    });
    programs.db = await start('db', { PORT: links['DB_PORT'] as string });
    await expectVotes(programs.result.port, { a: 1, b: 2 });
  });

  test('the queue may go away and come back', async () => {
    await stop(programs.redis, 'SIGKILL');
    programs.redis = await start('redis', { PORT: links['REDIS_PORT'] as string });
    await castVote(programs.vote.port, 'a');
    await expectVotes(programs.result.port, { a: 2, b: 2 });
  });

  test('each program ends with code 0 soon after SIGTERM', async () => {
    for (const program of Object.values(programs)) assert.equal(await stop(program, 'SIGTERM'), 0);
  });
});

describe('the stand-in for redis', () => {
  test('its commands answer as lists do', async () => {
    const redis = await start('redis', {});
    const socket = connect(redis.port, '127.0.0.1').setEncoding('utf8');
    let received = '';
    socket.on('data', (text: string) => {
      received += text;
    });
    const commands = [
      ['PING'],
      ['RPUSH', 'q', 'b', 'c'],
      ['lpush', 'q', 'a'],
      ['LLEN', 'q'],
      ['BLPOP', 'q', '0'],
      ['BLPOP', 'empty', '0.01'],
      ['GET', 'q'],
    ];
    const answers = ['PONG', 2, 3, 3, ['q', 'a'], new Error("unknown command 'GET'"), null];
    for (const command of commands) socket.write(encodeCommand(...command));
    const expected = answers.map(encodeValue).join('');
    await waitFor('the answers', () => received.length >= expected.length);
    assert.equal(received, expected);
    socket.destroy();
    assert.equal(await stop(redis, 'SIGTERM'), 0);
  });

  test('a value cut anywhere is not taken before it is whole', () => {
    const whole = encodeValue(['a', 1, null, ['b']]);
    for (let length = 0; length < whole.length; length++)
      assert.equal(parseValue(whole.slice(0, length)), null);
    assert.deepEqual(parseValue(`${whole}more`), { answer: ['a', 1, null, ['b']], rest: 'more' });
  });
});
