/**
 * How a daemon is started: the contract between the CLI and the composition root.
 *
 * Invariant: a data folder belongs to one node of one cluster and one process at a time.
 */
import type { LogLevel } from '../base/log.ts';
import type { ClusterSpec, RuntimeKind } from '../model/spec.ts';

/** Resolved options of one daemon. Addresses are host names or IPs; ports 0 .. 65535. */
export interface NodeOptions {
  /** Absolute path. Holds identity, log, state and task files. */
  readonly dataDir: string;
  /** Where node-to-node traffic is accepted. Default 0.0.0.0:2377. Port 0: any free one. */
  readonly listen: { readonly host: string; readonly port: number };
  /** How other nodes reach this one; '' : found from the interfaces. `port` 0: the listen port. */
  readonly advertise: { readonly host: string; readonly port: number };
  /** Address of the data plane (VXLAN, process ports); '' : the advertised one. */
  readonly dataPathAddress: string;
  /** Unix socket of the HTTP API. Default: swarmd.sock in the data folder. */
  readonly socketPath: string;
  /** host:port to answer DNS on besides the networks' gateways; null: none. */
  readonly dns: { readonly host: string; readonly port: number } | null;
  /** Engine socket, such as unix:///var/run/docker.sock; null: no Docker runtime. */
  readonly engineHost: string | null;
  /** Runtimes to offer; an engine that does not answer is left out with a warning. */
  readonly runtimes: readonly RuntimeKind[];
  /** Labels for the node's spec when it is made (init). */
  readonly labels: Readonly<Record<string, string>>;
  readonly availability: 'active' | 'pause' | 'drain';
  /** Settings of the new cluster that differ from the defaults (init only). */
  readonly clusterSpec?: Partial<ClusterSpec>;
  /** Addresses given to a node that is a member already (resume, force-new-cluster): it takes these from now on. */
  readonly move?: Move;
  readonly logLevel: LogLevel;
  readonly logFormat: 'json' | 'text';
}

/** Other addresses for a member; what is absent stays, as does a port that is 0. */
export interface Move {
  readonly listen?: NodeOptions['listen'];
  readonly advertise?: NodeOptions['advertise'];
  readonly dataPathAddress?: string;
}

/** What to start from. */
export type StartMode =
  | { readonly kind: 'init' }
  | {
      readonly kind: 'join';
      readonly token: string;
      readonly remote: { readonly host: string; readonly port: number };
    }
  /** From the identity in the data folder. */
  | { readonly kind: 'resume' }
  /** From the identity of a manager, which goes on as the only one: the others are lost for good. */
  | { readonly kind: 'force-new-cluster' };

/** A started daemon. */
export interface RunningNode {
  readonly nodeId: string;
  readonly clusterId: string;
  readonly role: 'manager' | 'worker';
  readonly socketPath: string;
  /** host:port other nodes reach. */
  readonly advertised: string;
  /** Resolves when the daemon has ended, with its exit code. */
  readonly ended: Promise<number>;
  /** Ends the daemon in order; tasks keep running unless `stopTasks` (they come back at the next start). */
  stop(options?: { readonly stopTasks?: boolean }): Promise<void>;
}
