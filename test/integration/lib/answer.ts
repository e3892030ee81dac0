/**
 * The program of test services: answers every request on PORT with its environment and arguments as JSON. Ends at
 * once on SIGTERM, or with the code in the path `/exit/CODE`. Prints a line at its start.
 */
import { createServer } from 'node:http';

const port = Number(process.env['PORT'] ?? 0);
const server = createServer((request, response) => {
  const exit = /^\/exit\/(\d+)$/.exec(request.url ?? '');
  if (exit !== null) process.exit(Number(exit[1]));
  const body = { pid: process.pid, args: process.argv.slice(2), env: process.env };
  response.writeHead(200, { 'content-type': 'application/json', connection: 'close' });
  response.end(JSON.stringify(body));
});
process.on('SIGTERM', () => process.exit(0));
server.listen(port, () => {
  process.stdout.write(
    `slot ${process.env['SWARMD_SLOT']} answers, version ${process.env['VERSION'] ?? '1'}\n`,
  );
});
