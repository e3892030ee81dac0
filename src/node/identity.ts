/**
 * Who this node is: ids, addresses and certificate in the data folder.
 *
 * Invariants: written whole, once the node is a member; the private key is readable by its owner only; a folder
 * without `identity.json` belongs to no cluster.
 */
import { open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { SwarmdError, systemErrorCode } from '../base/errors.ts';
import { folderError } from './folder-error.ts';

/** What `identity.json` holds. */
export interface Identity {
  readonly format: 1;
  readonly nodeId: string;
  readonly clusterId: string;
  readonly role: 'manager' | 'worker';
  /** Member id in the consensus group; 0 for workers. */
  readonly raftId: number;
  /** Set from the moment a worker is to become a manager until its log is there: it begins as a joiner. */
  readonly raftStart?: 'join';
  readonly listen: { readonly host: string; readonly port: number };
  /** How other nodes reach this one. */
  readonly advertise: { readonly host: string; readonly port: number };
  readonly dataPathAddress: string;
  /** host:port of managers known when it was written. */
  readonly managers: readonly string[];
}

/** The node's certificate, the root it trusts, and its key, as PEM. */
export interface Credentials {
  readonly rootPem: string;
  readonly certificatePem: string;
  readonly keyPem: string;
}

const files = {
  identity: 'identity.json',
  root: 'ca.crt',
  certificate: 'node.crt',
  key: 'node.key',
} as const;

/** The identity and credentials in a data folder; null when there are none. Throws CORRUPT when they cannot be read. */
export async function readIdentity(
  dataDir: string,
): Promise<{ identity: Identity; credentials: Credentials } | null> {
  let text: string;
  try {
    text = await readFile(join(dataDir, files.identity), 'utf8');
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return null;
    throw folderError(dataDir, error);
  }
  try {
    const identity = parseIdentity(text);
    const [rootPem, certificatePem, keyPem] = (await Promise.all(
      [files.root, files.certificate, files.key].map((name) => readFile(join(dataDir, name), 'utf8')),
    )) as [string, string, string];
    return { identity, credentials: { rootPem, certificatePem, keyPem } };
  } catch (error) {
    if (systemErrorCode(error) === 'EACCES') throw folderError(dataDir, error);
    throw new SwarmdError(
      'CORRUPT',
      `the identity in ${dataDir} cannot be read (${(error as Error).message}); restore the folder, or run "swarmd leave --force" and join again`,
      { cause: error },
    );
  }
}

function parseIdentity(text: string): Identity {
  const identity = JSON.parse(text) as Identity;
  const isWhole =
    typeof identity === 'object' &&
    identity !== null &&
    identity.format === 1 &&
    typeof identity.nodeId === 'string' &&
    typeof identity.clusterId === 'string' &&
    (identity.role === 'manager' || identity.role === 'worker') &&
    Number.isInteger(identity.raftId) &&
    isEndpoint(identity.listen) &&
    isEndpoint(identity.advertise) &&
    typeof identity.dataPathAddress === 'string' &&
    Array.isArray(identity.managers) &&
    identity.managers.every((address) => typeof address === 'string');
  if (!isWhole) throw new Error('its content is not that of a node');
  return identity;
}

function isEndpoint(value: unknown): boolean {
  const { host, port } = (value ?? {}) as { host?: unknown; port?: unknown };
  return typeof host === 'string' && Number.isInteger(port);
}

/** Writes identity and credentials; the identity last, so that it is there only with all the rest. */
export async function writeIdentity(
  dataDir: string,
  identity: Identity,
  credentials: Credentials,
): Promise<void> {
  try {
    await writeDurably(join(dataDir, files.root), credentials.rootPem, 0o644);
    await writeDurably(join(dataDir, files.certificate), credentials.certificatePem, 0o644);
    await writeDurably(join(dataDir, files.key), credentials.keyPem, 0o600);
    // The others must be there for good before the file that says so is.
    await syncFolder(dataDir);
    await writeDurably(join(dataDir, files.identity), `${JSON.stringify(identity, null, 2)}\n`, 0o600);
    await syncFolder(dataDir);
  } catch (error) {
    throw folderError(dataDir, error);
  }
}

/** Removes what makes the folder a member, and everything kept for the cluster. */
export async function forgetIdentity(dataDir: string): Promise<void> {
  for (const name of [
    files.identity,
    files.key,
    files.certificate,
    files.root,
    'daemon.json',
    'raft',
    'worker',
    'tasks',
  ]) {
    await rm(join(dataDir, name), { recursive: true, force: true });
  }
}

async function writeDurably(path: string, text: string, mode: number): Promise<void> {
  const temporary = `${path}.new`;
  await rm(temporary, { force: true });
  const file = await open(temporary, 'w', mode);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
