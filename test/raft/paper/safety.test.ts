/**
 * The extended Raft paper, §5.4 (safety) and the five properties of its figure 3: each claim on its own, and
 * all properties together under random schedules.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { randomBelow, seededRandom } from '../../../src/base/random.ts';
import type { RaftCore } from '../../../src/raft/core/node.ts';
import { EMPTY_BYTES, type Entry, type Message } from '../../../src/raft/core/types.ts';
import { bytes, entry, from, group, Network, voters } from '../network.ts';
import { ask, committed, lapse, logOf, pending } from './scenes.ts';

const plain = { preVote: false, checkQuorum: false } as const;

describe('§5.4.1 election restriction', () => {
  const voter = (...terms: number[]): Network => {
    const network = new Network();
    const hardState = { term: 5, vote: 0, commit: 0 };
    network.add(1, voters(1, 2, 3), { ...plain, log: logOf(...terms), hardState });
    return network;
  };
  const granted = (
    network: Network,
    logTerm: number,
    index: number,
    type: 'vote' | 'pre-vote' = 'vote',
  ): boolean => ask(network, from(2, type, 1, { term: 6, logTerm, index }))[0]?.reject === false;

  test('a voter whose log is more up to date denies its vote', () => {
    assert.equal(granted(voter(1, 1, 2), 1, 9), false);
    assert.equal(granted(voter(1, 1, 2), 2, 2), false);
  });

  test('of two logs the one whose last term is later is more up to date, however short', () => {
    assert.equal(granted(voter(1, 1, 1, 1), 2, 1), true);
    assert.equal(granted(voter(2), 1, 100), false);
  });

  test('of two logs that end in one term the longer is more up to date; equal ones may vote for each other', () => {
    assert.equal(granted(voter(1, 1), 1, 2), true);
    assert.equal(granted(voter(1, 1), 1, 3), true);
    assert.equal(granted(voter(1, 1), 1, 1), false);
  });

  test('the same restriction holds for our pre-votes', () => {
    assert.equal(granted(voter(1, 1), 1, 1, 'pre-vote'), false);
    assert.equal(granted(voter(1, 1), 1, 2, 'pre-vote'), true);
  });

  test('who lacks a committed entry cannot win, however often it tries', () => {
    const network = group(5, plain);
    network.isolate(4, 5);
    network.propose(1, 'committed');
    network.heal();
    network.peers.delete(1);
    for (let i = 0; i < 5; i++) {
      network.elect(4);
      assert.notEqual(network.role(4), 'leader');
    }
    network.elect(2);
    network.elect(2);
    assert.equal(network.role(2), 'leader');
    assert.deepEqual(network.texts(5), ['committed']);
  });

  test('a new leader has every committed entry from the moment of its election, without receiving any', () => {
    const network = group(3, plain);
    network.propose(1, 'x');
    lapse(network, 2, 3);
    network.core(2).campaign();
    pending(network, 2);
    network.core(2).receive(from(3, 'vote-response', 2, { term: 2 }));
    assert.equal(network.role(2), 'leader');
    assert.deepEqual(network.log(2).slice(0, 2), ['1/1', '1/2']);
  });

  test('a leader takes entries from nobody', () => {
    const network = group(3, plain);
    network
      .core(1)
      .receive(from(2, 'append-response', 1, { term: 1, index: 1, entries: [entry(1, 2, 'smuggled')] }));
    network.settle();
    assert.deepEqual(network.log(1), ['1/1']);
  });
});

describe('§5.4.2 entries of earlier terms', () => {
  /** Leader 1 of term 4 with an entry of term 2 that nobody is known to hold. */
  const leader = (): Network => {
    const network = new Network();
    const hardState = { term: 3, vote: 0, commit: 1 };
    network.add(1, voters(1, 2, 3), { ...plain, log: logOf(1, 2), hardState });
    network.core(1).campaign();
    pending(network, 1);
    network.core(1).receive(from(2, 'vote-response', 1, { term: 4 }));
    pending(network, 1);
    assert.equal(network.role(1), 'leader');
    return network;
  };

  test('copies on a majority do not commit them', () => {
    const network = leader();
    for (const id of [2, 3]) network.core(1).receive(from(id, 'append-response', 1, { term: 4, index: 2 }));
    assert.equal(committed(network, 1), 1);
  });

  test('an entry of the own term on a majority commits them along with it', () => {
    const network = leader();
    network.core(1).receive(from(2, 'append-response', 1, { term: 4, index: 3 }));
    assert.equal(committed(network, 1), 3);
  });

  test('for that purpose a new leader begins with an empty entry (§8)', () => {
    const network = leader();
    assert.deepEqual(network.log(1), ['1/1', '2/2', '4/3']);
    assert.equal(network.peer(1).stable.entries(3, 4, 1e9)[0]?.data.length, 0);
  });

  test('they keep the term of their making when a later leader replicates them', () => {
    const network = new Network();
    const hardState = { term: 3, vote: 0, commit: 0 };
    network.add(1, voters(1, 2), { ...plain, log: logOf(1, 2, 2), hardState });
    network.add(2, voters(1, 2), { ...plain, hardState });
    network.elect(1);
    assert.deepEqual(network.log(2), ['1/1', '2/2', '2/3', '4/4']);
  });
});

/** Cores under a random schedule, and what must hold after each of its events. */
class Schedule {
  readonly network = new Network();
  readonly #draw: (bound: number) => number;
  readonly #wire: Message[] = [];
  readonly #leaders = new Map<number, number>();
  readonly #applied = new Map<number, Entry>();
  readonly #committed = new Map<number, string>();
  readonly #ledLogs = new Map<number, { term: number; log: string[] }>();
  readonly #changes: boolean;
  readonly #careful: boolean;
  #proposed = 0;
  changed = 0;

  constructor(seed: number, count: number, spare = 0) {
    const random = seededRandom(seed);
    this.#draw = (bound) => randomBelow(random, bound);
    const ids = Array.from({ length: count }, (_, i) => i + 1);
    const careful = this.#draw(2) === 0;
    this.#careful = careful;
    // Members beyond `count` are none yet: they know the group, and wait to be added.
    for (let id = 1; id <= count + spare; id++) {
      this.network.add(id, voters(...ids), { preVote: careful, checkQuorum: careful });
    }
    this.#changes = spare > 0;
  }

  step(): void {
    const ids = [...this.network.peers.keys()];
    const id = ids[this.#draw(ids.length)] ?? 1;
    const { core } = this.network.peer(id);
    const dice = this.#draw(100);
    if (dice < 12) core.tick();
    else if (dice < 13) core.campaign();
    else if (dice < 14) core.forgetLeader();
    else if (dice < 20) core.propose([bytes(`p${this.#proposed++}`)]);
    else if (dice < 21) this.network.restart(id);
    else if (dice < 25 && this.#changes) this.#changeGroup(core);
    else this.#deliver();
    for (const peer of this.network.peers.values()) {
      while (peer.core.hasReady()) this.#wire.push(...this.network.handle(peer));
    }
    this.#check();
  }

  #changeGroup(core: RaftCore): void {
    const id = 1 + this.#draw(this.network.peers.size);
    const kind = (['add-voter', 'add-voter', 'add-learner', 'remove'] as const)[this.#draw(4)] ?? 'remove';
    const change = { transition: 'auto', steps: [{ kind, id }], context: EMPTY_BYTES } as const;
    if (core.state.role !== 'leader' || core.configChangeRefusal(change) !== null) return;
    if (core.proposeConfigChange(change) === 'ok') this.changed++;
  }

  /** Any message on the wire, in any order; some are lost, some arrive again later. */
  #deliver(): void {
    const at = this.#draw(this.#wire.length + 1);
    const sent = this.#wire[at];
    if (sent === undefined) return;
    const fate = this.#draw(20);
    if (fate !== 0) this.#wire.splice(at, 1);
    if (fate !== 1) this.network.deliver(sent);
    if (this.#wire.length > 60) this.#wire.splice(0, 20);
  }

  #check(): void {
    for (const [id, { core, stable, applied }] of this.network.peers) {
      const { role, term, log } = core.state;
      const places = this.network.log(id);
      if (role === 'leader') {
        assert.equal(this.#leaders.get(term) ?? id, id, `election safety: two leaders of term ${term}`);
        this.#leaders.set(term, id);
        const before = this.#ledLogs.get(id);
        if (before?.term === term)
          assert.deepEqual(places.slice(0, before.log.length), before.log, 'leader append-only');
        this.#ledLogs.set(id, { term, log: places });
        for (const [index, place] of this.#committed) {
          if (Number(place.split('/')[0]) < term)
            assert.equal(places[index - 1], place, `leader completeness: ${place} in the log of ${id}`);
        }
      }
      for (let index = 1; index <= Math.min(log.committed, stable.lastIndex()); index++) {
        const place = places[index - 1] ?? '';
        assert.equal(this.#committed.get(index) ?? place, place, `committed ${index} changed`);
        this.#committed.set(index, place);
      }
      for (const each of applied.slice(-3)) {
        const known = this.#applied.get(each.index) ?? each;
        assert.deepEqual(each, known, `state machine safety at ${each.index}`);
        this.#applied.set(each.index, known);
      }
    }
  }

  /** Log matching, over whole logs: too dear for every step. */
  checkLogs(): void {
    const logs = [...this.network.peers.values()].map(({ stable }) =>
      stable.entries(1, stable.lastIndex() + 1, 1e9),
    );
    for (const a of logs) {
      for (const b of logs) {
        const last = a.findLastIndex((each, at) => b[at]?.term === each.term);
        assert.deepEqual(a.slice(0, last + 1), b.slice(0, last + 1), 'log matching');
      }
    }
  }

  get commits(): number {
    return this.#committed.size;
  }

  #describe(): string {
    const lines = [...this.network.peers].map(([id, { core }]) => {
      const { role, term, log } = core.state;
      const { voters: members, votersOutgoing, learners } = core.config();
      const group = `voters ${members.join()} outgoing ${votersOutgoing.join()} learners ${learners.join()}`;
      return `${id}: ${role} term ${term} commit ${log.committed} log ${this.network.log(id).slice(-5).join(' ')} ${group}`;
    });
    return lines.join('\n');
  }

  /** With a reliable network and time the group agrees on everything. */
  heal(): void {
    this.#wire.length = 0;
    // Without pre-vote and check-quorum a removed member that does not know it may disturb the group forever (§6).
    if (this.#changes && !this.#careful) return;
    const all = [...this.network.peers.keys()];
    for (let i = 0; i < 100; i++) for (const id of all) this.network.tick(id);
    const leader = all.find((id) => this.network.role(id) === 'leader');
    assert.ok(leader !== undefined, `liveness: a leader after healing\n${this.#describe()}`);
    this.network.propose(leader, 'last');
    this.network.tick(leader, 2);
    const { voters: members, learners } = this.network.core(leader).config();
    for (const id of [...members, ...learners])
      assert.deepEqual(this.network.texts(id), this.network.texts(leader), 'convergence');
    assert.equal(this.network.texts(leader).at(-1), 'last');
  }
}

describe('figure 3: the properties that always hold', () => {
  test('also while members are added and removed (§6, thesis §4)', () => {
    let changed = 0;
    for (let seed = 1; seed <= 15; seed++) {
      const schedule = new Schedule(seed, 3, 2);
      for (let i = 0; i < 2000; i++) schedule.step();
      schedule.checkLogs();
      schedule.heal();
      changed += schedule.changed;
    }
    assert.ok(changed > 30, `only ${changed} changes were proposed: the schedules test little`);
  });

  for (const count of [3, 5]) {
    test(`under random schedules of ${count} members with loss, repetition, disorder and restarts`, () => {
      let commits = 0;
      for (let seed = 1; seed <= 10; seed++) {
        const schedule = new Schedule(seed * 10 + count, count);
        for (let i = 0; i < 2000; i++) schedule.step();
        schedule.checkLogs();
        schedule.heal();
        schedule.checkLogs();
        commits += schedule.commits;
      }
      console.log(commits, process.uptime());
      assert.ok(commits > 100, `only ${commits} entries were committed: the schedules test little`);
    });
  }
});
