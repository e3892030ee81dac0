/**
 * Invariants of consensus, checked at every event from what is durable, sent and applied.
 *
 * Data owned: what was ever seen of each term and index. Election safety, log matching, leader completeness (a
 * committed entry never leaves a disk for another), a committed entry on a durable quorum, monotonic term, commit
 * and applied, no promise before it is durable, one digest of the state an index.
 * @see Raft §5, figure 3
 */
import { decodeFrame } from '../../src/raft/codec.ts';
import type { Entry, Message } from '../../src/raft/core/types.ts';
import type { RaftStatus } from '../../src/raft/types.ts';
import type { MemoryDisk } from '../../src/raft/memory-storage.ts';
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

function lastIndex(disk: MemoryDisk): number {
  return disk.entries.at(-1)?.index ?? disk.compactedIndex;
}

/** Everything known of the group's past. */
export class RaftChecks {
  readonly #violation: (what: string) => void;
  readonly #note: (what: string) => void;
  readonly #hosts: () => readonly ManagerHost[];
  readonly #leaders = new Map<number, string>();
  /** By `term/index`: what the entry is, and the term of the one before it. */
  readonly #entries = new Map<string, { readonly print: number; readonly before: number | null }>();
  readonly #committedTerms = new Map<number, number>();
  readonly #digests = new Map<number, { readonly digest: string; readonly by: string }>();
  readonly #stateIndexes = new WeakMap<object, number>();
  highestCommit = 0;
  /** Called when the commit index of a leader rose: a moment when a crash tells most. */
  onLeaderCommit: (host: ManagerHost) => void = () => {};
  digestsCompared = 0;

  constructor(
    hosts: () => readonly ManagerHost[],
    violation: (what: string) => void,
    note: (what: string) => void,
  ) {
    this.#hosts = hosts;
    this.#note = note;
    this.#violation = violation;
  }

  /** Watches what reaches a host's disk. */
  watch(host: ManagerHost): void {
    host.disk.onBatch = ({ entries, hardState }) => {
      const { term, vote, commit } = hardState ?? host.disk.memory.hardState;
      const range = entries.length === 0 ? 'nothing' : `${entries[0]?.index}-${entries.at(-1)?.index}`;
      this.#note(`${host.name} writes ${range}; term ${term} vote ${vote} commit ${commit}`);
      this.#overwrite(host, entries);
    };
    host.disk.onDurable = () => this.#durable(host);
  }

  /** A committed entry must not be replaced. */
  #overwrite(host: ManagerHost, entries: readonly Entry[]): void {
    for (const entry of entries) {
      const term = this.#committedTerms.get(entry.index);
      const held = entryAt(host.disk.memory, entry.index);
      if (term === undefined || held === undefined) continue;
      if (held.term === term && entry.term !== term)
        this.#violation(
          `committed entry lost: ${host.name} replaces entry ${entry.index} of term ${term} by one of term ${entry.term}`,
        );
    }
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
  }

  /** What a disk holds up to its own commit index is committed: there is one entry an index. */
  #durableCommit(host: ManagerHost): void {
    const disk = host.disk.memory;
    for (let index = disk.hardState.commit; index > disk.compactedIndex; index--) {
      const entry = entryAt(disk, index);
      if (entry === undefined || entry.index !== index) break;
      const term = this.#committedTerms.get(index);
      if (term === undefined) this.#committedTerms.set(index, entry.term);
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
    if (known === host.name) return;
    if (known !== undefined)
      this.#violation(`election safety: term ${status.term} has leaders ${known} and ${host.name}`);
    this.#leaders.set(status.term, host.name);
  }

  #checkCommit(host: ManagerHost, before: RaftStatus | null, status: RaftStatus): void {
    const leads = before?.role === 'leader' && status.role === 'leader' && before.term === status.term;
    const groups = [status.members, before?.members ?? status.members];
    const isNew = status.commitIndex > this.highestCommit;
    this.highestCommit = Math.max(this.highestCommit, status.commitIndex);
    // What others committed before it may learn from them, whatever the term.
    if (leads && isNew) this.#checkOwnTerm(host, status);
    if (isNew && !groups.some((members) => this.#isOnQuorum(members, status.commitIndex)))
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

  #isOnQuorum(members: RaftStatus['members'], index: number): boolean {
    const voters = members.filter((member) => member.voter);
    const holders = voters.filter(({ id }) => {
      const disk = this.#hosts().find((host) => host.member.id === id)?.disk.memory;
      return disk !== undefined && lastIndex(disk) >= index;
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
    if (type === 'append-response' && !reject && lastIndex(disk) < index)
      this.#violation(
        `durability: ${host.name} acknowledges entry ${index}, its disk ends at ${lastIndex(disk)}`,
      );
  }
}
