/** Answers about placement: why a task is where it is, and what a change would do. Plain data of the API. */
import type { TaskState } from './task-state.ts';

/** A filter of the scheduler that a node does not pass. */
export interface NodeRefusal {
  readonly filter: string;
  readonly reason: string;
  /** What would make the node pass. */
  readonly help: string;
}

/** How one node stands to the next task of a service. */
export interface NodeExplanation {
  readonly nodeId: string;
  readonly hostname: string;
  /** Empty when the node could take the task; in the order the scheduler asks, the first one decides. */
  readonly refusals: readonly NodeRefusal[];
  /** Place in the scheduler's order, 1 first; null for a node that cannot take it. */
  readonly rank: number | null;
  /** Wanted tasks of the service there, and of all services. */
  readonly serviceTasks: number;
  readonly allTasks: number;
  /** Failures of this version of the service there within the last 5 minutes. */
  readonly failures: number;
  /** Whether they are so many that the node is used last. */
  readonly avoided: boolean;
  /** The node's branch of each placement preference, outermost first. */
  readonly branches: readonly {
    readonly key: string;
    readonly value: string;
    readonly serviceTasks: number;
  }[];
}

/** Why one task is in its state and at its place. */
export interface TaskExplanation {
  readonly taskId: string;
  readonly name: string;
  readonly nodeId: string;
  readonly hostname: string;
  readonly state: TaskState;
  readonly reason: string;
  /** What would help; empty when nothing is wrong. */
  readonly help: readonly string[];
}

/** `service explain`: the live tasks, and how every node stands to one more. */
export interface ServiceExplanation {
  readonly service: string;
  readonly mode: string;
  readonly tasks: readonly TaskExplanation[];
  readonly nodes: readonly NodeExplanation[];
}

/** `task explain`: the nodes as they would stand to this task if it had no place yet. */
export interface TaskPlacementExplanation {
  readonly task: TaskExplanation;
  readonly nodes: readonly NodeExplanation[];
}

/** A task whose place would change. Empty hostnames: none. */
export interface ForecastMove {
  readonly kind: 'create' | 'replace' | 'move' | 'remove' | 'pending';
  readonly service: string;
  /** `web.2`, or `web.HOST` for a global service. */
  readonly name: string;
  readonly from: string;
  readonly to: string;
  /** Why it would stay pending. */
  readonly reason: string;
}

/** A service that would run fewer tasks than it should. */
export interface ForecastShortage {
  readonly service: string;
  readonly wanted: number;
  readonly running: number;
}

/** What a change would do, by the planners that would do it. Tasks are taken to start and run without failure. */
export interface Forecast {
  readonly moves: readonly ForecastMove[];
  readonly shortages: readonly ForecastShortage[];
  /** False when the planners were not done within the bound: what is listed holds, more would follow. */
  readonly settled: boolean;
  /** Managers that vote, those that would be left, and those needed; null when no manager is lost. */
  readonly quorum: {
    readonly managers: number;
    readonly left: number;
    readonly needed: number;
    readonly lost: boolean;
  } | null;
}
