/** What the RPC layer counts, for metrics. One record is shared by all connections of a node. */

/** Counts since the start of the process. */
export interface RpcCounters {
  /** Outgoing notifications dropped: closed connection, send bound or size limit. */
  notificationsDropped: number;
  /** Incoming notifications for a method nobody serves, or whose handler threw. */
  notificationsRefused: number;
  /** Connections closed because the peer broke the protocol. */
  protocolViolations: number;
  /** Connections cut because the peer stopped answering or reading. */
  deadPeers: number;
  /** Clients refused before a connection was made: flood, certificate, handshake. */
  clientsRefused: number;
}

/** Counters at zero. */
export function createRpcCounters(): RpcCounters {
  return {
    notificationsDropped: 0,
    notificationsRefused: 0,
    protocolViolations: 0,
    deadPeers: 0,
    clientsRefused: 0,
  };
}
