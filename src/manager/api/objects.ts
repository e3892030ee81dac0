/** API methods of networks, secrets and configs. They run on the leader. */
import { SwarmdError } from '../../base/errors.ts';
import type { ApiParams } from '../../model/api.ts';
import { type ConfigId, type NetworkId, newId, type SecretId } from '../../model/ids.ts';
import { STACK_LABEL, type Config, type Network, type Secret, type Service } from '../../model/objects.ts';
import { parseConfigSpec, parseNetworkSpec, parseSecretSpec } from '../../model/validate-objects.ts';
import type { StateView } from '../state/view.ts';
import { type ApiContext, commit } from './commit.ts';
import { findConfig, findNetwork, findSecret, requireFreeName } from './lookup.ts';
import { required } from './services.ts';

const NEW_META = { version: 0, createdAt: 0, updatedAt: 0 };

type Labelled = { readonly spec: { readonly labels: Readonly<Record<string, string>> } };

/** The objects of a stack, or all of them. */
export function ofStack<T extends Labelled>(all: Iterable<T>, stack: string | null): T[] {
  return [...all].filter((object) => stack === null || object.spec.labels[STACK_LABEL] === stack);
}

export async function createNetwork(
  context: ApiContext,
  params: ApiParams<'network.create'>,
  signal: AbortSignal,
): Promise<Network> {
  const spec = required(parseNetworkSpec(params.spec));
  requireFreeName(context.view, 'network', spec.name);
  const object: Network = { id: newId<NetworkId>(context.random), meta: NEW_META, spec, subnet: '', vni: 0 };
  await commit(context, [{ kind: 'create', table: 'network', object }], signal);
  return context.view.get('network', object.id) ?? object;
}

export async function removeNetwork(
  context: ApiContext,
  params: ApiParams<'network.remove'>,
  signal: AbortSignal,
): Promise<null> {
  const network = findNetwork(context.view, params.ref);
  if (network.spec.ingress) {
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      `network ${network.spec.name} carries the published ports and stays`,
    );
  }
  refuseInUse('network', network.spec.name, context.view, (service) =>
    service.spec.task.networks.some((attachment) => attachment.target === network.id),
  );
  await commit(
    context,
    [{ kind: 'delete', table: 'network', id: network.id, expect: network.meta.version }],
    signal,
  );
  return null;
}

export async function createSecret(
  context: ApiContext,
  params: ApiParams<'secret.create'>,
  signal: AbortSignal,
): Promise<Secret> {
  const spec = required(parseSecretSpec(params.spec));
  requireFreeName(context.view, 'secret', spec.name);
  const object: Secret = { id: newId<SecretId>(context.random), meta: NEW_META, spec };
  await commit(context, [{ kind: 'create', table: 'secret', object }], signal);
  return withoutData(context.view.get('secret', object.id) ?? object);
}

export async function removeSecret(
  context: ApiContext,
  params: ApiParams<'secret.remove'>,
  signal: AbortSignal,
): Promise<null> {
  const secret = findSecret(context.view, params.ref);
  refuseInUse('secret', secret.spec.name, context.view, (service) =>
    service.spec.task.container.secrets.some((reference) => reference.id === secret.id),
  );
  await commit(
    context,
    [{ kind: 'delete', table: 'secret', id: secret.id, expect: secret.meta.version }],
    signal,
  );
  return null;
}

/** Payloads of secrets never leave the managers by a read. */
export function withoutData(secret: Secret): Secret {
  return { ...secret, spec: { ...secret.spec, data: '' } };
}

export async function createConfig(
  context: ApiContext,
  params: ApiParams<'config.create'>,
  signal: AbortSignal,
): Promise<Config> {
  const spec = required(parseConfigSpec(params.spec));
  requireFreeName(context.view, 'config', spec.name);
  const object: Config = { id: newId<ConfigId>(context.random), meta: NEW_META, spec };
  await commit(context, [{ kind: 'create', table: 'config', object }], signal);
  return context.view.get('config', object.id) ?? object;
}

export async function removeConfig(
  context: ApiContext,
  params: ApiParams<'config.remove'>,
  signal: AbortSignal,
): Promise<null> {
  const config = findConfig(context.view, params.ref);
  refuseInUse('config', config.spec.name, context.view, (service) =>
    service.spec.task.container.configs.some((reference) => reference.id === config.id),
  );
  await commit(
    context,
    [{ kind: 'delete', table: 'config', id: config.id, expect: config.meta.version }],
    signal,
  );
  return null;
}

function refuseInUse(kind: string, name: string, view: StateView, uses: (service: Service) => boolean): void {
  const users = [...view.all('service')].filter((service) => !service.pendingDelete && uses(service));
  if (users.length === 0) return;
  const names = users.map((service) => service.spec.name).sort();
  throw new SwarmdError(
    'FAILED_PRECONDITION',
    `${kind} ${name} is in use by the following service${names.length === 1 ? '' : 's'}: ${names.join(', ')}; remove or update ${names.length === 1 ? 'it' : 'them'} first`,
    { details: { services: names } },
  );
}
