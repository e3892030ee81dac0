/**
 * The raft loop: the only place where the consensus core meets time, disk, network and the state machine.
 *
 * Everything that happens (a proposal, a message, a tick, a finished write) changes the core at once and asks
 * for a turn; a turn takes one ready set and hands out its work. So what arrives together is written and sent
 * together, and the leader's write runs beside its sends.
 *
 * Invariants: the core is touched only from this thread, never reentrantly; entries are applied once, in
 * order; after a failure of the disk or of an invariant nothing is acknowledged any more.
 */
import { assert } from '../base/assert.ts';
import { SwarmdError, toSwarmdError } from '../base/errors.ts';
import type { Timer } from '../base/clock.ts';
import { decodeFrame, encodeContactList, encodeMessage } from './codec.ts';
import { Conditions } from './conditions.ts';
import { coreDefaults } from './core/config.ts';
import { configChangeOf } from './core/config-codec.ts';
import type { ConfigChange } from './core/membership.ts';
import { RaftCore, type Ready } from './core/node.ts';
import { StableLog } from './core/stable-log.ts';
import { APPEND_THREAD, APPLY_THREAD, type Entry, type Message, type Snapshot } from './core/types.ts';
import { LogWriter } from './log-writer.ts';
import { MemberTable } from './members.ts';
import { logNotes } from './notes.ts';
import { Proposals } from './proposals.ts';
import { noLeader, Reads } from './reads.ts';
import { addMember, type GroupControl, removeMember, transferLeadership } from './reconfiguration.ts';
import { SnapshotReceiver, SnapshotSender } from './snapshot-transfer.ts';
import { prepareStorage } from './startup.ts';
import type { RaftStorage } from './storage.ts';
import type {
  ProposeOutcome,
  RaftMember,
  RaftNodeDependencies,
  RaftNodeOptions,
  RaftStatus,
} from './types.ts';

const MAX_APPLY_BYTES_PER_TURN = 1024 * 1024;

type Resolved = Required<Omit<RaftNodeOptions, 'bootstrap' | 'join'>>;

function resolve(options: RaftNodeOptions): Resolved {
  return {
    storage: options.storage,
    memberId: options.memberId,
    tickMs: options.tickMs ?? 100,
    electionTicks: options.electionTicks ?? 10,
    snapshotEntries: options.snapshotEntries ?? 10_000,
    snapshotBytes: options.snapshotBytes ?? 64 * 1024 * 1024,
    snapshotKeepEntries: options.snapshotKeepEntries ?? 5_000,
    maxEntryBytes: options.maxEntryBytes ?? 1.5 * 1024 * 1024,
    maxUncommittedBytes: options.maxUncommittedBytes ?? coreDefaults.maxUncommittedBytes,
    promotionLagEntries: options.promotionLagEntries ?? 1_000,
  };
}

/** One member of the consensus group. */
export class RaftNode {
  readonly #options: Resolved;
  readonly #deps: RaftNodeDependencies;
  readonly #storage: RaftStorage;
  readonly #stable: StableLog;
  readonly #core: RaftCore;
  readonly #members: MemberTable;
  readonly #writer: LogWriter;
  readonly #proposals = new Proposals();
  readonly #reads: Reads;
  readonly #conditions = new Conditions();
  readonly #sender: SnapshotSender;
  readonly #receiver: SnapshotReceiver;
  readonly #control: GroupControl;
  readonly #defer: (run: () => void) => void;
  /** Committed entries handed out by the core and not applied yet. */
  readonly #applies: Message[] = [];
  #life: 'running' | 'stopping' | 'stopped' | 'failed' = 'running';
  #turnQueued = false;
  #tickTimer: Timer | null = null;
  #status: RaftStatus;
  #statusMembers: readonly RaftMember[] | null = null;
  #snapshotIndex: number;
  #bytesSinceSnapshot = 0;
  #saving: Promise<void> | null = null;
  /** A lone voter need not wait for anybody: it campaigns once it applied what it knows to be committed. */
  #campaignWhenCaughtUp = true;
  #malformedFrames = 0;

  /**
   * Opens a member on its storage and starts it. Rejects with CORRUPT (damaged log), FAILED_PRECONDITION
   * (another member's storage, or an empty one with neither `bootstrap` nor `join`), or a storage error.
   */
  static async open(options: RaftNodeOptions, deps: RaftNodeDependencies): Promise<RaftNode> {
    const started = await prepareStorage(options, deps.stateMachine);
    const node = new RaftNode(resolve(options), deps, started);
    node.#armTick();
    node.#wake();
    return node;
  }

  private constructor(
    options: Resolved,
    deps: RaftNodeDependencies,
    started: {
      stable: StableLog;
      members: MemberTable;
      hardState: { term: number; vote: number; commit: number };
    },
  ) {
    this.#options = options;
    this.#deps = deps;
    this.#storage = options.storage;
    this.#stable = started.stable;
    this.#members = started.members;
    this.#defer = deps.defer ?? ((run) => void setImmediate(run));
    this.#reads = new Reads(deps.random);
    this.#snapshotIndex = this.#stable.snapshot()?.index ?? 0;
    this.#core = new RaftCore(
      {
        ...coreDefaults,
        id: options.memberId,
        electionTicks: options.electionTicks,
        applied: this.#snapshotIndex,
        maxUncommittedBytes: options.maxUncommittedBytes,
        maxApplyingBytes: MAX_APPLY_BYTES_PER_TURN,
      },
      this.#stable,
      { hardState: started.hardState, config: this.#stable.snapshotConfig() },
      deps.random,
    );
    this.#writer = new LogWriter(
      {
        storage: this.#storage,
        stable: this.#stable,
        hardState: started.hardState,
        monotonicMs: () => deps.clock.monotonicMs(),
      },
      {
        onDurable: (responses) => this.#guard(() => this.#deliver(responses)),
        onInstalled: (snapshot, state) => this.#guard(() => this.#onInstalled(snapshot, state)),
        onCommitDurable: () => this.#guard(() => this.#drainApplies()),
        onFailed: (error) => this.#fail(error),
      },
    );
    const sendTo = (to: number, frame: Uint8Array): void => this.#transmit(to, [frame]);
    this.#sender = new SnapshotSender(this.#storage, sendTo, (to, outcome) => {
      this.#guard(() => this.#core.reportSnapshot(to, outcome));
    });
    this.#receiver = new SnapshotReceiver(options.memberId, sendTo);
    this.#control = this.#makeControl();
    this.#status = this.#computeStatus();
  }

  /** Proposes one entry. Never rejects: a refusal and an unknown fate are outcomes. */
  async propose(data: Uint8Array, signal: AbortSignal): Promise<ProposeOutcome> {
    const { leaderId } = this.#status;
    if (this.#life !== 'running') return { kind: 'refused', reason: 'stopping', leaderId: null };
    if (data.length > this.#options.maxEntryBytes) return { kind: 'refused', reason: 'too-large', leaderId };
    if (this.#core.state.role !== 'leader') return { kind: 'refused', reason: 'not-leader', leaderId };
    const outcome = this.#proposals.enqueue(data, signal, leaderId);
    this.#wake();
    return outcome;
  }

  /**
   * Resolves with a read index once everything up to it is applied here: a read of the state machine then sees
   * every write acknowledged before this call. Rejects with NO_LEADER, or the signal's reason.
   */
  async readIndex(signal: AbortSignal): Promise<number> {
    if (this.#life !== 'running' || this.#core.state.leader === 0) throw noLeader('read');
    const read = this.#reads.enqueue(signal);
    this.#wake();
    return read;
  }

  /** Takes a frame from a peer. A malformed one, or one for another member, is counted and dropped. */
  receive(data: Uint8Array): void {
    if (this.#life !== 'running') return;
    const frame = decodeFrame(data);
    if (frame === null) {
      this.#malformedFrames++;
      return;
    }
    this.#guard(() => {
      if (frame.kind === 'snapshot-ack') {
        if (frame.ack.to === this.#options.memberId) this.#sender.onAck(frame.ack);
      } else if (frame.kind === 'contacts') {
        if (frame.list.to === this.#options.memberId) this.#members.learn(frame.list.contacts);
      } else if (frame.kind === 'snapshot-chunk') {
        this.#onChunk(frame.chunk);
      } else if (frame.message.to === this.#options.memberId && frame.message.type !== 'snapshot') {
        this.#core.receive(frame.message);
      }
    });
  }

  /** Adds a member: as a learner first, promoted (when it is to vote) once it caught up. Leader only. */
  addMember(member: RaftMember, signal: AbortSignal): Promise<void> {
    return addMember(this.#control, member, this.#options.promotionLagEntries, signal);
  }

  /** Removes a member; resolves when the group without it is in force. Leader only. */
  removeMember(id: number, signal: AbortSignal): Promise<void> {
    return removeMember(this.#control, id, signal);
  }

  /** Hands leadership to `to`, or to the voter whose log is furthest. Leader only. */
  transferLeadership(to: number | null, signal: AbortSignal): Promise<void> {
    return transferLeadership(this.#control, to, signal);
  }

  /** What this node knows of its group. */
  status(): RaftStatus {
    return this.#computeStatus();
  }

  /** Frames that were dropped because they could not be decoded. */
  malformedFrames(): number {
    return this.#malformedFrames;
  }

  /** Stops and closes the storage. What is in flight is answered "unknown"; safe to call twice. */
  async stop(): Promise<void> {
    if (this.#life === 'running') this.#life = 'stopping';
    this.#tickTimer?.cancel();
    this.#sender.stopAll();
    this.#proposals.refuseQueued('stopping', null);
    this.#proposals.abandon('the node is stopping');
    this.#reads.rejectAll(noLeader('read'));
    this.#conditions.rejectAll(new SwarmdError('CANCELLED', 'the node is stopping'));
    await this.#writer.idle();
    await this.#saving;
    if (this.#life === 'stopped') return;
    if (this.#life === 'stopping') {
      this.#writer.flushCommit();
      await this.#writer.idle();
    }
    this.#life = 'stopped';
    await this.#storage.close();
  }

  // Turns.

  /** Runs something that may change the core, then asks for a turn. A broken invariant ends the node. */
  #guard(run: () => void): void {
    if (this.#life !== 'running') return;
    try {
      run();
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#wake();
  }

  #wake(): void {
    if (this.#turnQueued || this.#life !== 'running') return;
    this.#turnQueued = true;
    this.#defer(() => {
      this.#turnQueued = false;
      if (this.#life !== 'running') return;
      try {
        this.#turn();
      } catch (error) {
        this.#fail(error);
      }
    });
  }

  #turn(): void {
    this.#submitProposals();
    if (this.#reads.queued > 0 && this.#core.state.leader !== 0) {
      const context = this.#reads.startBatch();
      if (context !== null) this.#core.readIndex(context);
    }
    if (this.#core.hasReady()) this.#handle(this.#core.ready());
    const notes = this.#core.takeNotes();
    logNotes(this.#deps.log, notes);
    this.#reads.applied(this.#core.state.log.applied);
    this.#publish();
    this.#conditions.poll();
    this.#maybeSnapshot(notes.some((note) => note.kind === 'snapshot-wanted'));
    if (this.#core.hasReady() || this.#proposals.queued > 0) {
      this.#wake();
    } else if (this.#campaignWhenCaughtUp) {
      this.#campaignWhenCaughtUp = false;
      const { incoming, outgoing } = this.#core.state.tracker.membership;
      if (incoming.size === 1 && outgoing.size === 0) this.#guard(() => this.#core.campaign());
    }
  }

  #submitProposals(): void {
    if (this.#proposals.queued === 0) return;
    const { state } = this.#core;
    this.#proposals.submit(
      (payloads) => this.#core.propose(payloads) === 'ok',
      () => ({ term: state.term, lastIndex: state.log.lastIndex() }),
      () => ({
        reason: state.role === 'leader' ? 'busy' : 'not-leader',
        leaderId: state.leader === 0 ? null : state.leader,
      }),
    );
  }

  #handle(ready: Ready): void {
    const outbox = new Map<number, Uint8Array[]>();
    for (const each of ready.messages) {
      if (each.to === APPEND_THREAD) this.#writer.submit(each);
      else if (each.to === APPLY_THREAD) this.#applies.push(each);
      else this.#post(outbox, each);
    }
    for (const [to, frames] of outbox) this.#transmit(to, frames);
    for (const read of ready.readStates) this.#reads.confirmed(read.context, read.index);
    this.#drainApplies();
  }

  #post(outbox: Map<number, Uint8Array[]>, sent: Message): void {
    if (sent.type === 'snapshot') {
      this.#sender.start(sent);
      return;
    }
    let frames = outbox.get(sent.to);
    if (frames === undefined) {
      frames = this.#needsContacts(sent) ? [this.#contactList(sent.to)] : [];
      outbox.set(sent.to, frames);
    }
    frames.push(encodeMessage(sent));
  }

  /** Whether the receiver may not know how to answer: a joiner, or a voter that lacks a change of the group. */
  #needsContacts(sent: Message): boolean {
    if (sent.type === 'vote' || sent.type === 'pre-vote') return true;
    const { role, tracker } = this.#core.state;
    return role === 'leader' && tracker.progress.get(sent.to)?.match === 0;
  }

  #contactList(to: number): Uint8Array {
    return encodeContactList({ to, contacts: this.#members.list });
  }

  #transmit(to: number, frames: readonly Uint8Array[]): void {
    const member = this.#members.contact(to);
    if (member !== null) this.#deps.transport.send(member, frames);
  }

  /** Delivers what waited for durability: to the core itself, and to peers. */
  #deliver(responses: readonly Message[]): void {
    const outbox = new Map<number, Uint8Array[]>();
    for (const response of responses) {
      if (response.to === this.#options.memberId) this.#core.receive(response);
      else this.#post(outbox, response);
    }
    for (const [to, frames] of outbox) this.#transmit(to, frames);
  }

  /**
   * Applies what is committed. A change of the group waits until it is durable here that it is committed: a
   * member that acted under a configuration must not forget it in a crash, or the others, who know of it, may
   * neither vote for it nor stand themselves.
   */
  #drainApplies(): void {
    for (let request = this.#applies[0]; request !== undefined; request = this.#applies[0]) {
      const change = request.entries.findLast((entry) => entry.kind === 'config');
      if (change !== undefined && !this.#writer.ensureCommit(change.index)) return;
      this.#applies.shift();
      this.#apply(request);
    }
  }

  #apply(request: Message): void {
    for (const entry of request.entries) {
      const result = this.#applyEntry(entry);
      this.#bytesSinceSnapshot += entry.data.length;
      this.#proposals.applied(entry.index, entry.term, result);
    }
    for (const response of request.responses) this.#core.receive(response);
  }

  #applyEntry(entry: Entry): unknown {
    if (entry.kind === 'normal') {
      // An empty entry is the mark of a new leader, or a refused configuration change.
      return entry.data.length === 0 ? undefined : this.#deps.stateMachine.apply(entry.index, entry.data);
    }
    const change = configChangeOf(entry.data);
    this.#members.apply(change, this.#core.applyConfigChange(change));
    return undefined;
  }

  // Time.

  #armTick(): void {
    if (this.#life !== 'running') return;
    // A late timer counts as one tick: after a pause the leader's messages are given a chance to arrive.
    this.#tickTimer = this.#deps.clock.setTimer(this.#options.tickMs, () => {
      this.#guard(() => this.#onTick());
      this.#armTick();
    });
  }

  #onTick(): void {
    const { electionTicks, tickMs } = this.#options;
    this.#core.tick();
    this.#sender.tick(electionTicks);
    this.#reads.tick(electionTicks);
    const { state } = this.#core;
    const isAlone = state.tracker.progress.size === 1;
    if (state.role === 'leader' && !isAlone && this.#writer.busyMs() > electionTicks * tickMs) {
      this.#deps.log.warn('stepping down: a write to the raft log takes longer than an election timeout');
      this.#core.stepDown();
    }
    this.#writer.flushCommit();
  }

  // Snapshots.

  #maybeSnapshot(isWanted: boolean): void {
    const { applied } = this.#core.state.log;
    const isDue =
      isWanted ||
      applied - this.#snapshotIndex >= this.#options.snapshotEntries ||
      this.#bytesSinceSnapshot >= this.#options.snapshotBytes;
    if (!isDue || this.#saving !== null || applied <= this.#snapshotIndex) return;
    const term = this.#stable.term(applied);
    if (term === null || this.#core.state.log.hasPendingSnapshot()) return;
    const config = this.#core.config();
    const snapshot: Snapshot = { index: applied, term, config, data: this.#members.encode() };
    this.#bytesSinceSnapshot = 0;
    this.#snapshotIndex = applied;
    this.#saving = this.#save(snapshot, this.#deps.stateMachine.snapshot()).finally(() => {
      this.#saving = null;
    });
  }

  async #save(snapshot: Snapshot, state: Uint8Array): Promise<void> {
    const first = this.#stable.firstIndex();
    const index = Math.max(first - 1, snapshot.index - this.#options.snapshotKeepEntries);
    const compacted = { index, term: this.#stable.term(index) ?? 0 };
    try {
      await this.#storage.saveSnapshot(snapshot, state, compacted);
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#stable.noteSnapshot(snapshot);
    if (index <= this.#stable.lastIndex()) this.#stable.compact(index);
    this.#deps.log.info('raft snapshot saved', { index: snapshot.index, bytes: state.length });
  }

  #onInstalled(snapshot: Snapshot, state: Uint8Array): void {
    this.#deps.stateMachine.restore(state, snapshot.index);
    this.#members.restore(snapshot.config, snapshot.data);
    this.#snapshotIndex = snapshot.index;
    this.#bytesSinceSnapshot = 0;
    this.#proposals.abandon('a snapshot replaced the log');
  }

  #onChunk(chunk: Parameters<SnapshotReceiver['onChunk']>[0]): void {
    const { message } = chunk;
    const { state } = this.#core;
    if (message.to !== this.#options.memberId || message.snapshot === null || message.term < state.term)
      return;
    const wanted = message.snapshot.index > state.log.committed;
    const whole = this.#receiver.onChunk(chunk, wanted);
    if (whole === null) return;
    const { index } = message.snapshot;
    const isPending = (): boolean => state.log.pendingSnapshotIndex() === index;
    const wasPending = isPending();
    if (!wasPending) this.#writer.keepState(index, whole);
    this.#core.receive(message);
    if (!wasPending && !isPending()) this.#writer.dropState(index);
  }

  // Status.

  #computeStatus(): RaftStatus {
    const { role, term, leader, isLearner, log } = this.#core.state;
    const shown = role === 'pre-candidate' ? 'candidate' : role;
    return {
      role: shown === 'follower' && isLearner ? 'learner' : shown,
      term,
      leaderId: leader === 0 ? null : leader,
      memberId: this.#options.memberId,
      commitIndex: log.committed,
      appliedIndex: log.applied,
      members: this.#members.list,
    };
  }

  #publish(): void {
    const previous = this.#status;
    const status = this.#computeStatus();
    this.#status = status;
    const isNews =
      status.role !== previous.role ||
      status.term !== previous.term ||
      status.leaderId !== previous.leaderId ||
      status.members !== this.#statusMembers;
    if (!isNews) return;
    this.#statusMembers = status.members;
    if (status.role !== 'leader' || status.term !== previous.term) {
      if (previous.role === 'leader') {
        this.#proposals.abandon('leadership was lost while the change was in flight');
        this.#sender.stopAll();
      }
    }
    if (status.leaderId === null) this.#reads.rejectUnconfirmed(noLeader('read'));
    this.#deps.onStatus(status);
  }

  #makeControl(): GroupControl {
    const { state } = this.#core;
    return {
      state,
      members: this.#members,
      assertRunning: () => {
        if (this.#life !== 'running') throw new SwarmdError('CANCELLED', 'the node is stopping');
      },
      until: (check, signal) => {
        const done = this.#conditions.until(check, signal);
        this.#wake();
        return done;
      },
      refusal: (change: ConfigChange) => this.#core.configChangeRefusal(change),
      propose: (change: ConfigChange) => {
        if (this.#core.proposeConfigChange(change) === 'dropped') return null;
        const outcome = this.#proposals.track(state.log.lastIndex(), state.term);
        this.#wake();
        return outcome;
      },
      transfer: (to: number) => this.#guard(() => this.#core.transferLeadership(to)),
    };
  }

  #fail(error: unknown): void {
    if (this.#life === 'failed' || this.#life === 'stopped') return;
    assert(this.#life === 'running' || this.#life === 'stopping', 'a node fails while it lives');
    this.#life = 'failed';
    this.#tickTimer?.cancel();
    this.#sender.stopAll();
    this.#proposals.refuseQueued('stopping', null);
    this.#proposals.abandon('the raft log failed while the change was in flight');
    this.#reads.rejectAll(noLeader('read'));
    const fatal = error instanceof Error ? error : toSwarmdError(error);
    this.#conditions.rejectAll(fatal);
    this.#deps.onFatal(fatal);
  }
}
