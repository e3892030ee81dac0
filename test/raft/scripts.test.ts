/**
 * The project's own scripted clusters, in etcd-raft's format. `UPDATE=1` writes the outputs anew: read the difference.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { parseScript } from './datadriven.ts';
import { ScriptedCluster } from './interaction.ts';

const FOLDER = join(import.meta.dirname, 'scripts');

/** The script with the outputs that the cluster gives now. */
function rewritten(text: string, name: string): string {
  const cluster = new ScriptedCluster();
  const outputs = parseScript(name, text).map((script) => cluster.run(script));
  const lines: string[] = [];
  let isOutput = false;
  for (const line of text.trimEnd().split('\n')) {
    if (line === '') isOutput = false;
    if (!isOutput) lines.push(line);
    if (line !== '----') continue;
    isOutput = true;
    lines.push(...(outputs.shift() ?? '').split('\n'));
  }
  return `${lines.join('\n')}\n`;
}

describe('scripted clusters', () => {
  for (const name of readdirSync(FOLDER)) {
    test(name, () => {
      const path = join(FOLDER, name);
      const text = readFileSync(path, 'utf8');
      const now = rewritten(text, name);
      if (process.env['UPDATE'] === '1') writeFileSync(path, now);
      else assert.equal(now, text);
    });
  }
});
