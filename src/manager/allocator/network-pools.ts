/**
 * Address pools of the networks a plan gives addresses on, derived from the tasks and nodes that hold some.
 *
 * Invariant: what a task holds it holds until it has ended; a node's gateway is held while the node shows it.
 */
import type { Network, Task } from '../../model/objects.ts';
import { isTerminalState } from '../../model/task-state.ts';
import type { StateView } from '../state/view.ts';
import { AddressPool } from './address-pool.ts';
import { parseAttachmentAddress, parseBlock } from './ipv4.ts';

/** A pool and how its addresses are written. */
export interface NetworkPool {
  readonly pool: AddressPool;
  readonly prefixLength: number;
}

/** The pools of `ids` by network id. A network without a usable subnet has none. */
export function buildPools(
  view: StateView,
  networks: ReadonlyMap<string, Network>,
  ids: ReadonlySet<string>,
): ReadonlyMap<string, NetworkPool> {
  const pools = new Map<string, NetworkPool>();
  for (const id of ids) {
    const block = parseBlock(networks.get(id)?.subnet ?? '');
    if (!block.ok) continue;
    pools.set(id, { pool: new AddressPool(block.value), prefixLength: block.value.prefixLength });
  }
  if (pools.size === 0) return pools;
  for (const task of view.all('task')) if (task.networks.length > 0) addTask(pools, task);
  for (const node of view.all('node')) {
    for (const { networkId, address } of node.attachments) {
      const number = parseAttachmentAddress(address);
      if (number !== null) pools.get(networkId)?.pool.hold(number, null);
    }
  }
  return pools;
}

function addTask(pools: ReadonlyMap<string, NetworkPool>, task: Task): void {
  for (const { networkId, address } of task.networks) {
    const pool = pools.get(networkId)?.pool;
    if (pool === undefined) continue;
    const number = parseAttachmentAddress(address);
    if (number === null) continue;
    if (isTerminalState(task.status.state)) pool.noteFreed(number, task.meta.createdAt, task.status.at);
    else pool.hold(number, task.meta.createdAt);
  }
}
