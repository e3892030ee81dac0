/**
 * YAML text as a tree in which every node knows its file and line.
 *
 * Invariants: keys are unique within a mapping; `<<` merge keys are already resolved; aliases share nodes, and
 * the number of nodes a walk of the tree meets is bounded, so that a small file cannot make a huge one.
 */
import * as yaml from 'js-yaml';
import { composeError } from './compose-error.ts';
import { resolvePlainScalar, type ScalarValue } from './yaml-scalar.ts';

/** Where something stands. Lines and columns count from 1. */
export interface Mark {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

export interface ScalarNode {
  readonly kind: 'scalar';
  readonly value: ScalarValue;
  /** The decoded text, before a type was given to it. */
  readonly text: string;
  readonly mark: Mark;
  readonly tag: string;
}

export interface SequenceNode {
  readonly kind: 'sequence';
  readonly items: readonly YamlNode[];
  readonly mark: Mark;
  readonly tag: string;
}

export interface MappingEntry {
  readonly mark: Mark;
  readonly value: YamlNode;
}

export interface MappingNode {
  readonly kind: 'mapping';
  readonly entries: ReadonlyMap<string, MappingEntry>;
  readonly mark: Mark;
  readonly tag: string;
}

export type YamlNode = ScalarNode | SequenceNode | MappingNode;

/** Nodes one file may expand to, aliases counted as often as they are used. */
export const YAML_NODES_MAX = 200_000;

/** Bytes (UTF-16 units) one compose file may have. */
export const YAML_TEXT_MAX = 4 * 1024 * 1024;

interface Composer {
  readonly file: string;
  readonly text: string;
  readonly events: readonly yaml.Event[];
  readonly lineStarts: readonly number[];
  readonly anchors: Map<string, { readonly node: YamlNode; readonly size: number }>;
  index: number;
  /** Nodes met so far, aliases expanded. */
  size: number;
}

/** Parses one YAML document; null for an empty one. Throws SwarmdError COMPOSE with file and line. */
export function parseYaml(file: string, text: string): YamlNode | null {
  if (text.length > YAML_TEXT_MAX) {
    throw composeError({ file, line: 1, column: 1 }, `the file is larger than ${YAML_TEXT_MAX} characters`);
  }
  const source = text.startsWith('\uFEFF') ? text.slice(1) : text;
  const events = parseEvents(file, source);
  const composer: Composer = {
    file,
    text: source,
    events,
    lineStarts: lineStartsOf(source),
    anchors: new Map(),
    index: 0,
    size: 0,
  };
  const documents = events.filter((event) => event.type === yaml.EVENT_ID.DOCUMENT).length;
  if (documents > 1) {
    throw composeError(
      { file, line: 1, column: 1 },
      'the file holds more than one YAML document (`---`); split it',
    );
  }
  if (documents === 0) return null;
  composer.index = 1;
  if (events[1]?.type === yaml.EVENT_ID.POP) return null;
  return composeNode(composer);
}

function parseEvents(file: string, text: string): yaml.Event[] {
  try {
    return yaml.parseEvents(text, { filename: file });
  } catch (error) {
    if (!(error instanceof yaml.YAMLException)) throw error;
    const mark = { file, line: (error.mark?.line ?? 0) + 1, column: (error.mark?.column ?? 0) + 1 };
    throw composeError(mark, `not valid YAML: ${error.reason}`, { cause: error });
  }
}

function lineStartsOf(text: string): number[] {
  const starts = [0];
  for (let i = text.indexOf('\n'); i >= 0; i = text.indexOf('\n', i + 1)) starts.push(i + 1);
  return starts;
}

function markAt(composer: Composer, offset: number): Mark {
  let low = 0;
  let high = composer.lineStarts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((composer.lineStarts[middle] as number) <= offset) low = middle;
    else high = middle - 1;
  }
  return { file: composer.file, line: low + 1, column: offset - (composer.lineStarts[low] as number) + 1 };
}

function composeNode(composer: Composer): YamlNode {
  const event = composer.events[composer.index++];
  if (event === undefined)
    throw composeError(markAt(composer, composer.text.length), 'the document ends early');
  const sizeBefore = composer.size;
  countNodes(composer, 1, event);
  switch (event.type) {
    case yaml.EVENT_ID.ALIAS:
      return composeAlias(composer, event);
    case yaml.EVENT_ID.SCALAR:
      return registered(composer, event, sizeBefore, composeScalar(composer, event));
    case yaml.EVENT_ID.SEQUENCE:
      return registered(composer, event, sizeBefore, composeSequence(composer, event));
    case yaml.EVENT_ID.MAPPING:
      return registered(composer, event, sizeBefore, composeMapping(composer, event));
    default:
      throw composeError(markAt(composer, 0), 'the document has no content');
  }
}

function countNodes(composer: Composer, count: number, event: yaml.Event): void {
  composer.size += count;
  if (composer.size <= YAML_NODES_MAX) return;
  throw composeError(
    markAt(composer, offsetOf(event)),
    `aliases expand to more than ${YAML_NODES_MAX} values`,
  );
}

function offsetOf(event: yaml.Event): number {
  switch (event.type) {
    case yaml.EVENT_ID.SCALAR:
      return Math.max(0, event.valueStart);
    case yaml.EVENT_ID.SEQUENCE:
    case yaml.EVENT_ID.MAPPING:
      return Math.max(0, event.start);
    case yaml.EVENT_ID.ALIAS:
      return Math.max(0, event.anchorStart);
    default:
      return 0;
  }
}

type NodeEvent = yaml.ScalarEvent | yaml.SequenceEvent | yaml.MappingEvent;

function registered(composer: Composer, event: NodeEvent, sizeBefore: number, node: YamlNode): YamlNode {
  if (event.anchorStart >= 0 && event.anchorEnd > event.anchorStart) {
    const name = composer.text.slice(event.anchorStart, event.anchorEnd);
    composer.anchors.set(name, { node, size: composer.size - sizeBefore });
  }
  return node;
}

function composeAlias(composer: Composer, event: yaml.AliasEvent): YamlNode {
  const name = composer.text.slice(event.anchorStart, event.anchorEnd);
  const target = composer.anchors.get(name);
  if (target === undefined) {
    throw composeError(
      markAt(composer, event.anchorStart),
      `the alias *${name} has no anchor &${name} before it`,
    );
  }
  countNodes(composer, target.size, event);
  return target.node;
}

function tagOf(composer: Composer, event: NodeEvent): string {
  return event.tagStart >= 0 ? composer.text.slice(event.tagStart, event.tagEnd) : '';
}

function composeScalar(composer: Composer, event: yaml.ScalarEvent): ScalarNode {
  const text = yaml.getScalarValue(composer.text, event);
  const tag = tagOf(composer, event);
  const plain = event.style === yaml.SCALAR_STYLE.PLAIN && tag !== '!!str' && tag !== '!';
  const value = plain ? resolvePlainScalar(text) : text;
  return { kind: 'scalar', value, text, tag, mark: markAt(composer, offsetOf(event)) };
}

function composeSequence(composer: Composer, event: yaml.SequenceEvent): SequenceNode {
  const items: YamlNode[] = [];
  while (composer.events[composer.index]?.type !== yaml.EVENT_ID.POP) items.push(composeNode(composer));
  composer.index++;
  return { kind: 'sequence', items, tag: tagOf(composer, event), mark: markAt(composer, offsetOf(event)) };
}

function composeMapping(composer: Composer, event: yaml.MappingEvent): MappingNode {
  const entries = new Map<string, MappingEntry>();
  const merges: YamlNode[] = [];
  while (composer.events[composer.index]?.type !== yaml.EVENT_ID.POP) {
    const keyEvent = composer.events[composer.index];
    const key = composeNode(composer);
    const mark = keyEvent === undefined ? key.mark : markAt(composer, offsetOf(keyEvent));
    if (key.kind !== 'scalar') throw composeError(mark, 'a key must be a plain text, not a list or mapping');
    const value = composeNode(composer);
    if (isMergeKey(keyEvent, key)) {
      merges.push(value);
      continue;
    }
    const previous = entries.get(key.text);
    if (previous !== undefined) {
      throw composeError(
        mark,
        `the key "${key.text}" is given twice; it is already on line ${previous.mark.line}`,
      );
    }
    entries.set(key.text, { mark, value });
  }
  composer.index++;
  for (const merged of merges) mergeInto(entries, merged);
  return { kind: 'mapping', entries, tag: tagOf(composer, event), mark: markAt(composer, offsetOf(event)) };
}

function isMergeKey(event: yaml.Event | undefined, key: ScalarNode): boolean {
  return event?.type === yaml.EVENT_ID.SCALAR && event.style === yaml.SCALAR_STYLE.PLAIN && key.text === '<<';
}

/** Adds what a `<<` names and the mapping does not have itself; of several, the first wins. */
function mergeInto(entries: Map<string, MappingEntry>, merged: YamlNode): void {
  if (merged.kind === 'scalar') {
    if (merged.value === null) return;
    throw composeError(merged.mark, '`<<` takes a mapping or a list of mappings');
  }
  if (merged.kind === 'sequence') {
    for (const item of merged.items) mergeInto(entries, item);
    return;
  }
  for (const [key, entry] of merged.entries) {
    if (!entries.has(key)) entries.set(key, entry);
  }
}
