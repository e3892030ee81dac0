/**
 * Consensus cores on a perfect network in one call stack: for tests of single rules. Storage is synchronous;
 * what a core persists survives `restart`.
 */
import { assertDefined } from '../../src/base/assert.ts';
import { seededRandom } from '../../src/base/random.ts';
import { type CoreConfig, coreDefaults } from '../../src/raft/core/config.ts';
import { configChangeOf } from '../../src/raft/core/config-codec.ts';
import type { ConfigChange, ConfigChangeStep } from '../../src/raft/core/membership.ts';
import { RaftCore } from '../../src/raft/core/node.ts';
import { StableLog } from '../../src/raft/core/stable-log.ts';
import {
  type ConfigState,
  EMPTY_BYTES,
  EMPTY_CONFIG,
  type Entry,
  type HardState,
  type Message,
  message,
  type MessageType,
  type ReadState,
  type Snapshot,
} from '../../src/raft/core/types.ts';

/** One core, its disk, and what it applied. */
export interface Peer {
  core: RaftCore;
  readonly config: CoreConfig;
  readonly stable: StableLog;
  hardState: HardState;
  groupConfig: ConfigState;
  applied: Entry[];
  reads: ReadState[];
}

/** A payload of text. */
export const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
/** A log entry. */
export const entry = (term: number, index: number, text = ''): Entry => ({
  term,
  index,
  kind: 'normal',
  data: bytes(text),
});
/** The group of these voters. */
export const voters = (...ids: number[]): ConfigState => ({ ...EMPTY_CONFIG, voters: ids });

/** Cores that exchange messages until nothing is left to say. */
export class Network {
  readonly peers = new Map<number, Peer>();
  /** Which messages arrive. */
  passes: (sent: Message) => boolean = () => true;
  /** Everything sent, for tests that look. */
  readonly sent: Message[] = [];

  /** Adds a core; with `log`, its disk holds those entries already. */
  add(
    id: number,
    group: ConfigState,
    options: Partial<CoreConfig> & { log?: readonly Entry[]; hardState?: HardState } = {},
  ): Peer {
    const { log = [], hardState = { term: log.at(-1)?.term ?? 0, vote: 0, commit: 0 }, ...patch } = options;
    const stable = StableLog.empty();
    stable.append(log);
    const config: CoreConfig = { ...coreDefaults, asyncStorage: false, ...patch, id };
    const core = new RaftCore(config, stable, { hardState, config: group }, seededRandom(id));
    const peer: Peer = { core, config, stable, hardState, groupConfig: group, applied: [], reads: [] };
    this.peers.set(id, peer);
    return peer;
  }

  peer(id: number): Peer {
    return assertDefined(this.peers.get(id), `peer ${id}`);
  }

  core(id: number): RaftCore {
    return this.peer(id).core;
  }

  /** Replaces the core by a new one that knows only what the old one persisted. */
  restart(id: number): void {
    const peer = this.peer(id);
    const snapshot = peer.stable.snapshot();
    const index = snapshot?.index ?? 0;
    const config = { ...peer.config, applied: index };
    const group = snapshot?.config ?? peer.groupConfig;
    peer.core = new RaftCore(
      config,
      peer.stable,
      { hardState: peer.hardState, config: group },
      seededRandom(id + 1),
    );
    peer.applied = peer.applied.filter((each) => each.index <= index);
  }

  /** Delivers messages, persists and applies, until everybody is quiet. */
  settle(): void {
    for (let busy = true; busy; ) {
      busy = false;
      for (const peer of this.peers.values()) {
        if (!peer.core.hasReady()) continue;
        busy = true;
        for (const sent of this.handle(peer)) this.deliver(sent);
      }
    }
  }

  /** Handles one ready set of a peer; returns its messages, undelivered. */
  handle(peer: Peer): readonly Message[] {
    const ready = peer.core.ready();
    peer.hardState = ready.hardState ?? peer.hardState;
    if (ready.snapshot !== null) peer.stable.install(ready.snapshot);
    peer.stable.append(ready.entries);
    for (const each of ready.committedEntries) {
      peer.applied.push(each);
      if (each.kind === 'config') peer.core.applyConfigChange(configChangeOf(each.data));
    }
    peer.reads.push(...ready.readStates);
    peer.core.advance();
    this.sent.push(...ready.messages);
    return ready.messages;
  }

  /** Delivers one message, if it passes. */
  deliver(sent: Message): void {
    if (this.passes(sent)) this.peers.get(sent.to)?.core.receive(sent);
  }

  /** Makes `id` campaign, and lets everybody react. */
  elect(id: number): void {
    this.core(id).campaign();
    this.settle();
  }

  propose(id: number, text: string): void {
    this.core(id).propose([bytes(text)]);
    this.settle();
  }

  change(
    id: number,
    steps: readonly ConfigChangeStep[],
    transition: ConfigChange['transition'] = 'auto',
  ): void {
    this.core(id).proposeConfigChange({ transition, steps, context: EMPTY_BYTES });
    this.settle();
  }

  tick(id: number, count = 1): void {
    for (let i = 0; i < count; i++) {
      this.core(id).tick();
      this.settle();
    }
  }

  /** Cuts these members off from everybody else. */
  isolate(...ids: number[]): void {
    this.passes = (sent) => ids.includes(sent.to) === ids.includes(sent.from);
  }

  heal(): void {
    this.passes = () => true;
  }

  /** The non-empty payloads a peer applied, as text. */
  texts(id: number): string[] {
    const plain = this.peer(id).applied.filter((each) => each.kind === 'normal' && each.data.length > 0);
    return plain.map((each) => new TextDecoder().decode(each.data));
  }

  /** `term/index` of every entry on a peer's disk. */
  log(id: number): string[] {
    const { stable } = this.peer(id);
    const all = stable.entries(stable.firstIndex(), stable.lastIndex() + 1, Number.MAX_SAFE_INTEGER);
    return all.map((each) => `${each.term}/${each.index}`);
  }

  role(id: number): string {
    return this.core(id).state.role;
  }

  term(id: number): number {
    return this.core(id).state.term;
  }

  /** Compacts a peer's log up to what it applied, with a snapshot of that. */
  compact(id: number): Snapshot {
    const { core, stable } = this.peer(id);
    const index = core.state.log.applied;
    const term = assertDefined(stable.term(index), 'an applied entry is held');
    const snapshot = { index, term, config: core.config(), data: EMPTY_BYTES };
    stable.noteSnapshot(snapshot);
    stable.compact(index);
    return snapshot;
  }
}

/** A group of voters 1..count, with `1` elected. */
export function group(count: number, options: Partial<CoreConfig> = {}): Network {
  const network = new Network();
  const ids = Array.from({ length: count }, (_, i) => i + 1);
  for (const id of ids) network.add(id, voters(...ids), options);
  network.elect(1);
  return network;
}

/** A message from a peer that is not simulated. */
export function from(
  sender: number,
  type: MessageType,
  to: number,
  fields: Partial<Omit<Message, 'type' | 'to' | 'from'>>,
): Message {
  return message(type, to, { ...fields, from: sender });
}
