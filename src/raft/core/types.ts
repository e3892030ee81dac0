/**
 * The vocabulary of the consensus core: entries, snapshots, hard state and messages.
 *
 * Invariants: member ids are positive; 0 stands for "nobody"; terms and indexes start at 1, and 0 stands for
 * "before the log". Nothing here is ever mutated after it was handed over.
 */

/** "No member": no leader known, no vote cast, a message from this node's own driver. */
export const NOBODY = 0;
/** The address of the driver's log writer, in asynchronous-storage mode. */
export const APPEND_THREAD = -1;
/** The address of the driver's applier, in asynchronous-storage mode. */
export const APPLY_THREAD = -2;

/** What an entry carries: bytes for the state machine, or an encoded configuration change. */
export type EntryKind = 'normal' | 'config';

/** One entry of the replicated log. */
export interface Entry {
  readonly term: number;
  readonly index: number;
  readonly kind: EntryKind;
  readonly data: Uint8Array;
}

/** The empty payload, shared. */
export const EMPTY_BYTES: Uint8Array = new Uint8Array(0);

/** What must reach the disk before any promise based on it leaves this node. */
export interface HardState {
  readonly term: number;
  /** Who this node voted for in `term`, or {@link NOBODY}. */
  readonly vote: number;
  readonly commit: number;
}

/** The members of the group as sets of ids, each ascending. */
export interface ConfigState {
  readonly voters: readonly number[];
  /** The voters of the configuration being left, while a joint configuration is in force; else empty. */
  readonly votersOutgoing: readonly number[];
  readonly learners: readonly number[];
  /** Voters that become learners when the joint configuration is left. */
  readonly learnersNext: readonly number[];
  /** Whether the leader leaves the joint configuration by itself. */
  readonly autoLeave: boolean;
}

/** Nobody at all: the configuration of a node that has not joined yet. */
export const EMPTY_CONFIG: ConfigState = {
  voters: [],
  votersOutgoing: [],
  learners: [],
  learnersNext: [],
  autoLeave: false,
};

/** The state after entry `index`, and who the members were then. */
export interface Snapshot {
  readonly index: number;
  readonly term: number;
  readonly config: ConfigState;
  /** The driver's own bytes. The core never looks inside. */
  readonly data: Uint8Array;
}

/** What a node does in its group. */
export type Role = 'follower' | 'pre-candidate' | 'candidate' | 'leader';

/** The volatile part of a node's state that a driver may want to publish. */
export interface SoftState {
  readonly leader: number;
  readonly role: Role;
}

/** Requests from this node's own driver; never on the wire. */
export type LocalMessageType =
  | 'hup'
  | 'beat'
  | 'check-quorum'
  | 'unreachable'
  | 'snapshot-status'
  | 'storage-append'
  | 'storage-append-response'
  | 'storage-apply'
  | 'storage-apply-response';

/** What members say to each other. */
export type WireMessageType =
  | 'propose'
  | 'append'
  | 'append-response'
  | 'vote'
  | 'vote-response'
  | 'pre-vote'
  | 'pre-vote-response'
  | 'snapshot'
  | 'heartbeat'
  | 'heartbeat-response'
  | 'timeout-now'
  | 'transfer-leader'
  | 'forget-leader'
  | 'read-index'
  | 'read-index-response';

export type MessageType = LocalMessageType | WireMessageType;

/**
 * One message. A single flat shape for all types keeps the hot path monomorphic and the codec one table;
 * fields a type does not use hold their zero.
 */
export interface Message {
  readonly type: MessageType;
  readonly to: number;
  readonly from: number;
  /** The sender's term; 0 for local messages and forwarded requests. */
  readonly term: number;
  /** Term of the entry at `index`; in a rejection, term of the entry at `rejectHint`. */
  readonly logTerm: number;
  readonly index: number;
  readonly commit: number;
  readonly vote: number;
  readonly reject: boolean;
  /** In a rejection: the highest index at which the sender's log may match. On a vote: the term at `commit`. */
  readonly rejectHint: number;
  /** Identifies a batch of reads (read-index, heartbeats); on a vote, 1 asks to ignore a live leader. */
  readonly context: number;
  readonly entries: readonly Entry[];
  readonly snapshot: Snapshot | null;
  /** For the log writer: what to deliver once the write is durable. */
  readonly responses: readonly Message[];
}

/** The `context` of a vote that a leader asked for by handing over. */
export const FORCED_CAMPAIGN = 1;

const NO_ENTRIES: readonly Entry[] = [];
const NO_MESSAGES: readonly Message[] = [];

/** A message with every field not given at its zero. */
export function message(
  type: MessageType,
  to: number,
  fields: Partial<Omit<Message, 'type' | 'to'>> = {},
): Message {
  return {
    type,
    to,
    from: fields.from ?? NOBODY,
    term: fields.term ?? 0,
    logTerm: fields.logTerm ?? 0,
    index: fields.index ?? 0,
    commit: fields.commit ?? 0,
    vote: fields.vote ?? NOBODY,
    reject: fields.reject ?? false,
    rejectHint: fields.rejectHint ?? 0,
    context: fields.context ?? 0,
    entries: fields.entries ?? NO_ENTRIES,
    snapshot: fields.snapshot ?? null,
    responses: fields.responses ?? NO_MESSAGES,
  };
}

/** The answer to a read request: everything up to `index` must be applied before the read. */
export interface ReadState {
  readonly index: number;
  readonly context: number;
}

/** Payload bytes of entries: what counts against the uncommitted limit. */
export function payloadBytes(entries: readonly Entry[]): number {
  let bytes = 0;
  for (const entry of entries) bytes += entry.data.length;
  return bytes;
}

/** Bytes an entry costs in memory and on the wire, about. */
export const ENTRY_OVERHEAD_BYTES = 24;

/** Payload and overhead of entries: what counts against message and apply limits. */
export function entriesBytes(entries: readonly Entry[]): number {
  return payloadBytes(entries) + entries.length * ENTRY_OVERHEAD_BYTES;
}

/** The longest prefix of `entries` within `maxBytes`, but at least one entry. */
export function limitEntries(entries: readonly Entry[], maxBytes: number): readonly Entry[] {
  let bytes = 0;
  for (let i = 0; i < entries.length; i++) {
    bytes += (entries[i] as Entry).data.length + ENTRY_OVERHEAD_BYTES;
    if (bytes > maxBytes && i > 0) return entries.slice(0, i);
  }
  return entries;
}
