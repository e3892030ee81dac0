/** Ports for tests that must know a port's number before anything listens on it. */
import { createServer } from 'node:net';

/**
 * A port nobody listens on now. It is taken from below the range the system hands out by itself, so that nothing
 * gets it by chance in the meantime.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 12_000 + Math.floor(Math.random() * 18_000);
    const server = createServer();
    const free = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false));
      server.listen({ port, host: '::' }, () => resolve(true));
    });
    if (!free) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
}
