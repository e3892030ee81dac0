/** What this node says of itself: the machine, and what its runtimes add. */
import { arch, availableParallelism, hostname, platform, totalmem } from 'node:os';
import type { Clock } from '../base/clock.ts';
import type { NodeDescription } from '../model/objects.ts';
import type { NetworkRung } from '../network/rung.ts';
import type { Runtime } from '../worker/types.ts';
import { version } from './version.ts';

/** Docker's names of the architectures that Node names otherwise. */
const architectures: Readonly<Record<string, string>> = { x64: 'x86_64', arm64: 'aarch64', ia32: 'i386' };
/** A runtime that does not answer in this time counts as silent until the next look. */
const DESCRIBE_TIMEOUT_MS = 2_000;
/**
 * A runtime stays in the description this long after it last answered: an engine that restarts, or hangs for a
 * moment, must not cost the node its tasks.
 */
export const RUNTIME_GRACE_MS = 15_000;

/**
 * Makes a function that asks every runtime and puts the description together. It never rejects and takes no longer
 * than its time-out.
 */
export function nodeDescriber(
  runtimes: readonly Runtime[],
  rung: NetworkRung,
  clock: Pick<Clock, 'monotonicMs'>,
  warnings: () => readonly string[],
): () => Promise<NodeDescription> {
  const known = new Map<Runtime, { readonly facts: Partial<NodeDescription>; readonly atMs: number }>();
  return async () => {
    const signal = AbortSignal.timeout(DESCRIBE_TIMEOUT_MS);
    await Promise.all(
      runtimes.map(async (runtime) => {
        const facts = await runtime.describe(signal).catch(() => null);
        if (facts !== null) known.set(runtime, { facts, atMs: clock.monotonicMs() });
      }),
    );
    const present = runtimes.filter((runtime) => {
      const last = known.get(runtime);
      return last !== undefined && clock.monotonicMs() - last.atMs < RUNTIME_GRACE_MS;
    });
    const kinds = present.map((runtime) => runtime.kind);
    const base: NodeDescription = {
      hostname: hostname(),
      platform: { os: platform(), architecture: architectures[arch()] ?? arch() },
      resources: { nanoCpus: availableParallelism() * 1e9, memoryBytes: totalmem(), generic: {} },
      runtimes: kinds,
      engineVersion: '',
      engineLabels: {},
      plugins: [],
      swarmdVersion: version,
      // Without an engine there are no container networks, whatever the kernel could do.
      networkRung: kinds.includes('docker') ? rung.rung : 'host-ports',
    };
    const facts = present.map((runtime) => known.get(runtime)?.facts ?? {});
    return Object.assign({}, base, ...facts, { runtimes: kinds, warnings: warnings() }) as NodeDescription;
  };
}
