/**
 * The three `Reflect` functions that the dependency container inside `@peculiar/x509` demands at import.
 *
 * Import this before that package. The container asks for constructor parameters of classes that have
 * none, so a table of values per target is all it needs; a full polyfill already loaded is left alone.
 */
type Metadata = Map<unknown, unknown>;

interface MetadataReflect {
  getMetadata?: (key: unknown, target: object) => unknown;
  getOwnMetadata?: (key: unknown, target: object) => unknown;
  defineMetadata?: (key: unknown, value: unknown, target: object) => void;
}

const tables = new WeakMap<object, Metadata>();
const reflect = Reflect as MetadataReflect;

if (reflect.getMetadata === undefined) {
  const own = (key: unknown, target: object): unknown => tables.get(target)?.get(key);
  reflect.getOwnMetadata = own;
  reflect.getMetadata = (key, target) => {
    for (let at: object | null = target; at !== null; at = Object.getPrototypeOf(at) as object | null) {
      const value = own(key, at);
      if (value !== undefined) return value;
    }
    return undefined;
  };
  reflect.defineMetadata = (key, value, target) => {
    const table = tables.get(target) ?? new Map<unknown, unknown>();
    table.set(key, value);
    tables.set(target, table);
  };
}
