/**
 * A whole raft group in one thread, in virtual time: the real driver and core on simulated disks and network.
 *
 * Everything random is drawn from one seed. Invariants of the protocol are checked at every event; a violation
 * is kept in `violations` and ends the run that asks for them.
 */
import { ManualClock, type Clock } from '../../src/base/clock.ts';
import { type LogFields, type Logger, silentLogger } from '../../src/base/log.ts';
import { type Random, randomBelow, seededRandom } from '../../src/base/random.ts';
import { RaftNode } from '../../src/raft/node.ts';
import { MemoryDisk, MemoryStorage, type StorageStep } from '../../src/raft/memory-storage.ts';
import type { RaftMember, RaftNodeOptions, RaftStatus, StateMachine } from '../../src/raft/types.ts';

/** A state machine that remembers every command, and a digest of all of them in order. */
export class ListMachine implements StateMachine {
  readonly #onDigest: (index: number, digest: number) => void;
  commands: string[] = [];
  /** Commands known, to count a command once however often it is in the log. */
  seen = new Set<string>();
  digest = 0;
  applied = 0;

  constructor(onDigest: (index: number, digest: number) => void = () => {}) {
    this.#onDigest = onDigest;
  }

  apply(index: number, data: Uint8Array): unknown {
    if (index <= this.applied) throw new Error(`entry ${index} applied again after ${this.applied}`);
    const command = new TextDecoder().decode(data);
    this.applied = index;
    this.commands.push(command);
    this.seen.add(command);
    this.digest = mix(this.digest, command);
    this.#onDigest(index, this.digest);
    return this.commands.length;
  }

  snapshot(): Uint8Array {
    return new TextEncoder().encode(JSON.stringify({ commands: this.commands, digest: this.digest }));
  }

  restore(data: Uint8Array, index: number): void {
    const state = JSON.parse(new TextDecoder().decode(data)) as { commands: string[]; digest: number };
    this.commands = state.commands;
    this.seen = new Set(state.commands);
    this.digest = state.digest;
    this.applied = index;
  }
}

function mix(digest: number, text: string): number {
  let value = Math.imul(digest ^ 0x9e3779b9, 0x85ebca6b);
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return value >>> 0;
}

/** Chances are out of 10,000; delays are in milliseconds of virtual time. */
export interface Faults {
  readonly loss: number;
  readonly duplication: number;
  readonly delayMaxMs: number;
  readonly diskDelayMaxMs: number;
}

export const noFaults: Faults = { loss: 0, duplication: 0, delayMaxMs: 1, diskDelayMaxMs: 0 };

interface Frame {
  readonly from: number;
  readonly to: number;
  readonly bytes: Uint8Array;
  readonly atMs: number;
}

/** One member and what survives its crashes. */
export class SimMember {
  readonly member: RaftMember;
  /** Where it is reached; the group may not know it yet. */
  address: string;
  readonly disk = new MemoryDisk();
  machine: ListMachine;
  node: RaftNode | null = null;
  storage: MemoryStorage | null = null;
  status: RaftStatus | null = null;
  fatal: Error | null = null;
  /** Counts starts: what belongs to an earlier life is ignored. */
  life = 0;

  constructor(member: RaftMember, machine: ListMachine) {
    this.member = member;
    this.address = member.address;
    this.machine = machine;
  }
}

/** A group of members. */
export class SimCluster {
  readonly clock = new ManualClock();
  readonly random: Random;
  readonly members = new Map<number, SimMember>();
  readonly violations: string[] = [];
  readonly options: Partial<RaftNodeOptions>;
  faults: Faults = noFaults;
  /** Whether a frame may pass now. */
  passes: (from: number, to: number) => boolean = () => true;
  /** Called at every millisecond, before anything is delivered. */
  onStep: (nowMs: number) => void = () => {};
  /** Told of every frame that is sent. */
  onFrame: (bytes: Uint8Array) => void = () => {};
  /** Asked before each step of a write. */
  beforeStep: (id: number, step: StorageStep) => Promise<void> | void = () => {};
  #frames: Frame[] = [];
  #deferred: (() => void)[] = [];
  readonly #digests = new Map<number, number>();
  readonly #leaders = new Map<number, number>();

  constructor(seed: number, options: Partial<RaftNodeOptions> = {}) {
    this.random = seededRandom(seed);
    this.options = { tickMs: 10, electionTicks: 10, snapshotIntervalMs: 0, ...options };
  }

  /** Makes a member that is not started yet. */
  define(id: number): SimMember {
    const member = { id, nodeId: `node${id}`, address: `host${id}:1`, voter: true };
    const sim = new SimMember(member, new ListMachine());
    this.members.set(id, sim);
    return sim;
  }

  get(id: number): SimMember {
    const sim = this.members.get(id);
    if (sim === undefined) throw new Error(`no member ${id}`);
    return sim;
  }

  nodeOf(id: number): RaftNode {
    const { node } = this.get(id);
    if (node === null) throw new Error(`member ${id} is down`);
    return node;
  }

  /** Starts a member (again). */
  async start(id: number, how: 'bootstrap' | 'join' | 'restart' | 'force'): Promise<RaftNode> {
    const sim = this.get(id);
    const life = ++sim.life;
    const isAlive = (): boolean => sim.life === life;
    sim.machine = new ListMachine((index, digest) => {
      if (isAlive()) this.#checkDigest(id, index, digest);
    });
    sim.disk.locked = false;
    sim.disk.beforeStep = async (step) => {
      await this.beforeStep(id, step);
      if (this.faults.diskDelayMaxMs > 0)
        await this.#sleep(randomBelow(this.random, this.faults.diskDelayMaxMs + 1));
    };
    const storage = new MemoryStorage(sim.disk);
    sim.storage = storage;
    sim.fatal = null;
    const opening = RaftNode.open(
      {
        ...this.options,
        storage,
        memberId: id,
        ...(how === 'bootstrap' ? { bootstrap: sim.member } : {}),
        join: how === 'join',
        forceNewCluster: how === 'force',
      },
      {
        transport: { send: (to, frames) => isAlive() && this.#sendTo(id, to, frames) },
        stateMachine: sim.machine,
        clock: this.#clockFor(isAlive),
        random: this.random,
        log: process.env['SIM_LOG'] === undefined ? silentLogger : this.#logger(id),
        onStatus: (status) => isAlive() && this.#onStatus(sim, status),
        onFatal: (error) => {
          if (!isAlive()) return;
          sim.fatal = error;
          this.violations.push(`member ${id} failed: ${error.stack ?? error.message}`);
        },
        defer: (run) => this.#deferred.push(() => isAlive() && run()),
      },
    );
    const node = await this.whilePumping(opening);
    if (isAlive()) sim.node = node;
    return node;
  }

  /** The power goes: what is not durable is gone. */
  crash(id: number): void {
    const sim = this.get(id);
    sim.life++;
    sim.node = null;
    sim.status = null;
    void sim.storage?.close();
    sim.storage = null;
    this.#frames = this.#frames.filter((frame) => frame.to !== id || randomBelow(this.random, 2) === 0);
  }

  /** Starts `ids[0]` as a new group and adds the others. */
  async form(ids: readonly number[]): Promise<void> {
    const [first = 1, ...others] = ids;
    this.define(first);
    await this.start(first, 'bootstrap');
    await this.until(() => this.leader() === first, 'the first member leads');
    for (const id of others) {
      const sim = this.define(id);
      await this.start(id, 'join');
      const leader = this.nodeOf(this.leader() ?? first);
      await this.whilePumping(leader.addMember(sim.member, new AbortController().signal));
    }
  }

  /** The leader that the most recent term knows, or null. */
  leader(): number | null {
    let best: SimMember | null = null;
    for (const sim of this.members.values()) {
      const status = sim.node?.status();
      if (status?.role !== 'leader') continue;
      if (best === null || status.term > (best.node?.status().term ?? 0)) best = sim;
    }
    return best?.member.id ?? null;
  }

  /** Moves virtual time forward. */
  async run(ms: number): Promise<void> {
    for (let i = 0; i < ms; i++) await this.#step();
  }

  /** Runs until `check` holds; fails after `maxMs` of virtual time. */
  async until(check: () => boolean, what: string, maxMs = 20_000): Promise<void> {
    for (let i = 0; i < maxMs; i++) {
      if (check()) return;
      await this.#step();
    }
    throw new Error(`after ${maxMs} ms still not so: ${what}\n${this.describe()}`);
  }

  /** Keeps time moving until a promise settles. */
  async whilePumping<T>(promise: Promise<T>, maxMs = 60_000): Promise<T> {
    let done = false;
    const finish = (): void => {
      done = true;
    };
    promise.then(finish, finish);
    for (let i = 0; i < maxMs; i++) {
      await new Promise((resolve) => setImmediate(resolve));
      if (done) return promise;
      await this.#step();
    }
    throw new Error(`a promise did not settle in ${maxMs} ms of virtual time\n${this.describe()}`);
  }

  /** One line a member, for failures. */
  describe(): string {
    const lines = [...this.members.values()].map(({ member, node, fatal }) => {
      const status = node?.status();
      if (status === undefined) return `${member.id}: down`;
      const group = status.members.map((each) => `${each.id}${each.voter ? '' : 'L'}`).join(',');
      return (
        `${member.id}: ${status.role} term ${status.term} leader ${status.leaderId} ` +
        `commit ${status.commitIndex} applied ${status.appliedIndex} members ${group}${fatal ? ' FAILED' : ''}`
      );
    });
    return lines.join('\n');
  }

  /** Stops everything. */
  async stop(): Promise<void> {
    const nodes = [...this.members.values()].map((sim) => sim.node).filter((node) => node !== null);
    await this.whilePumping(Promise.all(nodes.map((node) => node.stop())));
  }

  async #step(): Promise<void> {
    this.clock.advance(1);
    const now = this.clock.nowMs();
    this.onStep(now);
    const due = this.#frames.filter((frame) => frame.atMs <= now);
    if (due.length > 0) {
      this.#frames = this.#frames.filter((frame) => frame.atMs > now);
      for (const frame of due) {
        if (this.passes(frame.from, frame.to)) this.members.get(frame.to)?.node?.receive(frame.bytes);
      }
    }
    await this.#drain();
  }

  /** Runs deferred turns and finished promises until nothing is left to do at this instant. */
  async #drain(): Promise<void> {
    do {
      const deferred = this.#deferred;
      this.#deferred = [];
      for (const run of deferred) run();
      await new Promise((resolve) => setImmediate(resolve));
    } while (this.#deferred.length > 0);
  }

  /** What goes to an address that a member has left is lost. */
  #sendTo(from: number, { id, address }: RaftMember, frames: readonly Uint8Array[]): void {
    const known = this.members.get(id);
    if (known === undefined || known.address === address) this.#send(from, id, frames);
  }

  #send(from: number, to: number, frames: readonly Uint8Array[]): void {
    for (const bytes of frames) {
      this.onFrame(bytes);
      const { loss, duplication, delayMaxMs } = this.faults;
      if (!this.passes(from, to) || randomBelow(this.random, 10_000) < loss) continue;
      const copies = randomBelow(this.random, 10_000) < duplication ? 2 : 1;
      for (let i = 0; i < copies; i++) {
        const atMs = this.clock.nowMs() + 1 + randomBelow(this.random, delayMaxMs);
        this.#frames.push({ from, to, bytes, atMs });
      }
    }
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.clock.setTimer(ms, resolve));
  }

  #clockFor(isAlive: () => boolean): Clock {
    const { clock } = this;
    return {
      nowMs: () => clock.nowMs(),
      monotonicMs: () => clock.monotonicMs(),
      setTimer: (delayMs, callback) => clock.setTimer(delayMs, () => isAlive() && callback()),
    };
  }

  #onStatus(sim: SimMember, status: RaftStatus): void {
    const { id } = sim.member;
    const before = sim.status;
    sim.status = status;
    if (before !== null && (status.term < before.term || status.commitIndex < before.commitIndex)) {
      this.violations.push(`member ${id}: term or commit index went back`);
    }
    if (status.role !== 'leader') return;
    const known = this.#leaders.get(status.term);
    if (known !== undefined && known !== id)
      this.violations.push(`term ${status.term} has leaders ${known} and ${id}`);
    this.#leaders.set(status.term, id);
  }

  #checkDigest(id: number, index: number, digest: number): void {
    const known = this.#digests.get(index);
    if (known === undefined) this.#digests.set(index, digest);
    else if (known !== digest) this.violations.push(`member ${id} applied something else at ${index}`);
  }

  #logger(id: number): Logger {
    const write = (message: string, fields?: LogFields): void => {
      console.log(`${this.clock.nowMs()} [${id}] ${message} ${JSON.stringify(fields ?? {})}`);
    };
    return { debug: write, info: write, warn: write, error: write, child: () => this.#logger(id) };
  }
}
