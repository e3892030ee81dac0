/**
 * Runs of consensus cores, written down in the NDJSON form that etcd-raft's TLA+ trace specification reads: a random
 * schedule of ticks, messages in any order, proposals, restarts and changes of the group, drawn from one seed.
 */
import { type Random, randomBelow, seededRandom } from '../../src/base/random.ts';
import { encodeConfigChange } from '../../src/raft/core/config-codec.ts';
import type { ConfigChangeStep } from '../../src/raft/core/membership.ts';
import type { TraceEvent } from '../../src/raft/core/trace.ts';
import { EMPTY_BYTES, type Entry, type Message } from '../../src/raft/core/types.ts';
import { bytes, Network, voters } from './network.ts';

/** A line of a trace; the specification also knows how a member was bootstrapped. */
export type TracedEvent = Omit<TraceEvent, 'name'> & { readonly name: TraceEvent['name'] | 'Bootstrap' };

const FIRST_VOTERS = 3;
const NEWCOMER = 4;

function addVoter(id: number): Entry {
  const change = {
    transition: 'auto' as const,
    steps: [{ kind: 'add-voter' as const, id }],
    context: EMPTY_BYTES,
  };
  return { term: 1, index: id, kind: 'config', data: encodeConfigChange(change) };
}

/** How etcd tells of a member that begins with a known group. */
function bootstrapLines(id: number, count: number): TracedEvent[] {
  const nid = String(id);
  const group = Array.from({ length: count }, (_, i) => String(i + 1));
  const line = (name: TracedEvent['name'], term: number, log: number, known: number): TracedEvent => ({
    name,
    nid,
    state: { term, vote: '0', commit: log },
    role: 'StateFollower',
    log,
    conf: [group.slice(0, known), []],
  });
  return [
    line('InitState', 0, 0, 0),
    line('BecomeFollower', 0, 0, 0),
    line('BecomeFollower', 1, 0, 0),
    ...group.map((_, i) => ({
      ...line('ApplyConfChange', 1, count, i),
      prop: { cc: { newconf: group.slice(0, i + 1) } },
    })),
    line('Bootstrap', 1, count, count),
  ];
}

/** A schedule that tells what it does. */
export class TracedRun {
  readonly events: TracedEvent[] = [];
  readonly #network = new Network();
  readonly #random: Random;
  #inFlight: Message[] = [];
  #isListening = false;
  #changes: ConfigChangeStep[] = [
    { kind: 'add-voter', id: NEWCOMER },
    { kind: 'remove', id: 1 },
  ];

  constructor(seed: number) {
    this.#random = seededRandom(seed);
    for (let id = 1; id <= FIRST_VOTERS; id++) this.#bootstrap(id);
  }

  #bootstrap(id: number): void {
    const log = Array.from({ length: FIRST_VOTERS }, (_, i) => addVoter(i + 1));
    this.events.push(...bootstrapLines(id, FIRST_VOTERS));
    this.#isListening = false;
    const group = voters(...log.map(({ index }) => index));
    this.#network.add(id, group, {
      ...this.#options(),
      log,
      hardState: { term: 1, vote: 0, commit: FIRST_VOTERS },
    });
    this.#isListening = true;
    this.#settle(id);
  }

  #options() {
    return {
      electionTicks: 3,
      preVote: false,
      checkQuorum: false,
      shareCommitInElections: false,
      tracer: (event: TraceEvent) => void (this.#isListening && this.events.push(event)),
    };
  }

  /** Goes on until there are `count` events. */
  run(count: number): readonly TracedEvent[] {
    while (this.events.length < count) this.#step();
    return this.events.slice(0, count);
  }

  #step(): void {
    const dice = randomBelow(this.#random, 100);
    if (dice < 60 && this.#inFlight.length > 0) return this.#deliver();
    if (dice < 80) return this.#at(this.#any(), (core) => core.tick());
    const leader = [...this.#network.peers.keys()].find((id) => this.#network.role(id) === 'leader');
    if (dice < 95) {
      if (leader !== undefined) this.#at(leader, (core) => void core.propose([bytes('x')]));
    } else if (dice < 97) {
      if (leader !== undefined) this.#change(leader);
    } else if (dice < 98) {
      this.#restart(this.#any());
    }
  }

  #any(): number {
    const ids = [...this.#network.peers.keys()];
    return ids[randomBelow(this.#random, ids.length)] as number;
  }

  #at(id: number, run: (core: ReturnType<Network['core']>) => void): void {
    run(this.#network.core(id));
    this.#settle(id);
  }

  #deliver(): void {
    const nth = randomBelow(this.#random, this.#inFlight.length);
    const [message] = this.#inFlight.splice(nth, 1) as [Message];
    if (this.#network.peers.has(message.to)) this.#at(message.to, (core) => void core.receive(message));
  }

  #settle(id: number): void {
    const peer = this.#network.peer(id);
    while (peer.core.hasReady()) this.#inFlight.push(...this.#network.handle(peer));
  }

  #change(leader: number): void {
    const [step] = this.#changes;
    if (
      step === undefined ||
      this.#network
        .core(leader)
        .configChangeRefusal({ transition: 'auto', steps: [step], context: EMPTY_BYTES }) !== null
    )
      return;
    this.#changes.shift();
    if (step.kind === 'add-voter') this.#network.add(step.id, voters(), this.#options());
    this.#at(
      leader,
      (core) => void core.proposeConfigChange({ transition: 'auto', steps: [step], context: EMPTY_BYTES }),
    );
  }

  #restart(id: number): void {
    this.#network.restart(id);
    this.#settle(id);
  }
}

/** The trace as the specification's reader wants it: an object a line. */
export function ndjson(events: readonly TracedEvent[]): string {
  return events.map((event) => `${JSON.stringify({ tag: 'trace', event })}\n`).join('');
}
