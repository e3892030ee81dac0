/** Services as the benchmarks create them through the daemon's API, without the command line's own time. */
import type { Daemon } from '../../test/e2e/lib/daemon.ts';
import { defaultContainerSpec, defaultServiceSpec, defaultTaskSpec } from '../../src/model/defaults.ts';
import type { NetworkId } from '../../src/model/ids.ts';
import type { ServiceSpec } from '../../src/model/spec.ts';

/** What a benchmark asks for. */
export interface BenchServiceOptions {
  readonly name: string;
  readonly image: string;
  readonly replicas: number;
  /** Id of an overlay network. */
  readonly network?: string;
}

/** The spec of a replicated service. */
export function benchServiceSpec({ name, image, replicas, network }: BenchServiceOptions): ServiceSpec {
  const networks = network === undefined ? [] : [{ target: network as NetworkId, aliases: [] }];
  return {
    ...defaultServiceSpec,
    name,
    mode: { kind: 'replicated', replicas },
    task: { ...defaultTaskSpec, container: { ...defaultContainerSpec, image }, networks },
  };
}

/** Stores `count` services that ask for no task. */
export async function storeIdleServices(daemon: Daemon, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const spec = benchServiceSpec({ name: `idle-${i}`, image: 'idle', replicas: 0 });
    await daemon.call('service.create', { spec });
  }
}
