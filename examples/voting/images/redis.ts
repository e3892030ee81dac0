/** Stands in for Redis: lists in memory, with PING, LPUSH, RPUSH, BLPOP and LLEN. */
import { createServer, type Socket } from 'node:net';
import { encodeValue, parseValue, type RespValue } from './resp.ts';
import { announce, onStop } from './service.ts';

interface Waiter {
  readonly socket: Socket;
  readonly key: string;
  readonly timer: NodeJS.Timeout | null;
}

const lists = new Map<string, string[]>();
let waiters: Waiter[] = [];

/** Hands queued items to those who wait for them, the longest waiting first. */
function serveWaiters(key: string): void {
  const list = lists.get(key) ?? [];
  while (list.length > 0) {
    const waiter = waiters.find((one) => one.key === key);
    if (waiter === undefined) return;
    dropWaiter(waiter);
    waiter.socket.write(encodeValue([key, list.shift() as string]));
  }
}

function dropWaiter(waiter: Waiter): void {
  if (waiter.timer !== null) clearTimeout(waiter.timer);
  waiters = waiters.filter((one) => one !== waiter);
}

function waitFor(socket: Socket, key: string, timeoutSeconds: number): void {
  const giveUp = (): void => {
    dropWaiter(waiter);
    socket.write(encodeValue(null));
  };
  const timer = timeoutSeconds > 0 ? setTimeout(giveUp, timeoutSeconds * 1_000) : null;
  const waiter: Waiter = { socket, key, timer };
  waiters.push(waiter);
  serveWaiters(key);
}

/** Carries out a command; undefined means that the answer comes later. */
function carryOut(socket: Socket, words: readonly string[]): RespValue | undefined {
  const [name = '', key = '', ...values] = words;
  switch (name.toUpperCase()) {
    case 'PING':
      return 'PONG';
    case 'LLEN':
      return lists.get(key)?.length ?? 0;
    case 'LPUSH':
    case 'RPUSH': {
      const list = lists.get(key) ?? [];
      lists.set(key, list);
      if (name.toUpperCase() === 'LPUSH') list.unshift(...values.toReversed());
      else list.push(...values);
      const { length } = list;
      serveWaiters(key);
      return length;
    }
    case 'BLPOP':
      waitFor(socket, key, Number(values[0] ?? '0'));
      return undefined;
    default:
      return new Error(`unknown command '${name}'`);
  }
}

const server = createServer((socket) => {
  let received = '';
  socket.setEncoding('utf8').setNoDelay(true);
  socket.on('data', (data: string) => {
    received += data;
    try {
      for (let parsed = parseValue(received); parsed !== null; parsed = parseValue(received)) {
        received = parsed.rest;
        const words = Array.isArray(parsed.answer) ? parsed.answer.map(String) : [];
        const answer = carryOut(socket, words);
        if (answer !== undefined) socket.write(encodeValue(answer));
      }
    } catch (error) {
      socket.end(encodeValue(error instanceof Error ? error : new Error(String(error))));
    }
  });
  socket.on('error', () => socket.destroy());
  socket.on('close', () => {
    for (const waiter of waiters.filter((one) => one.socket === socket)) dropWaiter(waiter);
  });
});

announce(server, 6379);
onStop(() => {
  server.close();
});
