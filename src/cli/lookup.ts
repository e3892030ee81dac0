/** Names of the cluster's objects to ids, and the choice of the right list call. */
import { SwarmdError } from '../base/errors.ts';
import type { Config, Network, Secret } from '../model/objects.ts';
import { didYouMean } from '../stack/compose-error.ts';
import type { IdsByName } from '../stack/resolve.ts';
import type { ApiConnection, Outside } from './context.ts';

function byName<T extends { readonly id: string; readonly spec: { readonly name: string } }>(
  objects: readonly T[],
): Map<string, T['id']> {
  return new Map(objects.map((object) => [object.spec.name, object.id]));
}

export function idsOf(
  networks: readonly Network[],
  secrets: readonly Secret[],
  configs: readonly Config[],
): IdsByName {
  return { networks: byName(networks), secrets: byName(secrets), configs: byName(configs) };
}

/** Ids of every network, secret and config by name. */
export async function fetchIds(outside: Outside, api: ApiConnection): Promise<IdsByName> {
  const options = { signal: outside.interrupt };
  const [networks, secrets, configs] = await Promise.all([
    api.call('network.list', { stack: null }, options),
    api.call('secret.list', { stack: null }, options),
    api.call('config.list', { stack: null }, options),
  ]);
  return idsOf(networks, secrets, configs);
}

/**
 * Calls `work` for each reference, printing a line for each that fails; 1 when any did.
 * So that `service rm a b c` does what it can.
 */
export async function forEachRef(
  refs: readonly string[],
  work: (ref: string) => Promise<void>,
  failed: (error: SwarmdError) => void,
): Promise<number> {
  let exitCode = 0;
  for (const ref of refs) {
    try {
      await work(ref);
    } catch (error) {
      if (!(error instanceof SwarmdError)) throw error;
      failed(error);
      exitCode = 1;
    }
  }
  return exitCode;
}

/** A NOT_FOUND error with the nearest existing name; other errors pass. */
export function withNearestName(error: unknown, ref: string, names: readonly string[]): unknown {
  if (!(error instanceof SwarmdError) || error.code !== 'NOT_FOUND' || /did you mean/i.test(error.message))
    return error;
  const near = didYouMean(ref, names);
  if (near === '') return error;
  return new SwarmdError('NOT_FOUND', `${error.message.replace(/\.$/, '')}.${near}`, { cause: error });
}
