/** Closed-loop load: `clients` callers, each with one request in flight, for a time. */
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
  latencies.sort((a, b) => a - b);
  const at = (share: number): number =>
    latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))] ?? 0;
  return { perSecond: latencies.length / seconds, p50Ms: at(0.5), p99Ms: at(0.99), errors };
}
