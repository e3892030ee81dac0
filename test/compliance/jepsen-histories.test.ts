/**
 * Recorded Jepsen histories of a register with known verdicts, judged by the project's own checker.
 * @needs none
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import {
  checkLinearizable,
  type Operation,
  type RegisterInput,
  type RegisterOutput,
  registerModel,
} from '../support/linearizability.ts';

const folder = new URL('../../../shared/data/histories/', import.meta.url);
const present = existsSync(new URL('verdicts.json', folder));
if (!present)
  console.log('notice: ../shared/data/histories is not here; the recorded histories are not judged');

/** One line: process, event, function, value, between tabs. */
const LINE = /- (\d+)\t:(invoke|ok|fail|info)\t:(read|write|cas)\t(.*)$/;

/** Reads a history. A failed operation did not happen; one without an outcome may happen at any later time. */
function parseHistory(text: string): Operation<RegisterInput, RegisterOutput>[] {
  const operations: Operation<RegisterInput, RegisterOutput>[] = [];
  const open = new Map<string, { input: RegisterInput; calledAt: number }>();
  const unknown = (call: { input: RegisterInput; calledAt: number }): void => {
    if (call.input.kind !== 'read')
      operations.push({ ...call, output: null, returnedAt: Number.POSITIVE_INFINITY });
  };
  text.split('\n').forEach((line, at) => {
    const match = LINE.exec(line);
    if (match === null) return;
    const [, process = '', event, name, value = ''] = match;
    if (event === 'invoke') {
      open.set(process, { input: inputOf(name as RegisterInput['kind'], value), calledAt: at });
      return;
    }
    const call = open.get(process);
    if (call === undefined) return;
    open.delete(process);
    if (event === 'info') {
      unknown(call);
    } else if (event === 'ok') {
      const output = call.input.kind === 'read' ? { value: value === 'nil' ? null : value } : { done: true };
      operations.push({ ...call, output, returnedAt: at });
    } else if (call.input.kind === 'cas') {
      operations.push({ ...call, output: { done: false }, returnedAt: at });
    }
  });
  for (const call of open.values()) unknown(call);
  return operations;
}

function inputOf(kind: RegisterInput['kind'], value: string): RegisterInput {
  if (kind === 'read') return { kind };
  if (kind === 'write') return { kind, value };
  const [from = '', to = ''] = value.replace(/[[\]]/g, '').split(' ');
  return { kind, from, to };
}

describe('recorded histories', { skip: !present }, () => {
  const verdicts = present
    ? (JSON.parse(readFileSync(new URL('verdicts.json', folder), 'utf8')) as Record<string, boolean>)
    : {};

  it('every verdict agrees with the record', () => {
    const wrong: string[] = [];
    for (const [name, expected] of Object.entries(verdicts)) {
      const verdict = checkLinearizable(
        registerModel,
        parseHistory(readFileSync(new URL(name, folder), 'utf8')),
      );
      if (verdict.linearizable !== expected)
        wrong.push(`${name}: ${JSON.stringify(verdict)}, the record says ${expected}`);
    }
    assert.deepEqual(wrong, []);
    assert.equal(Object.keys(verdicts).length, 80);
  });
});
