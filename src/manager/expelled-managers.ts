/**
 * The state's side of a group that was forced to go on without members: their nodes are managers no more.
 *
 * The leader does this whenever the group says that members were expelled, so that a crash between the two leaves
 * nothing half done. Services, tasks, networks and join secrets stay as they are.
 */
import type { ClusterNode } from '../model/objects.ts';
import { type ApiContext, commitLatest } from './api/commit.ts';
import type { Action } from './state/actions.ts';
import type { StateView } from './state/view.ts';

const LEFT_BEHIND = 'lost: the cluster was forced to go on without this manager';

/** What makes workers that are down of the managers among `expelled` member ids. */
export function retirements(view: StateView, expelled: readonly number[], nowMs: number): Action[] {
  const actions: Action[] = [];
  for (const node of view.all('node')) {
    if (node.manager === undefined || !expelled.includes(node.manager.raftId)) continue;
    const { manager: _lost, ...rest } = node;
    const object: ClusterNode = {
      ...rest,
      spec: { ...node.spec, role: 'worker' },
      status: { state: 'down', since: nowMs, message: LEFT_BEHIND, address: node.status.address },
    };
    actions.push({ kind: 'update', table: 'node', object, expect: node.meta.version });
  }
  return actions;
}

/** Commits what {@link retirements} says, in one batch. */
export async function retireExpelled(
  context: ApiContext,
  expelled: readonly number[],
  signal: AbortSignal,
): Promise<void> {
  if (expelled.length === 0) return;
  await commitLatest(context, () => retirements(context.view, expelled, context.nowMs()), signal);
}
