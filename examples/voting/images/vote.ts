/** The page where one votes: a form whose choice goes to the queue `votes` in redis. */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { hostname } from 'node:os';
import { Link } from './link.ts';
import { encodeCommand, parseValue } from './resp.ts';
import { type Page, serveWeb, setting, version } from './service.ts';

const options = { a: setting('OPTION_A', 'Cats'), b: setting('OPTION_B', 'Dogs') };
const BODY_MAX_BYTES = 10_000;
const redis = new Link(setting('REDIS_HOST', 'redis'), Number(setting('REDIS_PORT', '6379')), parseValue);

async function bodyOf(request: IncomingMessage): Promise<string> {
  let body = '';
  for await (const chunk of request.setEncoding('utf8') as AsyncIterable<string>) {
    body += chunk;
    if (body.length > BODY_MAX_BYTES) throw new Error('the form is too long');
  }
  return body;
}

function page(choice: string | null): string {
  const button = (key: string, label: string): string =>
    `<button name="vote" value="${key}"${choice === key ? ' disabled' : ''}>${label}</button>`;
  return `<!doctype html><title>${options.a} or ${options.b}?</title>
<h1>${options.a} or ${options.b}?</h1>
<form method="post">${button('a', options.a)} ${button('b', options.b)}</form>
<p>${choice === null ? 'One vote each; it can be changed.' : 'Your vote is counted.'}</p>
<footer>version ${version}, served by ${hostname()}</footer>
`;
}

function voterOf(request: IncomingMessage): string {
  const known = /(?:^|;\s*)voter=([\w-]{1,64})(?:;|$)/.exec(request.headers.cookie ?? '')?.[1];
  return known ?? randomUUID();
}

serveWeb(async (request): Promise<Page> => {
  if (request.method !== 'POST') return { status: 200, type: 'text/html', body: page(null) };
  const choice = new URLSearchParams(await bodyOf(request)).get('vote');
  if (choice !== 'a' && choice !== 'b') {
    return { status: 400, type: 'text/plain', body: 'vote for a or b\n' };
  }
  const voter = voterOf(request);
  await redis.request(encodeCommand('RPUSH', 'votes', JSON.stringify({ voter, choice })));
  const headers = { 'Set-Cookie': `voter=${voter}; Path=/; HttpOnly` };
  return { status: 200, type: 'text/html', body: page(choice), headers };
});
