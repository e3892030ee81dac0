/**
 * The vocabulary of the network plan: what is wanted, what is there, and the steps between the two.
 *
 * Invariant: plain data; addresses are IPv4 text, sizes are bytes.
 */
import type { EngineNetwork, EngineNetworkSpec } from './engine-networks.ts';

/** Facts of the node that the plan depends on. */
export interface OverlaySettings {
  readonly nodeId: string;
  /** Address of this node that the peers send VXLAN packets to. */
  readonly address: string;
  /** Largest packet the path between the nodes carries, bytes. */
  readonly pathMtu: number;
  /** UDP port of the VXLAN. */
  readonly vxlanPort: number;
  /** False on the host-ports rung: bridge networks of the engine only, nothing in the kernel. */
  readonly overlay: boolean;
}

/** Outer IPv4, UDP and VXLAN headers and the inner Ethernet header, bytes. */
export const VXLAN_OVERHEAD_BYTES = 50;

/** The forwarding entry for frames whose place is not known: copied to each such peer. */
export const FLOOD_MAC = '00:00:00:00:00:00';

/** Where frames for a hardware address go: to this peer. */
export interface ForwardingEntry {
  readonly mac: string;
  readonly peer: string;
}

/** A VXLAN device enslaved to the bridge of its network. */
export interface VxlanDevice {
  readonly networkId: string;
  readonly name: string;
  readonly vni: number;
  readonly bridge: string;
  /** Hardware address of the bridge, derived from the gateway so that peers know it. */
  readonly bridgeMac: string;
  readonly local: string;
  readonly port: number;
  readonly mtu: number;
  /** Sorted by address, then peer; one entry a hardware address except for the flood entries. */
  readonly forwarding: readonly ForwardingEntry[];
}

export interface SysctlValue {
  readonly networkId: string;
  readonly key: string;
  readonly value: string;
}

/** All that should exist on the node for its task networks. */
export interface DesiredNetworks {
  readonly nodeId: string;
  readonly networks: readonly EngineNetworkSpec[];
  /** Addresses of this node and its peers by network id: no network may cover one of its own. */
  readonly nodeAddresses: ReadonlyMap<string, readonly string[]>;
  readonly devices: readonly VxlanDevice[];
  readonly sysctls: readonly SysctlValue[];
  /** Bridges within which forwarding is accepted whatever the FORWARD policy is; null: iptables is left alone. */
  readonly forwardBridges: readonly string[] | null;
}

export interface ObservedDevice {
  readonly name: string;
  readonly vni: number;
  readonly local: string;
  readonly port: number;
  readonly mtu: number;
  /** Name of the bridge it is enslaved to, '' for none. */
  readonly master: string;
  readonly up: boolean;
  /** Interface alias: `swarmd:<node id>` on ours. */
  readonly alias: string;
  readonly forwarding: readonly ForwardingEntry[];
}

/** What is there. */
export interface ObservedNetworks {
  readonly networks: readonly EngineNetwork[];
  readonly devices: readonly ObservedDevice[];
  /** Hardware address by bridge name. */
  readonly bridges: ReadonlyMap<string, string>;
  readonly routes: readonly ObservedRoute[];
  /** Only the keys that were asked for and exist. */
  readonly sysctls: ReadonlyMap<string, string>;
  /** Null where iptables is absent: then no rule is planned. */
  readonly forward: ObservedForward | null;
}

/** A route of the host. */
export interface ObservedRoute {
  /** CIDR text; '' for the default route. */
  readonly prefix: string;
  readonly device: string;
  /** Next hop, '' where there is none. */
  readonly gateway: string;
}

export interface ObservedForward {
  readonly chainExists: boolean;
  /** Positions of the jumps to our chain in FORWARD, 0 first. */
  readonly jumps: readonly number[];
  readonly bridges: readonly string[];
}

/** Our chain in the filter table: accepts what stays within one of our bridges. */
export const FORWARD_CHAIN = 'SWARMD-FORWARD';

/** One step of a plan. `networkId` is '' for what serves all networks. */
export type NetworkStep =
  | { readonly kind: 'create-network'; readonly networkId: string; readonly spec: EngineNetworkSpec }
  | {
      readonly kind: 'remove-network';
      readonly networkId: string;
      readonly engineId: string;
      readonly name: string;
      /** Commands to run once it is removed; their failure is only noted. */
      readonly afterwards: readonly (readonly string[])[];
    }
  | {
      readonly kind: 'run';
      readonly networkId: string;
      readonly argv: readonly string[];
      /** Text for the command's standard input. */
      readonly input?: string;
      /** A failure is noted and the rest goes on. */
      readonly optional?: boolean;
    }
  /** Something that is not ours stands in the way. */
  | { readonly kind: 'blocked'; readonly networkId: string; readonly message: string };
