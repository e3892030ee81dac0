/** Volumes and tmpfs of a service as mounts of its tasks. */
import { STACK_LABEL } from '../model/objects.ts';
import type { Mount } from '../model/spec.ts';
import { composeError, didYouMean } from './compose-error.ts';
import type { Declared, LoadContext } from './load-context.ts';
import { absolutePath } from './paths.ts';
import {
  bool,
  bytes,
  checkKeys,
  choice,
  compact,
  get,
  integer,
  mapping,
  optional,
  parsed,
  sequence,
  text,
  textMap,
  textOrList,
  warn,
} from './reader.ts';
import { bindKeys, tmpfsKeys, volumeMountKeys, volumeOptionKeys } from './service-keys.ts';
import { isHostPath, parseVolumeShort, PROPAGATIONS } from './volume-syntax.ts';
import type { MappingNode, Mark, YamlNode } from './yaml-tree.ts';

/** The mounts of `volumes` and `tmpfs`. */
export function readMounts(
  service: MappingNode,
  path: string,
  context: LoadContext,
  declared: Declared,
): Mount[] {
  const volumes = get(service, 'volumes');
  const mounts =
    volumes === undefined
      ? []
      : sequence(volumes, `${path}.volumes`).map((item, i) => {
          const itemPath = `${path}.volumes[${i}]`;
          return item.kind === 'mapping'
            ? readLong(item, itemPath, context, declared)
            : readShort(text(item, itemPath), item.mark, itemPath, context, declared);
        });
  const tmpfs = optional(service, path, 'tmpfs', textOrList) ?? [];
  return [...mounts, ...tmpfs.map((entry) => ({ type: 'tmpfs' as const, ...readTmpfsShort(entry) }))];
}

/** `/run` or `/run:size=64m,mode=1777`; options other than these are left to the engine's defaults. */
function readTmpfsShort(entry: string): Pick<Mount, 'target' | 'readOnly' | 'tmpfs'> {
  const [target = '', options = ''] = entry.split(':');
  const mode = /(?:^|,)mode=([0-7]+)/.exec(options)?.[1];
  const size = /(?:^|,)size=([0-9]+)([kmg]?)/i.exec(options);
  const unit = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 }[(size?.[2] ?? '').toLowerCase()] ?? 1;
  const tmpfs = compact({
    sizeBytes: size === null ? undefined : Number(size[1]) * unit,
    mode: mode === undefined ? undefined : Number.parseInt(mode, 8),
  });
  return { target, readOnly: false, ...(Object.keys(tmpfs).length === 0 ? {} : { tmpfs }) };
}

function readShort(value: string, mark: Mark, path: string, context: LoadContext, declared: Declared): Mount {
  const short = parsed(parseVolumeShort(value), mark, path);
  for (const option of short.unknown)
    warn(context.warnings, mark, path, `the volume option "${option}" is ignored`);
  const base = { target: short.target, readOnly: short.readOnly };
  if (short.type === 'bind') {
    const source = absolutePath(context, short.source ?? '');
    return compact({ type: 'bind' as const, source, ...base, bindPropagation: short.propagation });
  }
  return {
    type: 'volume',
    ...base,
    ...volumePart(short.source, { noCopy: short.noCopy }, mark, path, context, declared),
  };
}

/** Source and options of a volume mount; a name must be declared at the top level. */
function volumePart(
  source: string | undefined,
  own: { noCopy?: boolean | undefined; labels?: Record<string, string> | undefined },
  mark: Mark,
  path: string,
  context: LoadContext,
  declared: Declared,
): Pick<Mount, 'source' | 'volume'> {
  if (source === undefined) {
    const volume = compact(own);
    return Object.keys(volume).length === 0 ? {} : { volume };
  }
  const found = declared.volumes.get(source);
  if (found === undefined) {
    const near = didYouMean(source, declared.volumes.keys());
    throw composeError(
      mark,
      `${path}: the volume "${source}" is not declared under top-level \`volumes\`.${near}`,
    );
  }
  if (found.external) {
    const volume = compact(own);
    return { source: found.name, ...(Object.keys(volume).length === 0 ? {} : { volume }) };
  }
  const volume = compact({
    noCopy: own.noCopy,
    labels: { ...found.labels, ...own.labels, [STACK_LABEL]: context.stack },
    driver: found.driver,
    driverOptions: Object.keys(found.driverOptions).length === 0 ? undefined : found.driverOptions,
  });
  return { source: found.name, volume };
}

function readLong(node: MappingNode, path: string, context: LoadContext, declared: Declared): Mount {
  checkKeys(node, path, volumeMountKeys, context.warnings);
  const source = optional(node, path, 'source', text);
  const guessed = source !== undefined && isHostPath(source) ? 'bind' : 'volume';
  const type =
    optional(node, path, 'type', choice(['bind', 'volume', 'tmpfs', 'npipe', 'cluster', 'image'])) ?? guessed;
  const targetNode = get(node, 'target');
  if (targetNode === undefined)
    throw composeError(node.mark, `${path} needs a \`target\`, the path inside the task`);
  const base = {
    target: text(targetNode, `${path}.target`),
    readOnly: optional(node, path, 'read_only', bool) ?? false,
  };
  refuseForeignOptions(node, path, type);
  switch (type) {
    case 'bind':
      if (source === undefined)
        throw composeError(node.mark, `${path}: a bind mount needs a \`source\`, a host path`);
      return compact({
        type: 'bind' as const,
        source: absolutePath(context, source),
        ...base,
        bindPropagation: readPropagation(node, path, context),
      });
    case 'tmpfs':
      if (source !== undefined) throw composeError(node.mark, `${path}: a tmpfs has no \`source\``);
      return compact({ type: 'tmpfs' as const, ...base, tmpfs: readTmpfs(node, path, context) });
    case 'volume': {
      const own = readVolumeOptions(node, path, context);
      return { type: 'volume', ...base, ...volumePart(source, own, node.mark, path, context, declared) };
    }
    default:
      throw composeError(
        node.mark,
        `${path}: mounts of type ${type} are not supported; use bind, volume or tmpfs`,
      );
  }
}

function refuseForeignOptions(node: MappingNode, path: string, type: string): void {
  for (const other of ['bind', 'volume', 'tmpfs']) {
    const entry = node.entries.get(other);
    if (other === type || entry === undefined || get(node, other) === undefined) continue;
    throw composeError(entry.mark, `${path}.${other}: these options do not go with a mount of type ${type}`);
  }
}

function readPropagation(node: MappingNode, path: string, context: LoadContext): Mount['bindPropagation'] {
  return optional(node, path, 'bind', (value: YamlNode, at: string) => {
    const bind = mapping(value, at);
    checkKeys(bind, at, bindKeys, context.warnings);
    return optional(bind, at, 'propagation', choice(PROPAGATIONS));
  });
}

function readTmpfs(node: MappingNode, path: string, context: LoadContext): Mount['tmpfs'] {
  return optional(node, path, 'tmpfs', (value: YamlNode, at: string) => {
    const tmpfs = mapping(value, at);
    checkKeys(tmpfs, at, tmpfsKeys, context.warnings);
    return compact({
      sizeBytes: optional(tmpfs, at, 'size', bytes),
      mode: optional(tmpfs, at, 'mode', integer(0)),
    });
  });
}

function readVolumeOptions(
  node: MappingNode,
  path: string,
  context: LoadContext,
): { noCopy?: boolean; labels?: Record<string, string> } {
  return (
    optional(node, path, 'volume', (value: YamlNode, at: string) => {
      const volume = mapping(value, at);
      checkKeys(volume, at, volumeOptionKeys, context.warnings);
      return compact({
        noCopy: optional(volume, at, 'nocopy', bool),
        labels: optional(volume, at, 'labels', textMap),
      });
    }) ?? {}
  );
}
