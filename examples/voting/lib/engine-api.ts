/**
 * The few calls to a container engine's HTTP API that building images takes, over its unix socket.
 *
 * It stands on Node alone so that the example runs anywhere; the daemon itself has its own client.
 */
import { request } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

const API_VERSION = 'v1.41';

/** One call. `json` or `tar` is its body; `timeoutMs` bounds the silence of the engine (default 60 s). */
export interface EngineRequest {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE';
  /** Path and query below the version, as `/containers/json?all=1`. */
  readonly path: string;
  readonly json?: unknown;
  readonly tar?: AsyncIterable<Uint8Array>;
  readonly timeoutMs?: number;
}

/** The engine refused a call; `status` is that of HTTP. */
export class EngineError extends Error {
  override readonly name = 'EngineError';
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

function messageOf(text: string): string {
  try {
    return (JSON.parse(text) as { message?: string }).message ?? text;
  } catch {
    return text;
  }
}

/** Makes one call and returns the body as text. Rejects with EngineError on a refusal. */
export async function callEngine(socketPath: string, call: EngineRequest): Promise<string> {
  const headers: Record<string, string> = { Host: 'engine' };
  if (call.json !== undefined) headers['Content-Type'] = 'application/json';
  if (call.tar !== undefined) headers['Content-Type'] = 'application/x-tar';
  const outgoing = request({
    socketPath,
    method: call.method,
    path: `/${API_VERSION}${call.path}`,
    headers,
    agent: false,
    timeout: call.timeoutMs ?? 60_000,
  });
  const where = `${call.method} ${call.path} on ${socketPath}`;
  outgoing.on('timeout', () => outgoing.destroy(new Error(`${where}: no answer`)));
  const answer = new Promise<{ status: number; text: string }>((resolve, reject) => {
    outgoing.on('error', reject);
    outgoing.on('response', (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') }),
      );
    });
  });
  if (call.tar === undefined) outgoing.end(call.json === undefined ? undefined : JSON.stringify(call.json));
  // A refusal ends the upload early; what counts then is the answer.
  else pipeline(Readable.from(call.tar), outgoing).catch(() => {});
  const { status, text } = await answer;
  if (status >= 400) throw new EngineError(status, `${where}: ${status} ${messageOf(text).trim()}`);
  return text;
}

/** Makes one call and returns the body parsed as JSON. */
export async function callEngineJson<T>(socketPath: string, call: EngineRequest): Promise<T> {
  return JSON.parse(await callEngine(socketPath, call)) as T;
}
