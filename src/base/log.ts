/**
 * Structured logs: a constant message and fields. Pure code never logs; it returns notes.
 *
 * Invariant: no field ever carries a secret, token or key.
 */

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';
export type LogFields = Readonly<Record<string, unknown>>;

/** Where drivers write what happened. */
export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** A logger that adds `fields` to every line. */
  child(fields: LogFields): Logger;
}

const severity: Record<LogLevel, number> = { debug: 0, info: 1, warn: 2, error: 3 };

function render(value: unknown): unknown {
  return value instanceof Error ? value.message : value;
}

/** A logger that gives `write` one line a record (no newline): JSON, or `time LEVEL message key=value` as text. */
export function createLogger(
  options: { level: LogLevel; format: 'json' | 'text'; write: (line: string) => void; nowMs: () => number },
  base: LogFields = {},
): Logger {
  const emit = (level: LogLevel, message: string, fields: LogFields = {}): void => {
    if (severity[level] < severity[options.level]) return;
    const time = new Date(options.nowMs()).toISOString();
    const merged = Object.entries({ ...base, ...fields }).map(
      ([key, value]) => [key, render(value)] as const,
    );
    if (options.format === 'json') {
      options.write(JSON.stringify({ time, level, message, ...Object.fromEntries(merged) }));
      return;
    }
    const tail = merged.map(
      ([key, value]) => ` ${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
    );
    options.write(`${time} ${level.toUpperCase().padEnd(5)} ${message}${tail.join('')}`);
  };
  return {
    debug: (message, fields) => emit('debug', message, fields),
    info: (message, fields) => emit('info', message, fields),
    warn: (message, fields) => emit('warn', message, fields),
    error: (message, fields) => emit('error', message, fields),
    child: (fields) => createLogger(options, { ...base, ...fields }),
  };
}

/** A logger that drops everything: for tests that do not look at logs. */
export const silentLogger: Logger = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  child: () => silentLogger,
};
