/** PURE: objects by id, name or unique id prefix. Errors name the object and the nearest existing name. */
import { SwarmdError } from '../../base/errors.ts';
import type { ClusterNode, Config, Network, Secret, Service, Tables, Task } from '../../model/objects.ts';
import type { NamedTable, StateView } from '../state/view.ts';

interface Candidate {
  readonly id: string;
}

function pick<T extends Candidate>(
  kind: string,
  ref: string,
  all: Iterable<T>,
  nameOf: (object: T) => string,
): T {
  if (ref === '')
    throw new SwarmdError('INVALID_ARGUMENT', `the ${kind} name is empty; give a name or an id`);
  const named: T[] = [];
  const prefixed: T[] = [];
  const names: string[] = [];
  for (const object of all) {
    if (object.id === ref) return object;
    const name = nameOf(object);
    names.push(name);
    if (name === ref) named.push(object);
    else if (object.id.startsWith(ref)) prefixed.push(object);
  }
  const found = named.length > 0 ? named : prefixed;
  if (found.length === 1) return found[0] as T;
  if (found.length > 1) {
    throw new SwarmdError(
      'AMBIGUOUS',
      `${kind} ${ref} is ambiguous (${found.length} matches found); give more of the id`,
    );
  }
  const near = nearest(ref, names);
  const hint = near === null ? '' : `; did you mean ${near}?`;
  throw new SwarmdError('NOT_FOUND', `${kind} ${ref} not found${hint}`, { details: { kind, ref } });
}

export function findNode(view: StateView, ref: string): ClusterNode {
  return pick('node', ref, view.all('node'), (node) => node.description.hostname);
}

export function findService(view: StateView, ref: string): Service {
  const live = [...view.all('service')].filter((service) => !service.pendingDelete);
  return pick('service', ref, live, (service) => service.spec.name);
}

/** A task by id, unique id prefix or name (`web.1`, the live one of the slot). */
export function findTask(view: StateView, ref: string): Task {
  const exact = view.get('task', ref);
  if (exact !== undefined) return exact;
  const tasks = [...view.all('task')];
  const named = tasks
    .filter((task) => `${task.serviceAnnotations.name}.${task.slot}` === ref)
    .sort((a, b) => b.meta.createdAt - a.meta.createdAt);
  if (named[0] !== undefined) return named[0];
  return pick('task', ref, tasks, (task) => `${task.serviceAnnotations.name}.${task.slot}`);
}

export function findNetwork(view: StateView, ref: string): Network {
  return pick('network', ref, view.all('network'), (network) => network.spec.name);
}
export function findSecret(view: StateView, ref: string): Secret {
  return pick('secret', ref, view.all('secret'), (secret) => secret.spec.name);
}
export function findConfig(view: StateView, ref: string): Config {
  return pick('config', ref, view.all('config'), (config) => config.spec.name);
}

/** Refuses a name that an object of the table has. */
export function requireFreeName<T extends NamedTable>(view: StateView, table: T, name: string): void {
  const owner: Tables[T] | undefined = view.byName(table, name);
  if (owner === undefined) return;
  throw new SwarmdError(
    'ALREADY_EXISTS',
    `a ${table} named ${name} exists (id ${owner.id}); choose another name or update it`,
  );
}

/** The name with the smallest edit distance, when it is close enough to be a slip. */
export function nearest(text: string, names: readonly string[]): string | null {
  let best: string | null = null;
  let bestDistance = Math.max(1, Math.floor(text.length / 3)) + 1;
  for (const name of names) {
    const distance = editDistance(text, name, bestDistance);
    if (distance < bestDistance) {
      best = name;
      bestDistance = distance;
    }
  }
  return best;
}

/** Edit distance, at most `bound`. */
function editDistance(a: string, b: string, bound: number): number {
  if (Math.abs(a.length - b.length) >= bound) return bound;
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      current.push(
        Math.min(
          (previous[j] as number) + 1,
          (current[j - 1] as number) + 1,
          (previous[j - 1] as number) + cost,
        ),
      );
    }
    previous = current;
  }
  return Math.min(bound, previous[b.length] as number);
}
