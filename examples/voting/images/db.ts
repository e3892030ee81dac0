/**
 * Stands in for the database: keeps each voter's last vote, in a file that is written through before it answers.
 *
 * Protocol, a line each: `VOTE <voter> <choice>` is answered by `OK`, `TALLY` by a JSON object of counts by choice.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { announce, onStop, setting } from './service.ts';

const folder = setting('DATA_DIR', '/var/lib/data');
const path = join(folder, 'votes.log');
mkdirSync(folder, { recursive: true });

const votes = new Map<string, string>();
// A line cut off by a crash has no end and was never acknowledged.
const stored = existsSync(path) ? readFileSync(path, 'utf8') : '';
const whole = stored.slice(0, stored.lastIndexOf('\n') + 1);
for (const line of whole.split('\n')) {
  const [voter, choice] = line.split(' ');
  if (voter !== undefined && choice !== undefined) votes.set(voter, choice);
}
if (stored.length > whole.length) truncateSync(path, Buffer.byteLength(whole));
const file = openSync(path, 'a');

function store(voter: string, choice: string): void {
  writeSync(file, `${voter} ${choice}\n`);
  fsyncSync(file);
  votes.set(voter, choice);
}

function tally(): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const choice of votes.values()) counts[choice] = (counts[choice] ?? 0) + 1;
  return counts;
}

function answer(line: string): string {
  const [command, voter, choice] = line.trim().split(' ');
  if (command === 'TALLY') return JSON.stringify(tally());
  if (command !== 'VOTE' || !/^[\w-]{1,64}$/.test(voter ?? '') || !/^[\w-]{1,64}$/.test(choice ?? '')) {
    return 'ERROR say VOTE <voter> <choice> or TALLY';
  }
  store(voter as string, choice as string);
  return 'OK';
}

const server = createServer((socket) => {
  let received = '';
  socket.setEncoding('utf8').setNoDelay(true);
  socket.on('data', (data: string) => {
    const lines = (received + data).split('\n');
    received = lines.pop() ?? '';
    for (const line of lines) socket.write(`${answer(line)}\n`);
  });
  socket.on('error', () => socket.destroy());
});

announce(server, 5432, `${votes.size} votes`);
onStop(() => {
  server.close();
  closeSync(file);
});
