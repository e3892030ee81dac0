/**
 * How a manager that returned with another address tells the others.
 *
 * Data owned: the timer. The others cannot send to it before they know where it is, so it calls each of them until
 * its own copies of the state and of the list of the consensus group have the new address: the leader writes it into
 * the state (and from there into the group), and one that is not the leader notes it for its own messages and passes
 * it on. So a leader can be elected even when several managers moved at once, as long as one that did not is up.
 * Invariant: a manager announces its own address only; whose it is, its certificate says.
 */
import type { Clock, Timer } from '../base/clock.ts';
import { errorMessage, SwarmdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { RaftMember, RaftStatus } from '../raft/types.ts';
import { parseAddress } from '../rpc/address.ts';
import type { RpcConnection } from '../rpc/types.ts';
import { type ApiContext, commitLatest } from './api/commit.ts';
import type { StateView } from './state/view.ts';

/** Method by which a manager tells its address. */
export const ANNOUNCE_METHOD = 'manager.announce';
/** The same, passed to the leader by the manager that was told. */
export const ANNOUNCE_FORWARDED_METHOD = 'manager.announce.forwarded';
/** Between two looks at whether the state has the own address, milliseconds. */
const LOOK_MS = 500;
/** Time for one manager to answer, milliseconds. */
const ANSWER_MS = 3_000;

export interface AnnouncerDependencies {
  readonly clock: Clock;
  readonly log: Logger;
  readonly self: RaftMember;
  readonly view: StateView;
  /** Where the members are, as far as this one knows. */
  members(): readonly RaftMember[];
  /** Where the consensus group says they are. */
  listed(): readonly RaftMember[];
  /** Whether this member hears a leader. */
  hasLeader(): boolean;
  /** A member may be elsewhere than this one knew. */
  note(raftId: number, address: string): void;
  /** Takes the announcement here, as another manager would. */
  here(signal: AbortSignal): Promise<unknown>;
  connect(member: RaftMember, signal: AbortSignal): Promise<RpcConnection>;
}

/** What a manager answers: where it reaches the others. */
interface AnnounceAnswer {
  readonly members: readonly { readonly id: number; readonly address: string }[];
}

/** Announces the address of this manager for as long as the state has another one. */
export class Announcer {
  readonly #dependencies: AnnouncerDependencies;
  readonly #abort = new AbortController();
  #timer: Timer | null = null;
  #round: Promise<void> | null = null;
  #told = false;

  constructor(dependencies: AnnouncerDependencies) {
    this.#dependencies = dependencies;
    this.#arm();
  }

  async stop(): Promise<void> {
    this.#abort.abort(new SwarmdError('CANCELLED', 'the manager is stopping'));
    this.#timer?.cancel();
    await this.#round;
  }

  #arm(): void {
    this.#timer = this.#dependencies.clock.setTimer(LOOK_MS, () => {
      this.#round = this.#look().finally(() => {
        this.#round = null;
        if (!this.#abort.signal.aborted) this.#arm();
      });
    });
  }

  /** Never rejects: who could not be told is told again. */
  async #look(): Promise<void> {
    const { view, self, log, members, listed, hasLeader, note, here } = this.#dependencies;
    const recorded = view.get('node', self.nodeId)?.manager;
    if (recorded?.raftId === self.id) {
      // The group follows the state; until it does, a member that restarts knows the old address again.
      const inGroup = listed().find(({ id }) => id === self.id)?.address ?? self.address;
      if (recorded.address === self.address && inGroup === self.address) return;
      if (!this.#told)
        log.info('telling the managers the new address', { from: recorded.address, to: self.address });
      this.#told = true;
    } else if (hasLeader()) {
      // A new member: its copy of the state is too old to know of it. Only who hears no leader may have moved.
      return;
    }
    const others = members().filter((member) => member.id !== self.id);
    const [, ...answers] = await Promise.all([
      this.#quietly(self.address, here),
      ...others.map((member) => this.#tell(member)),
    ]);
    // One that moved at the same time is where somebody says it is who heard of it.
    for (const [i, member] of others.entries()) {
      if (answers[i] !== null) continue;
      for (const answer of answers) {
        const said = answer?.members.find(({ id }) => id === member.id);
        if (said !== undefined && said.address !== member.address) note(member.id, said.address);
      }
    }
  }

  #tell(member: RaftMember): Promise<AnnounceAnswer | null> {
    const { self, connect } = this.#dependencies;
    return this.#quietly(member.address, async (signal) => {
      const connection = await connect(member, signal);
      const answer = await connection.call(ANNOUNCE_METHOD, { address: self.address }, { signal });
      return answer as AnnounceAnswer;
    });
  }

  /** What `run` gives, or null when it fails or takes too long. */
  async #quietly<T>(to: string, run: (signal: AbortSignal) => Promise<T>): Promise<T | null> {
    const { clock, log } = this.#dependencies;
    const attempt = new AbortController();
    const end = (): void => attempt.abort(this.#abort.signal.reason);
    const timer = clock.setTimer(ANSWER_MS, () => attempt.abort(new SwarmdError('TIMEOUT', 'no answer')));
    this.#abort.signal.addEventListener('abort', end, { once: true });
    try {
      return await run(attempt.signal);
    } catch (error) {
      log.debug('a manager was not told the new address', { to, error: errorMessage(error) });
      return null;
    } finally {
      timer.cancel();
      this.#abort.signal.removeEventListener('abort', end);
    }
  }
}

/** What taking an announcement needs. */
export interface AnnouncementContext extends ApiContext {
  raftStatus(): RaftStatus;
  reach(): readonly RaftMember[];
  noteAddress(raftId: number, address: string): void;
  /** Passes it to the leader, unless that is this manager or there is none. */
  tellLeader(announcement: Announcement, signal: AbortSignal): Promise<void>;
}

/** Where a manager is. */
export interface Announcement {
  readonly nodeId: string;
  readonly address: string;
}

/** Reads an announcement. INVALID_ARGUMENT for what is no address. */
export function parseAnnouncement(nodeId: unknown, params: unknown): Announcement {
  const { address } = (params ?? {}) as { readonly address?: unknown };
  if (typeof nodeId !== 'string' || typeof address !== 'string' || !parseAddress(address).ok)
    throw new SwarmdError('INVALID_ARGUMENT', 'the announcement names no node or no host:port');
  return { nodeId, address };
}

/**
 * Takes the announcement of a manager: noted here, and written into the state by the leader. FAILED_PRECONDITION for
 * a node that is no member of the group.
 */
export async function takeAnnouncement(
  context: AnnouncementContext,
  announcement: Announcement,
  signal: AbortSignal,
): Promise<AnnounceAnswer> {
  const { nodeId, address } = announcement;
  const { members, role } = context.raftStatus();
  const member = members.find((one) => one.nodeId === nodeId);
  if (member === undefined) {
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      `node ${nodeId} is not a member of the group of managers; let it leave and join again`,
    );
  }
  if (member.address !== address) context.noteAddress(member.id, address);
  if (role === 'leader') await record(context, announcement, member.id, signal);
  else await context.tellLeader(announcement, signal);
  return { members: context.reach().map(({ id, address: where }) => ({ id, address: where })) };
}

/** Writes where a manager is into the state; the upkeep of the group takes it from there. */
async function record(
  context: AnnouncementContext,
  { nodeId, address }: Announcement,
  raftId: number,
  signal: AbortSignal,
): Promise<void> {
  const build = () => {
    const node = context.view.get('node', nodeId);
    if (node?.manager?.raftId !== raftId || node.manager.address === address) return [];
    const object = { ...node, manager: { ...node.manager, address } };
    return [{ kind: 'update', table: 'node', object, expect: node.meta.version } as const];
  };
  await commitLatest(context, build, signal);
}
