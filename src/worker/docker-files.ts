/** Files written into a created container, as the tar archive the engine takes. Pure. */
import { dirname, normalize } from 'node:path/posix';

export interface ArchiveFile {
  /** Absolute path in the container. */
  readonly path: string;
  readonly uid: number;
  readonly gid: number;
  /** Permission bits. */
  readonly mode: number;
  readonly content: Uint8Array;
}

/** Where a secret goes: `/run/secrets/NAME`, or its own absolute path. */
export function secretPath(name: string): string {
  return normalize(name.startsWith('/') ? name : `/run/secrets/${name}`);
}

/** Where a config goes: `/NAME`, or its own absolute path. */
export function configPath(name: string): string {
  return normalize(name.startsWith('/') ? name : `/${name}`);
}

export function parentOf(path: string): string {
  return dirname(path);
}

const BLOCK = 512;

function octal(value: number, length: number): string {
  return value
    .toString(8)
    .padStart(length - 1, '0')
    .slice(-(length - 1));
}

/** One header block in ustar form. */
function header(entry: {
  path: string;
  uid: number;
  gid: number;
  mode: number;
  size: number;
  type: '0' | '5' | 'L';
}): Buffer {
  const block = Buffer.alloc(BLOCK);
  block.write(entry.path, 0, 100, 'utf8');
  block.write(octal(entry.mode, 8), 100);
  block.write(octal(entry.uid, 8), 108);
  block.write(octal(entry.gid, 8), 116);
  block.write(octal(entry.size, 12), 124);
  block.write(octal(0, 12), 136);
  block.write('        ', 148);
  block.write(entry.type, 156);
  block.write('ustar\u000000', 257, 'latin1');
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${octal(sum, 7)}\0 `, 148, 'latin1');
  return block;
}

function padded(content: Uint8Array): Buffer[] {
  const rest = (BLOCK - (content.length % BLOCK)) % BLOCK;
  return [Buffer.from(content), Buffer.alloc(rest)];
}

/** A name over 100 bytes goes into an entry of its own before the file's (GNU). */
function longName(path: string): Buffer[] {
  const bytes = Buffer.from(`${path}\0`, 'utf8');
  if (bytes.length <= 100) return [];
  return [
    header({ path: '././@LongLink', uid: 0, gid: 0, mode: 0, size: bytes.length, type: 'L' }),
    ...padded(bytes),
  ];
}

/** A tar archive of the files with paths relative to `root` ('/' or an absolute folder that holds them all). */
export function tarArchive(files: readonly ArchiveFile[], root: string): Buffer {
  const prefix = root === '/' ? '/' : `${root}/`;
  const parts: Buffer[] = [];
  for (const { path, uid, gid, mode, content } of files) {
    const relative = path.slice(prefix.length);
    parts.push(...longName(relative));
    parts.push(header({ path: relative, uid, gid, mode: mode & 0o7777, size: content.length, type: '0' }));
    parts.push(...padded(content));
  }
  return Buffer.concat([...parts, Buffer.alloc(2 * BLOCK)]);
}

/** Files by their folder, in the order of their first file. */
export function filesByFolder(files: readonly ArchiveFile[]): ReadonlyMap<string, readonly ArchiveFile[]> {
  const groups = new Map<string, ArchiveFile[]>();
  for (const file of files) {
    const folder = parentOf(file.path);
    groups.set(folder, [...(groups.get(folder) ?? []), file]);
  }
  return groups;
}
