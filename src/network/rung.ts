/**
 * Which way of building task networks this node can take: the network rung.
 *
 * Invariant: the probe leaves nothing behind.
 */
import { errorMessage, SwarmdError } from '../base/errors.ts';
import type { NodeDescription } from '../model/objects.ts';
import type { CommandRunner } from './commands.ts';

/** The rung, and for `host-ports` what is missing for `overlay`. */
export interface NetworkRung {
  readonly rung: NodeDescription['networkRung'];
  /** Empty on the overlay rung. */
  readonly reason: string;
}

/** Facts of the node that only the caller knows. */
export interface RungFacts {
  readonly isRoot: boolean;
  /** Whether a container engine answers. */
  readonly hasEngine: boolean;
  readonly vxlanPort: number;
}

const PROBE_DEVICE = 'swprobe0';
/** The highest identifier a VXLAN can have: none that is allocated. */
const PROBE_VNI = 16_777_215;

/** Finds the rung by trying to make a VXLAN device. Rejects only with CANCELLED. */
export async function detectRung(
  facts: RungFacts,
  commands: CommandRunner,
  signal: AbortSignal,
): Promise<NetworkRung> {
  const hostPorts = (reason: string): NetworkRung => ({ rung: 'host-ports', reason });
  if (!facts.hasEngine) return hostPorts('no container engine answers');
  if (!facts.isRoot) return hostPorts('making network devices needs root');
  const remove = ['ip', 'link', 'del', 'dev', PROBE_DEVICE];
  const type = ['type', 'vxlan', 'id', String(PROBE_VNI), 'dstport', String(facts.vxlanPort), 'nolearning'];
  try {
    for (const tool of ['ip', 'bridge']) await commands([tool, '-V'], { signal });
    await commands(remove, { signal });
    const made = await commands(['ip', 'link', 'add', PROBE_DEVICE, ...type], { signal });
    if (made.exitCode !== 0) return hostPorts(`a VXLAN device cannot be made: ${made.stderr}`);
    await commands(remove, { signal });
    return { rung: 'overlay', reason: '' };
  } catch (error) {
    if (error instanceof SwarmdError && error.code === 'CANCELLED') throw error;
    return hostPorts(errorMessage(error));
  }
}
