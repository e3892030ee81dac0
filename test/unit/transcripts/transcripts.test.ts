/**
 * Golden transcripts of the planners: scripts in testdata/, compared word for word.
 * `UPDATE_TRANSCRIPTS=1 node test/run.ts unit transcripts` (or `node transcripts.test.ts --update`) writes them anew.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { parseScript } from '../../raft/datadriven.ts';
import { TranscriptWorld } from './world.ts';

const FOLDER = join(import.meta.dirname, 'testdata');
const isUpdate = process.argv.includes('--update') || process.env['UPDATE_TRANSCRIPTS'] === '1';

for (const name of readdirSync(FOLDER).filter((file) => file.endsWith('.txt'))) {
  it(name, () => {
    const path = join(FOLDER, name);
    const text = readFileSync(path, 'utf8');
    const world = new TranscriptWorld();
    const cases = parseScript(name, text);
    assert.ok(cases.length > 0, 'the script has no steps');
    const outputs = cases.map((step) => world.run(step));
    if (isUpdate) writeFileSync(path, renewed(text, outputs));
    else for (const [at, step] of cases.entries()) assert.equal(outputs[at], step.expected, step.place);
  });
}

/** The script with its outputs replaced; everything else stays. */
function renewed(text: string, outputs: readonly string[]): string {
  const lines: string[] = [];
  let step = 0;
  let isOutput = false;
  for (const line of text.trimEnd().split('\n')) {
    if (line === '') isOutput = false;
    if (!isOutput) lines.push(line);
    if (line !== '----') continue;
    lines.push(outputs[step++] ?? '');
    isOutput = true;
  }
  return `${lines.join('\n')}\n`;
}
