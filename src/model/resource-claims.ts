/**
 * What a node has left, and what a task takes of it.
 *
 * Invariant: a claim is taken and given back with the same numbers, so amounts return exactly; amounts may be
 * negative only where a node shrank below what already runs on it.
 */
import type { ClusterNode, Task } from './objects.ts';

/** Amounts left on a node. Mutable: planners keep one per node while they plan. */
export interface AvailableResources {
  nanoCpus: number;
  memoryBytes: number;
  readonly generic: Map<string, number>;
}

/** What one task takes of its node. */
export interface ResourceClaim {
  readonly nanoCpus: number;
  readonly memoryBytes: number;
  readonly generic: readonly (readonly [kind: string, count: number])[];
}

const NO_CLAIM: ResourceClaim = { nanoCpus: 0, memoryBytes: 0, generic: [] };

/** Everything a node offers, before any task. */
export function offeredResources(node: ClusterNode): AvailableResources {
  const { nanoCpus, memoryBytes, generic } = node.description.resources;
  return { nanoCpus, memoryBytes, generic: new Map(Object.entries(generic)) };
}

/** What the task reserves: its spec's reservations, and the generic resources it was given once assigned. */
export function resourceClaim(task: Task): ResourceClaim {
  const reservations = task.spec.resources.reservations;
  if (reservations === undefined && task.genericResources === undefined) return NO_CLAIM;
  return {
    nanoCpus: reservations?.nanoCpus ?? 0,
    memoryBytes: reservations?.memoryBytes ?? 0,
    generic: Object.entries(task.genericResources ?? reservations?.generic ?? {}),
  };
}

/** Whether the claim asks for anything. */
export function isEmptyClaim(claim: ResourceClaim): boolean {
  return claim.nanoCpus === 0 && claim.memoryBytes === 0 && claim.generic.length === 0;
}

/** Whether the claim fits into what is left. */
export function claimFits(available: AvailableResources, claim: ResourceClaim): boolean {
  if (claim.nanoCpus > 0 && claim.nanoCpus > available.nanoCpus) return false;
  if (claim.memoryBytes > 0 && claim.memoryBytes > available.memoryBytes) return false;
  return claim.generic.every(([kind, count]) => count <= (available.generic.get(kind) ?? 0));
}

/** Takes the claim out of what is left. */
export function takeClaim(available: AvailableResources, claim: ResourceClaim): void {
  available.nanoCpus -= claim.nanoCpus;
  available.memoryBytes -= claim.memoryBytes;
  for (const [kind, count] of claim.generic) {
    available.generic.set(kind, (available.generic.get(kind) ?? 0) - count);
  }
}
