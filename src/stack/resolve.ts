/** Names in a stack's service specs replaced by the ids the cluster gave them. */
import { ok, refuse, type Result } from '../base/result.ts';
import type { ConfigId, NetworkId, SecretId } from '../model/ids.ts';
import type { ServiceSpec } from '../model/spec.ts';
import { didYouMean } from './compose-error.ts';

/** Ids of existing objects by name. */
export interface IdsByName {
  readonly networks: ReadonlyMap<string, NetworkId>;
  readonly secrets: ReadonlyMap<string, SecretId>;
  readonly configs: ReadonlyMap<string, ConfigId>;
}

/** The spec with ids; a refusal names the object that does not exist. */
export function resolveSpec(spec: ServiceSpec, ids: IdsByName): Result<ServiceSpec> {
  const missing: string[] = [];
  const find = <Id extends string>(kind: string, map: ReadonlyMap<string, Id>, name: string): Id => {
    const id = map.get(name);
    if (id === undefined)
      missing.push(`the ${kind} "${name}" does not exist.${didYouMean(name, map.keys())}`);
    return id ?? ('' as Id);
  };
  const { container } = spec.task;
  const resolved: ServiceSpec = {
    ...spec,
    task: {
      ...spec.task,
      networks: spec.task.networks.map((network) => ({
        ...network,
        target: find('network', ids.networks, network.target),
      })),
      container: {
        ...container,
        secrets: container.secrets.map((use) => ({ ...use, id: find('secret', ids.secrets, use.name) })),
        configs: container.configs.map((use) => ({ ...use, id: find('config', ids.configs, use.name) })),
      },
    },
  };
  return missing.length === 0 ? ok(resolved) : refuse(`service ${spec.name}: ${missing.join(' ')}`);
}
