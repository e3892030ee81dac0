/** Load: so many callers with one request in flight each (closed loop), or so many requests a second (open loop). */
export interface LoadFigures {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly errors: number;
}

/** Runs `request` from `clients` callers for `seconds` after a warm-up of a fifth of it. */
export async function closedLoop(
  clients: number,
  seconds: number,
  request: (n: number) => Promise<void>,
): Promise<LoadFigures> {
  const latencies: number[] = [];
  let errors = 0;
  let n = 0;
  const begin = performance.now();
  const warmUntil = begin + seconds * 200;
  const until = warmUntil + seconds * 1000;
  await Promise.all(
    Array.from({ length: clients }, async () => {
      for (let now = performance.now(); now < until; ) {
        const from = now;
        try {
          await request(n++);
        } catch {
          errors += 1;
        }
        now = performance.now();
        if (from >= warmUntil) latencies.push(now - from);
      }
    }),
  );
  return figuresOf(latencies, seconds, errors);
}

/** Milliseconds between the moments at which requests that are due are sent. */
const SLICE_MS = 2;

/**
 * Sends `perSecond` requests a second for `seconds`, however long the answers take. A latency counts from the moment
 * the request was due, so that a stall is seen in every request it held up.
 */
export async function fixedRate(
  perSecond: number,
  seconds: number,
  request: (n: number) => Promise<void>,
): Promise<LoadFigures> {
  const latencies: number[] = [];
  let errors = 0;
  const open = new Set<Promise<void>>();
  const begin = performance.now();
  const total = perSecond * seconds;
  for (let n = 0; n < total; ) {
    const due = Math.min(total, Math.floor(((performance.now() - begin) / 1000) * perSecond));
    for (; n < due; n++) {
      const dueAt = begin + (n / perSecond) * 1000;
      const sent: Promise<void> = request(n)
        .then(
          () => void latencies.push(performance.now() - dueAt),
          () => void errors++,
        )
        .finally(() => open.delete(sent));
      open.add(sent);
    }
    await new Promise((resolve) => setTimeout(resolve, SLICE_MS));
  }
  await Promise.all(open);
  return figuresOf(latencies, seconds, errors);
}

function figuresOf(latencies: number[], seconds: number, errors: number): LoadFigures {
  latencies.sort((a, b) => a - b);
  const at = (share: number): number =>
    latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))] ?? 0;
  return { perSecond: latencies.length / seconds, p50Ms: at(0.5), p99Ms: at(0.99), errors };
}
