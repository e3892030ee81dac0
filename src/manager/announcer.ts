/**
 * How a manager that returned with another address tells the others.
 *
 * Data owned: the timer. The others cannot send to it before they know where it is, so it calls each of them until
 * its own copy of the state has the new address: the leader writes it there (and from there into the consensus
 * group), and one that is not the leader notes it for its own messages, so that a leader can be elected even when
 * several managers moved at once.
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
/** Between two looks at whether the state has the own address, milliseconds. */
const LOOK_MS = 500;
/** Time for one manager to answer, milliseconds. */
const ANSWER_MS = 3_000;

export interface AnnouncerDependencies {
  readonly clock: Clock;
  readonly log: Logger;
  readonly self: RaftMember;
  readonly view: StateView;
  members(): readonly RaftMember[];
  /** Takes the announcement here, as another manager would. */
  here(signal: AbortSignal): Promise<void>;
  connect(member: RaftMember, signal: AbortSignal): Promise<RpcConnection>;
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
    const { view, self, log, members } = this.#dependencies;
    const recorded = view.get('node', self.nodeId)?.manager;
    if (recorded?.raftId !== self.id || recorded.address === self.address) return;
    if (!this.#told)
      log.info('telling the managers the new address', { from: recorded.address, to: self.address });
    this.#told = true;
    const others = members().filter((member) => member.id !== self.id);
    await Promise.all([
      this.#quietly('itself', (signal) => this.#dependencies.here(signal)),
      ...others.map((member) => this.#tell(member)),
    ]);
  }

  async #tell(member: RaftMember): Promise<void> {
    const { self, connect } = this.#dependencies;
    await this.#quietly(member.address, async (signal) => {
      const connection = await connect(member, signal);
      await connection.call(ANNOUNCE_METHOD, { address: self.address }, { signal });
    });
  }

  async #quietly(to: string, run: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const { clock, log } = this.#dependencies;
    const attempt = new AbortController();
    const end = (): void => attempt.abort(this.#abort.signal.reason);
    const timer = clock.setTimer(ANSWER_MS, () => attempt.abort(new SwarmdError('TIMEOUT', 'no answer')));
    this.#abort.signal.addEventListener('abort', end, { once: true });
    try {
      await run(attempt.signal);
    } catch (error) {
      log.debug('a manager was not told the new address', { to, error: errorMessage(error) });
    } finally {
      timer.cancel();
      this.#abort.signal.removeEventListener('abort', end);
    }
  }
}

/** What taking an announcement needs. */
export interface AnnouncementContext extends ApiContext {
  raftStatus(): RaftStatus;
  noteAddress(raftId: number, address: string): void;
}

/**
 * Takes the announcement of the manager `nodeId`: noted here, and written into the state when this manager leads.
 * INVALID_ARGUMENT for what is no address, FAILED_PRECONDITION for a node that is no member of the group.
 */
export async function takeAnnouncement(
  context: AnnouncementContext,
  nodeId: string,
  params: unknown,
  signal: AbortSignal,
): Promise<null> {
  const { address } = (params ?? {}) as { readonly address?: unknown };
  const parsed = parseAddress(typeof address === 'string' ? address : '');
  if (typeof address !== 'string' || !parsed.ok || parsed.value.port === 0)
    throw new SwarmdError('INVALID_ARGUMENT', 'the announced address is not host:port');
  const { members, role } = context.raftStatus();
  const member = members.find((one) => one.nodeId === nodeId);
  if (member === undefined) {
    throw new SwarmdError(
      'FAILED_PRECONDITION',
      `node ${nodeId} is not a member of the group of managers; let it leave and join again`,
    );
  }
  context.noteAddress(member.id, address);
  if (role !== 'leader') return null;
  const build = () => {
    const node = context.view.get('node', nodeId);
    if (node?.manager?.raftId !== member.id || node.manager.address === address) return [];
    const object = { ...node, manager: { ...node.manager, address } };
    return [{ kind: 'update', table: 'node', object, expect: node.meta.version } as const];
  };
  await commitLatest(context, build, signal);
  return null;
}
