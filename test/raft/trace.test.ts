/** Traces for the TLA+ specification: their form, and that they tell of a run that raft allows. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { traceNames } from '../../src/raft/core/trace.ts';
import { ndjson, type TracedEvent, TracedRun } from './tracing.ts';

const SEEDS = 60;
const EVENTS = 600;

/** What a trace says of one member so far. */
interface Told {
  term: number;
  commit: number;
  log: number;
  granted: Set<string>;
  match: Map<string, number>;
}

function key(event: TracedEvent, way: 'Send' | 'Receive'): string {
  return `${event.name.slice(way.length)} ${JSON.stringify(event.msg)}`;
}

/** Replays a trace by rules of its own, knowing nothing but the events. Returns the kinds it met. */
function check(events: readonly TracedEvent[]): Set<string> {
  const members = new Map<string, Told>();
  const sent = new Map<string, number>();
  const leaders = new Map<number, string>();
  const kinds = new Set<string>();
  events.forEach((event, at) => {
    const { name, nid, state, role, log, conf, msg } = event;
    const where = `event ${at} (${name} of ${nid})`;
    kinds.add(name);
    const isFirst = !members.has(nid);
    const told = members.get(nid) ?? { term: 0, commit: 0, log: 0, granted: new Set(), match: new Map() };
    members.set(nid, told);
    assert.ok(state.term >= told.term, `${where}: the term went back`);
    assert.ok(state.commit >= told.commit || name === 'InitState', `${where}: the commit index went back`);
    assert.ok(state.commit <= log, `${where}: committed past the log`);
    if (state.term > told.term) {
      assert.ok(
        isFirst || ['BecomeFollower', 'BecomeCandidate'].includes(name),
        `${where}: a new term unannounced`,
      );
      told.granted.clear();
      told.match.clear();
    }
    const majority = Math.floor((conf[0]?.length ?? 0) / 2) + 1;
    if (name === 'BecomeCandidate') assert.equal(state.vote, nid, `${where}: a candidate votes for itself`);
    if (name === 'BecomeLeader') {
      const votes = conf[0].filter((id) => told.granted.has(id)).length;
      assert.ok(votes >= majority, `${where}: ${votes} votes of ${conf[0].length}`);
      assert.equal(leaders.get(state.term) ?? nid, nid, `${where}: two leaders in a term`);
      leaders.set(state.term, nid);
    }
    if (role === 'StateLeader' && state.commit > told.commit) {
      const holders = conf[0].filter((id) => (told.match.get(id) ?? 0) >= state.commit).length;
      assert.ok(holders >= majority, `${where}: ${holders} are known to hold entry ${state.commit}`);
    }
    if (name.startsWith('Send')) {
      assert.equal(msg?.from, nid, where);
      assert.ok(msg.type === 'MsgSnap' || msg.term === state.term, where);
      sent.set(key(event, 'Send'), (sent.get(key(event, 'Send')) ?? 0) + 1);
    }
    if (name.startsWith('Receive')) {
      assert.equal(msg?.to, nid, where);
      const left = sent.get(key(event, 'Receive')) ?? 0;
      assert.ok(left > 0, `${where}: nobody sent it`);
      sent.set(key(event, 'Receive'), left - 1);
      if (msg.term === state.term && msg.type === 'MsgVoteResp' && !msg.reject) told.granted.add(msg.from);
      if (msg.term === state.term && msg.type === 'MsgAppResp' && !msg.reject)
        told.match.set(msg.from, Math.max(told.match.get(msg.from) ?? 0, msg.index));
    }
    Object.assign(told, { term: state.term, commit: state.commit, log });
  });
  return kinds;
}

describe('traces for the TLA+ specification', () => {
  test('tell of runs that raft allows, and of every kind of event the specification distinguishes', () => {
    const kinds = new Set<string>();
    for (let seed = 1; seed <= SEEDS; seed++) {
      for (const kind of check(new TracedRun(seed).run(EVENTS))) kinds.add(kind);
    }
    // Snapshots are told of as appends, by etcd too.
    const expected = traceNames.filter((name) => !name.endsWith('Snapshot'));
    assert.deepEqual([...kinds].filter((name) => name !== 'Bootstrap').sort(), [...expected].sort());
  });

  test('a trace that was tampered with is found out', () => {
    const events = [...new TracedRun(7).run(EVENTS)];
    const lead = events.findIndex((event) => event.name === 'BecomeLeader');
    const withoutVotes = events.filter(
      (event, at) => at > lead || event.name !== 'ReceiveRequestVoteResponse',
    );
    assert.throws(() => check(withoutVotes), /votes of/);
    const sending = events.findIndex((event) => event.name === 'SendAppendEntriesRequest');
    assert.throws(() => check(events.filter((_, at) => at !== sending)), /nobody sent it/);
  });

  test('one object a line, tagged', () => {
    const lines = ndjson(new TracedRun(1).run(50)).trimEnd().split('\n');
    assert.equal(lines.length, 50);
    for (const line of lines) {
      const { tag, event } = JSON.parse(line) as { tag: string; event: TracedEvent };
      assert.equal(tag, 'trace');
      assert.deepEqual(Object.keys(event).slice(0, 6), ['name', 'nid', 'state', 'role', 'log', 'conf']);
    }
  });
});
