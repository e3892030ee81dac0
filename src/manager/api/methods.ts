/** The methods of the API, by name. The leader runs them; other managers forward. */
import { SwarmdError } from '../../base/errors.ts';
import type { ApiMethod, ApiParams, ApiResult } from '../../model/api.ts';
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
export type LocalMethod = 'info' | 'node.leave';
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
  'service.create': createService,
  'service.list': (context, { stack }) => listServices(context.view, stack),
  'service.inspect': (context, { ref }) => inspectService(context.view, ref),
  'service.update': updateService,
  'service.rollback': rollbackService,
  'service.remove': removeService,
  'task.list': (context, params) => listTasks(context.view, params),
  'task.inspect': (context, { ref }) => inspectTask(context.view, ref),
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
  const method = methods[name] as (context: NodeApiContext, params: unknown, signal: AbortSignal) => unknown;
  return await method(context, parseParams(name, params), signal);
}

/** Every parameter that methods read as text, number or flag, by name. */
const parameterTypes: Readonly<Record<string, readonly string[]>> = {
  ref: ['string'],
  version: ['number'],
  force: ['boolean'],
  stack: ['string', 'null'],
  service: ['string', 'null'],
  node: ['string', 'null'],
  rotate: ['string', 'null'],
  spec: ['object'],
};

/** Parameters that each method needs; the others default to null or false. */
function requiredParameters(name: LeaderMethod): readonly string[] {
  const verb = name.slice(name.indexOf('.') + 1);
  if (verb === 'create') return ['spec'];
  if (verb === 'update') return ['ref', 'version', 'spec'];
  if (verb === 'rollback') return ['ref', 'version'];
  return verb === 'inspect' && name !== 'cluster.inspect' ? ['ref'] : verb === 'remove' ? ['ref'] : [];
}

function parseParams(name: LeaderMethod, params: unknown): Record<string, unknown> {
  if (typeof params !== 'object' || params === null || Array.isArray(params)) {
    throw new SwarmdError('INVALID_ARGUMENT', `the parameters of ${name} are not an object`);
  }
  const out: Record<string, unknown> = { stack: null, service: null, node: null, rotate: null, force: false };
  for (const [key, value] of Object.entries(params)) {
    const types = parameterTypes[key];
    const type = value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value;
    if (types === undefined) throw new SwarmdError('INVALID_ARGUMENT', `${name} has no parameter ${key}`);
    if (!types.includes(type)) {
      throw new SwarmdError(
        'INVALID_ARGUMENT',
        `parameter ${key} of ${name} is of type ${type}; give ${types.join(' or ')}`,
      );
    }
    out[key] = value;
  }
  for (const key of requiredParameters(name)) {
    if (out[key] === undefined)
      throw new SwarmdError('INVALID_ARGUMENT', `${name} needs the parameter ${key}`);
  }
  return out;
}
