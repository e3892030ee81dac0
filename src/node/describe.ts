/** What this node says of itself: the machine, and what its runtimes add. */
import { arch, availableParallelism, hostname, platform, totalmem } from 'node:os';
import type { NodeDescription } from '../model/objects.ts';
import type { RuntimeKind } from '../model/spec.ts';
import type { NetworkRung } from '../network/rung.ts';
import type { Runtime } from '../worker/types.ts';
import { version } from './version.ts';

/** Docker's names of the architectures that Node names otherwise. */
const architectures: Readonly<Record<string, string>> = { x64: 'x86_64', arm64: 'aarch64', ia32: 'i386' };
/** A runtime that does not answer in this time counts as missing until the next look. */
const DESCRIBE_TIMEOUT_MS = 2_000;

/** Asks every runtime and puts the description together; never rejects, never takes longer than its time-out. */
export async function describeNode(
  runtimes: readonly Runtime[],
  rung: NetworkRung,
): Promise<NodeDescription> {
  const signal = AbortSignal.timeout(DESCRIBE_TIMEOUT_MS);
  const parts = await Promise.all(
    runtimes.map(async (runtime) => {
      const facts = await runtime.describe(signal).catch(() => null);
      return { kind: runtime.kind, facts };
    }),
  );
  const present = parts.filter((part) => part.facts !== null);
  const kinds: RuntimeKind[] = present.map((part) => part.kind);
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
  return Object.assign({}, base, ...present.map((part) => part.facts), { runtimes: kinds });
}
