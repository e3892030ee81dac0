/**
 * A scripted cluster: runs etcd's interaction scripts against the consensus core, and prints what they print.
 */
import { assert, assertDefined } from '../../src/base/assert.ts';
import { seededRandom } from '../../src/base/random.ts';
import { type CoreConfig, coreDefaults } from '../../src/raft/core/config.ts';
import { configChangeOf } from '../../src/raft/core/config-codec.ts';
import type { ConfigChange } from '../../src/raft/core/membership.ts';
import { RaftCore } from '../../src/raft/core/node.ts';
import { type LogReader, StableLog } from '../../src/raft/core/stable-log.ts';
import { members, voterIds } from '../../src/raft/core/tracker.ts';
import {
  APPEND_THREAD,
  APPLY_THREAD,
  type ConfigState,
  EMPTY_BYTES,
  EMPTY_CONFIG,
  type Entry,
  type Message,
  message,
  type Snapshot,
} from '../../src/raft/core/types.ts';
import type { ScriptArgument, ScriptCase } from './datadriven.ts';
import {
  describeEntries,
  describeMessage,
  describeProgress,
  describeReady,
  describeRole,
  messageTypeOf,
  parseSteps,
  V1_MARK,
} from './describe.ts';

interface ScriptNode {
  readonly id: number;
  readonly core: RaftCore;
  readonly config: CoreConfig;
  readonly stable: StableLog;
  /** The state after each applied entry; the last is the snapshot this node would send. */
  readonly history: Snapshot[];
  readonly appendWork: Message[];
  readonly applyWork: Message[];
}

/** The settings of etcd's own harness. */
const harnessConfig: Omit<CoreConfig, 'id'> = {
  ...coreDefaults,
  electionTicks: 3,
  heartbeatTicks: 1,
  preVote: false,
  checkQuorum: false,
  stepDownOnRemoval: false,
  shareCommitInElections: false,
  asyncStorage: false,
  disableProposalForwarding: false,
  maxMessageBytes: Number.MAX_SAFE_INTEGER,
  maxInflightMessages: Number.MAX_SAFE_INTEGER,
  maxInflightBytes: 0,
  maxUncommittedBytes: Number.MAX_SAFE_INTEGER,
  maxApplyingBytes: Number.MAX_SAFE_INTEGER,
};

type ConfigPatch = { -readonly [K in keyof CoreConfig]?: CoreConfig[K] };

/** A cluster that a script drives. */
export class ScriptedCluster {
  readonly #nodes: ScriptNode[] = [];
  #messages: Message[] = [];
  #lines: string[] = [];
  #indent = '';
  #quiet = false;

  /** Runs one case; returns its output as the script would print it, without log lines. */
  run(script: ScriptCase): string {
    this.#lines = [];
    this.#command(script);
    const text = this.#lines.join('\n').trimEnd();
    return text === '' ? 'ok' : text;
  }

  #command({ command, args, input }: ScriptCase): void {
    const ids = args.filter((arg) => arg.values.length === 0).map((arg) => Number(arg.key));
    const id = ids[0] ?? 0;
    switch (command) {
      case 'log-level':
        this.#quiet = args[0]?.key === 'none';
        return;
      case 'add-nodes':
        return this.#addNodes(id, args);
      case 'campaign':
        return this.#node(id).core.campaign();
      case 'propose':
        return this.#propose(id, args[1]?.key ?? '');
      case 'propose-conf-change':
        return this.#proposeChange(id, args, input);
      case 'stabilize':
        return this.#stabilizeCommand(ids, args);
      case 'process-ready':
        return this.#each(ids, 'handling Ready', (node) => this.#processReady(node));
      case 'process-append-thread':
        return this.#each(ids, 'processing append thread', (node) => this.#processAppend(node));
      case 'process-apply-thread':
        return this.#each(ids, 'processing apply thread', (node) => this.#processApply(node));
      case 'deliver-msgs':
        return this.#deliverCommand(ids, args);
      case 'tick-heartbeat':
        return this.#tick(id, harnessConfig.heartbeatTicks);
      case 'tick-election':
        return this.#tick(id, harnessConfig.electionTicks);
      case 'set-randomized-election-timeout':
        this.#node(id).core.state.electionDueTicks = Number(valueOf(args, 'timeout'));
        return;
      case 'forget-leader':
        return this.#node(id).core.forgetLeader();
      case 'compact':
        return this.#node(id).stable.compact(ids[1] ?? 0);
      case 'send-snapshot':
        return this.#sendSnapshot(id, ids[1] ?? 0);
      case 'raft-state':
        return this.#printStates();
      case 'raft-log':
        return this.#printLog(id);
      case 'status':
        for (const [member, progress] of members(this.#node(id).core.state.tracker)) {
          this.#print(`${member}: ${describeProgress(progress)}`);
        }
        return;
      default:
        throw new Error(`unknown command ${command}`);
    }
  }

  #print(...lines: readonly string[]): void {
    if (this.#quiet) return;
    for (const line of lines) this.#lines.push(this.#indent + line);
  }

  #indented(run: () => void): void {
    const before = this.#indent;
    this.#indent += '  ';
    run();
    this.#indent = before;
  }

  #node(id: number): ScriptNode {
    return assertDefined(this.#nodes[id - 1], `node ${id} exists`);
  }

  #each(ids: readonly number[], title: string, run: (node: ScriptNode) => void): void {
    for (const id of ids) {
      if (ids.length === 1) {
        run(this.#node(id));
        continue;
      }
      this.#print(`> ${id} ${title}`);
      this.#indented(() => run(this.#node(id)));
    }
  }

  #addNodes(count: number, args: readonly ScriptArgument[]): void {
    const patch: ConfigPatch = {};
    const numbers = (key: string): number[] =>
      (args.find((arg) => arg.key === key)?.values ?? []).map(Number);
    const config: ConfigState = { ...EMPTY_CONFIG, voters: numbers('voters'), learners: numbers('learners') };
    const index = numbers('index')[0] ?? 0;
    for (const { key, values } of args) {
      const [value = ''] = values;
      if (key === 'inflight') patch.maxInflightMessages = Number(value);
      else if (key === 'async-storage-writes') patch.asyncStorage = value === 'true';
      else if (key === 'prevote') patch.preVote = value === 'true';
      else if (key === 'checkquorum') patch.checkQuorum = value === 'true';
      else if (key === 'step-down-on-removal') patch.stepDownOnRemoval = value === 'true';
      else if (key === 'max-committed-size-per-ready') patch.maxApplyingBytes = Number(value);
      else if (key === 'disable-conf-change-validation') patch.disableConfigValidation = value === 'true';
      else if (key === 'read-only') patch.readOnly = value === 'lease-based' ? 'lease' : 'safe';
      else
        assert(['voters', 'learners', 'index'].includes(key) || values.length === 0, `known option ${key}`);
    }
    for (let i = 0; i < count; i++) this.#addNode(config, index, patch);
  }

  #addNode(config: ConfigState, index: number, patch: ConfigPatch): void {
    const id = this.#nodes.length + 1;
    const stable = StableLog.empty();
    const snapshot: Snapshot = { index, term: index > 0 ? 1 : 0, config, data: EMPTY_BYTES };
    if (index > 0) stable.install(snapshot);
    const history = [snapshot];
    const reader: LogReader = {
      firstIndex: () => stable.firstIndex(),
      lastIndex: () => stable.lastIndex(),
      term: (at) => stable.term(at),
      entries: (low, high, max) => stable.entries(low, high, max),
      snapshot: () => history.at(-1) ?? null,
    };
    const full: CoreConfig = { ...harnessConfig, ...patch, id, applied: index };
    const initial = { hardState: { term: 0, vote: 0, commit: 0 }, config };
    const core = new RaftCore(full, reader, initial, seededRandom(id));
    this.#nodes.push({ id, core, config: full, stable, history, appendWork: [], applyWork: [] });
  }

  #propose(id: number, text: string): void {
    if (this.#node(id).core.propose([new TextEncoder().encode(text)]) === 'dropped') {
      this.#print('raft proposal dropped');
    }
  }

  #proposeChange(id: number, args: readonly ScriptArgument[], input: string): void {
    const transitions = { auto: 'auto', explicit: 'joint-explicit', implicit: 'joint-implicit' } as const;
    const name = (valueOf(args, 'transition') ?? 'auto') as keyof typeof transitions;
    const change: ConfigChange = {
      transition: transitions[name],
      steps: parseSteps(input),
      context: valueOf(args, 'v1') === 'true' ? Uint8Array.of(V1_MARK) : EMPTY_BYTES,
    };
    if (this.#node(id).core.proposeConfigChange(change) === 'dropped') this.#print('raft proposal dropped');
  }

  #stabilizeCommand(ids: readonly number[], args: readonly ScriptArgument[]): void {
    const before = this.#quiet;
    const level = valueOf(args, 'log-level');
    if (level !== undefined) this.#quiet = level === 'none';
    const nodes = ids.length === 0 ? this.#nodes : ids.map((id) => this.#node(id));
    while (this.#stabilizeRound(nodes));
    this.#quiet = before;
  }

  #stabilizeRound(nodes: readonly ScriptNode[]): boolean {
    let worked = false;
    const section = (node: ScriptNode, title: string, run: () => void): void => {
      worked = true;
      this.#print(`> ${node.id} ${title}`);
      this.#indented(run);
    };
    for (const node of nodes) {
      if (node.core.hasReady()) section(node, 'handling Ready', () => this.#processReady(node));
    }
    for (const node of nodes) {
      if (this.#messages.some((each) => each.to === node.id)) {
        section(node, 'receiving messages', () => this.#deliver(node.id, false, null));
      }
    }
    for (const node of nodes) {
      if (node.appendWork.length === 0) continue;
      section(node, 'processing append thread', () => {
        while (node.appendWork.length > 0) this.#processAppend(node);
      });
    }
    for (const node of nodes) {
      if (node.applyWork.length === 0) continue;
      section(node, 'processing apply thread', () => {
        while (node.applyWork.length > 0) this.#processApply(node);
      });
    }
    return worked;
  }

  #processReady(node: ScriptNode): void {
    const ready = node.core.ready();
    this.#print(...describeReady(ready));
    if (!node.config.asyncStorage) {
      this.#persist(node, ready.entries, ready.snapshot);
      this.#apply(node, ready.committedEntries);
    }
    for (const each of ready.messages) {
      if (each.to === APPEND_THREAD) node.appendWork.push(each);
      else if (each.to === APPLY_THREAD) node.applyWork.push(each);
      else this.#messages.push(each);
    }
    if (!node.config.asyncStorage) node.core.advance();
  }

  #processAppend(node: ScriptNode): void {
    const work = node.appendWork.shift();
    if (work === undefined) return this.#print('no append work to perform');
    this.#persist(node, work.entries, work.snapshot);
    this.#finish(work);
  }

  #processApply(node: ScriptNode): void {
    const work = node.applyWork.shift();
    if (work === undefined) return this.#print('no apply work to perform');
    this.#apply(node, work.entries);
    this.#finish(work);
  }

  #finish(work: Message): void {
    this.#print('Processing:', ...describeMessage({ ...work, responses: [] }));
    this.#print('Responses:', ...work.responses.flatMap(describeMessage));
    this.#messages.push(...work.responses);
  }

  #persist(node: ScriptNode, entries: readonly Entry[], snapshot: Snapshot | null): void {
    if (snapshot !== null) {
      assert(entries.length === 0, 'a snapshot comes alone');
      node.stable.install(snapshot);
    }
    node.stable.append(entries);
  }

  #apply(node: ScriptNode, entries: readonly Entry[]): void {
    for (const entry of entries) {
      const last = assertDefined(node.history.at(-1), 'a node has a state');
      const isChange = entry.kind === 'config';
      const config = isChange ? node.core.applyConfigChange(configChangeOf(entry.data)) : last.config;
      const data = isChange ? last.data : new Uint8Array([...last.data, ...entry.data]);
      node.history.push({ index: entry.index, term: entry.term, config, data });
    }
  }

  #deliverCommand(ids: readonly number[], args: readonly ScriptArgument[]): void {
    const type = valueOf(args, 'type') ?? null;
    const dropped = (args.find((arg) => arg.key === 'drop')?.values ?? []).map(Number);
    let count = 0;
    for (const id of ids) count += this.#deliver(id, false, type);
    for (const id of dropped) count += this.#deliver(id, true, type);
    if (count === 0) this.#print('no messages');
  }

  #deliver(to: number, drop: boolean, typeName: string | null): number {
    const type = typeName === null ? null : assertDefined(messageTypeOf(typeName), `known type ${typeName}`);
    // What a node sends to itself, or gets from its disk, is never lost.
    const isLocal = (each: Message): boolean => each.from === each.to || each.from < 0;
    const isChosen = (each: Message): boolean =>
      each.to === to && !(drop && isLocal(each)) && (type === null || each.type === type);
    const chosen = this.#messages.filter(isChosen);
    this.#messages = this.#messages.filter((each) => !isChosen(each));
    for (const each of chosen) {
      const [first = '', ...rest] = describeMessage(each);
      this.#print(drop ? `dropped: ${first}` : first, ...rest);
      if (drop) continue;
      const outcome = this.#node(to).core.receive(each);
      if (outcome === 'unknown-peer') this.#print('raft: cannot step as peer not found');
      else if (outcome === 'dropped') this.#print('raft proposal dropped');
      else assert(outcome === 'ok', 'only wire messages are delivered');
    }
    return chosen.length;
  }

  #tick(id: number, count: number): void {
    for (let i = 0; i < count; i++) this.#node(id).core.tick();
  }

  #sendSnapshot(from: number, to: number): void {
    const { core, history } = this.#node(from);
    const snapshot = history.at(-1) ?? null;
    const sent = message('snapshot', to, { from, term: core.state.term, snapshot });
    this.#messages.push(sent);
    this.#print(...describeMessage(sent));
  }

  #printStates(): void {
    for (const { id, core } of this.#nodes) {
      const { role, term, leader, tracker } = core.state;
      const voter = voterIds(tracker.membership).includes(id) ? 'Voter' : 'Non-Voter';
      this.#print(`${id}: ${describeRole(role)} (${voter}) Term:${term} Lead:${leader}`);
    }
  }

  #printLog(id: number): void {
    const { stable } = this.#node(id);
    const [first, last] = [stable.firstIndex(), stable.lastIndex()];
    if (last < first) this.#print(`log is empty: first index=${first}, last index=${last}`);
    else this.#print(...describeEntries(stable.entries(first, last + 1, Number.MAX_SAFE_INTEGER)));
  }
}

function valueOf(args: readonly ScriptArgument[], key: string): string | undefined {
  return args.find((arg) => arg.key === key)?.values[0];
}
