/**
 * The HTTP API of a daemon, on its unix socket.
 *
 * Data owned: the socket file. Invariants: a request body is bounded; an error always has a code and a message; a
 * stale socket of a dead daemon is replaced, a live one never.
 */
import { chmod, lstat, unlink } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { Readable } from 'node:stream';
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { errorMessage, SwarmdError, systemErrorCode, toSwarmdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { ServiceLogRecord, ServiceLogsParams } from '../model/api.ts';
import { API_PREFIX, type ErrorBody, LOGS_METHOD, statusOfCode } from './wire.ts';

/** What the server serves: the node's end of the API. */
export interface ApiEndpoint {
  call(method: string, params: unknown, signal: AbortSignal): Promise<unknown>;
  serviceLogs(params: ServiceLogsParams, signal: AbortSignal): AsyncIterable<ServiceLogRecord>;
}

/** Largest request body, bytes: a stack's biggest config in base64, with room. */
export const REQUEST_BYTES_MAX = 8 * 1024 * 1024;
/** Longest path a unix socket may have on Linux, bytes. */
const SOCKET_PATH_BYTES_MAX = 107;

export class HttpServer {
  readonly #app: FastifyInstance;
  readonly #log: Logger;
  /** Requests under way. */
  readonly #requests = new Set<AbortController>();
  #closing: Promise<void> | null = null;

  private constructor(endpoint: ApiEndpoint, log: Logger) {
    this.#log = log;
    this.#app = Fastify({ bodyLimit: REQUEST_BYTES_MAX, forceCloseConnections: true });
    this.#app.setErrorHandler((error, _request, reply) => this.#sendError(reply, error));
    this.#app.setNotFoundHandler((request, reply) =>
      this.#sendError(
        reply,
        new SwarmdError('NOT_FOUND', `there is no ${request.method} ${request.url} in this API`),
      ),
    );
    this.#app.post(`${API_PREFIX}/${LOGS_METHOD}`, (request, reply) => this.#logs(endpoint, request, reply));
    this.#app.post<{ Params: { method: string } }>(`${API_PREFIX}/:method`, async (request, reply) => {
      const signal = this.#signalOf(reply);
      const result = await endpoint.call(request.params.method, request.body ?? {}, signal);
      return reply.type('application/json').send(JSON.stringify(result ?? null));
    });
  }

  /** Listens on `socketPath` (mode 0660). Throws LOCKED when another daemon answers there. */
  static async listen(options: {
    socketPath: string;
    endpoint: ApiEndpoint;
    log: Logger;
  }): Promise<HttpServer> {
    const { socketPath, endpoint, log } = options;
    if (Buffer.byteLength(socketPath) > SOCKET_PATH_BYTES_MAX) {
      throw new SwarmdError(
        'INVALID_ARGUMENT',
        `the socket path ${socketPath} is longer than ${SOCKET_PATH_BYTES_MAX} bytes; choose a shorter one with --socket`,
      );
    }
    await removeStaleSocket(socketPath);
    const server = new HttpServer(endpoint, log);
    try {
      await server.#app.listen({ path: socketPath });
      await chmod(socketPath, 0o660);
    } catch (error) {
      await server.#app.close();
      throw new SwarmdError(
        'UNAVAILABLE',
        `the API socket ${socketPath} cannot be made: ${(error as Error).message}`,
        {
          cause: error,
        },
      );
    }
    return server;
  }

  /** Ends every request, then stops listening. Safe to call twice. */
  close(): Promise<void> {
    for (const request of this.#requests) request.abort(stopping());
    this.#closing ??= this.#app.close();
    return this.#closing;
  }

  /** Aborts when the client goes away before its answer is out, or the server stops. */
  #signalOf(reply: FastifyReply): AbortSignal {
    const request = new AbortController();
    this.#requests.add(request);
    if (this.#closing !== null) request.abort(stopping());
    // One listener a response: a connection that is kept open serves many requests.
    reply.raw.once('close', () => {
      this.#requests.delete(request);
      if (!reply.raw.writableFinished) request.abort(new SwarmdError('CANCELLED', 'the client went away'));
    });
    return request.signal;
  }

  async #logs(endpoint: ApiEndpoint, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const signal = this.#signalOf(reply);
    const records = endpoint.serviceLogs(parseLogsParams(request.body), signal)[Symbol.asyncIterator]();
    // A wrong name fails the first step at once: then it is an error status, not a broken stream.
    const first = records.next();
    // The client may go before anybody looks at this step: then its failure is nobody's.
    first.catch(() => {});
    await Promise.race([first, new Promise((resolve) => setImmediate(resolve))]);
    return reply.type('application/x-ndjson').send(Readable.from(logLines(first, records, signal)));
  }

  #sendError(reply: FastifyReply, error: unknown): FastifyReply {
    const fault = fromFastify(error);
    if (fault.code === 'INTERNAL')
      this.#log.error('request failed', { error: fault.message, stack: fault.stack });
    return reply
      .status(statusOfCode[fault.code])
      .type('application/json')
      .send(JSON.stringify(errorBody(fault)));
  }
}

/** One JSON record a line; what breaks it off becomes the last line, unless nobody is there to read it. */
async function* logLines(
  first: Promise<IteratorResult<ServiceLogRecord>>,
  records: AsyncIterator<ServiceLogRecord>,
  signal: AbortSignal,
): AsyncGenerator<string> {
  try {
    let step = await first;
    while (step.done !== true) {
      yield `${JSON.stringify(step.value)}\n`;
      step = await records.next();
    }
    signal.throwIfAborted();
  } catch (error) {
    const reason = signal.aborted ? signal.reason : error;
    yield `${JSON.stringify({ error: errorBody(toSwarmdError(reason)) })}\n`;
  } finally {
    // A reader that went away leaves the source open.
    await records.return?.();
  }
}

function stopping(): SwarmdError {
  return new SwarmdError('UNAVAILABLE', 'the daemon is stopping; ask again when it is back');
}

function errorBody(error: SwarmdError): ErrorBody {
  return { code: error.code, message: error.message, details: error.details };
}

/** Fastify's own refusals (bad JSON, body too large) are the caller's errors. */
function fromFastify(error: unknown): SwarmdError {
  if (error instanceof SwarmdError) return error;
  const status = (error as { statusCode?: number } | null)?.statusCode ?? 500;
  if (status === 413) {
    return new SwarmdError(
      'RESOURCE_EXHAUSTED',
      `the request is larger than ${REQUEST_BYTES_MAX} bytes; send less at once`,
    );
  }
  return toSwarmdError(error, status >= 400 && status < 500 ? 'INVALID_ARGUMENT' : 'INTERNAL');
}

function parseLogsParams(body: unknown): ServiceLogsParams {
  const { ref, follow, tail, sinceMs } = (body ?? {}) as Partial<ServiceLogsParams>;
  const isCount = (value: unknown): value is number | null | undefined =>
    value === null || value === undefined || (typeof value === 'number' && value >= 0);
  if (typeof ref !== 'string' || !isCount(tail) || !isCount(sinceMs)) {
    throw new SwarmdError(
      'INVALID_ARGUMENT',
      'service.logs needs ref (text), tail and sinceMs (numbers or null)',
    );
  }
  return { ref, follow: follow === true, tail: tail ?? null, sinceMs: sinceMs ?? null };
}

/** Removes the socket that a dead daemon left. Throws LOCKED when one answers; anything else there is left alone. */
async function removeStaleSocket(path: string): Promise<void> {
  const file = await lstat(path).catch((error: unknown) => {
    if (systemErrorCode(error) === 'ENOENT') return null;
    throw new SwarmdError(
      'INVALID_ARGUMENT',
      `the API socket ${path} cannot be made: ${errorMessage(error)}; choose another path with --socket`,
      { cause: error },
    );
  });
  if (file === null) return;
  if (!file.isSocket()) {
    throw new SwarmdError(
      'INVALID_ARGUMENT',
      `${path} is there and is not a socket; choose another path with --socket`,
    );
  }
  const failure = await new Promise<string | null>((resolve) => {
    const socket = createConnection(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(null);
    });
    socket.once('error', (error) => resolve(systemErrorCode(error) ?? error.message));
  });
  // Only a refusal proves that nobody listens; a full queue or missing rights do not.
  if (failure === 'ECONNREFUSED') await unlink(path).catch(ignoreMissing);
  else if (failure !== 'ENOENT') {
    throw new SwarmdError(
      'LOCKED',
      `another daemon answers on ${path}; stop it, or choose another --socket and --data-dir`,
      { details: failure === null ? {} : { failure } },
    );
  }
}

function ignoreMissing(error: unknown): void {
  if (systemErrorCode(error) !== 'ENOENT') throw error;
}
