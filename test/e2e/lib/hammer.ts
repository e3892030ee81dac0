/**
 * A client that never stops asking: one request after the other, each on a connection of its own, over the URLs in
 * turn. Prints a line of JSON and ends on SIGTERM. Arguments: requests at a time, then the URLs.
 */
import { get } from 'node:http';

const [width, ...urls] = process.argv.slice(2);
const bodies = new Map<string, number>();
const failures = new Map<string, number>();
let stopping = false;
let next = 0;

function count(map: Map<string, number>, key: string): void {
  map.set(key, (map.get(key) ?? 0) + 1);
}

function ask(url: string): Promise<void> {
  return new Promise((resolve) => {
    const fail = (error: Error): void => {
      count(failures, `${url}: ${error.message}`);
      resolve();
    };
    const request = get(url, { agent: false, timeout: 8_000 }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      response.on('error', fail);
      response.on('end', () => {
        if (response.statusCode === 200) count(bodies, text);
        else count(failures, `${url}: status ${response.statusCode}`);
        resolve();
      });
    });
    request.on('timeout', () => request.destroy(new Error('no answer in time')));
    request.on('error', fail);
  });
}

process.on('SIGTERM', () => {
  stopping = true;
});
await Promise.all(
  Array.from({ length: Number(width) }, async () => {
    while (!stopping) await ask(urls[next++ % urls.length] as string);
  }),
);
process.stdout.write(
  `${JSON.stringify({ bodies: Object.fromEntries(bodies), failures: Object.fromEntries(failures) })}\n`,
);
