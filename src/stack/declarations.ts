/** The top-level networks, volumes, secrets and configs of a stack. */
import { Buffer } from 'node:buffer';
import { CONFIG_BYTES_MAX, SECRET_BYTES_MAX } from '../model/defaults.ts';
import { STACK_LABEL } from '../model/objects.ts';
import type { ConfigSpec, NetworkSpec, SecretSpec } from '../model/spec.ts';
import { composeError } from './compose-error.ts';
import type { LoadContext, NamedObject, StackVolume } from './load-context.ts';
import { absolutePath } from './paths.ts';
import {
  bool,
  checkKeys,
  choice,
  compact,
  get,
  mapping,
  optional,
  sequence,
  text,
  textMap,
  warn,
} from './reader.ts';
import { ipamConfigKeys, ipamKeys, networkKeys, payloadKeys, volumeKeys } from './service-keys.ts';
import type { MappingNode, YamlNode } from './yaml-tree.ts';

/** A declared network: its name in the cluster and, unless external, what to create. */
export interface DeclaredNetwork extends NamedObject {
  readonly spec?: NetworkSpec;
}

/** A declared secret or config and, unless external, what to create. */
export interface DeclaredPayload extends NamedObject {
  readonly spec?: SecretSpec & ConfigSpec;
}

function readSection<T>(
  root: MappingNode,
  section: string,
  read: (key: string, node: MappingNode, path: string) => T,
): Map<string, T> {
  const node = get(root, section);
  const result = new Map<string, T>();
  if (node === undefined) return result;
  for (const [key, entry] of mapping(node, section).entries) {
    if (key.startsWith('x-')) continue;
    const path = `${section}.${key}`;
    result.set(key, read(key, mapping(entry.value, path), path));
  }
  return result;
}

interface Naming {
  readonly external: boolean;
  readonly name: string;
}

/** `external: true`, the older `external: {name: x}`, and `name`. */
function readNaming(key: string, node: MappingNode, path: string, context: LoadContext): Naming {
  const given = optional(node, path, 'name', text);
  const value = get(node, 'external');
  if (value !== undefined && value.kind === 'mapping') {
    const old = optional(value, `${path}.external`, 'name', text);
    if (old !== undefined && given !== undefined) {
      throw composeError(value.mark, `${path} has both \`name\` and \`external.name\`; keep \`name\``);
    }
    return { external: true, name: old ?? given ?? key };
  }
  const external = value === undefined ? false : bool(value, `${path}.external`);
  return { external, name: given ?? (external ? key : `${context.stack}_${key}`) };
}

function warnOfExternalKeys(node: MappingNode, path: string, context: LoadContext): void {
  for (const [key, entry] of node.entries) {
    if (key === 'external' || key === 'name' || key.startsWith('x-')) continue;
    warn(context.warnings, entry.mark, `${path}.${key}`, 'ignored: the object is external, made elsewhere');
  }
}

const DRIVERS = {
  overlay: 'overlay',
  default: 'overlay',
  '': 'overlay',
  bridge: 'bridge',
  host: 'host',
} as const;

/** Top-level `networks`. */
export function readNetworks(root: MappingNode, context: LoadContext): Map<string, DeclaredNetwork> {
  return readSection(root, 'networks', (key, node, path) => {
    checkKeys(node, path, networkKeys, context.warnings);
    const naming = readNaming(key, node, path, context);
    if (naming.external) {
      warnOfExternalKeys(node, path, context);
      return naming;
    }
    return { ...naming, spec: readNetwork(naming.name, node, path, context) };
  });
}

function readNetwork(name: string, node: MappingNode, path: string, context: LoadContext): NetworkSpec {
  const names = Object.keys(DRIVERS) as (keyof typeof DRIVERS)[];
  const driver = optional(node, path, 'driver', choice(names)) ?? 'overlay';
  return {
    name,
    labels: { ...(optional(node, path, 'labels', textMap) ?? {}), [STACK_LABEL]: context.stack },
    driver: DRIVERS[driver],
    internal: optional(node, path, 'internal', bool) ?? false,
    attachable: optional(node, path, 'attachable', bool) ?? false,
    ingress: false,
    driverOptions: optional(node, path, 'driver_opts', textMap) ?? {},
    ...compact({ subnet: optional(node, path, 'ipam', (value, at) => readSubnet(value, at, context)) }),
  };
}

function readSubnet(node: YamlNode, path: string, context: LoadContext): string | undefined {
  const ipam = mapping(node, path);
  checkKeys(ipam, path, ipamKeys, context.warnings);
  const config = get(ipam, 'config');
  if (config === undefined) return undefined;
  const items = sequence(config, `${path}.config`);
  const second = items[1];
  if (second !== undefined)
    warn(
      context.warnings,
      second.mark,
      `${path}.config[1]`,
      'a network has one subnet; only the first is used',
    );
  const first = items[0];
  if (first === undefined) return undefined;
  const at = `${path}.config[0]`;
  const range = mapping(first, at);
  checkKeys(range, at, ipamConfigKeys, context.warnings);
  return optional(range, at, 'subnet', text);
}

/** The network of services that name none. */
export function defaultNetwork(stack: string): NetworkSpec {
  return {
    name: `${stack}_default`,
    labels: { [STACK_LABEL]: stack },
    driver: 'overlay',
    internal: false,
    attachable: false,
    ingress: false,
    driverOptions: {},
  };
}

/** Top-level `volumes`. */
export function readVolumes(root: MappingNode, context: LoadContext): Map<string, StackVolume> {
  return readSection(root, 'volumes', (key, node, path) => {
    checkKeys(node, path, volumeKeys, context.warnings);
    const naming = readNaming(key, node, path, context);
    if (naming.external) warnOfExternalKeys(node, path, context);
    return {
      ...naming,
      driverOptions: optional(node, path, 'driver_opts', textMap) ?? {},
      labels: optional(node, path, 'labels', textMap) ?? {},
      ...compact({ driver: optional(node, path, 'driver', text) }),
    };
  });
}

/** Top-level `secrets` or `configs`, their files read. */
export function readPayloads(
  root: MappingNode,
  section: 'secrets' | 'configs',
  context: LoadContext,
): Map<string, DeclaredPayload> {
  return readSection(root, section, (key, node, path) => {
    checkKeys(node, path, payloadKeys, context.warnings);
    const naming = readNaming(key, node, path, context);
    if (naming.external) {
      warnOfExternalKeys(node, path, context);
      return naming;
    }
    const content = readContent(node, path, context);
    const limit = section === 'secrets' ? SECRET_BYTES_MAX : CONFIG_BYTES_MAX;
    if (content.byteLength > limit) {
      throw composeError(node.mark, `${path} has ${content.byteLength} bytes; the limit is ${limit}`);
    }
    const labels = { ...(optional(node, path, 'labels', textMap) ?? {}), [STACK_LABEL]: context.stack };
    return { ...naming, spec: { name: naming.name, labels, data: Buffer.from(content).toString('base64') } };
  });
}

function readContent(node: MappingNode, path: string, context: LoadContext): Uint8Array {
  const file = optional(node, path, 'file', text);
  if (file !== undefined) {
    const result = context.readFile(absolutePath(context, file));
    if (result.ok) return result.value;
    throw composeError(node.entries.get('file')?.mark ?? node.mark, `${path}.file: ${result.reason}`);
  }
  const variable = optional(node, path, 'environment', text);
  if (variable !== undefined) {
    const value = context.environment(variable);
    if (value !== undefined) return new TextEncoder().encode(value);
    throw composeError(node.mark, `${path}.environment: the variable ${variable} is not set`);
  }
  const content = optional(node, path, 'content', text);
  if (content !== undefined) return new TextEncoder().encode(content);
  throw composeError(
    node.mark,
    `${path} needs a \`file\`, an \`environment\` variable, \`content\`, or \`external: true\``,
  );
}
