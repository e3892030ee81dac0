/**
 * The face of the core towards a driver: messages and ticks go in, ready sets come out.
 *
 * A ready set lists what to persist, send and apply. With synchronous storage the driver does all of it and
 * calls `advance`; with asynchronous storage the set carries `storage-append` and `storage-apply` messages
 * whose responses the driver delivers when each is done, and several sets may be under way.
 *
 * Invariants: entries, hard state and snapshot of a set are persisted in the order of the sets; messages of
 * type `storage-append` carry every answer that must wait for that write.
 */
import { assert } from '../../base/assert.ts';
import type { Random } from '../../base/random.ts';
import { checkConfig, type CoreConfig } from './config.ts';
import { encodeConfigChange } from './config-codec.ts';
import type { StepOutcome } from './leader.ts';
import { RaftLog } from './log.ts';
import { type ConfigChange, restoreConfig } from './membership.ts';
import { newReadQueue } from './read-index.ts';
import { applyConfigChange, configChangeRefusal } from './reconfigure.ts';
import type { LogReader } from './stable-log.ts';
import { abortTransfer, becomeFollower, committedInCurrentTerm, type Core, type Note } from './state.ts';
import { step, tick } from './step.ts';
import { trace } from './trace.ts';
import { configState, newTracker } from './tracker.ts';
import {
  APPEND_THREAD,
  APPLY_THREAD,
  type ConfigState,
  entriesBytes,
  type Entry,
  type HardState,
  type Message,
  message,
  NOBODY,
  type ReadState,
  type Snapshot,
  type SoftState,
} from './types.ts';

/** What a driver has to do. Null fields did not change. */
export interface Ready {
  readonly softState: SoftState | null;
  readonly hardState: HardState | null;
  readonly readStates: readonly ReadState[];
  readonly entries: readonly Entry[];
  readonly snapshot: Snapshot | null;
  readonly committedEntries: readonly Entry[];
  readonly messages: readonly Message[];
  /** Whether the write must be durable before anything that follows from it leaves this node. */
  readonly mustSync: boolean;
}

/** What a restart begins with. */
export interface InitialState {
  readonly hardState: HardState;
  readonly config: ConfigState;
}

/** Why a message from outside was not taken. */
export type ReceiveOutcome = StepOutcome | 'local-message' | 'unknown-peer';

const responseTypes: ReadonlySet<string> = new Set([
  'append-response',
  'vote-response',
  'pre-vote-response',
  'heartbeat-response',
  'read-index-response',
  'unreachable',
]);
const localTypes: ReadonlySet<string> = new Set([
  'hup',
  'beat',
  'check-quorum',
  'unreachable',
  'snapshot-status',
  'storage-append',
  'storage-append-response',
  'storage-apply',
  'storage-apply-response',
]);

function sameHardState(a: HardState, b: HardState): boolean {
  return a.term === b.term && a.vote === b.vote && a.commit === b.commit;
}

/** One member's consensus. Not reentrant; every method is synchronous and total. */
export class RaftCore {
  readonly #core: Core;
  #previousSoft: SoftState;
  #previousHard: HardState;
  /** With synchronous storage: what `advance` delivers to the core itself. */
  #onAdvance: Message[] = [];

  constructor(config: CoreConfig, stable: LogReader, initial: InitialState, random: Random) {
    checkConfig(config);
    const limits = {
      maxInflightMessages: config.maxInflightMessages,
      maxInflightBytes: config.maxInflightBytes,
    };
    const log = new RaftLog(stable, config.maxApplyingBytes);
    const tracker = newTracker(limits);
    const restored = restoreConfig(limits, log.lastIndex(), initial.config);
    tracker.membership = restored.membership;
    tracker.progress = restored.progress;
    log.commitTo(initial.hardState.commit);
    if (config.applied > 0) log.appliedTo(config.applied, 0);
    this.#core = {
      config,
      random,
      log,
      tracker,
      term: initial.hardState.term,
      vote: initial.hardState.vote,
      role: 'follower',
      leader: NOBODY,
      isLearner: tracker.progress.get(config.id)?.isLearner ?? false,
      transferee: NOBODY,
      pendingConfigIndex: 0,
      uncommittedBytes: 0,
      electionElapsed: 0,
      heartbeatElapsed: 0,
      electionDueTicks: config.electionTicks,
      reads: newReadQueue(),
      postponedReads: [],
      readStates: [],
      messages: [],
      afterAppend: [],
      notes: [],
    };
    trace(this.#core, 'InitState');
    becomeFollower(this.#core, this.#core.term, NOBODY);
    this.#previousSoft = this.softState();
    this.#previousHard = this.hardState();
  }

  /** The state, to look at. Changing it is forbidden (tests may). */
  get state(): Core {
    return this.#core;
  }

  softState(): SoftState {
    return { leader: this.#core.leader, role: this.#core.role };
  }

  hardState(): HardState {
    return { term: this.#core.term, vote: this.#core.vote, commit: this.#core.log.committed };
  }

  /** The configuration in force. */
  config(): ConfigState {
    return configState(this.#core.tracker.membership);
  }

  /** Takes the notes made since the last call. */
  takeNotes(): readonly Note[] {
    const { notes } = this.#core;
    this.#core.notes = [];
    return notes;
  }

  tick(): void {
    tick(this.#core);
  }

  /** Campaigns now, without waiting for the election timeout. */
  campaign(): void {
    step(this.#core, message('hup', this.#core.config.id));
  }

  /** Proposes payloads as consecutive entries, all or none. */
  propose(payloads: readonly Uint8Array[]): StepOutcome {
    const entries = payloads.map((data) => ({ term: 0, index: 0, kind: 'normal', data }) as const);
    return step(
      this.#core,
      message('propose', this.#core.config.id, { from: this.#core.config.id, entries }),
    );
  }

  /** Proposes a configuration change. One that may not be made now becomes an empty entry: ask first. */
  proposeConfigChange(change: ConfigChange): StepOutcome {
    const entry = { term: 0, index: 0, kind: 'config', data: encodeConfigChange(change) } as const;
    return step(
      this.#core,
      message('propose', this.#core.config.id, { from: this.#core.config.id, entries: [entry] }),
    );
  }

  /**
   * Why a configuration change should not be proposed now, or null. Stricter than what the core itself drops:
   * a change must also wait for the leader's first commit (the single-server bug of 2015).
   */
  configChangeRefusal(change: ConfigChange): string | null {
    if (!committedInCurrentTerm(this.#core)) return 'nothing of this term is committed yet';
    return configChangeRefusal(this.#core, change);
  }

  /** Applies a committed `config` entry; returns the configuration now in force. */
  applyConfigChange(change: ConfigChange): ConfigState {
    return applyConfigChange(this.#core, change);
  }

  /** Takes a message from a peer, or a storage response. */
  receive(received: Message): ReceiveOutcome {
    const isFromStorage = received.from === APPEND_THREAD || received.from === APPLY_THREAD;
    if (localTypes.has(received.type) && !isFromStorage) return 'local-message';
    const isKnown = isFromStorage || this.#core.tracker.progress.has(received.from);
    if (responseTypes.has(received.type) && !isKnown) return 'unknown-peer';
    return step(this.#core, received);
  }

  /** Asks for a read index; `context` must never be used twice. The answer comes as a read state. */
  readIndex(context: number): void {
    step(this.#core, message('read-index', this.#core.config.id, { context }));
  }

  /** Asks that `to` become leader. */
  transferLeadership(to: number): void {
    step(this.#core, message('transfer-leader', this.#core.config.id, { from: to }));
  }

  /** Forgets the leader, without leaving its term, so that another may be elected at once. */
  forgetLeader(): void {
    step(this.#core, message('forget-leader', this.#core.config.id));
  }

  /** Steps down although the term is still its own, for a reason the driver sees (a disk that hangs). */
  stepDown(): void {
    if (this.#core.role !== 'leader') return;
    abortTransfer(this.#core);
    becomeFollower(this.#core, this.#core.term, NOBODY);
  }

  /** Says that messages to `id` were likely lost. */
  reportUnreachable(id: number): void {
    step(this.#core, message('unreachable', this.#core.config.id, { from: id }));
  }

  /** Says how sending a snapshot to `id` ended. */
  reportSnapshot(id: number, outcome: 'sent' | 'failed'): void {
    const reject = outcome === 'failed';
    step(this.#core, message('snapshot-status', this.#core.config.id, { from: id, reject }));
  }

  /** Whether {@link ready} has anything to say. */
  hasReady(): boolean {
    const core = this.#core;
    const soft = this.#previousSoft;
    return (
      core.leader !== soft.leader ||
      core.role !== soft.role ||
      !sameHardState(this.hardState(), this.#previousHard) ||
      core.messages.length > 0 ||
      core.afterAppend.length > 0 ||
      core.readStates.length > 0 ||
      core.log.nextUnstableSnapshot() !== null ||
      core.log.hasNextUnstableEntries() ||
      core.log.hasNextCommittedEntries(!core.config.asyncStorage)
    );
  }

  /** Takes what is to be done. */
  ready(): Ready {
    assert(this.#onAdvance.length === 0, 'advance is called after each ready set');
    const ready = this.#collect();
    trace(this.#core, 'Ready');
    this.#accept(ready);
    return ready;
  }

  /** Synchronous storage only: everything in the last ready set was persisted, sent and applied. */
  advance(): void {
    assert(!this.#core.config.asyncStorage, 'asynchronous storage answers by messages');
    const steps = this.#onAdvance;
    this.#onAdvance = [];
    for (const each of steps) step(this.#core, each);
  }

  #collect(): Ready {
    const core = this.#core;
    const { asyncStorage, id } = core.config;
    const hard = this.hardState();
    const hardChanged = !sameHardState(hard, this.#previousHard);
    const softChanged = core.leader !== this.#previousSoft.leader || core.role !== this.#previousSoft.role;
    const entries = core.log.nextUnstableEntries();
    const base: Ready = {
      softState: softChanged ? this.softState() : null,
      hardState: hardChanged ? hard : null,
      readStates: core.readStates,
      entries,
      snapshot: core.log.nextUnstableSnapshot(),
      committedEntries: core.log.nextCommittedEntries(!asyncStorage),
      messages: core.messages,
      mustSync:
        entries.length > 0 || hard.term !== this.#previousHard.term || hard.vote !== this.#previousHard.vote,
    };
    const messages = [...core.messages];
    if (asyncStorage) {
      if (hardChanged || entries.length > 0 || base.snapshot !== null || core.afterAppend.length > 0) {
        messages.push(this.#appendMessage(base));
      }
      if (base.committedEntries.length > 0) messages.push(this.#applyMessage(base.committedEntries));
    } else {
      messages.push(...core.afterAppend.filter((each) => each.to !== id));
    }
    return { ...base, messages };
  }

  #accept(ready: Ready): void {
    const core = this.#core;
    const { asyncStorage, id } = core.config;
    if (ready.softState !== null) this.#previousSoft = ready.softState;
    if (ready.hardState !== null) this.#previousHard = ready.hardState;
    if (!asyncStorage) {
      this.#onAdvance = core.afterAppend.filter((each) => each.to === id);
      if (this.#needsAppendResponse(ready)) this.#onAdvance.push(this.#appendResponse(ready));
      if (ready.committedEntries.length > 0)
        this.#onAdvance.push(this.#applyResponse(ready.committedEntries));
    }
    core.readStates = [];
    core.messages = [];
    core.afterAppend = [];
    core.log.acceptUnstable();
    const last = ready.committedEntries.at(-1);
    if (last !== undefined) {
      core.log.acceptApplying(last.index, entriesBytes(ready.committedEntries), !asyncStorage);
    }
  }

  #needsAppendResponse(ready: Ready): boolean {
    // Also without new entries: an earlier write may carry an answer that a change of term made void.
    return this.#core.log.hasUnstableEntries() || ready.snapshot !== null;
  }

  #appendMessage(ready: Ready): Message {
    const responses = [...this.#core.afterAppend];
    if (this.#needsAppendResponse(ready)) responses.push(this.#appendResponse(ready));
    return message('storage-append', APPEND_THREAD, {
      from: this.#core.config.id,
      term: ready.hardState?.term ?? 0,
      vote: ready.hardState?.vote ?? NOBODY,
      commit: ready.hardState?.commit ?? 0,
      entries: ready.entries,
      snapshot: ready.snapshot,
      responses,
    });
  }

  #appendResponse(ready: Ready): Message {
    const { log, term, config } = this.#core;
    const hasEntries = log.hasUnstableEntries();
    return message('storage-append-response', config.id, {
      from: APPEND_THREAD,
      term,
      index: hasEntries ? log.lastIndex() : 0,
      logTerm: hasEntries ? log.lastTerm() : 0,
      snapshot: ready.snapshot,
    });
  }

  #applyMessage(entries: readonly Entry[]): Message {
    const responses = [this.#applyResponse(entries)];
    return message('storage-apply', APPLY_THREAD, { from: this.#core.config.id, entries, responses });
  }

  #applyResponse(entries: readonly Entry[]): Message {
    return message('storage-apply-response', this.#core.config.id, { from: APPLY_THREAD, entries });
  }
}
