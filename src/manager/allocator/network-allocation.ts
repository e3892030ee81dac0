/**
 * Subnets and VXLAN identifiers of overlay networks.
 *
 * Invariants: subnets of two networks never overlap; an allocation never changes; a network that cannot be
 * allocated keeps its reason (for the tasks that wait for it) and is tried again at every plan.
 */
import { defaultClusterSpec } from '../../model/defaults.ts';
import type { Network } from '../../model/objects.ts';
import type { Action } from '../state/actions.ts';
import type { StateView } from '../state/view.ts';
import { blocksOverlap, formatBlock, lowestFreeBlock, parseBlock, type Ipv4Block } from './ipv4.ts';
import { ok, refuse, type Result } from '../../base/result.ts';

/** First and last VXLAN network identifier given. */
export const VNI_FIRST = 4096;
export const VNI_LAST = 2 ** 24 - 1;

/** Longest prefix a network's subnet may have: 6 usable addresses. */
export const SUBNET_PREFIX_MAX = 29;

/** Every overlay network after this plan: with its subnet, or with why it has none. */
export interface NetworkPlan {
  readonly actions: readonly Action[];
  readonly networks: ReadonlyMap<string, Network>;
  /** Network id -> why it has no subnet. */
  readonly reasons: ReadonlyMap<string, string>;
  /** The ingress network, allocated or not. */
  readonly ingress: Network | null;
}

interface Draft {
  readonly actions: Action[];
  readonly networks: Map<string, Network>;
  readonly reasons: Map<string, string>;
  readonly used: { readonly block: Ipv4Block; readonly name: string }[];
  readonly usedVnis: Set<number>;
}

/** Whether the network's addresses are given by the managers. */
export function isManaged(network: Network): boolean {
  return network.spec.driver === 'overlay';
}

/** Whether the network has what nodes need to build it. */
export function isAllocated(network: Network): boolean {
  return network.subnet !== '' && network.vni !== 0;
}

/** Gives a subnet and a VNI to every overlay network without: explicit subnets, then ingress, then the rest. */
export function planNetworks(view: StateView): NetworkPlan {
  const draft: Draft = {
    actions: [],
    networks: new Map(),
    reasons: new Map(),
    used: [],
    usedVnis: new Set(),
  };
  const waiting: Network[] = [];
  let ingress: Network | null = null;
  for (const network of view.all('network')) {
    draft.networks.set(network.id, network);
    if (!isManaged(network)) continue;
    if (network.spec.ingress) ingress ??= network;
    if (network.vni !== 0) draft.usedVnis.add(network.vni);
    const block = network.subnet === '' ? null : parseBlock(network.subnet);
    if (block?.ok === true) draft.used.push({ block: block.value, name: network.spec.name });
    if (!isAllocated(network)) waiting.push(network);
  }
  const rank = (network: Network): number =>
    network.spec.subnet !== undefined ? 0 : network.spec.ingress ? 1 : 2;
  for (const network of waiting.toSorted((a, b) => rank(a) - rank(b))) allocate(view, network, draft);
  const planned = ingress === null ? null : (draft.networks.get(ingress.id) ?? null);
  return { actions: draft.actions, networks: draft.networks, reasons: draft.reasons, ingress: planned };
}

function allocate(view: StateView, network: Network, draft: Draft): void {
  const block = chooseBlock(view, network, draft);
  const vni = block.ok ? chooseVni(network, draft) : null;
  if (!block.ok || vni === null) {
    draft.reasons.set(network.id, block.ok ? 'no VXLAN identifier is free' : block.reason);
    return;
  }
  const object: Network = { ...network, subnet: formatBlock(block.value), vni };
  draft.networks.set(network.id, object);
  draft.used.push({ block: block.value, name: network.spec.name });
  draft.usedVnis.add(vni);
  draft.actions.push({ kind: 'update', table: 'network', object, expect: network.meta.version });
}

function chooseBlock(view: StateView, network: Network, draft: Draft): Result<Ipv4Block> {
  if (network.subnet !== '') return parseBlock(network.subnet);
  if (network.spec.subnet !== undefined) return explicitBlock(network.spec.subnet, draft);
  const [cluster] = view.all('cluster');
  const { defaultAddressPool, subnetSize } = cluster?.spec ?? defaultClusterSpec;
  const used = draft.used.map((entry) => entry.block);
  for (const text of defaultAddressPool) {
    const pool = parseBlock(text);
    const free = pool.ok ? lowestFreeBlock(pool.value, subnetSize, used) : null;
    if (free !== null) return ok(free);
  }
  return refuse(
    `no free /${subnetSize} subnet in the address pool ${defaultAddressPool.join(', ')}; remove a network or give one its own subnet`,
  );
}

function explicitBlock(text: string, draft: Draft): Result<Ipv4Block> {
  const block = parseBlock(text);
  if (!block.ok) return block;
  if (block.value.prefixLength > SUBNET_PREFIX_MAX) {
    return refuse(`subnet ${text} is too small; use a prefix of /${SUBNET_PREFIX_MAX} or shorter`);
  }
  const other = draft.used.find((entry) => blocksOverlap(entry.block, block.value));
  if (other === undefined) return block;
  return refuse(`subnet ${text} overlaps ${formatBlock(other.block)} of network ${other.name}`);
}

/** Above every identifier in use, so that a freed one rests; the lowest free one when the top is reached. */
function chooseVni(network: Network, draft: Draft): number | null {
  if (network.vni !== 0) return network.vni;
  let highest = VNI_FIRST - 1;
  for (const vni of draft.usedVnis) highest = Math.max(highest, vni);
  if (highest < VNI_LAST) return highest + 1;
  for (let vni = VNI_FIRST; vni <= VNI_LAST; vni++) if (!draft.usedVnis.has(vni)) return vni;
  return null;
}
