/**
 * Clients that make a change with a key again until they know what became of it: through any manager, twice at once,
 * and again when what it made is gone already. That the change took place at most once is checked where it is applied.
 */
import { SwarmdError } from '../../src/base/errors.ts';
import type { ServiceView } from '../../src/model/api.ts';
import type { ServiceSpec } from '../../src/model/spec.ts';
import type { Dice } from './draws.ts';

/** How a client reaches the cluster. */
export interface Client {
  readonly dice: Dice;
  call<T>(method: string, params: unknown): Promise<T>;
  sleep(ms: number): Promise<void>;
}

const ATTEMPTS_MAX = 6;
const KEY_CHARACTERS = '0123456789abcdefghijklmnopqrstuvwxyz';
const KEY_LENGTH = 20;

/** Creates a service at most once; null when nobody said so in the end. */
export async function createOnce(client: Client, spec: ServiceSpec): Promise<ServiceView | null> {
  const { dice } = client;
  const key = Array.from(
    { length: KEY_LENGTH },
    () => KEY_CHARACTERS[dice.below(KEY_CHARACTERS.length)],
  ).join('');
  const params = { spec: { ...spec, labels: { ...spec.labels, once: key } }, once: key };
  const copies = dice.chance(300) ? 2 : 1;
  let made: ServiceView | null = null;
  for (let attempt = 0; attempt < ATTEMPTS_MAX && made === null; attempt++) {
    const calls = Array.from({ length: copies }, () => client.call<ServiceView>('service.create', params));
    for (const answer of await Promise.allSettled(calls)) {
      if (answer.status === 'fulfilled') made = answer.value;
      else if (!(answer.reason instanceof SwarmdError)) throw answer.reason;
    }
    if (made === null) await client.sleep(dice.below(1_500));
  }
  return made;
}

/** Makes the change of `made` again, whose object may be gone by now: it must not come back. */
export async function createAgain(client: Client, made: ServiceView): Promise<void> {
  const { spec } = made;
  await client.call('service.create', { spec, once: spec.labels['once'] });
}
