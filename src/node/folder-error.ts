/** What a failed file operation in the data folder means to the operator. */
import { errorMessage, SwarmdError, systemErrorCode } from '../base/errors.ts';

/** Wraps a system error about the data folder with what to do. */
export function folderError(dataDir: string, error: unknown): SwarmdError {
  if (error instanceof SwarmdError) return error;
  const cause = { cause: error };
  switch (systemErrorCode(error)) {
    case 'ENOSPC':
    case 'EDQUOT':
      return new SwarmdError(
        'RESOURCE_EXHAUSTED',
        `no space is left for the data folder ${dataDir}; free some and start again`,
        cause,
      );
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new SwarmdError(
        'PERMISSION_DENIED',
        `the data folder ${dataDir} cannot be written; run as its owner, or choose another with --data-dir`,
        cause,
      );
    case 'ENOENT':
    case 'ENOTDIR':
    case 'EEXIST':
      return new SwarmdError(
        'INVALID_ARGUMENT',
        `the data folder ${dataDir} cannot be made there, or is not a folder; choose another with --data-dir`,
        cause,
      );
    default:
      return new SwarmdError(
        'INTERNAL',
        `the data folder ${dataDir} cannot be used: ${errorMessage(error)}`,
        cause,
      );
  }
}
