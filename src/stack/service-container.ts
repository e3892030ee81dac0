/** What runs in a task: the container part of a service. */
import { defaultContainerSpec } from '../model/defaults.ts';
import { STACK_LABEL } from '../model/objects.ts';
import type { ConfigId, SecretId } from '../model/ids.ts';
import type { ContainerSpec, FileReference, HealthCheck, RuntimeKind } from '../model/spec.ts';
import { imageReferenceProblem } from '../model/image-reference.ts';
import { effectiveCapabilities } from './capabilities.ts';
import { composeError, didYouMean } from './compose-error.ts';
import { parseEnvFile } from './env-file.ts';
import type { Declared, LoadContext, NamedObject } from './load-context.ts';
import { readMounts } from './mounts.ts';
import { absolutePath } from './paths.ts';
import {
  bool,
  checkKeys,
  command,
  compact,
  durationMs,
  get,
  integer,
  mapping,
  nullableMap,
  optional,
  parsed,
  sequence,
  text,
  textList,
  textMap,
  textOrList,
  warn,
  wrongKind,
} from './reader.ts';
import { envFileKeys, fileReferenceKeys, healthKeys, ulimitKeys } from './service-keys.ts';
import type { MappingNode, YamlNode } from './yaml-tree.ts';

/** Mode of a secret or config file when none is given. */
const FILE_MODE = 0o444;

/** The container spec of one service. */
export function readContainer(
  service: MappingNode,
  path: string,
  runtime: RuntimeKind,
  context: LoadContext,
  declared: Declared,
): ContainerSpec {
  return {
    ...defaultContainerSpec,
    image: readImage(service, path, runtime),
    env: readEnvironment(service, path, context),
    labels: { ...(optional(service, path, 'labels', textMap) ?? {}), [STACK_LABEL]: context.stack },
    mounts: runtime === 'process' ? [] : readMounts(service, path, context, declared),
    secrets: readReferences<SecretId>(service, path, 'secrets', context, declared.secrets),
    configs: readReferences<ConfigId>(service, path, 'configs', context, declared.configs),
    ...readCapabilities(service, path),
    ...compact({
      command: nonEmpty(optional(service, path, 'entrypoint', command)),
      args: nonEmpty(optional(service, path, 'command', command)),
      hostname: optional(service, path, 'hostname', text),
      user: optional(service, path, 'user', text),
      groups: optional(service, path, 'group_add', textList),
      dir: readDirectory(service, path, runtime, context),
      stopSignal: optional(service, path, 'stop_signal', text),
      stopGraceMs: optional(service, path, 'stop_grace_period', durationMs),
      healthCheck: optional(service, path, 'healthcheck', (node, at) => readHealthCheck(node, at, context)),
      hosts: optional(service, path, 'extra_hosts', readHosts),
      dns: readDns(service, path),
      sysctls: optional(service, path, 'sysctls', textMap),
      ulimits: optional(service, path, 'ulimits', (node, at) => readUlimits(node, at, context)),
      tty: optional(service, path, 'tty', bool),
      openStdin: optional(service, path, 'stdin_open', bool),
      readOnly: optional(service, path, 'read_only', bool),
      init: optional(service, path, 'init', bool),
    }),
  };
}

function nonEmpty(words: readonly string[] | undefined): readonly string[] | undefined {
  return words === undefined || words.length === 0 ? undefined : words;
}

function readImage(service: MappingNode, path: string, runtime: RuntimeKind): string {
  const node = get(service, 'image');
  if (runtime === 'process') {
    if (get(service, 'command') === undefined && get(service, 'entrypoint') === undefined) {
      throw composeError(
        service.mark,
        `${path} needs a \`command\`: with \`runtime: process\` it is what runs`,
      );
    }
    return '';
  }
  if (node === undefined) {
    const built = service.entries.has('build') ? ' Build it, push it to a registry and name it here.' : '';
    throw composeError(service.mark, `${path} has no \`image\`.${built}`);
  }
  const image = text(node, `${path}.image`);
  const problem = imageReferenceProblem(image);
  if (problem !== null)
    throw composeError(node.mark, `${path}.image: "${image}" is not an image reference: ${problem}`);
  return image;
}

/** A process runs on the host, so its relative working folder is one; a container's is inside it. */
function readDirectory(
  service: MappingNode,
  path: string,
  runtime: RuntimeKind,
  context: LoadContext,
): string | undefined {
  const directory = optional(service, path, 'working_dir', text);
  return directory !== undefined && runtime === 'process' ? absolutePath(context, directory) : directory;
}

/** `env_file` in order, then `environment` over it, sorted by name. */
function readEnvironment(service: MappingNode, path: string, context: LoadContext): string[] {
  const values = new Map<string, string | null>();
  const files = get(service, 'env_file');
  if (files !== undefined) {
    const items = files.kind === 'sequence' ? files.items : [files];
    items.forEach((item, i) => readEnvFile(item, `${path}.env_file[${i}]`, context, values));
  }
  for (const [name, value] of optional(service, path, 'environment', nullableMap) ?? []) {
    values.set(name, value ?? context.environment(name) ?? null);
  }
  const lines = [...values].map(([name, value]) => (value === null ? name : `${name}=${value}`));
  return lines.sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
}

function readEnvFile(
  node: YamlNode,
  path: string,
  context: LoadContext,
  values: Map<string, string | null>,
): void {
  let file: string | undefined;
  let required = true;
  if (node.kind === 'mapping') {
    checkKeys(node, path, envFileKeys, context.warnings);
    file = optional(node, path, 'path', text);
    required = optional(node, path, 'required', bool) ?? true;
    if (file === undefined) throw composeError(node.mark, `${path} needs a \`path\``);
  } else file = text(node, path);
  const content = context.readFile(absolutePath(context, file));
  if (!content.ok) {
    if (!required) return;
    throw composeError(node.mark, `${path}: ${content.reason}`);
  }
  for (const [name, value] of parsed(
    parseEnvFile(content.value, context.environment),
    node.mark,
    `${path} (${file})`,
  )) {
    values.set(name, value);
  }
}

function readHealthCheck(node: YamlNode, path: string, context: LoadContext): HealthCheck {
  const check = mapping(node, path);
  checkKeys(check, path, healthKeys, context.warnings);
  const disable = optional(check, path, 'disable', bool) ?? false;
  const test = optional(check, path, 'test', readHealthTest);
  if (disable) {
    if (test !== undefined && test[0] !== 'NONE') {
      throw composeError(check.mark, `${path}: \`disable: true\` and a \`test\` contradict each other`);
    }
    return { test: ['NONE'] };
  }
  return {
    test: test ?? [],
    ...compact({
      intervalMs: optional(check, path, 'interval', durationMs),
      timeoutMs: optional(check, path, 'timeout', durationMs),
      startPeriodMs: optional(check, path, 'start_period', durationMs),
      retries: optional(check, path, 'retries', integer(0)),
    }),
  };
}

function readHealthTest(node: YamlNode, path: string): string[] {
  if (node.kind !== 'sequence') return ['CMD-SHELL', text(node, path)];
  const words = textList(node, path);
  if (['NONE', 'CMD', 'CMD-SHELL'].includes(words[0] ?? '')) return words;
  throw composeError(node.mark, `${path} as a list must start with NONE, CMD or CMD-SHELL`);
}

/** `host:address` or `host=address` (or a mapping) as lines of a hosts file. */
function readHosts(node: YamlNode, path: string): string[] {
  if (node.kind === 'mapping') {
    return [...node.entries].flatMap(([host, entry]) =>
      textOrList(entry.value, `${path}.${host}`).map((address) => `${address} ${host}`),
    );
  }
  return sequence(node, path).map((item, i) => {
    const match = /^([^:=]+)[:=]\s*(.+)$/.exec(text(item, `${path}[${i}]`));
    if (match === null) throw wrongKind(item, `${path}[${i}]`, 'host:address');
    return `${(match[2] ?? '').replace(/^\[(.*)\]$/, '$1')} ${(match[1] ?? '').trim()}`;
  });
}

function readDns(service: MappingNode, path: string): ContainerSpec['dns'] {
  const nameservers = optional(service, path, 'dns', textOrList) ?? [];
  const search = optional(service, path, 'dns_search', textOrList) ?? [];
  const options = optional(service, path, 'dns_opt', textList) ?? [];
  if (nameservers.length + search.length + options.length === 0) return undefined;
  return { nameservers, search, options };
}

function readCapabilities(service: MappingNode, path: string): Partial<ContainerSpec> {
  const { add, drop } = effectiveCapabilities({
    add: optional(service, path, 'cap_add', textList) ?? [],
    drop: optional(service, path, 'cap_drop', textList) ?? [],
  });
  return compact({ capabilityAdd: nonEmpty(add), capabilityDrop: nonEmpty(drop) });
}

function readUlimits(node: YamlNode, path: string, context: LoadContext): ContainerSpec['ulimits'] {
  return [...mapping(node, path).entries]
    .map(([name, { value, mark }]) => {
      const at = `${path}.${name}`;
      if (value.kind !== 'mapping') {
        const limit = integer(-1)(value, at);
        return { name, soft: limit, hard: limit };
      }
      checkKeys(value, at, ulimitKeys, context.warnings);
      const single = optional(value, at, 'single', integer(-1));
      const soft = optional(value, at, 'soft', integer(-1)) ?? single;
      const hard = optional(value, at, 'hard', integer(-1)) ?? single;
      if (soft === undefined || hard === undefined)
        throw composeError(mark, `${at} needs both soft and hard`);
      return { name, soft, hard };
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Uses of secrets or configs; ids are empty until the names are resolved. */
function readReferences<Id extends SecretId | ConfigId>(
  service: MappingNode,
  path: string,
  key: 'secrets' | 'configs',
  context: LoadContext,
  declared: ReadonlyMap<string, NamedObject>,
): FileReference<Id>[] {
  const node = get(service, key);
  if (node === undefined) return [];
  const uses = sequence(node, `${path}.${key}`).map((item, i) => {
    const at = `${path}.${key}[${i}]`;
    const long = item.kind === 'mapping' ? item : null;
    if (long !== null) checkKeys(long, at, fileReferenceKeys, context.warnings);
    const source = long === null ? text(item, at) : optional(long, at, 'source', text);
    if (source === undefined) throw composeError(item.mark, `${at} needs a \`source\``);
    const object = declared.get(source);
    if (object === undefined) {
      const near = didYouMean(source, declared.keys());
      throw composeError(item.mark, `${at}: "${source}" is not declared under top-level \`${key}\`.${near}`);
    }
    const read = <T>(name: string, reader: (n: YamlNode, p: string) => T): T | undefined =>
      long === null ? undefined : optional(long, at, name, reader);
    return {
      id: '' as Id,
      name: object.name,
      file: {
        name: read('target', text) ?? source,
        uid: read('uid', text) ?? '0',
        gid: read('gid', text) ?? '0',
        mode: read('mode', integer(0)) ?? FILE_MODE,
      },
    };
  });
  return uses.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

/** Warns of what a process cannot have. */
export function warnOfProcessLimits(service: MappingNode, path: string, context: LoadContext): void {
  const reasons: Record<string, string> = {
    image: 'a process has no image; its command runs on the node itself',
    volumes: "a process sees its node's own files",
    tmpfs: "a process sees its node's own files",
    networks: "a process uses its node's own network",
  };
  for (const [key, reason] of Object.entries(reasons)) {
    const entry = service.entries.get(key);
    if (entry !== undefined && get(service, key) !== undefined) {
      warn(context.warnings, entry.mark, `${path}.${key}`, `ignored with \`runtime: process\`: ${reason}`);
    }
  }
}
