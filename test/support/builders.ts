/** Small objects for tests: everything defaulted, the test names what matters. */
import type { ClusterId, NetworkId, NodeId, ServiceId, TaskId } from '../../src/model/ids.ts';
import { defaultClusterSpec, defaultServiceSpec, defaultTaskSpec } from '../../src/model/defaults.ts';
import type { Cluster, ClusterNode, Network, Service, Task } from '../../src/model/objects.ts';
import type { NodeSpec, ServiceSpec, TaskSpec } from '../../src/model/spec.ts';
import type { TaskState } from '../../src/model/task-state.ts';

const META = { version: 0, createdAt: 0, updatedAt: 0 };

export function aCluster(spec: Partial<Cluster['spec']> = {}): Cluster {
  return {
    id: 'cluster' as ClusterId,
    meta: META,
    spec: { ...defaultClusterSpec, ...spec },
    rootCertificatePem: '',
    rootKeyPem: '',
    joinSecrets: { manager: 'm', worker: 'w' },
    blockedNodes: [],
  };
}

export function aNode(
  id: string,
  over: Partial<Omit<ClusterNode, 'id' | 'spec'>> & { spec?: Partial<NodeSpec> } = {},
): ClusterNode {
  const { spec, ...rest } = over;
  return {
    id: id as NodeId,
    meta: META,
    description: {
      hostname: id,
      platform: { os: 'linux', architecture: 'x86_64' },
      resources: { nanoCpus: 4e9, memoryBytes: 8e9, generic: {} },
      runtimes: ['docker', 'process'],
      engineVersion: '20.10',
      engineLabels: {},
      plugins: [],
      swarmdVersion: 'test',
      networkRung: 'overlay',
    },
    status: { state: 'ready', message: '', address: '127.0.0.1' },
    attachments: [],
    ...rest,
    spec: { labels: {}, role: 'worker', availability: 'active', ...spec },
  };
}

export function aTaskSpec(over: Partial<TaskSpec> = {}): TaskSpec {
  return { ...defaultTaskSpec, container: { ...defaultTaskSpec.container, image: 'web:1' }, ...over };
}

export function aServiceSpec(name: string, over: Partial<ServiceSpec> = {}): ServiceSpec {
  return { ...defaultServiceSpec, name, task: aTaskSpec(), ...over };
}

export function aService(id: string, over: Partial<Service> = {}): Service {
  return {
    id: id as ServiceId,
    meta: META,
    spec: aServiceSpec(id),
    specVersion: 1,
    endpoint: { ports: [], virtualIps: [] },
    pendingDelete: false,
    ...over,
  };
}

export function aTask(id: string, serviceId: string, state: TaskState, over: Partial<Task> = {}): Task {
  return {
    id: id as TaskId,
    meta: META,
    serviceId: serviceId as ServiceId,
    serviceAnnotations: { name: serviceId, labels: {} },
    slot: 1,
    nodeId: '',
    spec: aTaskSpec(),
    specVersion: 1,
    status: { state, at: 0, message: '', error: '' },
    desiredState: 'running',
    networks: [],
    endpointPorts: [],
    ...over,
  };
}

export function aNetwork(id: string, over: Partial<Network> = {}): Network {
  return {
    id: id as NetworkId,
    meta: META,
    spec: {
      name: id,
      labels: {},
      driver: 'overlay',
      internal: false,
      attachable: false,
      ingress: false,
      driverOptions: {},
    },
    subnet: '10.0.1.0/24',
    vni: 4096,
    ...over,
  };
}
