/** The scheduler's filters, one by one, against recorded answers of the reference. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { filters } from '../../src/manager/scheduler/filters.ts';
import { newNodeInfo, type NodeInfo } from '../../src/manager/scheduler/node-info.ts';
import type { ServiceId } from '../../src/model/ids.ts';
import type { ClusterNode, Task } from '../../src/model/objects.ts';
import type { Mount, PortConfig, PortProtocol } from '../../src/model/spec.ts';
import { makeNode, makeTask, makeTaskSpec, readVectors } from '../support/planner-fixtures.ts';

interface GoGeneric {
  Resource: {
    discrete_resource_spec?: { kind: string; value: number };
    named_resource_spec?: { kind: string; value: string };
  };
}
interface GoResources {
  nano_cpus?: number;
  memory_bytes?: number;
  generic?: GoGeneric[];
}
interface GoNodeInfo {
  ActiveTasksCount: number;
  ActiveTasksCountByService: Record<string, number>;
  AvailableResources: GoResources;
  usedHostPorts: string[];
  Node: {
    id: string;
    spec: { availability?: number };
    status: { state?: number };
    description?: {
      platform?: { architecture?: string; os?: string };
      engine?: { plugins?: { type: string; name: string }[] | null };
    };
  };
}
interface GoTask {
  service_id?: string;
  spec: {
    Runtime?: {
      container?: {
        mounts?:
          | {
              type?: number;
              source?: string;
              target?: string;
              volume_options?: { driver_config?: { name?: string } };
            }[]
          | null;
      };
    };
    placement?: { max_replicas?: number };
    log_driver?: { name?: string };
  };
  networks?: unknown[];
  endpoint?: { ports?: { protocol?: number; published_port?: number; publish_mode?: number }[] };
}
interface FilterCase {
  in: {
    node: GoNodeInfo;
    task?: GoTask;
    supportedPlatforms?: { os?: string; architecture?: string }[] | null;
    reservations?: GoResources | null;
  };
  out: boolean;
}

const protocols: readonly PortProtocol[] = ['tcp', 'udp', 'sctp'];

/** Counts by kind: named resources count one each. */
function genericCounts(resources: GoResources): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { Resource } of resources.generic ?? []) {
    const { discrete_resource_spec: discrete, named_resource_spec: named } = Resource;
    if (discrete !== undefined) counts[discrete.kind] = (counts[discrete.kind] ?? 0) + discrete.value;
    if (named !== undefined) counts[named.kind] = (counts[named.kind] ?? 0) + 1;
  }
  return counts;
}

function infoOf(go: GoNodeInfo): NodeInfo {
  const { description, spec, status, id } = go.Node;
  const states: Record<number, ClusterNode['status']['state']> = { 1: 'down', 2: 'ready', 3: 'disconnected' };
  const info = newNodeInfo(
    makeNode(id, {
      spec: {
        availability: spec.availability === 1 ? 'pause' : spec.availability === 2 ? 'drain' : 'active',
      },
      state: states[status.state ?? 0] ?? 'unknown',
      description: {
        platform: {
          os: description?.platform?.os ?? '',
          architecture: description?.platform?.architecture ?? '',
        },
        resources: {
          nanoCpus: go.AvailableResources.nano_cpus ?? 0,
          memoryBytes: go.AvailableResources.memory_bytes ?? 0,
          generic: genericCounts(go.AvailableResources),
        },
        plugins: description?.engine?.plugins ?? [],
      },
    }),
    0,
  );
  for (const [service, count] of Object.entries(go.ActiveTasksCountByService)) {
    info.activeByService.set(service as ServiceId, count);
  }
  for (const text of go.usedHostPorts) {
    const [protocol, port] = text.replace(/[{}]/g, '').split(' ');
    info.hostPorts.add(`${protocols[Number(protocol)]}/${port}`);
  }
  return info;
}

function taskOf(item: FilterCase): Task {
  const { task, supportedPlatforms, reservations } = item.in;
  const mounts = (task?.spec.Runtime?.container?.mounts ?? []).map((mount): Mount => {
    const driver = mount.volume_options?.driver_config?.name;
    return {
      type: mount.type === 1 ? 'volume' : 'bind',
      target: mount.target ?? '',
      readOnly: false,
      ...(driver === undefined ? {} : { volume: { driver } }),
    };
  });
  const endpointPorts = (task?.endpoint?.ports ?? []).map(
    (port): PortConfig => ({
      protocol: protocols[port.protocol ?? 0] ?? 'tcp',
      targetPort: 1,
      publishedPort: port.published_port ?? 0,
      publishMode: port.publish_mode === 1 ? 'host' : 'ingress',
    }),
  );
  return makeTask('t', {
    service: task?.service_id ?? '',
    endpointPorts,
    spec: makeTaskSpec({
      container: { mounts },
      placement: {
        maxReplicasPerNode: task?.spec.placement?.max_replicas ?? 0,
        platforms: (supportedPlatforms ?? []).map((platform) => ({
          os: platform.os ?? '',
          architecture: platform.architecture ?? '',
        })),
      },
      resources: {
        reservations: {
          nanoCpus: reservations?.nano_cpus ?? 0,
          memoryBytes: reservations?.memory_bytes ?? 0,
          generic: genericCounts(reservations ?? {}),
        },
      },
      ...(task?.spec.log_driver === undefined
        ? {}
        : { logDriver: { name: task.spec.log_driver.name ?? '', options: {} } }),
    }),
  });
}

for (const [file, name] of [
  ['ready', 'ready'],
  ['resource', 'resources'],
  ['plugin', 'plugins'],
  ['platform', 'platform'],
  ['host-port', 'host-port'],
  ['max-replicas', 'max-replicas'],
] as const) {
  const cases = readVectors<FilterCase>(`swarmkit-filter-${file}`);
  test(`filter: ${name}`, { skip: cases === null ? 'vectors are not here' : false }, () => {
    const filter = filters.find((candidate) => candidate.name === name);
    assert.ok(filter !== undefined && cases !== null && cases.length > 0);
    for (const item of cases) {
      // The reference also asks for network driver plugins; networks of such drivers do not exist here.
      if (item.in.task?.networks !== undefined) continue;
      const check = filter.prepare(taskOf(item));
      assert.equal(check === null || check(infoOf(item.in.node)), item.out, JSON.stringify(item.in));
    }
  });
}
