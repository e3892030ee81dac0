/** API methods of services and tasks. They run on the leader. */
import { SwarmdError } from '../../base/errors.ts';
import type { Result } from '../../base/result.ts';
import type { ApiParams, ServiceView } from '../../model/api.ts';
import { newId, type ServiceId } from '../../model/ids.ts';
import { STACK_LABEL, type Service, type Task } from '../../model/objects.ts';
import type { PortConfig, ServiceSpec } from '../../model/spec.ts';
import { taskStateRank } from '../../model/task-state.ts';
import { parseServiceSpec } from '../../model/validate-service.ts';
import { startRollback, startUpdate } from '../update/start.ts';
import type { StateView } from '../state/view.ts';
import { type ApiContext, commit, commitLatest, outOfSequence } from './commit.ts';
import { findNode, findService, findTask, requireFreeName } from './lookup.ts';

/** The value of a parse, or INVALID_ARGUMENT with its reason. */
export function required<T>(result: Result<T>): T {
  if (!result.ok) throw new SwarmdError('INVALID_ARGUMENT', result.reason);
  return result.value;
}

export async function createService(
  context: ApiContext,
  params: ApiParams<'service.create'>,
  signal: AbortSignal,
): Promise<ServiceView> {
  const { view } = context;
  const service = newService(context, params);
  await commit(context, [{ kind: 'create', table: 'service', object: service }], signal);
  return viewOf(view, view.get('service', service.id) ?? service);
}

/** The service that `service.create` makes; throws what it refuses. */
export function newService(
  context: Pick<ApiContext, 'view' | 'random'>,
  params: Pick<ApiParams<'service.create'>, 'spec'>,
): Service {
  const { view } = context;
  const spec = resolveReferences(view, required(parseServiceSpec(params.spec)));
  requireFreeName(view, 'service', spec.name);
  requireFreePorts(view, spec, null);
  return {
    id: newId<ServiceId>(context.random),
    meta: { version: 0, createdAt: 0, updatedAt: 0 },
    spec,
    specVersion: 1,
    endpoint: { ports: [], virtualIps: [] },
    pendingDelete: false,
  };
}

export async function updateService(
  context: ApiContext,
  params: ApiParams<'service.update'>,
  signal: AbortSignal,
): Promise<ServiceView> {
  const current = findService(context.view, params.ref);
  const next = updatedService(context, current, params.spec);
  requireVersion(current, params.version);
  return await replace(context, current, next, signal);
}

/** The service as `service.update` leaves it; throws what it refuses, but for the version. */
export function updatedService(
  context: Pick<ApiContext, 'view' | 'nowMs'>,
  current: Service,
  asked: ServiceSpec,
): Service {
  const { view } = context;
  const spec = resolveReferences(view, required(parseServiceSpec(asked)));
  if (spec.name !== current.spec.name) {
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      `service ${current.spec.name} cannot be renamed; create another one`,
    );
  }
  if (spec.mode.kind !== current.spec.mode.kind) {
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      `the mode of service ${spec.name} cannot change from ${current.spec.mode.kind} to ${spec.mode.kind}; remove the service and create it again`,
    );
  }
  requireFreePorts(view, spec, current.id);
  return startUpdate(current, spec, context.nowMs());
}

export async function rollbackService(
  context: ApiContext,
  params: ApiParams<'service.rollback'>,
  signal: AbortSignal,
): Promise<ServiceView> {
  const current = findService(context.view, params.ref);
  requireVersion(current, params.version);
  const next = startRollback(current, context.nowMs());
  if (!next.ok) throw new SwarmdError('FAILED_PRECONDITION', next.reason);
  requireFreePorts(context.view, next.value.spec, current.id);
  return await replace(context, current, next.value, signal);
}

export async function removeService(
  context: ApiContext,
  params: ApiParams<'service.remove'>,
  signal: AbortSignal,
): Promise<null> {
  const { id } = findService(context.view, params.ref);
  const build = () => {
    const service = context.view.get('service', id);
    if (service === undefined || service.pendingDelete) return [];
    const object = { ...service, pendingDelete: true };
    return [{ kind: 'update', table: 'service', object, expect: service.meta.version } as const];
  };
  await commitLatest(context, build, signal);
  return null;
}

export function listServices(view: StateView, stack: string | null): ServiceView[] {
  const live = [...view.all('service')].filter((service) => !service.pendingDelete);
  return live
    .filter((service) => stack === null || service.spec.labels[STACK_LABEL] === stack)
    .map((service) => viewOf(view, service));
}

export function inspectService(view: StateView, ref: string): ServiceView {
  return viewOf(view, findService(view, ref));
}

export function listTasks(view: StateView, params: ApiParams<'task.list'>): Task[] {
  const node = params.node === null ? null : findNode(view, params.node);
  if (params.service !== null) {
    const tasks = [...view.tasksOfService(findService(view, params.service).id)];
    return node === null ? tasks : tasks.filter((task) => task.nodeId === node.id);
  }
  const tasks = node === null ? [...view.all('task')] : [...view.tasksOfNode(node.id)];
  if (params.stack === null) return tasks;
  return tasks.filter((task) => task.serviceAnnotations.labels[STACK_LABEL] === params.stack);
}

export function inspectTask(view: StateView, ref: string): Task {
  return findTask(view, ref);
}

async function replace(
  context: ApiContext,
  current: Service,
  next: Service,
  signal: AbortSignal,
): Promise<ServiceView> {
  const expect = current.meta.version;
  await commit(context, [{ kind: 'update', table: 'service', object: next, expect }], signal);
  return viewOf(context.view, context.view.get('service', current.id) ?? next);
}

function requireVersion(service: Service, version: number): void {
  if (service.meta.version === version) return;
  throw outOfSequence('service', service.spec.name, version, service.meta.version);
}

function viewOf(view: StateView, service: Service): ServiceView {
  let running = 0;
  let wanted = 0;
  let completed = 0;
  for (const task of view.tasksOfService(service.id)) {
    const alive = taskStateRank[task.desiredState] <= taskStateRank.running;
    if (alive && task.status.state === 'running') running += 1;
    if (alive && task.desiredState === 'running') wanted += 1;
    if (task.status.state === 'complete' && task.jobIteration === service.jobIteration) completed += 1;
  }
  return { ...service, taskCounts: { running, desired: desiredTasks(service, wanted), completed } };
}

function desiredTasks(service: Service, wanted: number): number {
  switch (service.spec.mode.kind) {
    case 'replicated':
      return service.spec.mode.replicas;
    case 'replicated-job':
      return service.spec.mode.maxConcurrent;
    case 'global':
    case 'global-job':
      return wanted;
  }
}

/** Networks, secrets and configs may be given by name: the state holds ids of what exists. */
function resolveReferences(view: StateView, spec: ServiceSpec): ServiceSpec {
  const networks = spec.task.networks.map((attachment) => {
    const network = view.get('network', attachment.target) ?? view.byName('network', attachment.target);
    if (network === undefined) {
      throw new SwarmdError(
        'NOT_FOUND',
        `network ${attachment.target} not found; create it first, or check the name`,
      );
    }
    if (network.spec.ingress) {
      throw new SwarmdError(
        'INVALID_ARGUMENT',
        `service ${spec.name} cannot use the ingress network ${network.spec.name} by name; publish a port instead`,
      );
    }
    return { ...attachment, target: network.id };
  });
  const { container } = spec.task;
  const file = <K extends 'secret' | 'config'>(kind: K, reference: { id: string; name: string }) => {
    const object = view.get(kind, reference.id) ?? view.byName(kind, reference.name);
    if (object === undefined)
      throw new SwarmdError('NOT_FOUND', `${kind} ${reference.name} not found; create it first`);
    return object;
  };
  const secrets = container.secrets.map((one) => ({ ...one, id: file('secret', one).id }));
  const configs = container.configs.map((one) => ({ ...one, id: file('config', one).id }));
  return { ...spec, task: { ...spec.task, networks, container: { ...container, secrets, configs } } };
}

/** A published ingress port belongs to one service in the cluster. */
function requireFreePorts(view: StateView, spec: ServiceSpec, own: ServiceId | null): void {
  const key = (port: PortConfig): string => `${port.publishedPort}/${port.protocol}`;
  const wanted = new Set(
    spec.endpoint.ports.filter((port) => port.publishMode === 'ingress' && port.publishedPort !== 0).map(key),
  );
  if (wanted.size === 0) return;
  for (const other of view.all('service')) {
    if (other.id === own || other.pendingDelete) continue;
    for (const port of [...other.endpoint.ports, ...other.spec.endpoint.ports]) {
      if (port.publishMode !== 'ingress' || !wanted.has(key(port))) continue;
      throw new SwarmdError(
        'FAILED_PRECONDITION',
        `port ${key(port)} is already in use by service ${other.spec.name} (id ${other.id}) as an ingress port; publish another one`,
      );
    }
  }
}
