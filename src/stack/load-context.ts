/** What the parts of the compose loader share while one stack is read. */
import type { Result } from '../base/result.ts';
import type { Lookup } from './substitute.ts';
import type { Warnings } from './reader.ts';

/** A volume under top-level `volumes`. */
export interface StackVolume {
  /** Name on the nodes: `stack_name` unless external or named. */
  readonly name: string;
  readonly external: boolean;
  readonly driver?: string;
  readonly driverOptions: Readonly<Record<string, string>>;
  readonly labels: Readonly<Record<string, string>>;
}

/** A network, secret or config under its top-level key: its name in the cluster. */
export interface NamedObject {
  readonly name: string;
  readonly external: boolean;
}

/** Reads a file named by a compose file; the path is absolute. */
export type ReadFile = (path: string) => Result<Uint8Array>;

export interface LoadContext {
  readonly stack: string;
  readonly warnings: Warnings;
  readonly environment: Lookup;
  readonly readFile: ReadFile;
  /** Absolute folder of the first compose file: relative paths start there. */
  readonly directory: string;
  readonly home: string | undefined;
}

/** The stack's declared objects by their key in the file. */
export interface Declared {
  readonly networks: ReadonlyMap<string, NamedObject>;
  readonly volumes: ReadonlyMap<string, StackVolume>;
  readonly secrets: ReadonlyMap<string, NamedObject>;
  readonly configs: ReadonlyMap<string, NamedObject>;
}
