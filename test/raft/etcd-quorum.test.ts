/** etcd's quorum cases: what is committed and how a vote stands, for single and joint majorities. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { jointCommitted, jointVote, majorityCommitted, majorityVote } from '../../src/raft/core/quorum.ts';
import { type ScriptCase, scriptsIn } from './datadriven.ts';

interface QuorumCase {
  readonly incoming: readonly number[];
  readonly outgoing: readonly number[];
  readonly joint: boolean;
  /** What is known of each voter, in order of first mention. */
  readonly known: ReadonlyMap<number, string>;
}

function parse(script: ScriptCase): QuorumCase {
  const list = (key: string): readonly string[] => script.args.find((arg) => arg.key === key)?.values ?? [];
  const incoming = list('cfg').map(Number);
  const joint = script.args.some((arg) => arg.key === 'cfgj');
  const outgoing = list('cfgj')
    .filter((value) => value !== 'zero')
    .map(Number);
  const ids = [...new Set([...incoming, ...outgoing])];
  const values = list(script.command === 'vote' ? 'votes' : 'idx');
  assert.equal(ids.length, values.length, `${script.place}: a value for each voter`);
  const pairs = ids.map((id, position) => [id, values[position] ?? '_'] as const);
  return { incoming, outgoing, joint, known: new Map(pairs.filter((pair) => pair[1] !== '_')) };
}

const shown = (index: number): string => (index === Number.POSITIVE_INFINITY ? '∞' : String(index));

/** The table the scripts print: one bar a voter, as long as the number of voters behind it. */
function table(ids: readonly number[], known: ReadonlyMap<number, string>): string[] {
  const count = ids.length;
  if (count === 0) return ['<empty majority quorum>'];
  const rows = [...ids]
    .map((id) => ({ id, index: Number(known.get(id) ?? 0), isKnown: known.has(id) }))
    .sort((a, b) => a.index - b.index || a.id - b.id);
  const lines = new Map<number, string>();
  let bar = 0;
  rows.forEach((row, position) => {
    const previous = rows[position - 1];
    if (previous !== undefined && previous.index < row.index) bar = position;
    const head = row.isKnown ? `${'x'.repeat(bar)}>${' '.repeat(count - bar)}` : `?${' '.repeat(count)}`;
    lines.set(row.id, `${head} ${String(row.index).padStart(5)}    (id=${row.id})`);
  });
  const sorted = [...ids].sort((a, b) => a - b).map((id) => lines.get(id) ?? '');
  return [`${' '.repeat(count + 4)}idx`, ...sorted].map((line) => line.trimEnd());
}

function committed(quorum: QuorumCase, place: string): string {
  const { incoming, outgoing, joint, known } = quorum;
  const acked = (id: number): number => Number(known.get(id) ?? 0);
  const index = joint ? jointCommitted(incoming, outgoing, acked) : majorityCommitted(incoming, acked);
  assert.equal(jointCommitted(outgoing, incoming, acked), jointCommitted(incoming, outgoing, acked), place);
  if (!joint) {
    assert.equal(jointCommitted(incoming, [], acked), index, `${place}: joint with nobody`);
    assert.equal(jointCommitted(incoming, incoming, acked), index, `${place}: joint with itself`);
  }
  const ids = joint ? [...new Set([...incoming, ...outgoing])] : [...new Set(incoming)];
  const lines = table(ids, known);
  if (ids.length === 0) return `${lines[0]}${shown(index)}`;
  return [...lines, shown(index)].join('\n');
}

function vote(quorum: QuorumCase, place: string): string {
  const { incoming, outgoing, joint, known } = quorum;
  const votes = new Map([...known].map(([id, answer]) => [id, answer === 'y'] as const));
  const result = joint ? jointVote(incoming, outgoing, votes) : majorityVote(incoming, votes);
  assert.equal(
    jointVote(outgoing, incoming, votes),
    jointVote(incoming, outgoing, votes),
    `${place}: symmetry`,
  );
  return { won: 'VoteWon', lost: 'VoteLost', pending: 'VotePending' }[result];
}

describe('etcd quorum cases', () => {
  for (const [name, cases] of scriptsIn('quorum') ?? []) {
    test(name, () => {
      assert.ok(cases.length > 15, 'the file was read');
      for (const script of cases) {
        const quorum = parse(script);
        const run = script.command === 'vote' ? vote : committed;
        const expected = script.expected
          .split('\n')
          .map((line) => line.trimEnd())
          .join('\n');
        assert.equal(run(quorum, script.place), expected, script.place);
      }
    });
  }
});
