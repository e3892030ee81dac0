/** etcd's configuration change cases: every change's outcome and the progress it leaves. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  type ChangeBase,
  type ChangeState,
  enterJoint,
  leaveJoint,
  simple,
} from '../../src/raft/core/membership.ts';
import { members, newTracker } from '../../src/raft/core/tracker.ts';
import { type ScriptCase, scriptsIn } from './datadriven.ts';
import { describeMembership, describeProgress, parseSteps } from './describe.ts';

const limits = { maxInflightMessages: 10, maxInflightBytes: 0 };

function run(script: ScriptCase, base: ChangeBase): { readonly text: string; readonly state: ChangeState } {
  const steps = parseSteps(script.input);
  const autoLeave = script.args.some((arg) => arg.key === 'autoleave' && arg.values[0] === 'true');
  const commands = {
    simple: () => simple(base, steps),
    'enter-joint': () => enterJoint(base, autoLeave, steps),
    'leave-joint': () => leaveJoint(base),
  };
  const command = commands[script.command as keyof typeof commands];
  assert.ok(command, `${script.place}: known command`);
  const result = command();
  if (!result.ok) return { text: result.reason, state: base };
  const tracker = { ...newTracker(limits), ...result.value };
  const rows = members(tracker).map(([id, progress]) => `${id}: ${describeProgress(progress)}`);
  return { text: [describeMembership(result.value.membership), ...rows].join('\n'), state: result.value };
}

describe('etcd confchange cases', () => {
  for (const [name, cases] of scriptsIn('confchange') ?? []) {
    test(name, () => {
      const { membership, progress } = newTracker(limits);
      let state: ChangeState = { membership, progress };
      cases.forEach((script, lastIndex) => {
        const done = run(script, { ...state, limits, lastIndex });
        assert.equal(done.text, script.expected.trimEnd(), script.place);
        state = done.state;
      });
    });
  }
});
