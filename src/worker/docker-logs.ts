/** The engine's log stream as lines: frames taken apart, time stamps read. Pure, apart from reading the stream. */
import type { LogRecord } from '../model/wire.ts';

interface Frame {
  readonly stream: LogRecord['stream'];
  readonly payload: Buffer;
}

const HEADER_BYTES = 8;

/** Takes whole frames (1 byte stream, 3 zero, 4 length) from the front of `buffer`; `rest` is what is left. */
export function takeFrames(buffer: Buffer): { readonly frames: Frame[]; readonly rest: Buffer } {
  const frames: Frame[] = [];
  let offset = 0;
  while (buffer.length - offset >= HEADER_BYTES) {
    const length = buffer.readUInt32BE(offset + 4);
    const end = offset + HEADER_BYTES + length;
    if (end > buffer.length) break;
    const stream = buffer[offset] === 2 ? 'stderr' : 'stdout';
    frames.push({ stream, payload: buffer.subarray(offset + HEADER_BYTES, end) });
    offset = end;
  }
  return { frames, rest: buffer.subarray(offset) };
}

/** A line as the engine prints it with time stamps: `2026-01-02T03:04:05.678901234Z text`. */
export function parseStampedLine(stream: LogRecord['stream'], line: string): LogRecord {
  const blank = line.indexOf(' ');
  const stamp = blank < 0 ? line : line.slice(0, blank);
  const atMs = Date.parse(stamp.replace(/(\.\d{3})\d+/, '$1'));
  const text = line.replace(/\r$/, '');
  if (Number.isNaN(atMs)) return { stream, atMs: 0, line: text };
  return { stream, atMs, line: blank < 0 ? '' : text.slice(blank + 1) };
}

function linesOf(text: string): string[] {
  const lines = text.split('\n');
  if (lines.at(-1) === '') lines.pop();
  return lines;
}

/** Lines of a container's log stream. With a terminal there are no frames, and everything is stdout. */
export async function* logRecords(source: AsyncIterable<Buffer>, tty: boolean): AsyncGenerator<LogRecord> {
  let pending: Buffer = Buffer.alloc(0);
  for await (const chunk of source) {
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
    if (tty) {
      const end = pending.lastIndexOf(10) + 1;
      const whole = pending.toString('utf8', 0, end);
      pending = pending.subarray(end);
      for (const line of linesOf(whole)) yield parseStampedLine('stdout', line);
      continue;
    }
    const { frames, rest } = takeFrames(pending);
    pending = rest;
    for (const { stream, payload } of frames) {
      for (const line of linesOf(payload.toString('utf8'))) yield parseStampedLine(stream, line);
    }
  }
  if (tty && pending.length > 0) yield parseStampedLine('stdout', pending.toString('utf8'));
}
