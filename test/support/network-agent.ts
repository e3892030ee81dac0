/**
 * The data plane of one node as a program, for tests that run it inside a host of a test bed:
 * `node network-agent.ts SOCKET ENGINE_SOCKET NODE_ID ADDRESS`. Controlled by HTTP on the unix socket:
 * `POST /update` (a routing state as three lists), `POST /prepare` (a task), `GET /status`, `POST /remove-all`.
 */
import { createServer, type IncomingMessage } from 'node:http';
import { systemClock } from '../../src/base/clock.ts';
import { errorMessage } from '../../src/base/errors.ts';
import { createLogger } from '../../src/base/log.ts';
import { systemRandom } from '../../src/base/random.ts';
import { DnsServer } from '../../src/dns/server.ts';
import { IngressProxy } from '../../src/ingress/proxy.ts';
import type { Task } from '../../src/model/objects.ts';
import type { AssignedNetwork, EndpointRecord, ServiceRecord } from '../../src/model/wire.ts';
import { systemCommands } from '../../src/network/commands.ts';
import { OverlayNetworks } from '../../src/network/driver.ts';
import { detectRung } from '../../src/network/rung.ts';
import { dockerEngineNetworks } from '../../src/worker/docker-networks.ts';
import { routing } from './routing.ts';

/** A routing state as JSON. */
export interface RoutingLists {
  readonly networks: readonly AssignedNetwork[];
  readonly services: readonly ServiceRecord[];
  readonly endpoints: readonly EndpointRecord[];
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  let text = '';
  for await (const chunk of request) text += String(chunk);
  return text === '' ? null : JSON.parse(text);
}

async function main([socket, engineSocket, nodeId, address]: readonly string[]): Promise<void> {
  if (socket === undefined || nodeId === undefined || address === undefined) {
    throw new Error('usage: network-agent.ts SOCKET ENGINE_SOCKET NODE_ID ADDRESS');
  }
  const clock = systemClock();
  const logger = createLogger({
    level: 'debug',
    format: 'text',
    write: (line) => process.stderr.write(`${line}\n`),
    nowMs: () => clock.nowMs(),
  });
  const commands = systemCommands();
  const signal = new AbortController().signal;
  const facts = { isRoot: process.getuid?.() === 0, hasEngine: true, vxlanPort: 4790 };
  const rung = await detectRung(facts, commands, signal);
  const engine = dockerEngineNetworks({ socketPath: engineSocket as string });
  const networks = new OverlayNetworks(
    { nodeId, address, rung, checkMs: 500, preparedKeepMs: 1_000 },
    { engine, commands, clock, logger, onChange: () => dns.retry() },
  );
  const dns: DnsServer = new DnsServer(
    { host: { host: '127.0.0.1', port: 5353 }, upstreams: [] },
    { clock, random: systemRandom(), logger, networksOf: (asker) => networks.networksOf(asker) },
  );
  const ingress = new IngressProxy({ nodeId, overlay: rung.rung === 'overlay' }, { clock, logger });
  await dns.start();
  let state = routing({});
  const handle = async (request: IncomingMessage): Promise<unknown> => {
    switch (request.url?.replace(/^\/v[\d.]+/, '')) {
      case '/update':
        state = routing((await readJson(request)) as RoutingLists);
        networks.update(state);
        dns.update(state);
        ingress.update(state);
        return {};
      case '/prepare':
        return await networks.prepare((await readJson(request)) as Task, state.networks, signal);
      case '/status':
        return { rung, networks: networks.status(), dns: dns.status(), ingress: ingress.status() };
      case '/remove-all':
        return await networks.removeAll(signal);
      default:
        throw new Error(`no such path: ${request.url}`);
    }
  };
  const server = createServer((request, response) => {
    handle(request).then(
      (answer) => response.end(JSON.stringify(answer)),
      (error: unknown) => {
        response.statusCode = 500;
        response.end(JSON.stringify({ message: errorMessage(error) }));
      },
    );
  });
  server.listen(socket);
}

await main(process.argv.slice(2));
