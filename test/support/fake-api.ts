/**
 * The cluster's API in memory, for tests of programs that call it. A service's tasks run as soon as it is created
 * or changed, unless a test sets `settle`.
 *
 * Invariants: objects carry increasing versions; a stale version is refused as the real API refuses it.
 */
import { SwarmdError } from '../../src/base/errors.ts';
import { randomBase36, seededRandom } from '../../src/base/random.ts';
import type {
  ApiClient,
  ApiMethod,
  ApiParams,
  ApiResult,
  NodeView,
  ServiceLogRecord,
  ServiceView,
} from '../../src/model/api.ts';
import { defaultClusterSpec } from '../../src/model/defaults.ts';
import type { Forecast, NodeExplanation, TaskExplanation } from '../../src/model/forecast.ts';
import type { ClusterId, NodeId, ServiceId, TaskId } from '../../src/model/ids.ts';
import { STACK_LABEL, type Config, type Network, type Secret, type Task } from '../../src/model/objects.ts';
import type { ServiceSpec } from '../../src/model/spec.ts';

type Handlers = { [M in ApiMethod]: (params: ApiParams<M>) => ApiResult<M> };
interface Named {
  readonly id: string;
  readonly spec: { readonly name: string; readonly labels: Readonly<Record<string, string>> };
}

export class FakeApi implements ApiClient {
  readonly calls: { readonly method: string; readonly params: unknown }[] = [];
  readonly services: ServiceView[] = [];
  readonly nodes: NodeView[] = [];
  readonly networks: Network[] = [];
  readonly secrets: Secret[] = [];
  readonly configs: Config[] = [];
  tasks: Task[] = [];
  logRecords: ServiceLogRecord[] = [];
  tokens = { worker: 'SWMTKN-1-root-worker', manager: 'SWMTKN-1-root-manager' };
  /** Brings the tasks of a service to what its spec asks; replace it to see what happens before. */
  settle = (service: ServiceView): void => this.runTasks(service);
  /** Errors thrown by the next call of a method. */
  readonly failures = new Map<ApiMethod, SwarmdError>();
  readonly #random = seededRandom(1);
  #version = 10;
  nowMs = 1_800_000_000_000;

  constructor() {
    this.addNode('alpha');
  }

  close(): void {}

  id<Id extends string>(): Id {
    return randomBase36(this.#random, 25) as Id;
  }

  meta(): { version: number; createdAt: number; updatedAt: number } {
    this.nowMs += 1000;
    return { version: ++this.#version, createdAt: this.nowMs, updatedAt: this.nowMs };
  }

  addNode(hostname: string, change: Partial<NodeView> = {}): NodeView {
    const node: NodeView = {
      id: this.id<NodeId>(),
      meta: this.meta(),
      spec: { labels: {}, role: 'manager', availability: 'active' },
      description: {
        hostname,
        platform: { os: 'linux', architecture: 'x86_64' },
        resources: { nanoCpus: 4e9, memoryBytes: 8 * 1024 ** 3, generic: {} },
        runtimes: ['process'],
        engineVersion: '28.2.2',
        engineLabels: {},
        plugins: [],
        swarmdVersion: '0.1.0',
        networkRung: 'host-ports',
      },
      status: { state: 'ready', message: '', address: '10.0.0.1' },
      attachments: [],
      managerStatus: { leader: this.nodes.length === 0, reachable: true, address: '10.0.0.1:2377' },
      ...change,
    };
    this.nodes.push(node);
    return node;
  }

  addService(spec: ServiceSpec): ServiceView {
    const service: ServiceView = {
      id: this.id<ServiceId>(),
      meta: this.meta(),
      spec,
      specVersion: this.#version,
      endpoint: {
        ports: spec.endpoint.ports.map((port, i) => ({
          ...port,
          publishedPort: port.publishedPort || 30_000 + i,
        })),
        virtualIps: [],
      },
      pendingDelete: false,
      taskCounts: { running: 0, desired: 0, completed: 0 },
    };
    this.services.push(service);
    this.settle(service);
    return this.service(service.id);
  }

  /** Replaces the object of the same id. */
  put(service: ServiceView): void {
    this.services.splice(
      this.services.findIndex((other) => other.id === service.id),
      1,
      service,
    );
  }

  addTask(service: ServiceView, change: Partial<Task> = {}): Task {
    const task: Task = {
      id: this.id<TaskId>(),
      meta: this.meta(),
      serviceId: service.id,
      serviceAnnotations: { name: service.spec.name, labels: service.spec.labels },
      slot: 1,
      nodeId: this.nodes[0]?.id ?? '',
      spec: service.spec.task,
      specVersion: service.specVersion,
      status: { state: 'running', at: this.nowMs, message: 'started', error: '' },
      desiredState: 'running',
      networks: [],
      endpointPorts: service.endpoint.ports,
      ...change,
    };
    this.tasks.push(task);
    return task;
  }

  runTasks(service: ServiceView): void {
    const { mode } = service.spec;
    const count =
      mode.kind === 'replicated' ? mode.replicas : mode.kind === 'replicated-job' ? mode.totalCompletions : 1;
    this.tasks = this.tasks.filter((task) => task.serviceId !== service.id);
    const isJob = mode.kind.endsWith('-job');
    for (let slot = 1; slot <= count; slot++) {
      const status = {
        state: isJob ? 'complete' : 'running',
        at: this.nowMs,
        message: '',
        error: '',
      } as const;
      this.addTask(service, {
        slot: mode.kind === 'global' ? 0 : slot,
        status,
        ...(isJob ? { desiredState: 'complete' } : {}),
      });
    }
    this.put({
      ...service,
      taskCounts: { running: isJob ? 0 : count, desired: count, completed: isJob ? count : 0 },
    });
  }

  service(ref: string): ServiceView {
    return find('service', this.services, ref);
  }

  async call<M extends ApiMethod>(
    method: M,
    params: ApiParams<M>,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<ApiResult<M>> {
    signal.throwIfAborted();
    this.calls.push({ method, params });
    const failure = this.failures.get(method);
    if (failure !== undefined) throw failure;
    return (this.#handlers[method] as (params: ApiParams<M>) => ApiResult<M>)(params);
  }

  async *serviceLogs(): AsyncIterable<ServiceLogRecord> {
    yield* this.logRecords;
  }

  /** What `cluster.snapshot` gives as the state. */
  state: Uint8Array = new Uint8Array();

  /** What dry runs and `whatif` answer. */
  forecast: Forecast = { moves: [], shortages: [], settled: true, quorum: null };
  /** The task that explanations are about, and the nodes. */
  explained: TaskExplanation = {
    taskId: 't'.repeat(25),
    name: 'web.1',
    nodeId: '',
    hostname: '',
    state: 'pending',
    reason: 'no suitable node',
    help: [],
  };
  explainedNodes: NodeExplanation[] = [];

  readonly #handlers: Handlers = {
    'cluster.snapshot': () => ({
      clusterId: 'c'.repeat(25),
      index: 9,
      term: 1,
      members: [{ id: 1, nodeId: this.nodes[0]?.id ?? '', address: '10.0.0.1:2377', voter: true }],
      state: Buffer.from(this.state).toString('base64'),
    }),
    info: () => ({
      nodeId: this.nodes[0]?.id ?? '',
      role: 'manager',
      clusterId: 'c'.repeat(25),
      version: '0.1.0',
      dataDir: '/data',
      advertiseAddress: '10.0.0.1:2377',
      raft: {
        role: 'leader',
        term: 1,
        leaderNodeId: this.nodes[0]?.id ?? null,
        commitIndex: 9,
        appliedIndex: 9,
        members: 1,
      },
      managers: [{ nodeId: this.nodes[0]?.id ?? '', address: '10.0.0.1:2377' }],
      dnsAddress: '',
      refused: { connections: 0, violations: 0, frames: 0 },
    }),
    'node.leave': () => null,
    'cluster.inspect': () => ({
      id: 'c'.repeat(25) as ClusterId,
      meta: this.meta(),
      spec: defaultClusterSpec,
      nodes: this.nodes.length,
      managers: 1,
    }),
    'cluster.tokens': ({ rotate }) => {
      if (rotate !== null) this.tokens = { ...this.tokens, [rotate]: `SWMTKN-1-root-new${rotate}` };
      return this.tokens;
    },
    'node.list': () => [...this.nodes],
    'node.inspect': ({ ref }) => this.#node(ref),
    'node.update': ({ ref, version, spec }) => {
      const node = this.#node(ref);
      checkVersion(node.meta.version, version);
      const changed = { ...node, spec, meta: this.meta() };
      this.nodes.splice(this.nodes.indexOf(node), 1, changed);
      return changed;
    },
    'node.remove': ({ ref }) => remove(this.nodes, this.#node(ref)),
    'node.forecast': () => this.forecast,
    'service.explain': ({ ref }) => ({
      service: this.service(ref).spec.name,
      mode: 'replicated',
      tasks: [this.explained],
      nodes: this.explainedNodes,
    }),
    'service.forecast': () => this.forecast,
    'task.explain': () => ({ task: this.explained, nodes: this.explainedNodes }),
    'service.create': ({ spec }) => {
      if (this.services.some((service) => service.spec.name === spec.name)) {
        throw new SwarmdError('ALREADY_EXISTS', `a service "${spec.name}" exists`);
      }
      return this.addService(spec);
    },
    'service.list': ({ stack }) => ofStack(this.services, stack),
    'service.inspect': ({ ref }) => this.service(ref),
    'service.update': ({ ref, version, spec }) => this.#change(this.service(ref), version, spec),
    'service.rollback': ({ ref, version }) => {
      const service = this.service(ref);
      if (service.previousSpec === undefined)
        throw new SwarmdError('FAILED_PRECONDITION', `service ${ref} has no previous spec`);
      return this.#change(service, version, service.previousSpec);
    },
    'service.remove': ({ ref }) => {
      const service = this.service(ref);
      this.tasks = this.tasks.filter((task) => task.serviceId !== service.id);
      return remove(this.services, service);
    },
    'task.list': ({ service, node, stack }) => {
      const wanted = service === null ? null : this.service(service).id;
      return this.tasks.filter(
        (task) =>
          (wanted === null || task.serviceId === wanted) &&
          (node === null || task.nodeId === node) &&
          (stack === null || task.serviceAnnotations.labels[STACK_LABEL] === stack),
      );
    },
    'task.inspect': ({ ref }) => {
      const task = this.tasks.find((candidate) => candidate.id.startsWith(ref));
      if (task === undefined) throw new SwarmdError('NOT_FOUND', `there is no task "${ref}"`);
      return task;
    },
    'network.create': ({ spec }) =>
      add(this.networks, { id: this.id(), meta: this.meta(), spec, subnet: '10.0.1.0/24', vni: 4097 }),
    'network.list': ({ stack }) => ofStack(this.networks, stack),
    'network.inspect': ({ ref }) => find('network', this.networks, ref),
    'network.remove': ({ ref }) => remove(this.networks, find('network', this.networks, ref)),
    'secret.create': ({ spec }) => add(this.secrets, { id: this.id(), meta: this.meta(), spec }),
    'secret.list': ({ stack }) =>
      ofStack(this.secrets, stack).map((secret) => ({ ...secret, spec: { ...secret.spec, data: '' } })),
    'secret.inspect': ({ ref }) => find('secret', this.secrets, ref),
    'secret.remove': ({ ref }) => remove(this.secrets, find('secret', this.secrets, ref)),
    'config.create': ({ spec }) => add(this.configs, { id: this.id(), meta: this.meta(), spec }),
    'config.list': ({ stack }) => ofStack(this.configs, stack),
    'config.inspect': ({ ref }) => find('config', this.configs, ref),
    'config.remove': ({ ref }) => remove(this.configs, find('config', this.configs, ref)),
  };

  #node(ref: string): NodeView {
    const node = this.nodes.find((other) => other.description.hostname === ref || other.id.startsWith(ref));
    if (node === undefined) throw new SwarmdError('NOT_FOUND', `there is no node "${ref}"`);
    return node;
  }

  #change(service: ServiceView, version: number, spec: ServiceSpec): ServiceView {
    checkVersion(service.meta.version, version);
    const meta = { ...this.meta(), createdAt: service.meta.createdAt };
    const changed = { ...service, meta, spec, specVersion: meta.version, previousSpec: service.spec };
    this.put(changed);
    this.settle(changed);
    return this.service(service.id);
  }
}

function checkVersion(current: number, given: number): void {
  if (current !== given) throw new SwarmdError('CONFLICT', 'update out of sequence');
}

function find<T extends Named>(kind: string, objects: readonly T[], ref: string): T {
  const found = objects.find((object) => object.spec.name === ref || object.id.startsWith(ref));
  if (found === undefined) throw new SwarmdError('NOT_FOUND', `there is no ${kind} "${ref}"`);
  return found;
}

function ofStack<T extends Named>(objects: readonly T[], stack: string | null): T[] {
  return objects.filter((object) => stack === null || object.spec.labels[STACK_LABEL] === stack);
}

function add<T>(objects: T[], object: T): T {
  objects.push(object);
  return object;
}

function remove<T>(objects: T[], object: T): null {
  objects.splice(objects.indexOf(object), 1);
  return null;
}
