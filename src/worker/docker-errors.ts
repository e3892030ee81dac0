/** What the engine's failures mean for a task: which may be waited out, which are final. Pure. */
import { type ErrorCode, errorMessage, SwarmdError, systemErrorCode } from '../base/errors.ts';

const connectionCodes = [
  'ECONNREFUSED',
  'ECONNRESET',
  'ENOENT',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ABORT_ERR',
];

/** The HTTP status of an engine's refusal, or undefined when it did not answer. */
export function statusOf(error: unknown): number | undefined {
  if (typeof error !== 'object' || error === null || !('statusCode' in error)) return undefined;
  return typeof error.statusCode === 'number' ? error.statusCode : undefined;
}

/** The engine's own words. */
export function engineText(error: unknown): string {
  if (typeof error === 'object' && error !== null && 'json' in error) {
    const { json } = error;
    if (typeof json === 'object' && json !== null && 'message' in json) return String(json.message);
  }
  return errorMessage(error).trim();
}

const codeByStatus: Readonly<Record<number, ErrorCode>> = {
  400: 'INVALID_ARGUMENT',
  403: 'PERMISSION_DENIED',
  404: 'NOT_FOUND',
  409: 'CONFLICT',
};

/** An outage of the engine: says nothing about the task. */
export function engineOutage(host: string, reason: string, cause?: unknown): SwarmdError {
  return new SwarmdError(
    'UNAVAILABLE',
    `the engine at ${host} does not answer (${reason}); start it, or check the address`,
    { details: { waits: true, engine: host }, ...(cause === undefined ? {} : { cause }) },
  );
}

/** Whatever a call of the engine threw, as a SwarmdError. `what` says what was tried, on what. */
export function engineError(error: unknown, host: string, what: string): SwarmdError {
  if (error instanceof SwarmdError) return error;
  const status = statusOf(error);
  if (status === undefined) {
    const code = systemErrorCode(error);
    if (code === 'EACCES' || code === 'EPERM') {
      return new SwarmdError(
        'UNAVAILABLE',
        `no permission to use the engine at ${host}: run swarmd as root, or as a member of the engine's group`,
        { details: { waits: true, engine: host }, cause: error },
      );
    }
    const text = errorMessage(error);
    const lost =
      (code !== undefined && connectionCodes.includes(code)) || /socket hang up|aborted/i.test(text);
    if (lost) return engineOutage(host, code ?? text, error);
    return new SwarmdError('RUNTIME', `${what}: ${text}`, { cause: error });
  }
  if (status === 503) return engineOutage(host, engineText(error), error);
  return new SwarmdError(codeByStatus[status] ?? 'RUNTIME', `${what}: ${engineText(error)}`, {
    cause: error,
  });
}

/** What the registry's words about an image mean. */
export function pullError(image: string, text: string): SwarmdError {
  const lower = text.toLowerCase();
  const has = (...words: string[]): boolean => words.some((word) => lower.includes(word));
  if (
    has('unauthorized', 'access denied', 'denied:', 'no basic auth', 'authentication required', 'forbidden')
  ) {
    return new SwarmdError(
      'PERMISSION_DENIED',
      `image ${image} does not exist or may not be pulled by this node (${text}); check its name, or log in to its registry on every node`,
    );
  }
  if (has('manifest unknown', 'not found', 'does not exist', 'no matching manifest', 'manifest for')) {
    return new SwarmdError(
      'NOT_FOUND',
      `image ${image} is not in its registry (${text}); check its name and tag, or load it on the node`,
    );
  }
  if (has('invalid reference', 'invalid repository')) {
    return new SwarmdError('INVALID_ARGUMENT', `${image} is not the name of an image (${text})`);
  }
  const unreachable = [
    'no such host',
    'connection refused',
    'timeout',
    'deadline exceeded',
    'i/o',
    'unreachable',
    'tls',
    'eof',
    'connection reset',
    'server misbehaving',
    'temporary failure',
    'too many requests',
    'toomanyrequests',
    'certificate',
    'proxyconnect',
    'awaiting headers',
  ];
  if (has(...unreachable)) {
    return new SwarmdError(
      'UNAVAILABLE',
      `the registry of image ${image} cannot be used from this node now (${text}); check its network, or load the image on the node`,
    );
  }
  return new SwarmdError('RUNTIME', `image ${image} cannot be pulled: ${text}`);
}
