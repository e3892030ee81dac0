/**
 * PURE: a short name for the content of the state, to compare replicas.
 *
 * Data owned: the digest of each object seen, for as long as the object lives (objects are replaced, never mutated),
 * so that asking again costs only what changed. Invariant: neither the order of objects nor that of their fields
 * counts, and a field without a value is the same as no field.
 */
import { createHash } from 'node:crypto';

/** Computes digests of tables of immutable objects. */
export class ContentDigests {
  readonly #known = new WeakMap<object, string>();

  /** The digest of named tables: 64 hexadecimal digits. */
  of(tables: Iterable<readonly [name: string, objects: ReadonlyMap<string, object>]>): string {
    const hash = createHash('sha256');
    for (const [name, objects] of tables) {
      hash.update(`${name} ${objects.size}\n`);
      for (const id of [...objects.keys()].sort()) hash.update(this.#ofObject(objects.get(id) as object));
    }
    return hash.digest('hex');
  }

  #ofObject(object: object): string {
    const known = this.#known.get(object);
    if (known !== undefined) return known;
    const digest = createHash('sha256').update(canonicalText(object)).digest('hex');
    this.#known.set(object, digest);
    return digest;
  }
}

/** JSON with the keys of every object in order. */
function canonicalText(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) => {
    if (typeof inner !== 'object' || inner === null || Array.isArray(inner)) return inner;
    return Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}
