/** The results: a JSON object of counts by choice, read from the database for each request. */
import { hostname } from 'node:os';
import { Link } from './link.ts';
import { parseLine } from './line.ts';
import { type Page, serveWeb, setting, version } from './service.ts';

const db = new Link(setting('DB_HOST', 'db'), Number(setting('DB_PORT', '5432')), parseLine);

serveWeb(async (): Promise<Page> => {
  const votes = JSON.parse(await db.request('TALLY\n')) as Record<string, number>;
  const body = `${JSON.stringify({ votes, version, hostname: hostname() })}\n`;
  return { status: 200, type: 'application/json', body };
});
