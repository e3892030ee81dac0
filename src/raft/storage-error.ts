/**
 * What goes wrong with the raft folder, in words for the person who must repair it.
 */
import { errorMessage, SwarmdError, systemErrorCode } from '../base/errors.ts';

/** A file that the database's own records list is missing, or ends before what they say is in it. */
const LOST_FILE = /IO error: .*\/(?!LOCK)[^/]*: (No such file or directory|Invalid argument)/;

/** The codes and messages of an error and its causes, outermost first. */
function chain(error: unknown): { readonly codes: readonly string[]; readonly text: string } {
  const codes: string[] = [];
  const texts: string[] = [];
  for (let each = error; each !== undefined && each !== null; ) {
    const code = systemErrorCode(each);
    if (code !== undefined) codes.push(code);
    texts.push(errorMessage(each));
    each = each instanceof Error ? each.cause : undefined;
  }
  return { codes, text: texts.join(': ') };
}

/** A damaged log. Its member must not vote: it may have forgotten what it promised. */
export function damaged(folder: string, what: string): SwarmdError {
  return new SwarmdError(
    'CORRUPT',
    `the raft log in ${folder} is damaged: ${what}. This manager does not start with it, because it may have ` +
      'forgotten votes and changes it confirmed. If the cluster has other managers, remove this one on one of them ' +
      '(swarmd node rm --force), empty its data folder and join again; if it is the only one, restore a snapshot ' +
      'or a copy of the folder',
    { details: { folder } },
  );
}

/** The error of a failed read or write in `folder`; one that is a SwarmdError already passes unchanged. */
export function storageError(folder: string, action: 'read' | 'write', error: unknown): SwarmdError {
  if (error instanceof SwarmdError) return error;
  const { codes, text } = chain(error);
  const options = { details: { folder }, cause: error };
  if (codes.includes('ENOSPC') || /no space left|disk quota exceeded/i.test(text)) {
    return new SwarmdError(
      'RESOURCE_EXHAUSTED',
      `the disk that holds the raft log in ${folder} is full; free space there, then start swarmd again`,
      options,
    );
  }
  const isDamage = codes.includes('LEVEL_CORRUPTION') || /corruption/i.test(text) || LOST_FILE.test(text);
  if (isDamage) return damaged(folder, text);
  return new SwarmdError(
    'UNAVAILABLE',
    `the raft log in ${folder} cannot be ${action === 'read' ? 'read' : 'written'}: ${text}; check the disk, ` +
      'then start swarmd again',
    options,
  );
}

/** The error of a folder that cannot be opened; one that is a SwarmdError already passes unchanged. */
export function openError(folder: string, error: unknown): SwarmdError {
  if (error instanceof SwarmdError) return error;
  const { codes, text } = chain(error);
  const options = { details: { folder }, cause: error };
  if (codes.includes('LEVEL_LOCKED')) {
    return new SwarmdError(
      'LOCKED',
      `the raft log in ${folder} is in use by another process; stop the other swarmd, or give this one its own ` +
        'state folder',
      options,
    );
  }
  if (codes.includes('EACCES') || codes.includes('EPERM') || /permission denied/i.test(text)) {
    return new SwarmdError(
      'PERMISSION_DENIED',
      `the raft log in ${folder} cannot be opened: permission denied; run swarmd as the user that owns the folder`,
      options,
    );
  }
  return storageError(folder, 'read', error);
}
