/**
 * What only the leader runs: the control loop, the dispatcher, and the upkeep of the consensus group.
 *
 * Data owned: one of each for this term. Invariant: built after the leader has applied everything committed before
 * its term, and stopped when leadership ends; nothing here survives a term, everything comes back from the state.
 */
import type { Clock, Timer } from '../base/clock.ts';
import { errorMessage } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { RaftMember, RaftStatus } from '../raft/types.ts';
import { planAllocation, planAttachments } from './allocator/allocator.ts';
import { ControlLoop, type NamedPlanner } from './control-loop.ts';
import { DispatcherServer } from './dispatcher/server.ts';
import { planEnforcement } from './orchestrator/constraint-enforcer.ts';
import { planGlobal } from './orchestrator/global.ts';
import { planJobs } from './orchestrator/jobs.ts';
import { planReaping } from './orchestrator/reaper.ts';
import { planReplicated } from './orchestrator/replicated.ts';
import { planDelayedStarts } from './orchestrator/restart.ts';
import { planScheduling } from './scheduler/scheduler.ts';
import { planUpdates } from './update/updates.ts';
import type { Proposer } from './state/actions.ts';
import type { StoreStateMachine } from './state-machine.ts';

/** Every planner, in the order of a turn: what exists, what should, where it goes, what it is given there. */
const planners: readonly NamedPlanner[] = [
  { name: 'reaper', plan: planReaping },
  { name: 'enforcer', plan: planEnforcement },
  { name: 'replicated', plan: planReplicated },
  { name: 'global', plan: planGlobal },
  { name: 'jobs', plan: planJobs },
  { name: 'updates', plan: planUpdates },
  { name: 'delayed-starts', plan: planDelayedStarts },
  { name: 'allocator', plan: planAllocation },
  { name: 'scheduler', plan: planScheduling },
  // A task placed just now needs its node attached to its networks before it can be sent there.
  { name: 'attachments', plan: planAttachments },
];

/** The part of the consensus driver the leader works on. */
export interface ConsensusGroup {
  status(): RaftStatus;
  addMember(member: RaftMember, signal: AbortSignal): Promise<void>;
}

export interface LeadershipDependencies {
  readonly stateMachine: StoreStateMachine;
  readonly proposer: Proposer;
  readonly group: ConsensusGroup;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Wait before a manager that could not be added is tried again, milliseconds. */
const MEMBERSHIP_RETRY_MS = 1_000;

/** One term of leadership. */
export class Leadership {
  readonly dispatcher: DispatcherServer;
  readonly #dependencies: LeadershipDependencies;
  readonly #loop: ControlLoop;
  readonly #abort = new AbortController();
  readonly #unsubscribe: () => void;
  #adding: Promise<void> | null = null;
  #retry: Timer | null = null;

  constructor(dependencies: LeadershipDependencies) {
    const { stateMachine, clock } = dependencies;
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
    dependencies.log.info('leading', { at: clock.nowMs() });
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
    if (this.#adding !== null || this.#abort.signal.aborted) return;
    this.#adding = this.#addMissing()
      .catch((error: unknown) => {
        if (this.#abort.signal.aborted) return;
        const { log, clock } = this.#dependencies;
        log.warn('a manager could not be added to the consensus group', { error: errorMessage(error) });
        this.#retry = clock.setTimer(MEMBERSHIP_RETRY_MS, () => this.#addManagers());
      })
      .finally(() => {
        this.#adding = null;
      });
  }

  async #addMissing(): Promise<void> {
    const { group, stateMachine, log } = this.#dependencies;
    for (;;) {
      const known = new Set(
        group
          .status()
          .members.filter((member) => member.voter)
          .map((member) => member.id),
      );
      const missing = [...stateMachine.store.all('node')].find(
        (node) => node.manager !== undefined && !known.has(node.manager.raftId),
      );
      if (missing?.manager === undefined) return;
      const { raftId, address } = missing.manager;
      log.info('adding a manager to the consensus group', { node: missing.id, address });
      await group.addMember({ id: raftId, nodeId: missing.id, address, voter: true }, this.#abort.signal);
    }
  }
}
