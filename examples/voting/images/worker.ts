/** Moves votes from the queue in redis to the database. A vote in hand is stored before the worker stops. */
import { Link, untilDone } from './link.ts';
import { parseLine } from './line.ts';
import { encodeCommand, parseValue } from './resp.ts';
import { log, onStop, setting, version } from './service.ts';

const STOP_GRACE_MS = 3_000;
const redis = new Link(setting('REDIS_HOST', 'redis'), Number(setting('REDIS_PORT', '6379')), parseValue);
const db = new Link(setting('DB_HOST', 'db'), Number(setting('DB_PORT', '5432')), parseLine);
let stopping = false;
let overdue = false;

async function store(item: string): Promise<void> {
  const { voter, choice } = JSON.parse(item) as { voter: string; choice: string };
  const answer = await untilDone(
    () => db.request(`VOTE ${voter} ${choice}\n`),
    () => overdue,
  );
  log(
    answer === 'OK'
      ? `stored the vote of ${voter}`
      : `the vote of ${voter} was not stored: ${answer ?? 'no time'}`,
  );
}

async function work(): Promise<void> {
  while (!stopping) {
    const popped = await untilDone(
      () => redis.request(encodeCommand('BLPOP', 'votes', '0')),
      () => stopping,
    );
    if (Array.isArray(popped)) await store(String(popped[1]));
  }
}

log(`version ${version} starts`);
const working = work();
onStop(async () => {
  stopping = true;
  redis.close();
  setTimeout(() => {
    overdue = true;
  }, STOP_GRACE_MS);
  await working;
  db.close();
});
