/**
 * Compose files to a stack plan: parse, fill in variables, merge, convert.
 *
 * Pure: files a compose file names come through `readFile`, variables through `environment`.
 * Invariant: every error names file, line and key; what a cluster cannot honour is a warning, never silent.
 */
import type { ConfigSpec, NetworkSpec, SecretSpec, ServiceSpec } from '../model/spec.ts';
import { SwarmdError } from '../base/errors.ts';
import { composeError } from './compose-error.ts';
import {
  defaultNetwork,
  readNetworks,
  readPayloads,
  readVolumes,
  type DeclaredPayload,
} from './declarations.ts';
import { interpolateTree } from './interpolate.ts';
import type { Declared, LoadContext, NamedObject, ReadFile } from './load-context.ts';
import { dropResets, mergeFiles } from './merge-files.ts';
import {
  checkKeys,
  get,
  isNull,
  mapping,
  optional,
  text,
  type StackWarning,
  type Warnings,
} from './reader.ts';
import { readService } from './service.ts';
import { rootKeys } from './service-keys.ts';
import type { Lookup } from './substitute.ts';
import { parseYaml, type MappingNode, type YamlNode } from './yaml-tree.ts';

export interface StackSource {
  /** Name shown in errors. */
  readonly file: string;
  readonly text: string;
}

export interface LoadStackInput {
  /** Later files win. At least one. */
  readonly sources: readonly StackSource[];
  /** Stack name; null: the files' `name`. */
  readonly stack: string | null;
  readonly environment: Lookup;
  readonly readFile: ReadFile;
  /** Absolute folder that relative paths start from: the first file's. */
  readonly directory: string;
  readonly home: string | undefined;
}

/** What a stack consists of. Network targets, secret and config ids are names or empty until resolved. */
export interface StackPlan {
  readonly name: string;
  readonly services: readonly ServiceSpec[];
  /** To create, in the order of first use. */
  readonly networks: readonly NetworkSpec[];
  readonly secrets: readonly SecretSpec[];
  readonly configs: readonly ConfigSpec[];
  /** Names of objects that must exist already. */
  readonly external: {
    readonly networks: readonly string[];
    readonly secrets: readonly string[];
    readonly configs: readonly string[];
  };
  readonly warnings: readonly StackWarning[];
}

/** Reads a stack. Throws SwarmdError COMPOSE. */
export function loadStack(input: LoadStackInput): StackPlan {
  const warnings: Warnings = [];
  const root = readTree(input, warnings);
  checkKeys(root, '', rootKeys, warnings);
  const stack = input.stack ?? optional(root, '', 'name', text) ?? '';
  checkStackName(stack);
  checkVersion(root);
  const context: LoadContext = {
    stack,
    warnings,
    environment: input.environment,
    readFile: input.readFile,
    directory: input.directory,
    home: input.home,
  };
  const networks = readNetworks(root, context);
  const secrets = readPayloads(root, 'secrets', context);
  const configs = readPayloads(root, 'configs', context);
  const declared: Declared = { networks, volumes: readVolumes(root, context), secrets, configs };
  const fallback = networks.get('default')?.spec ?? defaultNetwork(stack);
  const fallbackName = networks.get('default')?.name ?? fallback.name;
  const services = readServices(root, context, declared, fallbackName);
  const used = new Set(
    services.flatMap((service) => service.task.networks.map((network) => network.target as string)),
  );
  const specs = [...networks.values()].flatMap((network) =>
    network.spec === undefined ? [] : [network.spec],
  );
  if (!networks.has('default')) specs.push(fallback);
  return {
    name: stack,
    services,
    networks: specs.filter((spec) => used.has(spec.name)),
    secrets: ownPayloads(secrets),
    configs: ownPayloads(configs),
    external: {
      networks: [...networks.values()].filter((n) => n.external && used.has(n.name)).map((n) => n.name),
      secrets: externalNames(secrets),
      configs: externalNames(configs),
    },
    warnings,
  };
}

function ownPayloads(payloads: ReadonlyMap<string, DeclaredPayload>): (SecretSpec & ConfigSpec)[] {
  return [...payloads.values()].flatMap((payload) => (payload.spec === undefined ? [] : [payload.spec]));
}

function externalNames(objects: ReadonlyMap<string, NamedObject>): string[] {
  return [...objects.values()].filter((object) => object.external).map((object) => object.name);
}

/** Parses, fills in and merges the files into one mapping. */
function readTree(input: LoadStackInput, warnings: Warnings): MappingNode {
  let merged: YamlNode | null = null;
  for (const source of input.sources) {
    const parsed = parseYaml(source.file, source.text);
    const start = { file: source.file, line: 1, column: 1 };
    if (parsed === null) throw composeError(start, 'the file is empty; it needs at least `services:`');
    if (parsed.kind !== 'mapping') {
      throw composeError(parsed.mark, 'the file must be a mapping with `services:` at its top level');
    }
    const filled = interpolateTree(parsed, input.environment, warnings);
    merged = merged === null ? filled : mergeFiles(merged, filled);
  }
  if (merged === null)
    throw new SwarmdError('INVALID_ARGUMENT', 'no compose file was given; name one with -c');
  return mapping(dropResets(merged), '');
}

/** Accepts Compose file versions 3 and later ones, any way they are written; the Compose specification has none. */
function checkVersion(root: MappingNode): void {
  const node = get(root, 'version');
  if (node === undefined) return;
  const version = node.kind === 'scalar' ? node.text : '';
  if (/^3(\.[0-9]+)?$/.test(version) || /^2(\.[0-9]+)?$/.test(version)) return;
  throw composeError(
    node.mark,
    `version "${version}" is not a Compose file version; remove the key or write "3.8"`,
  );
}

function checkStackName(stack: string): void {
  if (/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(stack) && stack.length <= 63) return;
  const given = stack === '' ? 'the stack has no name' : `"${stack}" is not a stack name`;
  throw new SwarmdError(
    'INVALID_ARGUMENT',
    `${given}; use up to 63 letters, digits, "-", "_" and ".", starting with a letter or digit`,
  );
}

function readServices(
  root: MappingNode,
  context: LoadContext,
  declared: Declared,
  defaultNetworkName: string,
): ServiceSpec[] {
  const node = get(root, 'services');
  if (node === undefined) {
    throw composeError(root.mark, '`services` is missing or empty; a stack needs at least one service');
  }
  const specs: ServiceSpec[] = [];
  for (const [name, entry] of mapping(node, 'services').entries) {
    if (name.startsWith('x-')) continue;
    if (!/^[a-zA-Z0-9][a-zA-Z0-9._-]*$/.test(name)) {
      throw composeError(
        entry.mark,
        `services.${name}: a service name has letters, digits, "-", "_" and "." only`,
      );
    }
    if (isNull(entry.value))
      throw composeError(entry.mark, `services.${name} is empty; it needs at least an \`image\``);
    const service = mapping(entry.value, `services.${name}`);
    specs.push(readService(name, { ...service, mark: entry.mark }, context, declared, defaultNetworkName));
  }
  return specs.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}
