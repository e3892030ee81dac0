/** PURE: what orchestrators ask about a node. */
import { constraintsHold, parseConstraints } from '../../model/constraint.ts';
import type { ClusterNode } from '../../model/objects.ts';
import { platformMatches } from '../../model/platform.ts';
import type { Placement } from '../../model/spec.ts';

/** Whether nothing of the node can be relied on any more: DOWN, or removed. */
export function isLost(node: ClusterNode | undefined): boolean {
  return node === undefined || node.status.state === 'down';
}

/** Whether the node is being emptied. */
export function isDrained(node: ClusterNode | undefined): boolean {
  return node?.spec.availability === 'drain';
}

/** A check of constraints and platforms, prepared once for many nodes. An unreadable constraint fits no node. */
export function placementCheck(placement: Placement): (node: ClusterNode) => boolean {
  const constraints = parseConstraints(placement.constraints);
  return (node) =>
    constraints.ok &&
    constraintsHold(constraints.value, node) &&
    (placement.platforms.length === 0 ||
      placement.platforms.some((wanted) => platformMatches(wanted, node.description.platform)));
}
