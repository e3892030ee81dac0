/** Writes tar archives (POSIX ustar), as engines take them for images and for files of a container. */
import { createReadStream, statSync } from 'node:fs';

const BLOCK_BYTES = 512;
const NAME_BYTES = 100;

/** One member of an archive. Paths are relative, without a leading slash. */
export type TarEntry =
  | { readonly kind: 'folder'; readonly path: string; readonly mode?: number }
  | { readonly kind: 'link'; readonly path: string; readonly target: string }
  | { readonly kind: 'text'; readonly path: string; readonly text: string; readonly mode?: number }
  | { readonly kind: 'file'; readonly path: string; readonly from: string; readonly mode?: number };

const TYPE_FLAGS: Readonly<Record<TarEntry['kind'], string>> = {
  folder: '5',
  link: '2',
  text: '0',
  file: '0',
};

function header(entry: TarEntry, sizeBytes: number): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  const name = entry.kind === 'folder' ? `${entry.path}/` : entry.path;
  const target = entry.kind === 'link' ? entry.target : '';
  for (const text of [name, target]) {
    if (Buffer.byteLength(text) > NAME_BYTES) throw new Error(`path too long for the archive: ${text}`);
  }
  const mode = entry.kind === 'link' ? 0o777 : (entry.mode ?? (entry.kind === 'folder' ? 0o755 : 0o644));
  const octal = (value: number, width: number): string => `${value.toString(8).padStart(width - 1, '0')}\0`;
  block.write(name, 0);
  block.write(octal(mode, 8), 100);
  block.write(octal(0, 8), 108);
  block.write(octal(0, 8), 116);
  block.write(octal(sizeBytes, 12), 124);
  block.write(octal(0, 12), 136);
  block.write('        ', 148);
  block.write(TYPE_FLAGS[entry.kind], 156);
  block.write(target, 157);
  block.write('ustar\0' + '00', 257);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${octal(sum, 7)} `, 148);
  return block;
}

function padding(sizeBytes: number): Buffer {
  return Buffer.alloc((BLOCK_BYTES - (sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES);
}

/** The bytes of an archive of `entries`, in their order; files are read as they are sent. */
export async function* tarOf(entries: Iterable<TarEntry>): AsyncGenerator<Buffer> {
  for (const entry of entries) {
    if (entry.kind === 'folder' || entry.kind === 'link') {
      yield header(entry, 0);
      continue;
    }
    if (entry.kind === 'text') {
      const content = Buffer.from(entry.text);
      yield Buffer.concat([header(entry, content.length), content, padding(content.length)]);
      continue;
    }
    const { size } = statSync(entry.from);
    yield header(entry, size);
    yield* createReadStream(entry.from, { highWaterMark: 1 << 20, end: size - 1 }) as AsyncIterable<Buffer>;
    yield padding(size);
  }
  yield Buffer.alloc(2 * BLOCK_BYTES);
}
