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
import type { Timer } from '../base/clock.ts';
import { SwarmdError, toSwarmdError } from '../base/errors.ts';
import { Applier } from './applier.ts';
import { decodeFrame, senderOf, type SnapshotChunk } from './codec.ts';
import { Conditions } from './conditions.ts';
import { RaftCore, type Ready } from './core/node.ts';
import { APPEND_THREAD, APPLY_THREAD, type Message } from './core/types.ts';
import { LogWriter } from './log-writer.ts';
import { Mail, transmit } from './mail.ts';
import type { MemberTable } from './members.ts';
import { logNotes } from './notes.ts';
import { coreConfig, type ResolvedOptions, resolveOptions } from './options.ts';
import { Proposals } from './proposals.ts';
import { noLeader, Reads } from './reads.ts';
import {
  addMember,
  type GroupControl,
  handOverWhenRemoved,
  removeMember,
  transferLeadership,
} from './reconfiguration.ts';
import { SnapshotReceiver, SnapshotSender } from './snapshot-transfer.ts';
import { prepareStorage, type Started } from './startup.ts';
import type { RaftStorage } from './storage.ts';
import type {
  ProposeOutcome,
  RaftMember,
  RaftNodeDependencies,
  RaftNodeOptions,
  RaftStatus,
} from './types.ts';

/** One member of the consensus group. */
export class RaftNode {
  readonly #options: ResolvedOptions;
  readonly #deps: RaftNodeDependencies;
  readonly #storage: RaftStorage;
  readonly #core: RaftCore;
  readonly #members: MemberTable;
  readonly #writer: LogWriter;
  readonly #proposals = new Proposals();
  readonly #reads: Reads;
  readonly #conditions = new Conditions();
  readonly #applier: Applier;
  readonly #mail: Mail;
  readonly #sender: SnapshotSender;
  readonly #receiver: SnapshotReceiver;
  readonly #control: GroupControl;
  readonly #defer: (run: () => void) => void;
  #life: 'running' | 'stopping' | 'stopped' | 'failed' = 'running';
  #turnQueued = false;
  #tickTimer: Timer | null = null;
  #status: RaftStatus;
  #statusMembers: readonly RaftMember[] | null = null;
  /** A lone voter need not wait for anybody: it campaigns once it applied what it knows to be committed. */
  #campaignWhenCaughtUp = true;
  #malformedFrames = 0;
  #expelledFrames = 0;

  /**
   * Opens a member on its storage and starts it. Rejects with CORRUPT (damaged log), FAILED_PRECONDITION
   * (another member's storage, or an empty one with neither `bootstrap` nor `join`), or a storage error.
   */
  static async open(options: RaftNodeOptions, deps: RaftNodeDependencies): Promise<RaftNode> {
    let node: RaftNode;
    try {
      const started = await prepareStorage(options, deps.stateMachine);
      node = new RaftNode(resolveOptions(options), deps, started);
    } catch (error) {
      await options.storage.close();
      throw error;
    }
    node.#armTick();
    node.#wake();
    return node;
  }

  private constructor(options: ResolvedOptions, deps: RaftNodeDependencies, started: Started) {
    const { stable, members, hardState } = started;
    const { storage, memberId } = options;
    const applied = stable.snapshot()?.index ?? 0;
    this.#options = options;
    this.#deps = deps;
    this.#storage = storage;
    this.#members = members;
    this.#defer = deps.defer ?? ((run) => void setImmediate(run));
    this.#reads = new Reads(deps.random);
    const initial = { hardState, config: stable.snapshotConfig() };
    this.#core = new RaftCore(coreConfig(options, applied), stable, initial, deps.random);
    this.#writer = new LogWriter(
      { storage, stable, hardState, monotonicMs: () => deps.clock.monotonicMs() },
      {
        onDurable: (responses) => this.#guard(() => this.#deliver(responses)),
        onInstalled: (snapshot, state) => this.#guard(() => this.#applier.installed(snapshot, state)),
        onCommitDurable: () => this.#guard(() => this.#applier.drain()),
        onFailed: (error) => this.#fail(error),
      },
    );
    this.#applier = new Applier(
      options,
      {
        core: this.#core,
        stable,
        members,
        proposals: this.#proposals,
        stateMachine: deps.stateMachine,
        log: deps.log,
        ensureCommit: (index) => this.#writer.ensureCommit(index),
        onFailed: (error) => this.#fail(error),
      },
      applied,
    );
    const sendTo = (to: number, frame: Uint8Array): void => transmit(deps.transport, members, to, [frame]);
    this.#sender = new SnapshotSender(storage, sendTo, (to, outcome) => {
      this.#guard(() => this.#core.reportSnapshot(to, outcome));
    });
    this.#receiver = new SnapshotReceiver(memberId, sendTo);
    this.#mail = new Mail(this.#core.state, members, deps.transport, this.#sender);
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
    if (this.#members.isExpelled(senderOf(frame))) {
      this.#expelledFrames++;
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

  /** Notes that a member is at another address by now, before a leader could write it into the log. */
  noteAddress(id: number, address: string): void {
    this.#members.moved(id, address);
  }

  /** The members where this one reaches them: by the log, or by {@link noteAddress}. */
  reach(): readonly RaftMember[] {
    return this.#members.list.map((member) => this.#members.contact(member.id) ?? member);
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

  /** Frames that were dropped because the group was forced to go on without their sender. */
  expelledFrames(): number {
    return this.#expelledFrames;
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
    await this.#applier.idle();
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
    handOverWhenRemoved(this.#control);
    const notes = this.#core.takeNotes();
    logNotes(this.#deps.log, notes);
    this.#reads.applied(this.#core.state.log.applied);
    this.#publish();
    this.#conditions.poll();
    this.#applier.snapshotIfDue(notes.some((note) => note.kind === 'snapshot-wanted'));
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
    const forPeers: Message[] = [];
    for (const each of ready.messages) {
      if (each.to === APPEND_THREAD) this.#writer.submit(each);
      else if (each.to === APPLY_THREAD) this.#applier.push(each);
      else forPeers.push(each);
    }
    this.#mail.post(forPeers);
    for (const read of ready.readStates) this.#reads.confirmed(read.context, read.index);
    this.#applier.drain();
  }

  /** Delivers what waited for durability: to the core itself, and to peers. */
  #deliver(responses: readonly Message[]): void {
    const { memberId } = this.#options;
    for (const response of responses) {
      if (response.to === memberId) this.#core.receive(response);
    }
    this.#mail.post(responses.filter((response) => response.to !== memberId));
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

  #onChunk(chunk: SnapshotChunk): void {
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
      expelled: this.#members.expelled,
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
      adding: new Set(),
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
      refusal: (change) => this.#core.configChangeRefusal(change),
      propose: (change) => {
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
