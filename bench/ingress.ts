/**
 * What the user-space ingress proxy costs: requests and connections a second and bytes a second, straight to a task
 * and through the proxy, on the loopback.
 *
 * `node bench/ingress.ts [--runs 3] [--connections 32] [--seconds 3]`. Needs nothing but Node: no root, no engine.
 * Task, proxy and load are a process each; with fewer than three cores they share, so read the ratios.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { parseArgs } from 'node:util';
import { systemClock } from '../src/base/clock.ts';
import { silentLogger } from '../src/base/log.ts';
import { IngressProxy } from '../src/ingress/proxy.ts';
import { freePort } from '../test/support/free-port.ts';
import { endpoint, routing, service } from '../test/support/routing.ts';
import { print, printHeading, printTable, ratioText, spreadOf, spreadText } from './lib/figures.ts';

const REQUEST = Buffer.from('GET / HTTP/1.1\r\nHost: bench\r\n\r\n');
const BODY = 'hello from the task\n';
const ANSWER = Buffer.from(`HTTP/1.1 200 OK\r\nContent-Length: ${BODY.length}\r\n\r\n${BODY}`);
const BLOCK = Buffer.alloc(256 * 1024);

/** A task: one fixed answer a request; a request that starts with `B` gets bytes without end. */
function serveTask(): void {
  const server = createServer({ noDelay: true }, (socket) => {
    let pending = 0;
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => {
      if (chunk[0] === 66) {
        const fill = (): void => {
          while (!socket.destroyed && socket.write(BLOCK));
        };
        socket.on('drain', fill);
        fill();
        return;
      }
      pending += chunk.length;
      for (; pending >= REQUEST.length; pending -= REQUEST.length) socket.write(ANSWER);
    });
  });
  server.listen({ port: 0, host: '127.0.0.1', backlog: 1_024 }, () => {
    const address = server.address();
    process.send?.(typeof address === 'object' ? address?.port : 0);
  });
}

/** The proxy in front of the task on `port`. */
async function serveProxy(port: number): Promise<void> {
  const published = await freePort();
  const proxy = new IngressProxy(
    { nodeId: 'node-a', overlay: true },
    { clock: systemClock(), logger: silentLogger },
  );
  const ports = [{ protocol: 'tcp', targetPort: 80, hostPort: port } as const];
  proxy.update(
    routing({
      services: [service('web', { tcp: [[published, 80]] })],
      endpoints: [endpoint('web', 1, { ports })],
    }),
  );
  process.send?.(published);
}

/** One connection that asks, waits for the answer and asks again until `isOver`. */
function keepAsking(port: number, isOver: () => boolean): Promise<number> {
  return new Promise((resolve, reject) => {
    let done = 0;
    let bytes = 0;
    const socket: Socket = connect({ port, host: '127.0.0.1', noDelay: true }, () => socket.write(REQUEST));
    socket.on('error', reject);
    socket.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes < ANSWER.length) return;
      bytes = 0;
      done++;
      if (isOver()) {
        socket.destroy();
        resolve(done);
      } else {
        socket.write(REQUEST);
      }
    });
  });
}

/** Figures of one way to the task. */
interface Figures {
  readonly requestsPerSecond: number;
  readonly connectionsPerSecond: number;
  readonly megabytesPerSecond: number;
}

async function measure(port: number, connections: number, seconds: number): Promise<Figures> {
  const timed = async (work: (isOver: () => boolean) => Promise<number>): Promise<number> => {
    const start = performance.now();
    const isOver = (): boolean => performance.now() - start >= seconds * 1_000;
    const counts = await Promise.all(Array.from({ length: connections }, () => work(isOver)));
    return counts.reduce((sum, count) => sum + count, 0) / ((performance.now() - start) / 1_000);
  };
  await keepAsking(port, () => true);
  const requestsPerSecond = await timed((isOver) => keepAsking(port, isOver));
  const connectionsPerSecond = await timed(async (isOver) => {
    let done = 0;
    while (!isOver()) done += await keepAsking(port, () => true);
    return done;
  });
  return { requestsPerSecond, connectionsPerSecond, megabytesPerSecond: await throughput(port, seconds) };
}

/** One connection that reads as fast as it can. */
async function throughput(port: number, seconds: number): Promise<number> {
  const socket = connect({ port, host: '127.0.0.1' });
  socket.write('B');
  await once(socket, 'data');
  const start = performance.now();
  let bytes = 0;
  socket.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (performance.now() - start >= seconds * 1_000) socket.destroy();
  });
  await once(socket, 'close');
  return bytes / 1e6 / ((performance.now() - start) / 1_000);
}

/** Starts this file as `role` in a process of its own; resolves with the port it serves. */
async function start(
  role: string,
  ...args: string[]
): Promise<{ readonly port: number; readonly stop: () => void }> {
  const child = fork(import.meta.filename, ['--role', role, ...args]);
  const [port] = (await once(child, 'message')) as [number];
  return { port, stop: () => child.kill() };
}

async function main(runs: number, connections: number, seconds: number): Promise<void> {
  printHeading('ingress: straight to a task and through the proxy; medians (least..most)');
  const task = await start('task');
  const proxy = await start('proxy', '--task-port', String(task.port));
  try {
    const direct: Figures[] = [];
    const through: Figures[] = [];
    for (let run = 0; run < runs; run++) {
      direct.push(await measure(task.port, connections, seconds));
      through.push(await measure(proxy.port, connections, seconds));
    }
    const kinds: readonly (readonly [string, keyof Figures, string])[] = [
      [`requests, ${connections} connections kept`, 'requestsPerSecond', '/s'],
      [`connections, a request each, ${connections} at a time`, 'connectionsPerSecond', '/s'],
      ['one large body', 'megabytesPerSecond', 'MB/s'],
    ];
    const rows = kinds.map(([name, key, unit]) => {
      const [base, proxied] = [direct, through].map((all) => spreadOf(all.map((figures) => figures[key])));
      if (base === undefined || proxied === undefined) throw new Error('nothing was measured');
      return [name, spreadText(base, unit), spreadText(proxied, unit), `x ${ratioText(proxied, base)}`];
    });
    printTable([['', 'direct', 'proxy', 'of direct'], ...rows]);
    print();
  } finally {
    proxy.stop();
    task.stop();
  }
}

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '3' },
    connections: { type: 'string', default: '32' },
    seconds: { type: 'string', default: '3' },
    role: { type: 'string', default: 'load' },
    'task-port': { type: 'string', default: '0' },
  },
});
if (values.role === 'task') serveTask();
else if (values.role === 'proxy') await serveProxy(Number(values['task-port']));
else await main(Number(values.runs), Number(values.connections), Number(values.seconds));
