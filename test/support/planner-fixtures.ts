/** Small objects for tests of planners: every field has a plain default, the test states what matters. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import {
  defaultClusterSpec,
  defaultContainerSpec,
  defaultServiceSpec,
  defaultTaskSpec,
} from '../../src/model/defaults.ts';
import type { ClusterId, NetworkId, NodeId, ServiceId, TaskId } from '../../src/model/ids.ts';
import type {
  Cluster,
  ClusterNode,
  Meta,
  Network,
  NodeDescription,
  Service,
  Task,
} from '../../src/model/objects.ts';
import type { ClusterSpec, NetworkSpec, NodeSpec, ServiceSpec, TaskSpec } from '../../src/model/spec.ts';
import { seededRandom } from '../../src/base/random.ts';
import type { Action } from '../../src/manager/state/actions.ts';
import type { PlanContext } from '../../src/manager/state/planner.ts';
import { Store } from '../../src/manager/state/store.ts';

export const NOW_MS = 1_800_000_000_000;

export const planContext = (nowMs = NOW_MS): PlanContext => ({ nowMs, random: seededRandom(1) });

const meta: Meta = { version: 0, createdAt: 0, updatedAt: 0 };

export interface NodeOptions {
  readonly spec?: Partial<NodeSpec>;
  readonly description?: Partial<NodeDescription>;
  readonly state?: ClusterNode['status']['state'];
  readonly address?: string;
  readonly attachments?: ClusterNode['attachments'];
}

export function makeNode(id: string, options: NodeOptions = {}): ClusterNode {
  return {
    id: id as NodeId,
    meta,
    spec: { labels: {}, role: 'worker', availability: 'active', ...options.spec },
    description: {
      hostname: `host-${id}`,
      platform: { os: 'linux', architecture: 'x86_64' },
      resources: { nanoCpus: 4e9, memoryBytes: 8 * 1024 ** 3, generic: {} },
      runtimes: ['docker', 'process'],
      engineVersion: '28.0.0',
      engineLabels: {},
      plugins: [],
      swarmdVersion: '0',
      networkRung: 'overlay',
      ...options.description,
    },
    status: { state: options.state ?? 'ready', message: '', address: options.address ?? '10.9.0.1' },
    attachments: options.attachments ?? [],
  };
}

/** A docker task spec; the test overrides what it looks at. */
export function makeTaskSpec(
  overrides: Partial<Omit<TaskSpec, 'placement' | 'container'>> & {
    placement?: Partial<TaskSpec['placement']>;
    container?: Partial<TaskSpec['container']>;
  } = {},
): TaskSpec {
  return {
    ...defaultTaskSpec,
    ...overrides,
    placement: { ...defaultTaskSpec.placement, ...overrides.placement },
    container: { ...defaultContainerSpec, image: 'app', ...overrides.container },
  };
}

export function makeService(
  id: string,
  overrides: Partial<Omit<Service, 'spec'>> & { spec?: Partial<ServiceSpec> } = {},
): Service {
  const { spec, ...rest } = overrides;
  return {
    id: id as ServiceId,
    meta,
    specVersion: 1,
    endpoint: { ports: [], virtualIps: [] },
    pendingDelete: false,
    ...rest,
    spec: { ...defaultServiceSpec, task: makeTaskSpec(), name: id, ...spec },
  };
}

export function makeTask(
  id: string,
  overrides: Partial<Omit<Task, 'id' | 'serviceId' | 'nodeId' | 'status'>> & {
    service?: string;
    node?: string;
    status?: Partial<Task['status']>;
  } = {},
): Task {
  const { service = 'svc', node = '', status, ...rest } = overrides;
  return {
    id: id as TaskId,
    meta,
    serviceId: service as ServiceId,
    serviceAnnotations: { name: service, labels: {} },
    slot: 1,
    nodeId: node as NodeId | '',
    spec: makeTaskSpec(),
    specVersion: 1,
    desiredState: 'running',
    networks: [],
    endpointPorts: [],
    ...rest,
    status: { state: 'pending', at: NOW_MS - 1_000, message: '', error: '', ...status },
  };
}

export function makeNetwork(
  id: string,
  spec: Partial<NetworkSpec> = {},
  allocated: Partial<Network> = {},
): Network {
  return {
    id: id as NetworkId,
    meta,
    subnet: '',
    vni: 0,
    ...allocated,
    spec: {
      name: id,
      labels: {},
      driver: 'overlay',
      internal: false,
      attachable: false,
      ingress: false,
      driverOptions: {},
      ...spec,
    },
  };
}

export function makeCluster(spec: Partial<ClusterSpec> = {}): Cluster {
  return {
    id: 'cluster' as ClusterId,
    meta,
    spec: { ...defaultClusterSpec, ...spec },
    rootCertificatePem: '',
    rootKeyPem: '',
    joinSecrets: { manager: '', worker: '' },
    blockedNodes: [],
  };
}

export interface World {
  readonly clusters?: readonly Cluster[];
  readonly nodes?: readonly ClusterNode[];
  readonly services?: readonly Service[];
  readonly tasks?: readonly Task[];
  readonly networks?: readonly Network[];
}

/** A store that holds the given objects. */
export function makeStore(world: World): Store {
  const store = new Store();
  const actions: Action[] = [];
  for (const object of world.clusters ?? [makeCluster()])
    actions.push({ kind: 'create', table: 'cluster', object });
  for (const object of world.nodes ?? []) actions.push({ kind: 'create', table: 'node', object });
  for (const object of world.networks ?? []) actions.push({ kind: 'create', table: 'network', object });
  for (const object of world.services ?? []) actions.push({ kind: 'create', table: 'service', object });
  for (const object of world.tasks ?? []) actions.push({ kind: 'create', table: 'task', object });
  applyAll(store, actions);
  return store;
}

/** Applies actions as one entry; a refusal is a failed test. */
export function applyAll(store: Store, actions: readonly Action[], nowMs = NOW_MS): void {
  const { result } = store.apply(store.index + 1, { at: nowMs, actions });
  if (!result.ok) throw new Error(`batch refused: ${JSON.stringify(result.refusal)}`);
}

/** The vectors of `name` beside the repository, or null where they are not there (the test then skips). */
export function readVectors<Case>(name: string): readonly Case[] | null {
  const path = fileURLToPath(new URL(`../../../shared/data/vectors/${name}.json`, import.meta.url));
  try {
    return (JSON.parse(readFileSync(path, 'utf8')) as { cases: Case[] }).cases;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    throw error;
  }
}
