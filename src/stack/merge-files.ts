/**
 * Several compose files as one: the later one wins, mappings merge, lists append.
 *
 * Exceptions, by key of a service: a command, entrypoint or health check test is replaced; environment, labels and
 * networks merge by name in either syntax; volumes merge by target, secrets and configs by source; logging is
 * replaced when the driver differs. `!reset` drops a key of the earlier file, `!override` replaces it whole.
 */
import type { MappingEntry, MappingNode, SequenceNode, YamlNode } from './yaml-tree.ts';

const REPLACED = new Set(['command', 'entrypoint', 'test']);
const BY_NAME = new Set([
  'environment',
  'labels',
  'networks',
  'sysctls',
  'extra_hosts',
  'options',
  'driver_opts',
]);
const IDENTITY: Readonly<Record<string, string>> = {
  volumes: 'target',
  secrets: 'source',
  configs: 'source',
};

/** Merges two files' trees. */
export function mergeFiles(base: YamlNode, override: YamlNode): YamlNode {
  return mergeNodes(base, override, []);
}

/** Removes what the files marked `!reset`, after all were merged. */
export function dropResets(node: YamlNode): YamlNode {
  if (node.kind === 'sequence') return { ...node, items: node.items.map(dropResets) };
  if (node.kind === 'scalar') return node;
  const entries = new Map<string, MappingEntry>();
  for (const [key, entry] of node.entries) {
    if (entry.value.tag !== '!reset') entries.set(key, { mark: entry.mark, value: dropResets(entry.value) });
  }
  return { ...node, entries };
}

function mergeNodes(base: YamlNode, override: YamlNode, path: readonly string[]): YamlNode {
  if (override.tag === '!reset' || override.tag === '!override') return override;
  if (override.kind === 'scalar' && override.value === null) return base;
  const key = path.at(-1) ?? '';
  const inService = path[0] === 'services' && path.length >= 3;
  if (inService && BY_NAME.has(key)) return mergeMappings(asMapping(base), asMapping(override), path);
  if (key === 'logging' && driverDiffers(base, override)) return override;
  if (base.kind === 'mapping' && override.kind === 'mapping') return mergeMappings(base, override, path);
  if (base.kind === 'sequence' && override.kind === 'sequence') {
    return inService && REPLACED.has(key) ? override : mergeSequences(base, override, path);
  }
  return override;
}

function mergeMappings(base: YamlNode, override: YamlNode, path: readonly string[]): YamlNode {
  if (base.kind !== 'mapping' || override.kind !== 'mapping') return override;
  const entries = new Map(base.entries);
  for (const [key, entry] of override.entries) {
    const earlier = entries.get(key);
    const value =
      earlier === undefined ? entry.value : mergeNodes(earlier.value, entry.value, [...path, key]);
    entries.set(key, { mark: entry.mark, value });
  }
  return { ...override, entries };
}

function mergeSequences(base: SequenceNode, override: SequenceNode, path: readonly string[]): SequenceNode {
  const identity = path[0] === 'services' && path.length === 3 ? IDENTITY[path[2] ?? ''] : undefined;
  const items = [...base.items];
  for (const item of override.items) {
    const name = identityOf(item, identity);
    const index = items.findIndex((other) => identityOf(other, identity) === name);
    if (index < 0) items.push(item);
    else items[index] = item;
  }
  return { ...override, items };
}

/** What makes two entries of a list the same one: the text, the identifying member, or nothing else is equal. */
function identityOf(item: YamlNode, identity: string | undefined): string {
  if (item.kind === 'scalar') return identity === 'target' ? volumeTarget(item.text) : item.text;
  if (item.kind === 'mapping' && identity !== undefined) {
    const value = item.entries.get(identity)?.value;
    if (value?.kind === 'scalar') return value.text;
  }
  return `${item.mark.file}:${item.mark.line}:${item.mark.column}`;
}

function volumeTarget(short: string): string {
  const sections = short.split(':');
  return sections.length === 1 ? short : (sections[1] ?? short);
}

/** `[A=b, C]` as `{A: b, C: null}`. */
function asMapping(node: YamlNode): YamlNode {
  if (node.kind !== 'sequence') return node;
  const entries = new Map<string, MappingEntry>();
  for (const item of node.items) {
    if (item.kind !== 'scalar') return node;
    const split = /^([^=:]+)[=:](.*)$/s.exec(item.text);
    const separated = item.text.includes('=') ? /^([^=]*)=(.*)$/s.exec(item.text) : split;
    const key = separated?.[1] ?? item.text;
    const value = separated?.[2] ?? null;
    entries.set(key, { mark: item.mark, value: { ...item, value, text: value ?? '' } });
  }
  const result: MappingNode = { kind: 'mapping', entries, mark: node.mark, tag: node.tag };
  return result;
}

function driverDiffers(base: YamlNode, override: YamlNode): boolean {
  const driver = (node: YamlNode): string | undefined => {
    const value = node.kind === 'mapping' ? node.entries.get('driver')?.value : undefined;
    return value?.kind === 'scalar' ? value.text : undefined;
  };
  const [before, after] = [driver(base), driver(override)];
  return before !== undefined && after !== undefined && before !== after;
}
