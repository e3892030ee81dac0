/**
 * A raft group under random faults, then healed: nothing acknowledged may be lost, nothing may be read stale,
 * and the healed group must converge. One seed draws everything.
 */
import { randomBelow } from '../../src/base/random.ts';
import type { SwarmdError } from '../../src/base/errors.ts';
import { type Faults, noFaults, SimCluster } from './cluster.ts';

/** What a run did, for a report. */
export interface SimulationResult {
  readonly seed: number;
  readonly acknowledged: number;
  readonly reads: number;
  readonly crashes: number;
  readonly changes: number;
  readonly problems: readonly string[];
}

class Simulation {
  readonly seed: number;
  readonly cluster: SimCluster;
  readonly acknowledged = new Set<string>();
  readonly problems: string[] = [];
  reads = 0;
  crashes = 0;
  changes = 0;
  readonly #never = new AbortController().signal;
  #nextCommand = 0;
  #nextId = 1;
  #changing = false;
  readonly #faults: Faults;

  constructor(seed: number) {
    this.seed = seed;
    this.cluster = new SimCluster(seed);
    Object.assign(this.cluster.options, {
      snapshotEntries: 5 + this.#draw(60),
      snapshotKeepEntries: 1 + this.#draw(20),
      promotionLagEntries: this.#draw(50),
      electionTicks: 5 + this.#draw(15),
    });
    this.#faults = {
      loss: this.#draw(2) * this.#draw(1500),
      duplication: this.#draw(2) * this.#draw(1000),
      delayMaxMs: 1 + this.#draw(40),
      diskDelayMaxMs: this.#draw(20),
    };
  }

  #draw(bound: number): number {
    return randomBelow(this.cluster.random, bound);
  }

  #pick<T>(items: readonly T[]): T | undefined {
    return items[this.#draw(Math.max(1, items.length))];
  }

  async run(ms: number): Promise<void> {
    const count = [1, 3, 3, 5][this.#draw(4)] ?? 3;
    const ids = Array.from({ length: count }, () => this.#nextId++);
    await this.cluster.form(ids);
    this.cluster.faults = this.#faults;
    for (let at = 0; at < ms; at += 5) {
      await this.cluster.run(5);
      this.#workload();
      await this.#fault();
      if (this.cluster.violations.length > 0) break;
    }
    await this.#heal();
  }

  #workload(): void {
    const up = [...this.cluster.members.values()].filter((sim) => sim.node !== null);
    for (const sim of up) {
      if (sim.node?.status().role !== 'leader') continue;
      for (let i = this.#draw(4); i > 0; i--) {
        const command = `c${this.#nextCommand++}`;
        void sim.node.propose(new TextEncoder().encode(command), this.#never).then((outcome) => {
          if (outcome.kind === 'committed') this.acknowledged.add(command);
        });
      }
    }
    const reader = this.#pick(up);
    if (this.#draw(3) !== 0 || reader === undefined || reader.node === null) return;
    const before = [...this.acknowledged];
    const { life, node } = reader;
    node.readIndex(this.#never).then(
      () => {
        if (reader.life !== life) return;
        this.reads++;
        const missing = before.filter((command) => !reader.machine.seen.has(command));
        if (missing.length > 0) {
          this.problems.push(
            `member ${reader.member.id} read without ${missing.length} acknowledged commands`,
          );
        }
      },
      (error: SwarmdError) => {
        if (error.code !== 'NO_LEADER') this.problems.push(`a read failed: ${error.message}`);
      },
    );
  }

  async #fault(): Promise<void> {
    const { cluster } = this;
    const all = [...cluster.members.values()];
    const dice = this.#draw(1000);
    if (dice < 6) {
      const victim = this.#pick(all.filter((sim) => sim.node !== null));
      if (victim !== undefined) this.#crash(victim.member.id);
    } else if (dice < 18) {
      const sleeper = this.#pick(all.filter((sim) => sim.node === null));
      if (sleeper !== undefined) await cluster.start(sleeper.member.id, 'restart');
    } else if (dice < 24) {
      const side = new Set(all.filter(() => this.#draw(2) === 0).map((sim) => sim.member.id));
      const oneWay = this.#draw(3) === 0;
      cluster.passes = (from, to) => side.has(from) === side.has(to) || (oneWay && side.has(from));
    } else if (dice < 36) {
      cluster.passes = () => true;
    } else if (dice < 40) {
      const leader = cluster.leader();
      if (leader !== null)
        void cluster
          .nodeOf(leader)
          .transferLeadership(null, this.#never)
          .catch(() => {});
    } else if (dice < 50) {
      await this.#changeGroup();
    } else if (dice < 53) {
      this.#crashInWrite();
    }
  }

  #crash(id: number): void {
    this.crashes++;
    this.cluster.crash(id);
  }

  /** Crashes whoever writes next, between two steps of that write. */
  #crashInWrite(): void {
    let skip = this.#draw(6);
    this.cluster.beforeStep = (id) => {
      if (skip-- > 0) return;
      this.cluster.beforeStep = () => {};
      if (this.cluster.get(id).node !== null) this.#crash(id);
    };
  }

  async #changeGroup(): Promise<void> {
    const { cluster } = this;
    const leader = cluster.leader();
    if (leader === null || this.#changing) return;
    const node = cluster.nodeOf(leader);
    const { members } = node.status();
    const abort = this.#never;
    this.#changing = true;
    const done = (): void => {
      this.changes++;
      this.#changing = false;
    };
    if (members.length < 5 && this.#draw(2) === 0) {
      const id = this.#nextId++;
      const { member } = cluster.define(id);
      await cluster.start(id, 'join');
      void node.addMember(member, abort).then(done, done);
    } else if (members.length > 3) {
      const victim = this.#pick(members);
      if (victim !== undefined) void node.removeMember(victim.id, abort).then(done, done);
      else this.#changing = false;
    } else {
      this.#changing = false;
    }
  }

  async #heal(): Promise<void> {
    const { cluster } = this;
    cluster.faults = noFaults;
    cluster.passes = () => true;
    cluster.beforeStep = () => {};
    for (const { member, node } of cluster.members.values()) {
      if (node === null) await cluster.start(member.id, 'restart');
    }
    try {
      await cluster.until(() => cluster.leader() !== null, 'a leader after healing');
      const last = await this.#proposeLast();
      const group = (): number[] =>
        cluster
          .nodeOf(cluster.leader() ?? 0)
          .status()
          .members.map((each) => each.id);
      const hasAll = (id: number): boolean => cluster.get(id).machine.seen.has(last);
      await cluster.until(() => cluster.leader() !== null && group().every(hasAll), 'all members converge');
      this.#check(group());
    } catch (error) {
      this.problems.push((error as Error).message);
    }
    this.problems.push(...cluster.violations);
  }

  async #proposeLast(): Promise<string> {
    for (let attempt = 0; attempt < 100; attempt++) {
      const leader = this.cluster.leader();
      if (leader !== null) {
        const text = `last${attempt}`;
        const outcome = await this.cluster.whilePumping(
          this.cluster.nodeOf(leader).propose(new TextEncoder().encode(text), this.#never),
        );
        if (outcome.kind === 'committed') return text;
      }
      await this.cluster.run(100);
    }
    throw new Error(`the healed group takes no proposal\n${this.cluster.describe()}`);
  }

  #check(group: readonly number[]): void {
    for (const id of group) {
      const { machine } = this.cluster.get(id);
      const lost = [...this.acknowledged].filter((command) => !machine.seen.has(command));
      if (lost.length > 0) this.problems.push(`member ${id} lost ${lost.length} acknowledged commands`);
      if (machine.commands.length !== machine.seen.size)
        this.problems.push(`member ${id} applied a command twice`);
    }
  }
}

/** Runs one seed for `ms` of virtual time under faults, then heals and checks. */
export async function simulate(seed: number, ms: number): Promise<SimulationResult> {
  const simulation = new Simulation(seed);
  try {
    await simulation.run(ms);
  } catch (error) {
    simulation.problems.push((error as Error).stack ?? String(error));
  }
  const { acknowledged, reads, crashes, changes, problems } = simulation;
  return { seed, acknowledged: acknowledged.size, reads, crashes, changes, problems };
}
