/**
 * etcd's scripted clusters, run on this consensus core: every command's output must be the script's, except
 * for the lines of etcd's logger.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { scriptsIn, withoutLogLines } from './datadriven.ts';
import { ScriptedCluster } from './interaction.ts';

/** Scripts that this core deliberately answers otherwise, with the reason. None at present. */
const deviations: ReadonlyMap<string, string> = new Map();

describe('etcd interaction scripts', () => {
  const scripts = scriptsIn('interaction');
  for (const [name, cases] of scripts ?? []) {
    const reason = deviations.get(name);
    test(name, reason === undefined ? {} : { skip: reason }, () => {
      assert.ok(cases.length > 2, 'the script was read');
      const cluster = new ScriptedCluster();
      for (const script of cases) {
        const { place, command, expected } = script;
        assert.equal(cluster.run(script), withoutLogLines(expected), `${place} ${command}`);
      }
    });
  }
});
