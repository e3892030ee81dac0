/** What all five programs share: their settings, the web server, the ordered end. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Server } from 'node:net';
import { hostname } from 'node:os';

/** The release shown on pages, so that an update is visible. */
export const version = process.env['VERSION'] ?? '1';

/** A setting from the environment, or `otherwise`. */
export function setting(name: string, otherwise: string): string {
  return process.env[name] ?? otherwise;
}

/** Writes one line to the log. */
export function log(message: string): void {
  process.stdout.write(`${new Date().toISOString()} ${message}\n`);
}

/** Calls `end` once on SIGTERM or SIGINT and leaves the process when it is done. */
export function onStop(end: () => Promise<void> | void): void {
  let stopping = false;
  const stop = (signal: string): void => {
    if (stopping) return;
    stopping = true;
    log(`stopping on ${signal}`);
    void Promise.resolve(end()).finally(() => process.exit(0));
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
}

/** Listens on PORT (`defaultPort` without one, any free one for 0) and logs where, and `more`. */
export function announce(server: Server, defaultPort: number, more = ''): void {
  server.listen(Number(setting('PORT', String(defaultPort))), () => {
    const { port } = server.address() as AddressInfo;
    log(`version ${version} listens on port ${port}${more === '' ? '' : ` with ${more}`}`);
  });
}

/** An answer to a web request. */
export interface Page {
  readonly status: number;
  readonly type: 'text/plain' | 'text/html' | 'application/json';
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
}

function text(body: string, status = 200): Page {
  return { status, type: 'text/plain', body: `${body}\n` };
}

/** Serves `/` by `home`, and `/whoami` and `/version` itself, on PORT (80 without one), until the process stops. */
export function serveWeb(home: (request: IncomingMessage) => Promise<Page>): void {
  const answer = async (request: IncomingMessage): Promise<Page> => {
    const path = (request.url ?? '/').split('?')[0];
    if (path === '/whoami') return text(hostname());
    if (path === '/version') return text(version);
    if (path !== '/') return text('not found', 404);
    try {
      return await home(request);
    } catch (error) {
      return text(error instanceof Error ? error.message : String(error), 503);
    }
  };
  const send = (response: ServerResponse, page: Page): void => {
    response.writeHead(page.status, { 'Content-Type': `${page.type}; charset=utf-8`, ...page.headers });
    response.end(page.body);
  };
  const server = createServer((request, response) => {
    void answer(request).then((page) => send(response, page));
  });
  announce(server, 80);
  onStop(() => {
    server.close();
    server.closeAllConnections();
  });
}
