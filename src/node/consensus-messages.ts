/** What the daemon and its consensus thread say to each other. */
import type { LogFields, LogLevel } from '../base/log.ts';
import type { packError, PackedMessages } from '../raft/message-port.ts';
import type { RaftNodeOptions } from '../raft/types.ts';
import type { ServerCredentials } from '../rpc/types.ts';

/** How a thread begins. */
export interface ConsensusSettings {
  /** Folder of the log. */
  readonly folder: string;
  readonly options: Omit<RaftNodeOptions, 'storage'>;
  /** Where it listens for the threads of other managers; the first free one of `ports`, 0 being any. */
  readonly host: string;
  readonly ports: readonly number[];
  readonly credentials: ServerCredentials;
}

export type ToConsensus =
  | { readonly kind: 'raft'; readonly packed: PackedMessages }
  | { readonly kind: 'credentials'; readonly credentials: ServerCredentials }
  /** Nodes that were removed from the cluster. */
  | { readonly kind: 'blocked'; readonly nodeIds: readonly string[] };

export type FromConsensus =
  | { readonly kind: 'raft'; readonly packed: PackedMessages }
  | { readonly kind: 'opened'; readonly port: number }
  | { readonly kind: 'not-opened'; readonly error: ReturnType<typeof packError> }
  | {
      readonly kind: 'log';
      readonly level: LogLevel;
      readonly message: string;
      readonly fields: LogFields;
    };
