/**
 * Replication: how a leader feeds its followers, and how a follower takes what it is fed.
 *
 * Invariants: a leader commits by counting replicas only for entries of its own term; a follower never accepts
 * entries whose predecessor it does not hold; an acknowledgement names only what the log holds.
 * @see Raft §5.3, §5.4.2, §7
 */
import { restoreConfig } from './membership.ts';
import { acknowledge, becomeSnapshot, isPaused, type Progress, sentCommit, sentEntries } from './progress.ts';
import { newestContext } from './read-index.ts';
import { becomeFollower, type Core, send } from './state.ts';
import { trace } from './trace.ts';
import { members, quorumMatch } from './tracker.ts';
import { type Entry, type Message, message, NOBODY, payloadBytes, type Snapshot } from './types.ts';

/** Sends what the follower lacks, or an empty append when it lacks nothing; false when it must wait. */
export function sendAppend(core: Core, to: number, sendIfEmpty = true): boolean {
  const progress = core.tracker.progress.get(to);
  if (progress === undefined || isPaused(progress)) return false;
  const previous = progress.next - 1;
  const previousTerm = core.log.term(previous);
  if (previousTerm === null) return sendSnapshot(core, to, progress);
  let entries: readonly Entry[] | null = [];
  // When the window is full an empty append still goes, so that lost messages are noticed.
  if (progress.state !== 'replicate' || !progress.inflights.full()) {
    entries = core.log.entriesFrom(progress.next, core.config.maxMessageBytes);
  }
  if (entries === null) return sendSnapshot(core, to, progress);
  if (entries.length === 0 && !sendIfEmpty) return false;
  const commit = core.log.committed;
  send(core, message('append', to, { index: previous, logTerm: previousTerm, entries, commit }));
  sentEntries(progress, entries.length, payloadBytes(entries));
  sentCommit(progress, commit);
  return true;
}

function sendSnapshot(core: Core, to: number, progress: Progress): boolean {
  // A snapshot is dear: not for a follower that may be gone.
  if (!progress.recentActive) return false;
  const snapshot = core.log.snapshot();
  if (snapshot === null || !isMemberIn(snapshot, to)) {
    // It was taken before the follower was added, and the follower would refuse it. A heartbeat tries again.
    core.notes.push({ kind: 'snapshot-wanted', by: to });
    return false;
  }
  send(core, message('snapshot', to, { snapshot }));
  becomeSnapshot(progress, snapshot.index);
  return true;
}

function isMemberIn({ config }: Snapshot, id: number): boolean {
  // A future learner is an outgoing voter.
  return [config.voters, config.votersOutgoing, config.learners].some((ids) => ids.includes(id));
}

/** Sends every follower what it lacks. */
export function broadcastAppend(core: Core): void {
  for (const [id] of members(core.tracker)) {
    if (id !== core.config.id) sendAppend(core, id);
  }
}

/** Sends a heartbeat to every follower; `context` asks them to confirm this leader for a batch of reads. */
export function broadcastHeartbeat(core: Core, context: number = newestContext(core.reads)): void {
  for (const [id, progress] of members(core.tracker)) {
    if (id === core.config.id) continue;
    // Never past what the follower is known to hold: its tail may still differ.
    const commit = Math.min(progress.match, core.log.committed);
    send(core, message('heartbeat', id, { commit, context }));
    sentCommit(progress, commit);
  }
}

/** Commits what a quorum holds; true when that moved. */
export function maybeCommit(core: Core): boolean {
  const moved = core.log.maybeCommit(quorumMatch(core.tracker), core.term);
  trace(core, 'Commit');
  return moved;
}

/**
 * Appends to the leader's own log, giving entries their place; false when too much is uncommitted.
 * The leader counts its own copy only when it is durable, by an acknowledgement to itself.
 */
export function appendEntries(core: Core, drafts: readonly Pick<Entry, 'kind' | 'data'>[]): boolean {
  const after = core.log.lastIndex();
  const entries = drafts.map((draft, position) => ({
    term: core.term,
    index: after + 1 + position,
    kind: draft.kind,
    data: draft.data,
  }));
  if (!reserveUncommitted(core, payloadBytes(entries))) return false;
  for (const { kind } of entries) if (kind === 'normal') trace(core, 'Replicate');
  const last = core.log.append(entries);
  send(core, message('append-response', core.config.id, { index: last }));
  return true;
}

function reserveUncommitted(core: Core, bytes: number): boolean {
  // A single large proposal on an idle leader, and empty entries, always go.
  if (
    core.uncommittedBytes > 0 &&
    bytes > 0 &&
    core.uncommittedBytes + bytes > core.config.maxUncommittedBytes
  ) {
    return false;
  }
  core.uncommittedBytes += bytes;
  return true;
}

/** Frees the room that applied entries held. */
export function releaseUncommitted(core: Core, bytes: number): void {
  // A new leader did not count the entries it inherited.
  core.uncommittedBytes = Math.max(0, core.uncommittedBytes - bytes);
}

/** Takes a leader's entries, and answers. */
export function handleAppend(core: Core, request: Message): void {
  const to = request.from;
  if (request.index < core.log.committed) {
    send(core, message('append-response', to, { index: core.log.committed }));
    return;
  }
  const last = core.log.maybeAppend(request.index, request.logTerm, request.entries, request.commit);
  if (last !== null) {
    send(core, message('append-response', to, { index: last }));
    return;
  }
  const from = Math.min(request.index, core.log.lastIndex());
  const hint = core.log.findConflictByTerm(from, request.logTerm);
  send(
    core,
    message('append-response', to, {
      index: request.index,
      reject: true,
      rejectHint: hint.index,
      logTerm: hint.term,
    }),
  );
}

/** Takes a heartbeat, and answers with its context. */
export function handleHeartbeat(core: Core, request: Message): void {
  core.log.commitTo(request.commit);
  send(core, message('heartbeat-response', request.from, { context: request.context }));
}

/** Takes a snapshot if it brings anything, and answers with where the log then stands. */
export function handleSnapshot(core: Core, request: Message): void {
  const { snapshot } = request;
  const restored = snapshot !== null && restore(core, snapshot);
  const index = restored ? core.log.lastIndex() : core.log.committed;
  send(core, message('append-response', request.from, { index }));
}

function restore(core: Core, snapshot: Snapshot): boolean {
  const ignore = (reason: string): boolean => {
    core.notes.push({ kind: 'snapshot-ignored', index: snapshot.index, reason });
    return false;
  };
  if (snapshot.index <= core.log.committed) return ignore('it brings nothing new');
  if (core.role !== 'follower') {
    becomeFollower(core, core.term + 1, NOBODY);
    return ignore('this node is not a follower');
  }
  const { config } = snapshot;
  const self = core.config.id;
  if (!isMemberIn(snapshot, self)) return ignore('this node is not a member in it');
  if (core.log.matchTerm(snapshot.index, snapshot.term)) {
    // The log holds that entry already, so everything before it is committed: no need to drop anything.
    core.log.commitTo(snapshot.index);
    return ignore('the log holds its last entry');
  }
  core.log.restore(snapshot);
  const { tracker } = core;
  const state = restoreConfig(tracker.limits, core.log.lastIndex(), config);
  tracker.membership = state.membership;
  tracker.progress = state.progress;
  const own = tracker.progress.get(self);
  core.isLearner = own?.isLearner ?? false;
  if (own !== undefined) acknowledge(own, own.next - 1);
  core.notes.push({ kind: 'config-switched', config });
  core.notes.push({ kind: 'snapshot-restored', index: snapshot.index, term: snapshot.term });
  return true;
}
