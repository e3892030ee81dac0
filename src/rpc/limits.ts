/**
 * Every bound of the RPC layer, with its unit and what happens when it is reached.
 *
 * Invariant: both ends of a cluster run the same limits; a peer that exceeds what it must respect loses
 * its connection, and only that.
 */

/** Bounds of one connection. */
export interface RpcLimits {
  /**
   * Bytes of one encoded message (call, answer, stream message, notification). A larger one is refused to
   * its sender with RESOURCE_EXHAUSTED; a peer that sends one anyway loses the connection.
   */
  readonly messageBytesMax: number;
  /** Calls in flight, each way. The next one is refused with RESOURCE_EXHAUSTED. */
  readonly callsInFlightMax: number;
  /** Open streams, each way. The next one is refused with RESOURCE_EXHAUSTED. */
  readonly streamsOpenMax: number;
  /**
   * Bytes of stream messages a receiver holds unread, each stream; then the writer waits. One message may
   * overshoot it. Each message counts for {@link streamMessageOverheadBytes} more than it has.
   */
  readonly streamWindowBytes: number;
  /** Writes of one stream that wait for credit. The next one is refused with RESOURCE_EXHAUSTED. */
  readonly streamWritesWaitingMax: number;
  /** Unsent bytes from which stream writes wait, so that they do not delay calls and notifications. */
  readonly streamSendBytes: number;
  /**
   * Unsent bytes from which notifications are dropped (and counted), calls are refused with
   * RESOURCE_EXHAUSTED and answers are replaced by that error.
   */
  readonly sendBytesMax: number;
  /** Unsent bytes, errors and bookkeeping included, at which the connection is cut: the peer does not read. */
  readonly sendBytesCut: number;
  /** Milliseconds between pings. */
  readonly pingIntervalMs: number;
  /** Milliseconds without a byte from the peer after which it counts as dead and the connection is cut. */
  readonly pingTimeoutMs: number;
  /** Milliseconds a closing connection waits for the peer's farewell before it is cut. */
  readonly closeTimeoutMs: number;
}

const kib = 1024;
const mib = 1024 * kib;

/** Bounds between members of the cluster. */
export const defaultLimits: RpcLimits = {
  messageBytesMax: 4 * mib,
  callsInFlightMax: 1024,
  streamsOpenMax: 256,
  streamWindowBytes: 256 * kib,
  streamWritesWaitingMax: 1024,
  streamSendBytes: 1 * mib,
  sendBytesMax: 16 * mib,
  sendBytesCut: 32 * mib,
  pingIntervalMs: 1000,
  pingTimeoutMs: 3000,
  closeTimeoutMs: 1000,
};

/** Bounds of the server's side of a connection whose client showed no certificate: enough to join. */
export const anonymousLimits: Pick<RpcLimits, 'messageBytesMax' | 'callsInFlightMax' | 'streamsOpenMax'> = {
  messageBytesMax: 64 * kib,
  callsInFlightMax: 4,
  streamsOpenMax: 0,
};

/** Bounds of a listening server. */
export interface ServerLimits {
  /** Sockets of any state. The next one is closed at once (and counted). */
  readonly connectionsMax: number;
  /** Sockets that have not shown a valid certificate (handshakes, joiners). The next one is closed at once. */
  readonly unauthenticatedMax: number;
  /** Milliseconds from accepted socket to open connection. A slower client is cut. */
  readonly handshakeTimeoutMs: number;
}

/** Bounds of a listening server. */
export const defaultServerLimits: ServerLimits = {
  connectionsMax: 8192,
  unauthenticatedMax: 256,
  handshakeTimeoutMs: 5000,
};

/** Milliseconds `connect` waits for TCP, TLS and the upgrade; then UNAVAILABLE. */
export const connectTimeoutMs = 5000;
/** Bytes of a method's name (UTF-8). A longer one is a broken peer, or INVALID_ARGUMENT to the caller. */
export const methodBytesMax = 255;
/** Nesting of arrays and maps in a message. A deeper one is a broken peer. */
export const messageDepthMax = 64;
/** Characters of an error's message on the wire; the rest is cut off. */
export const errorMessageCharactersMax = 8192;
/** What a stream message counts for beyond its bytes, so that empty ones are bounded too. */
export const streamMessageOverheadBytes = 64;
/** Bytes of a frame of several messages; one that is full is sent before the event-loop turn ends. */
export const batchBytes = 64 * kib;
/** Bytes of the server's refusal that a refused client reads. */
export const refusalBytesMax = 4 * kib;
