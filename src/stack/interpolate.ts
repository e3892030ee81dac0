/** Variables in the values of a compose file. Keys, `version` and extension fields (`x-…`) stay as they are. */
import { composeError } from './compose-error.ts';
import { warn, type Warnings } from './reader.ts';
import { substitute, type Lookup } from './substitute.ts';
import type { MappingEntry, YamlNode } from './yaml-tree.ts';

/** The tree with its variables replaced. A replaced value is a text; readers accept texts for numbers. */
export function interpolateTree(root: YamlNode, lookup: Lookup, warnings: Warnings): YamlNode {
  const warned = new Set<string>();
  const visit = (node: YamlNode, path: string): YamlNode => {
    if (node.kind === 'sequence') {
      return { ...node, items: node.items.map((item, i) => visit(item, `${path}[${i}]`)) };
    }
    if (node.kind === 'mapping') {
      const entries = new Map<string, MappingEntry>();
      for (const [key, entry] of node.entries) {
        const full = path === '' ? key : `${path}.${key}`;
        const skip = path === '' && (key.startsWith('x-') || key === 'version');
        entries.set(key, skip ? entry : { mark: entry.mark, value: visit(entry.value, full) });
      }
      return { ...node, entries };
    }
    if (typeof node.value !== 'string' || !node.value.includes('$')) return node;
    const result = substitute(node.value, lookup);
    if (!result.ok) throw composeError(node.mark, `${path}: ${result.reason}`);
    for (const name of result.value.unset) {
      if (warned.has(name)) continue;
      warned.add(name);
      warn(warnings, node.mark, path, `the variable ${name} is not set; an empty text takes its place`);
    }
    return { ...node, value: result.value.text, text: result.value.text };
  };
  return visit(root, '');
}
