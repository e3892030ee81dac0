/**
 * Invariants of consensus, checked at every event from what is durable, sent and applied.
 *
 * Data owned: what was ever seen of each term and index. Election safety, leader append-only, log matching, leader
 * completeness, a committed entry on a durable quorum and never replaced, monotonic term, commit and applied, no
 * promise before it is durable, one digest of the state an index, snapshots that equal it, one uncommitted change of
 * the group, a bounded uncommitted log.
 * A cluster that was forced to go on without its majority forgets what its survivor did not know to be committed, and
 * nothing else: see `rewind`.
 * @see Raft §5, figure 3
 */
import { silentLogger } from '../../src/base/log.ts';
import { decodeCheckpoint } from '../../src/manager/state/codec.ts';
import { StoreStateMachine } from '../../src/manager/state-machine.ts';
import { decodeFrame } from '../../src/raft/codec.ts';
import { configChangeOf } from '../../src/raft/core/config-codec.ts';
import type { Entry, HardState, Message, Snapshot } from '../../src/raft/core/types.ts';
import { proposalLimits } from '../../src/raft/proposals.ts';
import type { RaftStatus } from '../../src/raft/types.ts';
import type { MemoryDisk } from '../../src/raft/memory-storage.ts';
import { lastIndexOf } from './disk.ts';
import type { ManagerHost } from './manager-host.ts';

function fingerprint(entry: Entry): number {
  let value = Math.imul(entry.term ^ 0x9e3779b9, 0x85ebca6b) ^ (entry.kind === 'config' ? 7 : 3);
  for (const byte of entry.data) value = Math.imul(value ^ byte, 0x01000193);
  return value >>> 0;
}

/** The entry at `index` on a disk. */
function entryAt(disk: MemoryDisk, index: number): Entry | undefined {
  return disk.entries[index - (disk.entries[0]?.index ?? 1)];
}

/** A committed entry. */
interface Committed {
  readonly term: number;
  /** Whoever told of it was in this term: leaders of later ones have the entry. */
  readonly knownIn: number;
}

/** Everything known of the group's past. */
export class RaftChecks {
  readonly #violation: (what: string) => void;
  readonly #note: (what: string) => void;
  readonly #hosts: () => readonly ManagerHost[];
  readonly #leaders = new Map<number, ManagerHost>();
  /** Leaders whose log was compared with what was committed before their term. */
  readonly #complete = new Map<number, ManagerHost>();
  readonly #uncommittedBytesMax: number;
  /** By `term/index`: what the entry is, and the term of the one before it. */
  readonly #entries = new Map<string, { readonly print: number; readonly before: number | null }>();
  readonly #committed = new Map<number, Committed>();
  readonly #digests = new Map<number, { readonly digest: string; readonly by: string }>();
  readonly #stateIndexes = new WeakMap<object, number>();
  highestCommit = 0;
  /** Called when the commit index of a leader rose: a moment when a crash tells most. */
  onLeaderCommit: (host: ManagerHost) => void = () => {};
  digestsCompared = 0;
  snapshotsCompared = 0;

  constructor(options: {
    hosts: () => readonly ManagerHost[];
    maxUncommittedBytes: number;
    violation: (what: string) => void;
    note: (what: string) => void;
  }) {
    this.#hosts = options.hosts;
    this.#note = options.note;
    this.#violation = options.violation;
    // One batch of proposals goes whatever its size, when nothing else is uncommitted.
    this.#uncommittedBytesMax = options.maxUncommittedBytes + 2 * proposalLimits.batchBytes;
  }

  /** Watches what reaches a host's disk. */
  watch(host: ManagerHost): void {
    host.disk.onBatch = ({ entries, hardState }) => {
      const { term, vote, commit } = hardState ?? host.disk.memory.hardState;
      const range = entries.length === 0 ? 'nothing' : `${entries[0]?.index}-${entries.at(-1)?.index}`;
      this.#note(`${host.name} writes ${range}; term ${term} vote ${vote} commit ${commit}`);
      if (entries.length === 0) return;
      this.#overwrite(host, entries);
      this.#leaderWrites(host, entries, hardState ?? host.disk.memory.hardState);
    };
    host.disk.onDurable = () => this.#durable(host);
    host.disk.onSnapshot = (snapshot, state) => this.#checkSnapshot(host, snapshot, state);
  }

  /** This host is a part of the group no more. */
  unwatch({ disk }: ManagerHost): void {
    disk.onBatch = () => {};
    disk.onDurable = () => {};
    disk.onSnapshot = () => {};
  }

  /** The last entry up to which a disk holds what is known to be committed. */
  agreedTo({ disk }: ManagerHost): number {
    const { memory } = disk;
    let index = Math.max(memory.hardState.commit, memory.compactedIndex);
    for (;;) {
      const term = entryAt(memory, index + 1)?.term;
      if (term === undefined || this.#committed.get(index + 1)?.term !== term) return index;
      index += 1;
    }
  }

  /**
   * The cluster goes on with one survivor, which has what was committed up to `index`: what came after may be
   * lost, and other entries take those places, up to `committed` by decree. Everything up to `index`, and every term,
   * counts as before.
   */
  rewind(index: number, committed: number): void {
    for (const each of this.#committed.keys()) if (each > index) this.#committed.delete(each);
    for (const each of this.#digests.keys()) if (each > index) this.#digests.delete(each);
    this.highestCommit = committed;
  }

  /** A committed entry must not be replaced. */
  #overwrite(host: ManagerHost, entries: readonly Entry[]): void {
    for (const entry of entries) {
      const term = this.#committed.get(entry.index)?.term;
      const held = entryAt(host.disk.memory, entry.index);
      if (term === undefined || held === undefined) continue;
      if (held.term === term && entry.term !== term)
        this.#violation(
          `committed entry lost: ${host.name} replaces entry ${entry.index} of term ${term} by one of term ${entry.term}`,
        );
    }
  }

  /** A leader only appends, and makes one change of the group at a time, of one voter. */
  #leaderWrites(host: ManagerHost, entries: readonly Entry[], { term, commit }: HardState): void {
    const status = host.raft?.status();
    const [first] = entries;
    if (status?.role !== 'leader' || status.term !== term || first === undefined) return;
    const disk = host.disk.memory;
    if (first.term === term && first.index <= lastIndexOf(disk))
      this.#violation(
        `leader append-only: ${host.name} replaces its own entry ${first.index} in term ${term}`,
      );
    const isOpen = (entry: Entry): boolean =>
      entry.kind === 'config' &&
      entry.index > commit &&
      this.#committed.get(entry.index)?.term !== entry.term;
    if (!entries.some(isOpen)) return;
    const held = disk.entries.filter((entry) => entry.index > commit && entry.index < first.index);
    const changes = [...held, ...entries].filter(isOpen);
    if (changes.length > 1)
      this.#violation(
        `one uncommitted configuration: ${host.name} leads with changes at ${changes.map(({ index }) => index).join(', ')}`,
      );
    for (const { index, data } of changes)
      if (configChangeOf(data).steps.length > 1)
        this.#violation(`overlapping quorums: entry ${index} changes more than one member`);
  }

  /** A snapshot holds what replaying the log up to it gives. */
  #checkSnapshot(host: ManagerHost, snapshot: Snapshot, state: Uint8Array): void {
    const contents = decodeCheckpoint(state);
    if (!contents.ok) {
      this.#violation(`snapshot: ${host.name} saves one that cannot be read: ${contents.reason}`);
      return;
    }
    const known = this.#digests.get(contents.value.index);
    if (known === undefined) return;
    const machine = new StoreStateMachine(silentLogger);
    machine.restore(state, contents.value.index);
    this.snapshotsCompared += 1;
    if (machine.store.digest() !== known.digest)
      this.#violation(
        `snapshot: that of ${host.name} at entry ${snapshot.index} differs from the log's replay by ${known.by}`,
      );
  }

  /** Log matching: an index and a term name one entry, with one before it. */
  #durable(host: ManagerHost): void {
    const { entries, compactedIndex, compactedTerm } = host.disk.memory;
    for (let at = entries.length - 1; at >= 0; at--) {
      const entry = entries[at] as Entry;
      const before =
        at > 0 ? (entries[at - 1] as Entry).term : entry.index - 1 === compactedIndex ? compactedTerm : null;
      const key = `${entry.term}/${entry.index}`;
      const known = this.#entries.get(key);
      const print = fingerprint(entry);
      if (known === undefined) {
        this.#entries.set(key, { print, before });
        continue;
      }
      if (known.print !== print)
        this.#violation(`log matching: ${host.name} holds another entry ${key} than seen before`);
      if (known.before !== null && before !== null && known.before !== before)
        this.#violation(
          `log matching: entry ${key} on ${host.name} follows term ${before}, not ${known.before}`,
        );
      // What stands before a known entry was compared when it was written.
      if (known.before !== null) break;
    }
    this.#durableCommit(host);
    this.#checkDurableLeader(host);
  }

  /** The log of a leader holds what was committed before its term, and little that is not committed. */
  #checkDurableLeader(host: ManagerHost): void {
    const disk = host.disk.memory;
    const { term } = disk.hardState;
    const { seen } = host;
    if (seen?.role !== 'leader' || seen.term !== term || disk.entries.at(-1)?.term !== term) return;
    let bytes = 0;
    for (let at = disk.entries.length - 1; at >= 0; at--) {
      const entry = disk.entries[at] as Entry;
      if (entry.index <= seen.commitIndex || entry.term !== term) break;
      bytes += entry.data.length;
    }
    if (bytes > this.#uncommittedBytesMax)
      this.#violation(`bounded queues: ${host.name} leads with ${bytes} uncommitted bytes`);
    if (this.#complete.get(term) === host) return;
    this.#complete.set(term, host);
    for (let index = this.highestCommit; index > disk.compactedIndex; index--) {
      const committed = this.#committed.get(index);
      if (committed === undefined || committed.knownIn >= term) continue;
      if (entryAt(disk, index)?.term !== committed.term)
        this.#violation(
          `leader completeness: ${host.name} leads term ${term} without entry ${index} of term ${committed.term}`,
        );
      // Log matching covers what stands before.
      return;
    }
  }

  /** What a disk holds up to its own commit index is committed: there is one entry an index. */
  #durableCommit(host: ManagerHost): void {
    const disk = host.disk.memory;
    for (let index = disk.hardState.commit; index > disk.compactedIndex; index--) {
      const entry = entryAt(disk, index);
      if (entry === undefined || entry.index !== index) break;
      const term = this.#committed.get(index)?.term;
      if (term === undefined) this.#committed.set(index, { term: entry.term, knownIn: disk.hardState.term });
      else if (term !== entry.term)
        this.#violation(
          `state machine safety: ${host.name} commits entry ${index} of term ${entry.term}, not ${term}`,
        );
      else break;
    }
  }

  /** After an event of this host. */
  check(host: ManagerHost): void {
    const { raft } = host;
    if (raft === null) return;
    const status = raft.status();
    const before = host.seen;
    host.seen = status;
    if (before !== null) {
      if (status.term < before.term) this.#violation(`${host.name}: the term went back to ${status.term}`);
      if (status.commitIndex < before.commitIndex)
        this.#violation(`${host.name}: the commit index went back`);
      if (status.appliedIndex < before.appliedIndex)
        this.#violation(`${host.name}: the applied index went back`);
    }
    if (status.appliedIndex > status.commitIndex)
      this.#violation(`${host.name}: applied ${status.appliedIndex} past commit ${status.commitIndex}`);
    if (status.role === 'leader') this.#checkLeader(host, status);
    if (before === null || status.commitIndex > before.commitIndex) this.#checkCommit(host, before, status);
    this.#checkDigest(host);
  }

  #checkLeader(host: ManagerHost, status: RaftStatus): void {
    const known = this.#leaders.get(status.term);
    if (known === host) return;
    if (known !== undefined)
      this.#violation(`election safety: term ${status.term} has leaders ${known.name} and ${host.name}`);
    this.#leaders.set(status.term, host);
  }

  #checkCommit(host: ManagerHost, before: RaftStatus | null, status: RaftStatus): void {
    const leads = before?.role === 'leader' && status.role === 'leader' && before.term === status.term;
    // Who hears of a commit may have applied a change of the group that its leader, who counted, has not yet.
    const leader = this.#leaders.get(status.term)?.seen ?? status;
    const groups = [status.members, before?.members ?? status.members, leader.members];
    const isNew = status.commitIndex > this.highestCommit;
    this.highestCommit = Math.max(this.highestCommit, status.commitIndex);
    // What others committed before it may learn from them, whatever the term.
    if (leads && isNew) this.#checkOwnTerm(host, status);
    if (isNew && !groups.some((members) => this.#isOnQuorum(members, status.commitIndex, host)))
      this.#violation(
        `durability: entry ${status.commitIndex}, committed by ${host.name}, is not durable on a quorum`,
      );
    if (leads) this.onLeaderCommit(host);
  }

  /** A leader counts replicas only for an entry of its own term (§5.4.2, figure 8). */
  #checkOwnTerm(host: ManagerHost, status: RaftStatus): void {
    const entry = entryAt(host.disk.memory, status.commitIndex);
    if (entry?.index === status.commitIndex && entry.term !== status.term)
      this.#violation(
        `commit rule: ${host.name} leads term ${status.term} and commits entry ${entry.index} of term ${entry.term}`,
      );
  }

  #isOnQuorum(members: RaftStatus['members'], index: number, by: ManagerHost): boolean {
    const term = entryAt(by.disk.memory, index)?.term;
    const voters = members.filter((member) => member.voter);
    const holders = voters.filter(({ id }) => {
      const disk = this.#hosts().find((host) => host.member.id === id)?.disk.memory;
      if (disk === undefined || lastIndexOf(disk) < index) return false;
      const held = index > disk.compactedIndex ? entryAt(disk, index)?.term : undefined;
      return held === undefined || term === undefined || held === term;
    });
    return holders.length > voters.length / 2 || voters.length === 0;
  }

  #checkDigest(host: ManagerHost): void {
    const store = host.state?.store;
    if (store === undefined || this.#stateIndexes.get(store) === store.index) return;
    this.#stateIndexes.set(store, store.index);
    const digest = store.digest();
    const known = this.#digests.get(store.index);
    if (known === undefined) {
      this.#digests.set(store.index, { digest, by: host.name });
      return;
    }
    this.digestsCompared += 1;
    if (known.digest !== digest)
      this.#violation(`state machine safety: ${host.name} and ${known.by} differ after entry ${store.index}`);
  }

  /** A frame leaves a host: what it promises must be durable there. */
  frame(host: ManagerHost, bytes: Uint8Array): void {
    const frame = decodeFrame(bytes);
    if (frame?.kind === 'message') this.#promise(host, frame.message);
  }

  /** One line about a frame, for traces. */
  static describe(bytes: Uint8Array): string {
    const frame = decodeFrame(bytes);
    if (frame?.kind !== 'message') return frame?.kind ?? 'nonsense';
    const { type, term, index, logTerm, commit, reject, rejectHint, entries } = frame.message;
    return `${type} term ${term} index ${index}/${logTerm} commit ${commit} entries ${entries.length}${reject ? ` reject ${rejectHint}` : ''}`;
  }

  #promise(host: ManagerHost, { type, reject, to, term, index }: Message): void {
    const disk = host.disk.memory;
    if (type === 'vote-response' && !reject) {
      const { hardState } = disk;
      const kept = hardState.term > term || (hardState.term === term && hardState.vote === to);
      if (!kept)
        this.#violation(`durability: ${host.name} tells of a vote in term ${term} that is not on its disk`);
    }
    if (type === 'append-response' && !reject && lastIndexOf(disk) < index)
      this.#violation(
        `durability: ${host.name} acknowledges entry ${index}, its disk ends at ${lastIndexOf(disk)}`,
      );
  }
}
