/**
 * Consensus objects as text, in the words of etcd's test scripts.
 */
import { configChangeOf } from '../../src/raft/core/config-codec.ts';
import type { ConfigChangeStep } from '../../src/raft/core/membership.ts';
import type { Ready } from '../../src/raft/core/node.ts';
import { isPaused, type Progress } from '../../src/raft/core/progress.ts';
import { configState, type Membership } from '../../src/raft/core/tracker.ts';
import {
  APPEND_THREAD,
  APPLY_THREAD,
  type ConfigState,
  type Entry,
  type HardState,
  type Message,
  type MessageType,
  type Role,
  type Snapshot,
} from '../../src/raft/core/types.ts';

/** Marks, in a change's context, that the script asked for the old kind of change. */
export const V1_MARK = 1;

const typeNames: Partial<Record<MessageType, string>> = {
  propose: 'MsgProp',
  append: 'MsgApp',
  'append-response': 'MsgAppResp',
  vote: 'MsgVote',
  'vote-response': 'MsgVoteResp',
  'pre-vote': 'MsgPreVote',
  'pre-vote-response': 'MsgPreVoteResp',
  snapshot: 'MsgSnap',
  heartbeat: 'MsgHeartbeat',
  'heartbeat-response': 'MsgHeartbeatResp',
  'timeout-now': 'MsgTimeoutNow',
  'transfer-leader': 'MsgTransferLeader',
  'forget-leader': 'MsgForgetLeader',
  'read-index': 'MsgReadIndex',
  'read-index-response': 'MsgReadIndexResp',
  'storage-append': 'MsgStorageAppend',
  'storage-append-response': 'MsgStorageAppendResp',
  'storage-apply': 'MsgStorageApply',
  'storage-apply-response': 'MsgStorageApplyResp',
};

const roleNames: Record<Role, string> = {
  follower: 'StateFollower',
  'pre-candidate': 'StatePreCandidate',
  candidate: 'StateCandidate',
  leader: 'StateLeader',
};

const stateNames = { probe: 'StateProbe', replicate: 'StateReplicate', snapshot: 'StateSnapshot' } as const;

const stepLetters = { 'add-voter': 'v', 'add-learner': 'l', remove: 'r', update: 'u' } as const;

/** The core's name of a message type in a script. */
export function messageTypeOf(name: string): MessageType | undefined {
  return Object.entries(typeNames).find((each) => each[1] === name)?.[0] as MessageType | undefined;
}

export function describeRole(role: Role): string {
  return roleNames[role];
}

function describeTarget(id: number): string {
  if (id === APPEND_THREAD) return 'AppendThread';
  if (id === APPLY_THREAD) return 'ApplyThread';
  return String(id);
}

/** `v1 l2 r3`: the steps of a change. */
export function parseSteps(text: string): ConfigChangeStep[] {
  const tokens = text.trim().split(/\s+/).filter(Boolean);
  return tokens.map((token) => {
    const kind = Object.entries(stepLetters).find((each) => each[1] === token[0])?.[0];
    if (kind === undefined) throw new Error(`unknown change ${token}`);
    return { kind: kind as ConfigChangeStep['kind'], id: Number(token.slice(1)) };
  });
}

export function describeEntry(entry: Entry): string {
  const place = `${entry.term}/${entry.index}`;
  if (entry.kind === 'normal')
    return `${place} EntryNormal ${JSON.stringify(new TextDecoder().decode(entry.data))}`;
  const change = configChangeOf(entry.data);
  const name = change.context[0] === V1_MARK ? 'EntryConfChange' : 'EntryConfChangeV2';
  const steps = change.steps.map((step) => `${stepLetters[step.kind]}${step.id}`);
  return [place, name, ...steps].join(' ');
}

export function describeEntries(entries: readonly Entry[]): string[] {
  return entries.map(describeEntry);
}

function describeConfig(config: ConfigState): string {
  const list = (ids: readonly number[]): string => `[${ids.join(' ')}]`;
  return (
    `Voters:${list(config.voters)} VotersOutgoing:${list(config.votersOutgoing)} ` +
    `Learners:${list(config.learners)} LearnersNext:${list(config.learnersNext)} AutoLeave:${config.autoLeave}`
  );
}

function describeSnapshot(snapshot: Snapshot): string {
  return `Index:${snapshot.index} Term:${snapshot.term} ConfState:${describeConfig(snapshot.config)}`;
}

/** The lines of a message. */
export function describeMessage(sent: Message): string[] {
  const place = `Term:${sent.term} Log:${sent.logTerm}/${sent.index}`;
  let head = `${describeTarget(sent.from)}->${describeTarget(sent.to)} ${typeNames[sent.type]} ${place}`;
  if (sent.reject) head += ` Rejected (Hint: ${sent.rejectHint})`;
  if (sent.commit !== 0) head += ` Commit:${sent.commit}`;
  if (sent.vote !== 0) head += ` Vote:${sent.vote}`;
  const lines = [head];
  const bracket = (name: string, items: readonly string[]): void => {
    lines[lines.length - 1] += ` ${name}:[`;
    for (const item of items) lines.push(`  ${item}`);
    lines.push(']');
  };
  const entries = describeEntries(sent.entries);
  if (entries.length === 1) lines[0] += ` Entries:[${entries[0]}]`;
  else if (entries.length > 1) bracket('Entries', entries);
  if (sent.snapshot !== null) lines.push(`  Snapshot: ${describeSnapshot(sent.snapshot)}`);
  if (sent.responses.length > 0) bracket('Responses', sent.responses.flatMap(describeMessage));
  return lines;
}

function describeHardState(hard: HardState): string {
  const vote = hard.vote === 0 ? '' : ` Vote:${hard.vote}`;
  return `Term:${hard.term}${vote} Commit:${hard.commit}`;
}

/** The lines of a ready set. */
export function describeReady(ready: Ready): string[] {
  const lines: string[] = [];
  const { softState, hardState, entries, snapshot, committedEntries, messages } = ready;
  if (softState !== null) lines.push(`Lead:${softState.leader} State:${roleNames[softState.role]}`);
  if (hardState !== null) lines.push(`HardState ${describeHardState(hardState)}`);
  if (entries.length > 0) lines.push('Entries:', ...describeEntries(entries));
  if (snapshot !== null) lines.push(`Snapshot ${describeSnapshot(snapshot)}`);
  if (committedEntries.length > 0) lines.push('CommittedEntries:', ...describeEntries(committedEntries));
  if (messages.length > 0) lines.push('Messages:', ...messages.flatMap(describeMessage));
  return lines.length === 0 ? ['<empty Ready>'] : [`Ready MustSync=${ready.mustSync}:`, ...lines];
}

/** `voters=(1 2)&&(1) learners=(3) autoleave`. */
export function describeMembership(membership: Membership): string {
  const config = configState(membership);
  const list = (ids: readonly number[]): string => `(${ids.join(' ')})`;
  let text = `voters=${list(config.voters)}`;
  if (config.votersOutgoing.length > 0) text += `&&${list(config.votersOutgoing)}`;
  if (config.learners.length > 0) text += ` learners=${list(config.learners)}`;
  if (config.learnersNext.length > 0) text += ` learners_next=${list(config.learnersNext)}`;
  return config.autoLeave ? `${text} autoleave` : text;
}

/** `StateProbe match=0 next=1 paused`. */
export function describeProgress(progress: Progress): string {
  let text = `${stateNames[progress.state]} match=${progress.match} next=${progress.next}`;
  if (progress.isLearner) text += ' learner';
  if (isPaused(progress)) text += ' paused';
  if (progress.pendingSnapshot > 0) text += ` pendingSnap=${progress.pendingSnapshot}`;
  if (!progress.recentActive) text += ' inactive';
  if (progress.inflights.count > 0) text += ` inflight=${progress.inflights.count}`;
  if (progress.inflights.full()) text += '[full]';
  return text;
}
