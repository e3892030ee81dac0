/** The typed client of swarmd's own API, over the daemon's unix socket (or plain TCP to a trusted address). */
import { type ClientRequest, type IncomingMessage, request } from 'node:http';
import { StringDecoder } from 'node:string_decoder';
import { errorMessage, isErrorCode, SwarmdError, systemErrorCode } from '../base/errors.ts';
import type {
  ApiClient,
  ApiMethod,
  ApiParams,
  ApiResult,
  ServiceLogRecord,
  ServiceLogsParams,
} from '../model/api.ts';
import { API_PREFIX, LOGS_METHOD } from './wire.ts';

type Target = { readonly socketPath: string } | { readonly host: string; readonly port: number };

/** Largest answer taken, bytes. */
const ANSWER_BYTES_MAX = 256 * 1024 * 1024;
/** Longest line of a log stream, characters. */
const LINE_CHARACTERS_MAX = 32 * 1024 * 1024;

/**
 * A client for the daemon at `host`: `unix:///path/to.sock`, a plain path, or `tcp://host:port`.
 * Throws INVALID_ARGUMENT for another form. Connects anew for each call.
 */
export function connectApi(host: string): ApiClient & { close(): void } {
  const target = parseTarget(host);
  const stop = new AbortController();
  return {
    async call<M extends ApiMethod>(
      method: M,
      params: ApiParams<M>,
      { signal }: { readonly signal: AbortSignal },
    ): Promise<ApiResult<M>> {
      const either = AbortSignal.any([signal, stop.signal]);
      const answer = await post(target, host, method, params, either);
      const value = await readJson(answer, host, either);
      if (answer.statusCode !== 200) throw errorOf(value, answer.statusCode ?? 0);
      return value as ApiResult<M>;
    },
    serviceLogs: (params, { signal }) => logs(target, host, params, AbortSignal.any([signal, stop.signal])),
    close: () => stop.abort(new SwarmdError('CANCELLED', 'the client is closed')),
  };
}

function parseTarget(host: string): Target {
  if (host.startsWith('unix://')) return { socketPath: host.slice('unix://'.length) };
  if (host.startsWith('/') || host.startsWith('.')) return { socketPath: host };
  const tcp = /^tcp:\/\/(\[[^\]]+\]|[^:/]+):(\d{1,5})\/?$/.exec(host);
  if (tcp === null) {
    throw new SwarmdError(
      'INVALID_ARGUMENT',
      `the host ${host} is not understood; give unix:///path/to/swarmd.sock`,
    );
  }
  return { host: (tcp[1] as string).replace(/^\[|\]$/g, ''), port: Number(tcp[2]) };
}

async function* logs(
  target: Target,
  host: string,
  params: ServiceLogsParams,
  signal: AbortSignal,
): AsyncGenerator<ServiceLogRecord> {
  const answer = await post(target, host, LOGS_METHOD, params, signal);
  if (answer.statusCode !== 200) throw errorOf(await readJson(answer, host, signal), answer.statusCode ?? 0);
  try {
    for await (const line of readLines(answer, host, signal)) {
      const record = parseJson(line, host) as ServiceLogRecord | { readonly error: unknown };
      if ('error' in record) throw errorOf(record.error, 500);
      yield record;
    }
  } finally {
    answer.destroy();
  }
}

/** The lines of an answer. A break in the middle is an error, never a silent end. */
async function* readLines(
  answer: IncomingMessage,
  host: string,
  signal: AbortSignal,
): AsyncGenerator<string> {
  const decoder = new StringDecoder('utf8');
  let rest = '';
  for await (const chunk of readChunks(answer, host, signal)) {
    const lines = (rest + decoder.write(chunk)).split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > LINE_CHARACTERS_MAX)
      throw new SwarmdError('RESOURCE_EXHAUSTED', 'the daemon sent a log record without an end');
    yield* lines;
  }
  if (rest !== '') yield rest;
}

/** The body of an answer piece by piece; what goes wrong is a SwarmdError. */
async function* readChunks(
  answer: IncomingMessage,
  host: string,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of answer) yield chunk as Buffer;
  } catch (error) {
    throw signal.aborted ? aborted(signal) : connectionError(host, error);
  }
}

function post(
  target: Target,
  host: string,
  method: string,
  params: unknown,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  const body = JSON.stringify(params);
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
    const options = {
      ...target,
      method: 'POST',
      path: `${API_PREFIX}/${method}`,
      headers,
      signal,
      agent: false as const,
    };
    const call: ClientRequest = request(options, resolve);
    call.on('error', (error) => reject(signal.aborted ? aborted(signal) : connectionError(host, error)));
    call.end(body);
  });
}

function aborted(signal: AbortSignal): SwarmdError {
  if (signal.reason instanceof SwarmdError) return signal.reason;
  return new SwarmdError('CANCELLED', 'the call was cancelled', { cause: signal.reason });
}

async function readJson(answer: IncomingMessage, host: string, signal: AbortSignal): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of readChunks(answer, host, signal)) {
    bytes += chunk.length;
    if (bytes > ANSWER_BYTES_MAX) throw new SwarmdError('RESOURCE_EXHAUSTED', 'the daemon answered too much');
    chunks.push(chunk);
  }
  return parseJson(Buffer.concat(chunks).toString('utf8'), host);
}

function parseJson(text: string, host: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new SwarmdError(
      'UNAVAILABLE',
      `what answers at ${host} is not a swarmd daemon of this version; check --host`,
      { cause },
    );
  }
}

function errorOf(body: unknown, status: number): SwarmdError {
  const { code, message, details } = (body ?? {}) as { code?: unknown; message?: unknown; details?: unknown };
  if (isErrorCode(code) && typeof message === 'string') {
    return new SwarmdError(code, message, { details: (details ?? {}) as Record<string, unknown> });
  }
  return new SwarmdError('INTERNAL', `the daemon answered with status ${status} and no message`);
}

function connectionError(host: string, error: unknown): SwarmdError {
  const code = systemErrorCode(error);
  if (code === 'ENOENT' || code === 'ECONNREFUSED') {
    return new SwarmdError(
      'UNAVAILABLE',
      `cannot connect to the swarmd daemon at ${host}. Is it running? Start it with "swarmd init", "swarmd join" or "swarmd daemon", or name its socket with --host`,
      { cause: error },
    );
  }
  if (code === 'EACCES') {
    return new SwarmdError(
      'PERMISSION_DENIED',
      `no permission to use the socket ${host}; run as its owner or group`,
      {
        cause: error,
      },
    );
  }
  return new SwarmdError(
    'UNAVAILABLE',
    `the daemon at ${host} broke off (${errorMessage(error)}); it may have stopped, its log says why`,
    { cause: error },
  );
}
