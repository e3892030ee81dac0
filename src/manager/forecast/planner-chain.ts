/** PURE: every planner, in the order of a turn. The control loop and forecasts run this same chain. */
import { planAllocation, planAttachments } from '../allocator/allocator.ts';
import { planEnforcement } from '../orchestrator/constraint-enforcer.ts';
import { planGlobal } from '../orchestrator/global.ts';
import { planJobs } from '../orchestrator/jobs.ts';
import { planReaping } from '../orchestrator/reaper.ts';
import { planRebalancing } from '../orchestrator/rebalance.ts';
import { planReplicated } from '../orchestrator/replicated.ts';
import { planDelayedStarts } from '../orchestrator/restart.ts';
import { planScheduling } from '../scheduler/scheduler.ts';
import type { Planner } from '../state/planner.ts';
import { planUpdates } from '../update/updates.ts';

export interface NamedPlanner {
  readonly name: string;
  readonly plan: Planner;
}

/** Every planner, in the order of a turn: what exists, what should, where it goes, what it is given there. */
export const planners: readonly NamedPlanner[] = [
  { name: 'reaper', plan: planReaping },
  { name: 'enforcer', plan: planEnforcement },
  // Before those that would replace a moved task that failed beside one that still runs.
  { name: 'rebalance', plan: planRebalancing },
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
