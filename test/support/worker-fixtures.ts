/** Tasks and descriptions for tests of the worker. */
import { defaultContainerSpec, defaultTaskSpec } from '../../src/model/defaults.ts';
import { seededRandom } from '../../src/base/random.ts';
import { newId, type NodeId, type ServiceId, type TaskId } from '../../src/model/ids.ts';
import type { NodeDescription, Task } from '../../src/model/objects.ts';
import type { ContainerSpec, TaskSpec } from '../../src/model/spec.ts';
import type { TaskSetup } from '../../src/worker/types.ts';

const random = seededRandom(Number(process.hrtime.bigint() % 4_000_000_000n));

export const nodeId = newId<NodeId>(random);

export function freshTaskId(): TaskId {
  return newId<TaskId>(random);
}

/** An assigned task of the process runtime that should run; parts replace the defaults. */
export function makeTask(
  parts: Partial<Omit<Task, 'spec'>> & { container?: Partial<ContainerSpec>; spec?: Partial<TaskSpec> } = {},
): Task {
  const { container, spec, ...rest } = parts;
  return {
    id: freshTaskId(),
    meta: { version: 1, createdAt: 0, updatedAt: 0 },
    serviceId: newId<ServiceId>(random),
    serviceAnnotations: { name: 'web', labels: {} },
    slot: 1,
    nodeId,
    spec: {
      ...defaultTaskSpec,
      runtime: 'process',
      ...spec,
      container: { ...defaultContainerSpec, stopGraceMs: 2_000, ...container },
    },
    specVersion: 1,
    status: { state: 'assigned', at: 0, message: '', error: '' },
    desiredState: 'running',
    networks: [],
    endpointPorts: [],
    ...rest,
  };
}

export const plainSetup: TaskSetup = {
  networking: { attachments: [], dnsServers: [], publishOnNode: false },
  secrets: new Map(),
  configs: new Map(),
  nodeAddress: '127.0.0.1',
  hostname: 'test-node',
};

export const plainDescription: NodeDescription = {
  hostname: 'test-node',
  platform: { os: 'linux', architecture: 'x86_64' },
  resources: { nanoCpus: 2e9, memoryBytes: 4e9, generic: {} },
  runtimes: ['process'],
  engineVersion: '',
  engineLabels: {},
  plugins: [],
  swarmdVersion: '0.1.0',
  networkRung: 'host-ports',
};
