/**
 * The port to the container engine's networks: what src/network asks of an engine, and nothing more.
 *
 * Invariants: only networks that carry the label `swarmd.network` are listed or removed; every call is idempotent
 * as far as the engine allows.
 */

/** A bridge network as swarmd wants it. Addresses are IPv4 text; sizes are bytes. */
export interface EngineNetworkSpec {
  /** Name on the engine, unique there. */
  readonly name: string;
  /** Cluster id of the network, kept in the label `swarmd.network`. */
  readonly networkId: string;
  /** The swarmd node that owns it, kept in the label `swarmd.node`. */
  readonly nodeId: string;
  /** Name of the Linux bridge. */
  readonly bridge: string;
  /** CIDR. */
  readonly subnet: string;
  /** Address of the host on the bridge, without a prefix length. */
  readonly gateway: string;
  readonly mtu: number;
  readonly internal: boolean;
}

/** A bridge network as the engine has it. */
export interface EngineNetwork extends EngineNetworkSpec {
  /** The engine's own id. */
  readonly engineId: string;
}

/** Networks of one container engine. Errors are SwarmdErrors: UNAVAILABLE when it cannot be reached, else RUNTIME. */
export interface EngineNetworks {
  /** Makes the network. Rejects with RUNTIME when its name, subnet or bridge is taken. */
  create(spec: EngineNetworkSpec, signal: AbortSignal): Promise<void>;
  /** Every network with the label `swarmd.network`. */
  list(signal: AbortSignal): Promise<EngineNetwork[]>;
  /** Removes the network by the engine's id; one that is gone counts as removed. */
  remove(engineId: string, signal: AbortSignal): Promise<'removed' | 'in-use'>;
}
