/**
 * PURE: new tasks of a service.
 *
 * Invariant: a new task carries the service's present spec, spec version and endpoint spec.
 */
import { newId, type NodeId, type TaskId } from '../../model/ids.ts';
import type { RestartHistory, Service, Task, TaskUpdateMark } from '../../model/objects.ts';
import type { DesiredState } from '../../model/task-state.ts';
import type { PlanContext } from '../state/planner.ts';

/** What the maker decides; the rest comes from the service. */
export interface TaskWish {
  readonly slot: number;
  /** '' leaves the choice to the scheduler. */
  readonly nodeId: NodeId | '';
  readonly desiredState: DesiredState;
  readonly delayedStart?: NonNullable<Task['delayedStart']>;
  readonly restarts?: RestartHistory;
  readonly update?: TaskUpdateMark;
  /** The task of the slot that this one takes over from. */
  readonly movedFrom?: TaskId;
}

/** A task in state NEW, stamped with the plan's time. */
export function newTask(service: Service, wish: TaskWish, context: PlanContext): Task {
  const { spec } = service;
  return {
    id: newId<TaskId>(context.random),
    meta: { version: 0, createdAt: context.nowMs, updatedAt: context.nowMs },
    serviceId: service.id,
    serviceAnnotations: { name: spec.name, labels: spec.labels },
    spec: spec.task,
    specVersion: service.specVersion,
    endpointSpec: spec.endpoint,
    status: { state: 'new', at: context.nowMs, message: 'created', error: '' },
    networks: [],
    endpointPorts: [],
    ...(service.jobIteration === undefined ? {} : { jobIteration: service.jobIteration }),
    ...wish,
  };
}
