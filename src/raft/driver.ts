/**
 * The raft loop: the only place where the consensus core meets time, disk and network.
 *
 * Everything that happens (a proposal, a message, a tick, a finished write) changes the core at once and asks
 * for a turn; a turn takes one ready set and hands out its work. So what arrives together is written and sent
 * together, and the leader's write runs beside its sends. The state machine and everybody who uses it are on the
 * other side of the messages (see `messages.ts`), in the same thread or in another.
 *
 * Invariants: the core is touched only from this thread; entries are sent to be applied once, in order; after a
 * failure of the disk or of an invariant nothing is acknowledged any more.
 */
import { assert, assertNever } from '../base/assert.ts';
import type { Timer } from '../base/clock.ts';
import { errorMessage, SwarmdError, toSwarmdError } from '../base/errors.ts';
import { Applier } from './applier.ts';
import { decodeFrame, senderOf, type SnapshotChunk } from './codec.ts';
import { Conditions } from './conditions.ts';
import { RaftCore, type Ready } from './core/node.ts';
import { APPEND_THREAD, APPLY_THREAD, type Message } from './core/types.ts';
import { LogWriter } from './log-writer.ts';
import { Mail, transmit } from './mail.ts';
import type { MemberTable } from './members.ts';
import type { DriverStatus, GroupCall, NotCommitted, RefusedFrames, ToDriver } from './messages.ts';
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
import type { RaftDriverDependencies, RaftNodeOptions } from './types.ts';

/** The consensus of one member: log, elections, peers. */
export class RaftDriver {
  readonly #options: ResolvedOptions;
  readonly #deps: RaftDriverDependencies;
  readonly #storage: RaftStorage;
  readonly #core: RaftCore;
  readonly #members: MemberTable;
  readonly #writer: LogWriter;
  readonly #proposals: Proposals;
  readonly #reads: Reads;
  /** Calls under way, by id. */
  readonly #calls = new Map<number, AbortController>();
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
  #status: DriverStatus;
  /** A lone voter need not wait for anybody: it campaigns once it applied what it knows to be committed. */
  #campaignWhenCaughtUp = true;
  #refusedFrames: RefusedFrames = { malformed: 0, expelled: 0 };

  /**
   * Opens a member on its storage and starts it. Rejects with CORRUPT (damaged log), FAILED_PRECONDITION
   * (another member's storage, or an empty one with neither `bootstrap` nor `join`), or a storage error.
   */
  static async open(options: RaftNodeOptions, deps: RaftDriverDependencies): Promise<RaftDriver> {
    let driver: RaftDriver;
    try {
      const started = await prepareStorage(options, (state, index) => {
        deps.emit({ kind: 'restore', index, state });
      });
      driver = new RaftDriver(resolveOptions(options), deps, started);
    } catch (error) {
      await options.storage.close();
      throw error;
    }
    deps.emit({ kind: 'status', status: driver.#status });
    driver.#armTick();
    driver.#wake();
    return driver;
  }

  private constructor(options: ResolvedOptions, deps: RaftDriverDependencies, started: Started) {
    const { stable, members, hardState } = started;
    const { storage, memberId } = options;
    const applied = stable.snapshot()?.index ?? 0;
    this.#options = options;
    this.#deps = deps;
    this.#storage = storage;
    this.#members = members;
    this.#defer = deps.defer ?? ((run) => void setImmediate(run));
    this.#reads = new Reads(deps.random);
    this.#proposals = new Proposals((ids, outcome) => this.#notCommitted(ids, outcome));
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
        log: deps.log,
        emit: (message) => deps.emit(message),
        monotonicMs: () => deps.clock.monotonicMs(),
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

  /** Takes what the node says. */
  take(message: ToDriver): void {
    if (message.kind === 'stop') return void this.#stop();
    if (this.#life !== 'running') return this.#refuse(message);
    this.#guard(() => this.#onMessage(message));
  }

  /** Answers what came too late. */
  #refuse(message: ToDriver): void {
    switch (message.kind) {
      case 'propose':
        return this.#notCommitted([message.id], { kind: 'refused', reason: 'stopping', leaderId: null });
      case 'read':
        return this.#deps.emit({ kind: 'read-failed', ids: [message.id], error: noLeader('read') });
      case 'call':
        return this.#deps.emit({ kind: 'called', id: message.id, error: stopping() });
      default:
    }
  }

  #onMessage(message: Exclude<ToDriver, { kind: 'stop' }>): void {
    switch (message.kind) {
      case 'propose':
        return this.#propose(message.id, message.data);
      case 'read':
        if (this.#core.state.leader !== 0) return this.#reads.enqueue(message.id);
        return this.#deps.emit({ kind: 'read-failed', ids: [message.id], error: noLeader('read') });
      case 'call':
        return void this.#call(message.id, message.call);
      case 'cancel':
        return this.#calls.get(message.id)?.abort(new SwarmdError('CANCELLED', 'the caller gave up'));
      case 'frame':
        return this.#onFrame(message.frame);
      case 'moved':
        this.#members.moved(message.memberId, message.address);
        return this.#publish();
      case 'applied':
        return this.#applier.applied(message.index);
      case 'snapshot':
        return this.#applier.taken(message.index, message.state);
      case 'failed':
        throw message.error;
      default:
        return assertNever(message);
    }
  }

  #propose(id: number, data: Uint8Array): void {
    const { leaderId } = this.#status;
    if (data.length > this.#options.maxEntryBytes)
      return this.#notCommitted([id], { kind: 'refused', reason: 'too-large', leaderId });
    if (this.#core.state.role !== 'leader')
      return this.#notCommitted([id], { kind: 'refused', reason: 'not-leader', leaderId });
    this.#proposals.enqueue(id, data, leaderId);
  }

  #notCommitted(ids: readonly number[], outcome: NotCommitted): void {
    this.#deps.emit({ kind: 'not-committed', ids, outcome });
  }

  async #call(id: number, call: GroupCall): Promise<void> {
    const controller = new AbortController();
    this.#calls.set(id, controller);
    const { signal } = controller;
    let error: Error | null = null;
    try {
      if (call.kind === 'add')
        await addMember(this.#control, call.member, this.#options.promotionLagEntries, signal);
      else if (call.kind === 'remove') await removeMember(this.#control, call.memberId, signal);
      else await transferLeadership(this.#control, call.to, signal);
    } catch (caught) {
      error = caught instanceof Error ? caught : toSwarmdError(caught);
    }
    this.#calls.delete(id);
    this.#deps.emit({ kind: 'called', id, error });
  }

  /** A malformed frame, or one for another member, is counted and dropped. */
  #onFrame(data: Uint8Array): void {
    const frame = decodeFrame(data);
    if (frame === null) {
      return this.#countRefused('malformed');
    }
    if (this.#members.isExpelled(senderOf(frame))) {
      return this.#countRefused('expelled');
    }
    const { memberId } = this.#options;
    if (frame.kind === 'snapshot-ack') {
      if (frame.ack.to === memberId) this.#sender.onAck(frame.ack);
    } else if (frame.kind === 'contacts') {
      if (frame.list.to === memberId) this.#members.learn(frame.list.contacts, frame.list.index);
    } else if (frame.kind === 'snapshot-chunk') {
      this.#onChunk(frame.chunk);
    } else if (frame.message.to === memberId && frame.message.type !== 'snapshot') {
      this.#core.receive(frame.message);
    }
  }

  #countRefused(why: keyof RefusedFrames): void {
    this.#refusedFrames = { ...this.#refusedFrames, [why]: this.#refusedFrames[why] + 1 };
    this.#publish();
  }

  /** Stops and closes the storage; what is in flight is answered "unknown". */
  async #stop(): Promise<void> {
    if (this.#life === 'stopping' || this.#life === 'stopped') return;
    if (this.#life === 'running') this.#life = 'stopping';
    this.#tickTimer?.cancel();
    this.#sender.stopAll();
    this.#proposals.refuseQueued('stopping', null);
    this.#proposals.abandon('the node is stopping');
    this.#failReads(noLeader('read'));
    this.#conditions.rejectAll(stopping());
    try {
      await this.#writer.idle();
      await this.#applier.idle();
      if (this.#life === 'stopping') {
        this.#writer.flushCommit();
        await this.#writer.idle();
      }
      this.#life = 'stopped';
      await this.#storage.close();
    } catch (error) {
      this.#deps.log.warn('the raft log was not closed', { error: errorMessage(error) });
    } finally {
      this.#deps.emit({ kind: 'stopped' });
    }
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
    this.#publish();
    this.#conditions.poll();
    this.#applier.snapshotIfDue(notes.some((note) => note.kind === 'snapshot-wanted'));
    const { log, tracker } = this.#core.state;
    if (this.#core.hasReady() || this.#proposals.queued > 0) {
      this.#wake();
    } else if (this.#campaignWhenCaughtUp && log.applied === log.committed) {
      this.#campaignWhenCaughtUp = false;
      const { incoming, outgoing } = tracker.membership;
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
    // First what callers wait for; sending to peers takes its time.
    this.#applier.drain();
    for (const { context, index } of ready.readStates) {
      const ids = this.#reads.confirmed(context);
      if (ids.length > 0) this.#deps.emit({ kind: 'read', ids, index });
    }
    this.#mail.post(forPeers);
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

  #computeStatus(): DriverStatus {
    const { role, term, leader, isLearner, log } = this.#core.state;
    const shown = role === 'pre-candidate' ? 'candidate' : role;
    return {
      role: shown === 'follower' && isLearner ? 'learner' : shown,
      term,
      leaderId: leader === 0 ? null : leader,
      memberId: this.#options.memberId,
      commitIndex: log.committed,
      members: this.#members.list,
      expelled: this.#members.expelled,
      reach: this.#members.reach,
      refusedFrames: this.#refusedFrames,
    };
  }

  #publish(): void {
    const previous = this.#status;
    const status = this.#computeStatus();
    const isNews =
      status.role !== previous.role ||
      status.term !== previous.term ||
      status.leaderId !== previous.leaderId ||
      status.members !== previous.members ||
      status.reach !== previous.reach ||
      status.refusedFrames !== previous.refusedFrames;
    if (!isNews) return;
    this.#status = status;
    if (previous.role === 'leader' && (status.role !== 'leader' || status.term !== previous.term)) {
      this.#proposals.abandon('leadership was lost while the change was in flight');
      this.#sender.stopAll();
    }
    if (status.leaderId === null) this.#failReads(noLeader('read'));
    this.#deps.emit({ kind: 'status', status });
  }

  #failReads(error: SwarmdError): void {
    const ids = this.#reads.takeUnconfirmed();
    if (ids.length > 0) this.#deps.emit({ kind: 'read-failed', ids, error });
  }

  #makeControl(): GroupControl {
    const { state } = this.#core;
    return {
      adding: new Set(),
      state,
      members: this.#members,
      assertRunning: () => {
        if (this.#life !== 'running') throw stopping();
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
    this.#failReads(noLeader('read'));
    const fatal = error instanceof Error ? error : toSwarmdError(error);
    this.#conditions.rejectAll(fatal);
    this.#deps.emit({ kind: 'fatal', error: fatal });
  }
}

function stopping(): SwarmdError {
  return new SwarmdError('CANCELLED', 'the node is stopping');
}
