/** The methods of the API, by name. The leader runs them; other managers forward. */
import { SwarmdError } from '../../base/errors.ts';
import type { ApiMethod, ApiParams, ApiResult } from '../../model/api.ts';
import { atMostOnce, type CallKey, callKey } from './once.ts';
import { explainServiceOf, explainTaskOf, forecastNodesOf, forecastService } from './forecasts.ts';
import { findConfig, findNetwork, findSecret } from './lookup.ts';
import {
  inspectCluster,
  inspectNode,
  joinTokens,
  listNodes,
  type NodeApiContext,
  removeNode,
  updateNode,
} from './nodes.ts';
import {
  createConfig,
  createNetwork,
  createSecret,
  ofStack,
  removeConfig,
  removeNetwork,
  removeSecret,
  withoutData,
} from './objects.ts';
import {
  createService,
  inspectService,
  inspectTask,
  listServices,
  listTasks,
  removeService,
  rollbackService,
  updateService,
} from './services.ts';

/** Methods answered by the asked daemon itself, not by the leader. */
export type LocalMethod = 'info' | 'node.leave' | 'cluster.snapshot';
export type LeaderMethod = Exclude<ApiMethod, LocalMethod>;

type Method<M extends ApiMethod> = (
  context: NodeApiContext,
  params: ApiParams<M>,
  signal: AbortSignal,
) => Promise<ApiResult<M>> | ApiResult<M>;

const methods: { readonly [M in LeaderMethod]: Method<M> } = {
  'cluster.inspect': (context) => inspectCluster(context.view),
  'cluster.tokens': joinTokens,
  'node.list': (context) => listNodes(context),
  'node.inspect': (context, { ref }) => inspectNode(context, ref),
  'node.update': updateNode,
  'node.remove': removeNode,
  'node.forecast': forecastNodesOf,
  'service.create': createService,
  'service.list': (context, { stack }) => listServices(context.view, stack),
  'service.inspect': (context, { ref }) => inspectService(context.view, ref),
  'service.explain': explainServiceOf,
  'service.forecast': forecastService,
  'service.update': updateService,
  'service.rollback': rollbackService,
  'service.remove': removeService,
  'task.list': (context, params) => listTasks(context.view, params),
  'task.inspect': (context, { ref }) => inspectTask(context.view, ref),
  'task.explain': explainTaskOf,
  'network.create': createNetwork,
  'network.list': (context, { stack }) => ofStack(context.view.all('network'), stack),
  'network.inspect': (context, { ref }) => findNetwork(context.view, ref),
  'network.remove': removeNetwork,
  'secret.create': createSecret,
  'secret.list': (context, { stack }) => ofStack(context.view.all('secret'), stack).map(withoutData),
  'secret.inspect': (context, { ref }) => withoutData(findSecret(context.view, ref)),
  'secret.remove': removeSecret,
  'config.create': createConfig,
  'config.list': (context, { stack }) => ofStack(context.view.all('config'), stack),
  'config.inspect': (context, { ref }) => findConfig(context.view, ref),
  'config.remove': removeConfig,
};

/** Names of every method the leader serves. */
export const leaderMethodNames = Object.keys(methods) as readonly LeaderMethod[];

/** Whether `name` is a method the leader serves. */
export function isLeaderMethod(name: string): name is LeaderMethod {
  return Object.hasOwn(methods, name);
}

/** Runs one method here, on the leader. `params` come from outside: their shape is checked. */
export async function runMethod(
  context: NodeApiContext,
  name: LeaderMethod,
  params: unknown,
  signal: AbortSignal,
): Promise<unknown> {
  const { once, ...parsed } = parseParams(name, params);
  const run = keyedRun(context, name, parsed, callKey(once), signal);
  if (!isExclusive(name)) return await run();
  return await context.exclusively(async () => {
    if (signal.aborted) throw new SwarmdError('CANCELLED', 'the caller gave up before the change was made');
    return await run();
  });
}

type AnyMethod = (context: NodeApiContext, params: unknown, signal: AbortSignal) => unknown;

/** The call, at most once when it has a key. */
function keyedRun(
  context: NodeApiContext,
  name: LeaderMethod,
  params: Readonly<Record<string, unknown>>,
  call: CallKey | null,
  signal: AbortSignal,
): () => Promise<unknown> {
  const method = methods[name] as AnyMethod;
  if (call === null) return async () => await method(context, params, signal);
  const [kind, verb] = name.split('.') as [string, string];
  const inspect = methods[`${kind}.inspect` as LeaderMethod] as AnyMethod;
  const run = async (): Promise<unknown> => await method({ ...context, call }, params, signal);
  // What is gone by now answers as anything that is gone.
  const answer = (id: string): unknown => (verb === 'remove' ? null : inspect(context, { ref: id }, signal));
  return () => atMostOnce(context.view, call, kind, run, answer);
}

/** Whether a method checks objects other than the one it changes: a port that is free, a network not in use. */
function isExclusive(name: LeaderMethod): boolean {
  const [kind, verb] = name.split('.');
  return (
    kind !== 'node' && (verb === 'create' || verb === 'update' || verb === 'rollback' || verb === 'remove')
  );
}

type ParameterType = 'string' | 'number' | 'boolean' | 'null' | 'object' | 'array';

/** Every parameter that methods read, by name. A value of another type is refused. */
const parameterTypes = {
  ref: ['string'],
  version: ['number'],
  force: ['boolean'],
  stack: ['string', 'null'],
  service: ['string', 'null'],
  node: ['string', 'null'],
  rotate: ['string', 'null'],
  spec: ['object'],
  lose: ['array'],
  drain: ['array'],
  once: ['string', 'null'],
} as const satisfies Record<string, readonly ParameterType[]>;

type Parameter = keyof typeof parameterTypes;

/** What a parameter is when it is not given; those without a default must be given. */
const parameterDefaults: { readonly [P in Parameter]?: null | false } = {
  force: false,
  stack: null,
  service: null,
  node: null,
  rotate: null,
  once: null,
};

/** Parameters of each method. */
function parametersOf(name: LeaderMethod): readonly Parameter[] {
  const [kind, verb] = name.split('.') as [string, string];
  switch (verb) {
    case 'create':
      return ['spec', 'once'];
    case 'update':
      return ['ref', 'version', 'spec', 'once'];
    case 'rollback':
      return ['ref', 'version', 'once'];
    case 'remove':
      return kind === 'node' ? ['ref', 'force', 'once'] : ['ref', 'once'];
    case 'inspect':
      return kind === 'cluster' ? [] : ['ref'];
    case 'explain':
      return ['ref'];
    case 'forecast':
      return kind === 'node' ? ['lose', 'drain'] : ['service', 'spec'];
    case 'tokens':
      return ['rotate'];
    default:
      return kind === 'task' ? ['service', 'node', 'stack'] : kind === 'node' ? [] : ['stack'];
  }
}

function parseParams(name: LeaderMethod, params: unknown): Record<string, unknown> {
  if (typeof params !== 'object' || params === null || Array.isArray(params)) {
    throw new SwarmdError('INVALID_ARGUMENT', `the parameters of ${name} are not an object`);
  }
  const parameters = parametersOf(name);
  const unknown = Object.keys(params).find((key) => !parameters.some((parameter) => parameter === key));
  if (unknown !== undefined) {
    const known = parameters.length === 0 ? 'it takes none' : `it takes ${parameters.join(', ')}`;
    throw new SwarmdError('INVALID_ARGUMENT', `${name} has no parameter ${unknown}; ${known}`);
  }
  const out: Record<string, unknown> = {};
  for (const parameter of parameters) {
    const value = (params as Record<string, unknown>)[parameter] ?? parameterDefaults[parameter];
    if (value === undefined) {
      throw new SwarmdError('INVALID_ARGUMENT', `${name} needs the parameter ${parameter}`);
    }
    requireType(name, parameter, value);
    out[parameter] = value;
  }
  return out;
}

function requireType(name: LeaderMethod, parameter: Parameter, value: unknown): void {
  const types: readonly string[] = parameterTypes[parameter];
  const type = value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value;
  if (types.includes(type)) return;
  throw new SwarmdError(
    'INVALID_ARGUMENT',
    `parameter ${parameter} of ${name} is of type ${type}; give ${types.join(' or ')}`,
  );
}
