/**
 * The daemon's side of its consensus thread: starts it, and gives the manager its node.
 *
 * Invariant: a thread that ends without being asked to is fatal to the daemon.
 */
import { Worker } from 'node:worker_threads';
import { SwarmdError, toSwarmdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { MessageBatch, unpackError, unpackMessages } from '../raft/message-port.ts';
import type { FromDriver } from '../raft/messages.ts';
import { RaftNode } from '../raft/node.ts';
import type { RaftNodeEvents } from '../raft/types.ts';
import type { ServerCredentials } from '../rpc/types.ts';
import type { ConsensusSettings, FromConsensus, ToConsensus } from './consensus-messages.ts';

/** Megabytes of JavaScript objects the thread may hold; its entries are outside of that. */
const HEAP_MB_MAX = 512;

/** A running consensus thread. */
export class ConsensusThread {
  readonly node: RaftNode;
  readonly #worker: Worker;
  readonly #log: Logger;
  readonly #opening = Promise.withResolvers<number>();
  #isOpen = false;
  #isEnded = false;
  #port = 0;

  /** Starts a thread and opens its log. Rejects as `RaftNode.open` does. */
  static async open(
    settings: ConsensusSettings,
    events: RaftNodeEvents,
    log: Logger,
  ): Promise<ConsensusThread> {
    const thread = new ConsensusThread(settings, events, log);
    try {
      thread.#port = await thread.#opening.promise;
    } catch (error) {
      thread.#isEnded = true;
      await thread.#worker.terminate();
      throw error;
    }
    thread.#isOpen = true;
    return thread;
  }

  private constructor(settings: ConsensusSettings, events: RaftNodeEvents, log: Logger) {
    this.#log = log;
    this.#worker = new Worker(new URL('consensus-worker.ts', import.meta.url), {
      workerData: settings,
      name: 'consensus',
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MB_MAX },
    });
    const batch = new MessageBatch((packed) => this.#tell({ kind: 'raft', packed }));
    this.node = new RaftNode(events, (message) => {
      if (!this.#isEnded) batch.post(message);
      else if (message.kind === 'stop') queueMicrotask(() => this.node.take({ kind: 'stopped' }));
    });
    this.#worker.on('message', (message: FromConsensus) => this.#onMessage(message));
    this.#worker.on('error', (error: unknown) => this.#onEnd(toSwarmdError(error)));
    this.#worker.on('exit', (code) => {
      this.#onEnd(new SwarmdError('INTERNAL', `the consensus thread ended with code ${code}`));
    });
  }

  /** Where it listens for the threads of other managers. */
  get port(): number {
    return this.#port;
  }

  setCredentials(credentials: ServerCredentials): void {
    this.#tell({ kind: 'credentials', credentials });
  }

  /** Has it listen no more to nodes that were removed from the cluster. */
  block(nodeIds: readonly string[]): void {
    this.#tell({ kind: 'blocked', nodeIds });
  }

  #tell(message: ToConsensus): void {
    if (this.#isEnded) return;
    this.#worker.postMessage(message, message.kind === 'raft' ? [message.packed.block.buffer] : []);
  }

  #onMessage(message: FromConsensus): void {
    switch (message.kind) {
      case 'raft':
        return this.#take(unpackMessages<FromDriver>(message.packed));
      case 'opened':
        return this.#opening.resolve(message.port);
      case 'not-opened':
        return this.#opening.reject(unpackError(message.error));
      case 'log':
        return this.#log[message.level](message.message, message.fields);
    }
  }

  #take(messages: readonly FromDriver[]): void {
    try {
      for (const message of messages) {
        if (message.kind === 'stopped') this.#isEnded = true;
        this.node.take(message);
      }
    } catch (error) {
      const failure = error instanceof Error ? error : toSwarmdError(error);
      this.#opening.reject(failure);
      if (this.#isOpen) this.node.fail(failure);
    }
  }

  #onEnd(error: Error): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#opening.reject(error);
    if (this.#isOpen) this.node.take({ kind: 'fatal', error });
  }
}
