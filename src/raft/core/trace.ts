/**
 * What a core does, told in the words of etcd-raft's TLA+ trace specification, so that a run can be checked against
 * it. Costs one comparison an event where nobody listens.
 *
 * Shapes: as in that specification, ids as decimal strings; `log` is the index of the last entry; `conf` is the
 * incoming and the outgoing half of the configuration.
 * @see https://github.com/etcd-io/raft/tree/main/tla
 */
import type { ConfigChangeStep } from './membership.ts';
import type { Core } from './state.ts';
import type { Message, MessageType, Role } from './types.ts';

/** The kinds of event. The last two are in the specification; etcd and this core tell of snapshots as appends. */
export const traceNames = [
  'InitState',
  'BecomeCandidate',
  'BecomeFollower',
  'BecomeLeader',
  'Commit',
  'Replicate',
  'ChangeConf',
  'ApplyConfChange',
  'Ready',
  'SendAppendEntriesRequest',
  'ReceiveAppendEntriesRequest',
  'SendAppendEntriesResponse',
  'ReceiveAppendEntriesResponse',
  'SendRequestVoteRequest',
  'ReceiveRequestVoteRequest',
  'SendRequestVoteResponse',
  'ReceiveRequestVoteResponse',
  'SendSnapshot',
  'ReceiveSnapshot',
] as const;

export type TraceName = (typeof traceNames)[number];

export interface TraceMessage {
  readonly type: string;
  readonly term: number;
  readonly from: string;
  readonly to: string;
  readonly entries: number;
  readonly logTerm: number;
  readonly index: number;
  readonly commit: number;
  readonly vote: string;
  readonly reject: boolean;
  readonly rejectHint: number;
}

/** A change of the configuration: proposed (`changes`) or taking effect (`newconf`, its voters). */
export interface TraceChange {
  readonly changes?: readonly { readonly nid: string; readonly action: string }[];
  readonly newconf?: readonly string[];
}

export interface TraceEvent {
  readonly name: TraceName;
  readonly nid: string;
  readonly state: { readonly term: number; readonly vote: string; readonly commit: number };
  readonly role: string;
  readonly log: number;
  readonly conf: readonly [readonly string[], readonly string[]];
  readonly msg?: TraceMessage;
  readonly prop?: { readonly cc?: TraceChange; readonly match?: number; readonly next?: number };
}

/** Takes events as they happen. */
export type Tracer = (event: TraceEvent) => void;

const roles: Readonly<Record<Role, string>> = {
  follower: 'StateFollower',
  candidate: 'StateCandidate',
  leader: 'StateLeader',
  'pre-candidate': 'StatePreCandidate',
};

/** Messages that are told of, by their etcd names; pre-votes are not part of the specification. */
const messages: Partial<Record<MessageType, { readonly type: string; readonly what: string }>> = {
  append: { type: 'MsgApp', what: 'AppendEntriesRequest' },
  heartbeat: { type: 'MsgHeartbeat', what: 'AppendEntriesRequest' },
  snapshot: { type: 'MsgSnap', what: 'AppendEntriesRequest' },
  'append-response': { type: 'MsgAppResp', what: 'AppendEntriesResponse' },
  'heartbeat-response': { type: 'MsgHeartbeatResp', what: 'AppendEntriesResponse' },
  vote: { type: 'MsgVote', what: 'RequestVoteRequest' },
  'vote-response': { type: 'MsgVoteResp', what: 'RequestVoteResponse' },
};

const actions: Partial<Record<ConfigChangeStep['kind'], string>> = {
  'add-voter': 'AddNewServer',
  'add-learner': 'AddLearner',
  remove: 'RemoveServer',
};

function tell(core: Core, name: TraceName, more: Pick<TraceEvent, 'msg' | 'prop'> = {}): void {
  const { config, tracker, term, vote, log, role } = core;
  const { incoming, outgoing } = tracker.membership;
  config.tracer?.({
    name,
    nid: String(config.id),
    state: { term, vote: String(vote), commit: log.committed },
    role: roles[role],
    log: log.lastIndex(),
    conf: [texts(incoming), texts(outgoing)],
    ...more,
  });
}

function texts(ids: Iterable<number>): string[] {
  return [...ids].sort((a, b) => a - b).map(String);
}

/** Tells of something that concerns this member alone. */
export function trace(core: Core, name: TraceName): void {
  if (core.config.tracer !== null) tell(core, name);
}

/** Tells of a message, sent or received. */
export function traceMessage(core: Core, way: 'Send' | 'Receive', message: Message): void {
  if (core.config.tracer === null) return;
  const known = messages[message.type];
  if (known === undefined) return;
  const { snapshot, term, from, to, commit, reject, rejectHint } = message;
  const isSnapshot = snapshot !== null;
  const msg: TraceMessage = {
    type: known.type,
    term,
    from: String(from),
    to: String(to),
    // A snapshot is told of as an append of everything it covers.
    entries: isSnapshot ? snapshot.index : message.entries.length,
    logTerm: isSnapshot ? 0 : message.logTerm,
    index: isSnapshot ? 0 : message.index,
    commit,
    vote: '0',
    reject,
    rejectHint,
  };
  const progress = way === 'Send' && message.type === 'append' ? core.tracker.progress.get(from) : undefined;
  const prop = progress === undefined ? {} : { prop: { match: progress.match, next: progress.next } };
  tell(core, `${way}${known.what}` as TraceName, { msg, ...prop });
}

/** Tells of a change that a leader is about to append. */
export function traceChange(core: Core, steps: readonly ConfigChangeStep[]): void {
  if (core.config.tracer === null) return;
  const changes = steps.flatMap(({ kind, id }) => {
    const action = actions[kind];
    return action === undefined ? [] : [{ nid: String(id), action }];
  });
  if (changes.length > 0) tell(core, 'ChangeConf', { prop: { cc: { changes, newconf: [] } } });
}

/** Tells of a configuration with these voters that is about to take effect. */
export function traceSwitch(core: Core, voters: Iterable<number>): void {
  if (core.config.tracer !== null)
    tell(core, 'ApplyConfChange', { prop: { cc: { newconf: texts(voters) } } });
}
