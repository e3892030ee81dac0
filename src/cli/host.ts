/** Which daemon a command talks to: `--host`, SWARMD_HOST, or the socket of the data folder. */
import { join, resolve } from 'node:path';
import type { SwarmdCommand } from './command.ts';
import type { ApiConnection, Outside } from './context.ts';
import { readSavedOptions } from './saved-options.ts';

interface GlobalOptions {
  readonly host?: string;
  readonly H?: string;
  readonly dataDir?: string;
}

/** Adds `--host` and `--data-dir` to a command, so that they may also stand after its name. */
export function withConnectionFlags(command: SwarmdCommand, names = '-H, --host <address>'): SwarmdCommand {
  return command
    .value(names, 'daemon to talk to: unix:///path/swarmd.sock or tcp://host:port (env SWARMD_HOST)')
    .value('--data-dir <folder>', "the daemon's data folder (env SWARMD_DATA_DIR)");
}

function options(command: SwarmdCommand): GlobalOptions {
  const merged: Record<string, unknown> = {};
  for (let at: SwarmdCommand | null = command; at !== null; at = at.parent as SwarmdCommand | null) {
    for (const [key, value] of Object.entries(at.opts())) {
      // `service create --host` is a hosts entry, a list.
      if (merged[key] === undefined && typeof value === 'string') merged[key] = value;
    }
  }
  return merged as GlobalOptions;
}

/** The data folder, absolute: flag, environment, or the default for the user. */
export function dataDirOf(command: SwarmdCommand, outside: Outside): string {
  const given = options(command).dataDir ?? outside.env['SWARMD_DATA_DIR'];
  if (given !== undefined && given !== '') return resolve(outside.cwd, given);
  return outside.isRoot ? '/var/lib/swarmd' : join(outside.home, '.local', 'share', 'swarmd');
}

/** The address of the daemon's API. */
export function hostOf(command: SwarmdCommand, outside: Outside): string {
  const given = options(command);
  const host = given.host ?? given.H;
  if (host !== undefined && host !== '') return host;
  const fromEnvironment = outside.env['SWARMD_HOST'];
  // A data folder given for this command is nearer than an address set for all.
  if (given.dataDir === undefined && fromEnvironment !== undefined && fromEnvironment !== '')
    return fromEnvironment;
  const dataDir = dataDirOf(command, outside);
  return `unix://${readSavedOptions(dataDir).socket ?? join(dataDir, 'swarmd.sock')}`;
}

/** Calls `work` with a connection to the daemon and closes it. */
export async function withApi<T>(
  command: SwarmdCommand,
  outside: Outside,
  work: (api: ApiConnection) => Promise<T>,
): Promise<T> {
  const api = outside.connect(hostOf(command, outside));
  try {
    return await work(api);
  } finally {
    api.close();
  }
}
