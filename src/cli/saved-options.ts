/**
 * What a daemon was started with, kept in its data folder, so that `swarmd daemon` needs no flag twice.
 *
 * Precedence: flag, environment, what was saved, default. Only what init and join cannot put into the node's identity.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { NodeOptions } from '../node/types.ts';

const FILE = 'daemon.json';

/** The options that are saved, as the flags' texts. */
export interface SavedOptions {
  readonly engineHost?: string;
  readonly dnsAddress?: string;
  readonly socket?: string;
}

/** What was saved in a data folder; nothing when there is no readable file. */
export function readSavedOptions(dataDir: string): SavedOptions {
  try {
    const value = JSON.parse(readFileSync(join(dataDir, FILE), 'utf8')) as Record<string, unknown>;
    const text = (key: keyof SavedOptions): Partial<SavedOptions> =>
      typeof value[key] === 'string' ? { [key]: value[key] } : {};
    return { ...text('engineHost'), ...text('dnsAddress'), ...text('socket') };
  } catch {
    return {};
  }
}

/** Saves what the daemon runs with. A folder that cannot be written only costs the convenience. */
export function saveOptions(options: NodeOptions): void {
  const saved: SavedOptions = {
    engineHost: options.engineHost ?? 'none',
    dnsAddress: options.dns === null ? 'none' : `${options.dns.host}:${options.dns.port}`,
    socket: options.socketPath,
  };
  try {
    writeFileSync(join(options.dataDir, FILE), `${JSON.stringify(saved, null, 2)}\n`, { mode: 0o600 });
  } catch {
    // The node runs; the next start takes flags or defaults.
  }
}
