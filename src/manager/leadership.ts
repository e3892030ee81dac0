/**
 * What only the leader runs: the control loop, the dispatcher, and the upkeep of the consensus group.
 *
 * Data owned: one of each for this term. Invariant: built after the leader has applied everything committed before
 * its term, and stopped when leadership ends; nothing here survives a term, everything comes back from the state.
 */
import type { Clock, Timer } from '../base/clock.ts';
import { errorMessage, SwarmdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { RaftMember, RaftStatus } from '../raft/types.ts';
import { finishDemotion, keepAsManager } from './api/roles.ts';
import { retireExpelled } from './expelled-managers.ts';
import { ControlLoop } from './control-loop.ts';
import { DispatcherServer } from './dispatcher/server.ts';
import { planners } from './forecast/planner-chain.ts';
import type { Proposer } from './state/actions.ts';
import type { StoreStateMachine } from './state-machine.ts';

/** The part of the consensus driver the leader works on. */
export interface ConsensusGroup {
  status(): RaftStatus;
  addMember(member: RaftMember, signal: AbortSignal): Promise<void>;
  removeMember(id: number, signal: AbortSignal): Promise<void>;
  /** Resolves once another voter leads. */
  transferLeadership(to: number | null, signal: AbortSignal): Promise<void>;
}

export interface LeadershipDependencies {
  readonly stateMachine: StoreStateMachine;
  readonly proposer: Proposer;
  readonly group: ConsensusGroup;
  /** Whether a member is being removed on purpose. */
  isLeaving(raftId: number): boolean;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Wait before a manager that could not be added is tried again, milliseconds. */
const MEMBERSHIP_RETRY_MS = 1_000;
/** Time for one manager to come up and catch up before the next one gets its turn, milliseconds. */
const MEMBERSHIP_ATTEMPT_MS = 10_000;

/** One term of leadership. */
export class Leadership {
  readonly dispatcher: DispatcherServer;
  /** The term of the log it belongs to. */
  readonly term: number;
  readonly #dependencies: LeadershipDependencies;
  readonly #loop: ControlLoop;
  readonly #abort = new AbortController();
  readonly #unsubscribe: () => void;
  #adding: Promise<void> | null = null;
  /** The state changed while managers were being added. */
  #addAgain = false;
  #retry: Timer | null = null;

  constructor(term: number, dependencies: LeadershipDependencies) {
    this.term = term;
    const { stateMachine } = dependencies;
    const { store } = stateMachine;
    this.#dependencies = dependencies;
    this.dispatcher = new DispatcherServer({ ...dependencies, store });
    this.#loop = new ControlLoop({ ...dependencies, store, planners });
    this.#unsubscribe = stateMachine.subscribe((changes) => {
      // A leader never takes a snapshot from another; were it to, its term is over.
      if (changes !== null) this.dispatcher.changed(changes);
      this.#loop.wake();
      if (changes?.some((change) => change.table === 'node') === true) this.#addManagers();
    });
    this.#loop.start();
    this.#addManagers();
    dependencies.log.info('leading', { term });
  }

  /** Aborts when this term of leadership is over. */
  get ended(): AbortSignal {
    return this.#abort.signal;
  }

  async stop(): Promise<void> {
    this.#abort.abort(new Error('no longer the leader'));
    this.#retry?.cancel();
    this.#unsubscribe();
    await this.#loop.stop();
    await this.dispatcher.stop();
    await this.#adding;
  }

  /** Brings every manager that the state knows into the consensus group, one at a time. */
  #addManagers(): void {
    if (this.#abort.signal.aborted) return;
    if (this.#adding !== null) {
      this.#addAgain = true;
      return;
    }
    this.#retry?.cancel();
    this.#retry = null;
    this.#adding = this.#addMissing().finally(() => {
      this.#adding = null;
      if (!this.#addAgain) return;
      this.#addAgain = false;
      this.#addManagers();
    });
  }

  /** Never rejects. One that does not come up holds up the others for one attempt at most. */
  async #addMissing(): Promise<void> {
    const { log, clock } = this.#dependencies;
    const tried = new Set<number>();
    await this.#retireExpelled();
    for (;;) {
      const missing = this.#missing();
      const next = missing.find((member) => !tried.has(member.id));
      if (this.#abort.signal.aborted) return;
      if (next === undefined) {
        const isDone = await this.#finishDemotions();
        if (this.#abort.signal.aborted) return;
        if (missing.length > 0 || !isDone)
          this.#retry = clock.setTimer(MEMBERSHIP_RETRY_MS, () => this.#addManagers());
        return;
      }
      tried.add(next.id);
      const { nodeId: node, address } = next;
      try {
        log.info('adding a manager to the consensus group', { node, address });
        await this.#add(next);
      } catch (error) {
        if (this.#abort.signal.aborted) return;
        log.warn('a manager could not be added to the consensus group', {
          node,
          address,
          error: errorMessage(error),
        });
      }
    }
  }

  async #retireExpelled(): Promise<void> {
    const { group, stateMachine, proposer, random, clock, log } = this.#dependencies;
    const context = { view: stateMachine.store, proposer, random, nowMs: () => clock.nowMs() };
    try {
      await retireExpelled(context, group.status().expelled, this.#abort.signal);
    } catch (error) {
      // Adding one of them is refused, and then this is tried again.
      if (!this.#abort.signal.aborted)
        log.warn('managers that were left behind are still listed', { error: errorMessage(error) });
    }
  }

  /**
   * A leader that went in the midst of a demotion left a manager whose spec says worker. False when some of that is
   * still to be done.
   */
  async #finishDemotions(): Promise<boolean> {
    const { group, stateMachine, proposer, random, clock, log, isLeaving } = this.#dependencies;
    const { store } = stateMachine;
    let isDone = true;
    for (const node of [...store.all('node')]) {
      if (node.manager === undefined || node.spec.role === 'manager') continue;
      if (isLeaving(node.manager.raftId)) {
        // Somebody is at it, and may fail.
        isDone = false;
        continue;
      }
      const context = {
        view: store,
        proposer,
        random,
        nowMs: () => clock.nowMs(),
        removeMember: (id: number, signal: AbortSignal) => group.removeMember(id, signal),
        exclusively: <T>(run: () => Promise<T>) => run(),
      };
      try {
        // A leader is demoted by its successor.
        if (node.manager.raftId === group.status().memberId) {
          // The others were lost in the midst of it: the cluster goes on with this manager, so it stays one.
          if (!(await this.#handOver())) await keepAsManager(context, node.id, this.#abort.signal);
        } else await finishDemotion(context, node.id, this.#abort.signal);
      } catch (error) {
        if (this.#abort.signal.aborted) return false;
        isDone = false;
        log.warn('a demotion could not be finished', { node: node.id, error: errorMessage(error) });
      }
    }
    return isDone;
  }

  /** Gives up leadership; false where there is nobody to take it. */
  async #handOver(): Promise<boolean> {
    const { group } = this.#dependencies;
    const { members, memberId } = group.status();
    if (!members.some(({ id, voter }) => voter && id !== memberId)) return false;
    await group.transferLeadership(null, this.#abort.signal);
    return true;
  }

  async #add(member: RaftMember): Promise<void> {
    const { group, clock } = this.#dependencies;
    const attempt = new AbortController();
    const end = (): void => attempt.abort(this.#abort.signal.reason);
    const timer = clock.setTimer(MEMBERSHIP_ATTEMPT_MS, () => {
      attempt.abort(new SwarmdError('TIMEOUT', `it did not catch up within ${MEMBERSHIP_ATTEMPT_MS} ms`));
    });
    this.#abort.signal.addEventListener('abort', end, { once: true });
    try {
      await group.addMember(member, attempt.signal);
    } finally {
      timer.cancel();
      this.#abort.signal.removeEventListener('abort', end);
    }
  }

  /** Managers of the state that have no vote yet, or another address than the group knows. */
  #missing(): RaftMember[] {
    const { group, stateMachine, isLeaving } = this.#dependencies;
    const voters = new Map<number, string>();
    for (const { id, address, voter } of group.status().members) if (voter) voters.set(id, address);
    const missing: RaftMember[] = [];
    for (const { id, manager, spec } of stateMachine.store.all('node')) {
      if (
        manager === undefined ||
        spec.role === 'worker' ||
        voters.get(manager.raftId) === manager.address ||
        isLeaving(manager.raftId)
      )
        continue;
      missing.push({ id: manager.raftId, nodeId: id, address: manager.address, voter: true });
    }
    return missing;
  }
}
