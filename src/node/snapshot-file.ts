/**
 * The file of `swarmd snapshot`: a copy of a cluster's state that can be kept elsewhere.
 *
 * Layout: 16 bytes of magic, header length (4 bytes, big-endian), header (JSON), state length (6 bytes), state,
 * SHA-256 of all before. Invariants: written whole or not at all, and readable by its owner only: the state holds
 * the cluster's root key and every secret.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { open, readFile, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { errorMessage, SwarmdError, systemErrorCode } from '../base/errors.ts';
import { ok, refuse, type Result } from '../base/result.ts';

/** What a snapshot says of itself. */
export interface SnapshotHeader {
  readonly format: 1;
  readonly clusterId: string;
  /** Log position of the state. */
  readonly index: number;
  readonly term: number;
  /** Wall-clock milliseconds. */
  readonly takenAt: number;
  /** Version of the swarmd that wrote it. */
  readonly version: string;
  readonly members: readonly {
    readonly id: number;
    readonly nodeId: string;
    readonly address: string;
    readonly voter: boolean;
  }[];
}

/** A snapshot that was read. */
export interface SnapshotFile {
  readonly header: SnapshotHeader;
  readonly state: Uint8Array;
  /** Whether the content is what was written. */
  readonly checksumOk: boolean;
  /** SHA-256 the file should have, in hexadecimal. */
  readonly checksum: string;
}

const MAGIC = Buffer.from('SWARMD-SNAPSHOT\n', 'ascii');
const CHECKSUM_BYTES = 32;

/** The bytes of a snapshot file. */
export function encodeSnapshotFile(header: SnapshotHeader, state: Uint8Array): Buffer {
  const text = Buffer.from(JSON.stringify(header), 'utf8');
  const lengths = [Buffer.alloc(4), Buffer.alloc(6)] as const;
  lengths[0].writeUInt32BE(text.length);
  lengths[1].writeUIntBE(state.length, 0, 6);
  const body = Buffer.concat([MAGIC, lengths[0], text, lengths[1], state]);
  return Buffer.concat([body, createHash('sha256').update(body).digest()]);
}

/** Reads the bytes of a snapshot file; a refusal says why it is none. A wrong checksum is told, not refused. */
export function decodeSnapshotFile(bytes: Buffer): Result<SnapshotFile> {
  if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) return refuse('it is no swarmd snapshot');
  try {
    const headerAt = MAGIC.length + 4;
    const headerEnd = headerAt + bytes.readUInt32BE(MAGIC.length);
    const stateAt = headerEnd + 6;
    const stateEnd = stateAt + bytes.readUIntBE(headerEnd, 6);
    if (bytes.length !== stateEnd + CHECKSUM_BYTES) {
      return refuse(
        `it has ${bytes.length} bytes instead of ${stateEnd + CHECKSUM_BYTES}: it was cut short or added to`,
      );
    }
    const header = JSON.parse(bytes.toString('utf8', headerAt, headerEnd)) as SnapshotHeader;
    if (header.format !== 1) return refuse(`its format ${String(header.format)} is not known to this swarmd`);
    const told = bytes.subarray(stateEnd);
    const checksumOk = timingSafeEqual(
      createHash('sha256').update(bytes.subarray(0, stateEnd)).digest(),
      told,
    );
    return ok({
      header,
      state: bytes.subarray(stateAt, stateEnd),
      checksumOk,
      checksum: told.toString('hex'),
    });
  } catch (error) {
    return refuse(`its header cannot be read (${errorMessage(error)})`);
  }
}

/** Reads a snapshot file. NOT_FOUND, PERMISSION_DENIED, or CORRUPT when it is none; the checksum is the caller's business. */
export async function readSnapshotFile(path: string): Promise<SnapshotFile> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (error) {
    throw fileError(path, 'read', error);
  }
  const file = decodeSnapshotFile(bytes);
  if (file.ok) return file.value;
  throw new SwarmdError(
    'CORRUPT',
    `the snapshot ${path} cannot be used: ${file.reason}; take another copy of it`,
  );
}

/** Writes a file that replaces any of that name at once, mode 0600, durable when this resolves. */
export async function writeSnapshotFile(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.${process.pid}.new`;
  try {
    const file = await open(temporary, 'wx', 0o600);
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    const folder = await open(dirname(path), 'r');
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  } catch (error) {
    await rm(temporary, { force: true });
    throw fileError(path, 'written', error);
  }
}

function fileError(path: string, action: 'read' | 'written', error: unknown): SwarmdError {
  const code = systemErrorCode(error);
  const options = { cause: error };
  if (code === 'ENOENT')
    return new SwarmdError(
      'NOT_FOUND',
      `there is no ${action === 'read' ? path : `folder ${dirname(path)}`}; check the name`,
      options,
    );
  if (code === 'EACCES' || code === 'EPERM')
    return new SwarmdError('PERMISSION_DENIED', `${path} cannot be ${action}: permission denied`, options);
  if (code === 'ENOSPC')
    return new SwarmdError('RESOURCE_EXHAUSTED', `${path} cannot be written: the disk is full`, options);
  return new SwarmdError('INVALID_ARGUMENT', `${path} cannot be ${action}: ${errorMessage(error)}`, options);
}
