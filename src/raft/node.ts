/**
 * One member of the consensus group, as the rest of swarmd uses it: the state machine, and everybody who waits for
 * the log.
 *
 * Data owned: how far the state machine is, the callers that wait.
 * Invariants: entries are applied once, in the driver's order; every caller is answered exactly once; a read is
 * answered when everything it must see is applied.
 */
import { assert, assertNever } from '../base/assert.ts';
import { SwarmdError } from '../base/errors.ts';
import { AbortWatch } from './abort-watch.ts';
import { RaftDriver } from './driver.ts';
import type {
  CommittedEntry,
  DriverStatus,
  FromDriver,
  GroupCall,
  RefusedFrames,
  ToDriver,
} from './messages.ts';
import { noLeader } from './reads.ts';
import type {
  ProposeOutcome,
  RaftMember,
  RaftNodeDependencies,
  RaftNodeEvents,
  RaftNodeOptions,
  RaftStatus,
} from './types.ts';

interface Proposal {
  readonly id: number;
  readonly signal: AbortSignal;
  readonly resolve: (outcome: ProposeOutcome) => void;
}

interface Read {
  readonly id: number;
  readonly signal: AbortSignal;
  readonly resolve: (index: number) => void;
  readonly reject: (error: Error) => void;
}

const GAVE_UP = 'the caller gave up';
const LOG_FAILED = 'the raft log failed while the change was in flight';

/** One member of the consensus group. */
export class RaftNode {
  readonly #events: RaftNodeEvents;
  readonly #post: (message: ToDriver) => void;
  readonly #proposals = new Map<number, Proposal>();
  readonly #reads = new Map<number, Read>();
  readonly #calls = new Map<number, (error: Error | null) => void>();
  readonly #proposalAborts = new AbortWatch<Proposal>((proposal) => {
    this.#settle(proposal.id, { kind: 'unknown', reason: GAVE_UP });
  });
  readonly #readAborts = new AbortWatch<Read>((read, reason) => {
    this.#reads.delete(read.id);
    read.reject(reason as Error);
  });
  /** Confirmed reads whose index is not applied yet. */
  #unapplied: { readonly index: number; readonly ids: readonly number[] }[] = [];
  #lastId = 0;
  #applied = 0;
  #commitIndex = 0;
  #status: DriverStatus | null = null;
  #life: 'running' | 'stopping' | 'ended' = 'running';
  #stopped: Promise<void> | null = null;
  #onStopped: () => void = () => {};

  /** `post` tells the driver. */
  constructor(events: RaftNodeEvents, post: (message: ToDriver) => void) {
    this.#events = events;
    this.#post = post;
  }

  /**
   * Opens a member with its driver in this thread. Rejects with CORRUPT (damaged log), FAILED_PRECONDITION
   * (another member's storage, or an empty one with neither `bootstrap` nor `join`), or a storage error.
   */
  static async open(options: RaftNodeOptions, deps: RaftNodeDependencies): Promise<RaftNode> {
    let driver: RaftDriver | null = null;
    const early: ToDriver[] = [];
    const post = (message: ToDriver): void => {
      if (driver === null) early.push(message);
      else driver.take(message);
    };
    const node = new RaftNode(deps, post);
    driver = await RaftDriver.open(options, { ...deps, emit: (message) => node.take(message) });
    for (const message of early) driver.take(message);
    return node;
  }

  /** Takes what the driver says. Throws what the state machine throws. */
  take(message: FromDriver): void {
    switch (message.kind) {
      case 'status':
        return this.#onStatus(message.status);
      case 'apply':
        return this.#apply(message.entries, message.commitIndex);
      case 'restore':
        this.#events.stateMachine.restore(message.state, message.index);
        this.#commitIndex = Math.max(this.#commitIndex, message.index);
        return this.#noteApplied(message.index);
      case 'take-snapshot': {
        const { index } = message;
        assert(index === this.#applied, 'a snapshot is taken where the driver asked for it');
        return this.#post({ kind: 'snapshot', index, state: this.#events.stateMachine.snapshot() });
      }
      case 'not-committed':
        for (const id of message.ids) this.#settle(id, message.outcome);
        return;
      case 'read':
        this.#unapplied.push(message);
        return this.#answerReads();
      case 'read-failed':
        for (const id of message.ids) this.#failRead(id, message.error);
        return;
      case 'called':
        return this.#calls.get(message.id)?.(message.error);
      case 'fatal':
        return this.#onFatal(message.error);
      case 'stopped':
        return this.#end(new SwarmdError('CANCELLED', 'the node is stopping'), 'the node is stopping');
      default:
        return assertNever(message);
    }
  }

  /** Proposes one entry. Never rejects: a refusal and an unknown fate are outcomes. */
  propose(data: Uint8Array, signal: AbortSignal): Promise<ProposeOutcome> {
    if (this.#life !== 'running')
      return Promise.resolve({ kind: 'refused', reason: 'stopping', leaderId: null });
    if (signal.aborted) return Promise.resolve({ kind: 'unknown', reason: GAVE_UP });
    return new Promise((resolve) => {
      const id = ++this.#lastId;
      const proposal: Proposal = { id, signal, resolve };
      this.#proposals.set(id, proposal);
      this.#proposalAborts.add(signal, proposal);
      this.#post({ kind: 'propose', id, data });
    });
  }

  /**
   * Resolves with a read index once everything up to it is applied here: a read of the state machine then sees
   * every write acknowledged before this call. Rejects with NO_LEADER, or the signal's reason.
   */
  readIndex(signal: AbortSignal): Promise<number> {
    if (this.#life !== 'running' || this.#status?.leaderId === null) return Promise.reject(noLeader('read'));
    if (signal.aborted) return Promise.reject(signal.reason as Error);
    return new Promise((resolve, reject) => {
      const id = ++this.#lastId;
      const read: Read = { id, signal, resolve, reject };
      this.#reads.set(id, read);
      this.#readAborts.add(signal, read);
      this.#post({ kind: 'read', id });
    });
  }

  /** Takes a frame from a peer. A malformed one, or one for another member, is counted and dropped. */
  receive(frame: Uint8Array): void {
    if (this.#life === 'running') this.#post({ kind: 'frame', frame });
  }

  /** Notes that a member is at another address by now, before a leader could write it into the log. */
  noteAddress(memberId: number, address: string): void {
    if (this.#life === 'running') this.#post({ kind: 'moved', memberId, address });
  }

  /** The members where this one reaches them: by the log, or by {@link noteAddress}. */
  reach(): readonly RaftMember[] {
    return this.#known().reach;
  }

  /** Frames of peers that were dropped. */
  refusedFrames(): RefusedFrames {
    return this.#known().refusedFrames;
  }

  /** Adds a member: as a learner first, promoted (when it is to vote) once it caught up. Leader only. */
  addMember(member: RaftMember, signal: AbortSignal): Promise<void> {
    return this.#call({ kind: 'add', member }, signal);
  }

  /** Removes a member; resolves when the group without it is in force. Leader only. */
  removeMember(memberId: number, signal: AbortSignal): Promise<void> {
    return this.#call({ kind: 'remove', memberId }, signal);
  }

  /** Hands leadership to `to`, or to the voter whose log is furthest. Leader only. */
  transferLeadership(to: number | null, signal: AbortSignal): Promise<void> {
    return this.#call({ kind: 'transfer', to }, signal);
  }

  /** What this node knows of its group. */
  status(): RaftStatus {
    const { role, term, leaderId, memberId, commitIndex, members, expelled } = this.#known();
    return {
      role,
      term,
      leaderId,
      memberId,
      commitIndex: Math.max(commitIndex, this.#commitIndex),
      appliedIndex: this.#applied,
      members,
      expelled,
    };
  }

  /** The state machine cannot go on: ends the driver, and with it this node. */
  fail(error: Error): void {
    this.#post({ kind: 'failed', error });
  }

  /** Stops the driver, which closes the storage. What is in flight is answered "unknown"; safe to call twice. */
  stop(): Promise<void> {
    this.#stopped ??= new Promise((resolve) => {
      this.#onStopped = resolve;
      if (this.#life === 'running') this.#life = 'stopping';
      this.#post({ kind: 'stop' });
    });
    return this.#stopped;
  }

  #known(): DriverStatus {
    assert(this.#status !== null, 'a node is used once it is open');
    return this.#status;
  }

  #onStatus(status: DriverStatus): void {
    const isFirst = this.#status === null;
    this.#status = status;
    if (!isFirst && this.#life !== 'ended') this.#events.onStatus(this.status());
  }

  #apply(entries: readonly CommittedEntry[], commitIndex: number): void {
    const { stateMachine } = this.#events;
    this.#commitIndex = Math.max(this.#commitIndex, commitIndex);
    for (const { index, data, proposal } of entries) {
      const result = data.length > 0 ? stateMachine.apply(index, data) : undefined;
      this.#applied = index;
      if (proposal !== 0) this.#settle(proposal, { kind: 'committed', index, result });
    }
    this.#noteApplied(this.#applied);
  }

  #noteApplied(index: number): void {
    this.#applied = index;
    this.#post({ kind: 'applied', index });
    this.#answerReads();
  }

  #answerReads(): void {
    if (this.#unapplied.length === 0) return;
    const ready = this.#unapplied.filter(({ index }) => index <= this.#applied);
    this.#unapplied = this.#unapplied.filter(({ index }) => index > this.#applied);
    for (const { index, ids } of ready) {
      for (const id of ids) this.#takeRead(id)?.resolve(index);
    }
  }

  #failRead(id: number, error: Error): void {
    this.#takeRead(id)?.reject(error);
  }

  #takeRead(id: number): Read | null {
    const read = this.#reads.get(id);
    if (read === undefined) return null;
    this.#reads.delete(id);
    this.#readAborts.remove(read.signal, read);
    return read;
  }

  #settle(id: number, outcome: ProposeOutcome): void {
    const proposal = this.#proposals.get(id);
    if (proposal === undefined) return;
    this.#proposals.delete(id);
    this.#proposalAborts.remove(proposal.signal, proposal);
    proposal.resolve(outcome);
  }

  #call(call: GroupCall, signal: AbortSignal): Promise<void> {
    if (this.#life !== 'running') return Promise.reject(new SwarmdError('CANCELLED', 'the node is stopping'));
    if (signal.aborted) return Promise.reject(signal.reason as Error);
    return new Promise((resolve, reject) => {
      const id = ++this.#lastId;
      const onAbort = (): void => {
        this.#post({ kind: 'cancel', id });
        this.#calls.get(id)?.(signal.reason as Error);
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#calls.set(id, (error) => {
        this.#calls.delete(id);
        signal.removeEventListener('abort', onAbort);
        if (error === null) resolve();
        else reject(error);
      });
      this.#post({ kind: 'call', id, call });
    });
  }

  #onFatal(error: Error): void {
    if (this.#life === 'ended') return;
    this.#end(error, LOG_FAILED);
    this.#events.onFatal(error);
  }

  /** Answers everybody who still waits. */
  #end(error: Error, reason: string): void {
    this.#life = 'ended';
    for (const id of [...this.#proposals.keys()]) this.#settle(id, { kind: 'unknown', reason });
    for (const id of [...this.#reads.keys()]) this.#failRead(id, noLeader('read'));
    for (const done of [...this.#calls.values()]) done(error);
    this.#onStopped();
  }
}
