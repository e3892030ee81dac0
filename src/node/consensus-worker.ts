/**
 * The consensus thread of a manager: driver, log and connections to peers, with an event loop and a heap of their
 * own, so that nothing the daemon does keeps a heartbeat waiting.
 *
 * Data owned: the log's folder, the port for peers. Ends itself after a `stop`.
 */
import { readlinkSync } from 'node:fs';
import { setPriority } from 'node:os';
import { parentPort, workerData } from 'node:worker_threads';
import { systemClock } from '../base/clock.ts';
import { assert } from '../base/assert.ts';
import { errorMessage, SwarmdError, toSwarmdError } from '../base/errors.ts';
import type { LogFields, Logger, LogLevel } from '../base/log.ts';
import { systemRandom } from '../base/random.ts';
import { ok, refuse } from '../base/result.ts';
import { RaftDriver } from '../raft/driver.ts';
import { LevelStorage } from '../raft/level-storage.ts';
import { MessageBatch, packError, unpackMessages } from '../raft/message-port.ts';
import type { FromDriver, ToDriver } from '../raft/messages.ts';
import { RpcServer } from '../rpc/server.ts';
import type { RpcHandlers } from '../rpc/types.ts';
import type { ConsensusSettings, FromConsensus, ToConsensus } from './consensus-messages.ts';
import { PeerLinks, RAFT_METHOD } from './peer-links.ts';

/** Scheduling priority of the thread, as of `nice`: heartbeats go first when the machine is busy. */
const NICE = -10;

const clock = systemClock();

/** Asks for the priority; only root gets it, and only where Linux names threads. */
function prefer(log: Logger): void {
  try {
    const thread = Number(readlinkSync('/proc/thread-self').split('/').at(-1));
    setPriority(thread, NICE);
  } catch (error) {
    log.debug('consensus runs at the usual priority', { error: errorMessage(error) });
  }
}

function forwardingLogger(tell: (message: FromConsensus) => void, base: LogFields = {}): Logger {
  const write = (level: LogLevel, message: string, fields: LogFields = {}): void => {
    const plain = Object.entries({ ...base, ...fields }).map(([key, value]) => [
      key,
      value instanceof Error ? value.message : value,
    ]);
    tell({ kind: 'log', level, message, fields: Object.fromEntries(plain) as LogFields });
  };
  return {
    debug: (message, fields) => write('debug', message, fields),
    info: (message, fields) => write('info', message, fields),
    warn: (message, fields) => write('warn', message, fields),
    error: (message, fields) => write('error', message, fields),
    child: (fields) => forwardingLogger(tell, { ...base, ...fields }),
  };
}

/** Listens on the first port that is free. */
async function listenForPeers(
  settings: ConsensusSettings,
  handlers: RpcHandlers,
  blocked: ReadonlySet<string>,
  log: Logger,
): Promise<RpcServer> {
  const { host, credentials } = settings;
  for (const port of settings.ports) {
    try {
      return await RpcServer.listen({
        host,
        port,
        credentials,
        clock,
        log,
        handlers,
        admit: (peer) =>
          blocked.has(peer.nodeId) ? refuse('this node was removed from the cluster') : ok(peer),
      });
    } catch (error) {
      if (!(error instanceof SwarmdError) || error.code !== 'PORT_IN_USE') throw error;
    }
  }
  throw new SwarmdError('PORT_IN_USE', `consensus finds no free port on ${host}`);
}

async function run(settings: ConsensusSettings, tell: (message: FromConsensus) => void): Promise<void> {
  assert(parentPort !== null, 'consensus runs in a thread of its own');
  const port = parentPort;
  const log = forwardingLogger(tell);
  prefer(log);
  const random = systemRandom();
  let { credentials } = settings;
  const blocked = new Set<string>();
  let driver: RaftDriver | null = null;
  const early: ToDriver[] = [];
  const take = (message: ToDriver): void => {
    if (driver === null) early.push(message);
    else driver.take(message);
  };
  const links = new PeerLinks({
    credentials: () => ({ kind: 'node', ...credentials, expectRole: 'manager' }),
    clock,
    random,
    log,
  });
  const server = await listenForPeers(
    settings,
    {
      calls: {},
      streams: {},
      notifications: {
        [RAFT_METHOD]: (frame, { connection: { peer } }) => {
          if (peer?.role === 'manager' && !blocked.has(peer.nodeId)) take({ kind: 'frame', frame });
        },
      },
    },
    blocked,
    log,
  );
  const close = async (): Promise<void> => {
    await Promise.all([links.close(), server.close()]);
  };
  const batch = new MessageBatch((packed) =>
    port.postMessage({ kind: 'raft', packed } satisfies FromConsensus, [packed.block.buffer]),
  );
  const emit = (message: FromDriver): void => {
    if (message.kind === 'status') {
      const others = message.status.reach.filter((member) => member.id !== settings.options.memberId);
      links.connect(others);
    }
    if (message.kind === 'stopped') void end(message);
    else batch.post(message);
  };
  const end = async (last: FromDriver): Promise<void> => {
    await close();
    batch.post(last);
    // The batch leaves at the end of this turn; with its port closed nothing keeps the thread.
    setImmediate(() => port.close());
  };
  port.on('message', (message: ToConsensus) => {
    if (message.kind === 'raft') {
      for (const each of unpackMessages<ToDriver>(message.packed)) take(each);
    } else if (message.kind === 'credentials') {
      credentials = message.credentials;
      server.setCredentials(credentials);
      links.renew();
    } else {
      blocked.clear();
      for (const nodeId of message.nodeIds) blocked.add(nodeId);
      for (const connection of server.connections()) {
        if (connection.peer !== null && blocked.has(connection.peer.nodeId))
          connection.close('this node was removed from the cluster');
      }
    }
  });
  try {
    const storage = await LevelStorage.open(settings.folder);
    driver = await RaftDriver.open(
      { ...settings.options, storage },
      { transport: links, clock, random, log, emit },
    );
  } catch (error) {
    await close();
    throw error;
  }
  for (const message of early) driver.take(message);
  tell({ kind: 'opened', port: server.address.port });
}

const tell = (message: FromConsensus): void => parentPort?.postMessage(message);
run(workerData as ConsensusSettings, tell).catch((error: unknown) => {
  tell({ kind: 'not-opened', error: packError(error instanceof Error ? error : toSwarmdError(error)) });
  parentPort?.close();
});
