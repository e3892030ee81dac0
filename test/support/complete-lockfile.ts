/**
 * Completes package-lock.json: `node test/support/complete-lockfile.ts` after each `npm install`.
 *
 * A package with prebuilt binaries names one optional package a platform. Where the registry in use lacks some of
 * them, npm leaves them out of the lock file and then refuses `npm ci` because the lock file is incomplete. The
 * missing entries need no digest: npm only reads their platform and passes over those of other machines.
 */
import { readFileSync, writeFileSync } from 'node:fs';

interface LockEntry {
  readonly version?: string;
  readonly dev?: boolean;
  readonly optional?: boolean;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly os?: readonly string[];
  readonly cpu?: readonly string[];
  readonly libc?: readonly string[];
}

/** The part of package-lock.json (version 3) that matters here. */
export interface Lockfile {
  readonly packages: Readonly<Record<string, LockEntry>>;
}

const OPERATING_SYSTEMS = ['linux', 'darwin', 'win32', 'android', 'freebsd', 'openharmony'];
const PROCESSORS = ['x64', 'arm64', 'ia32', 'arm', 'ppc64', 'riscv64', 's390x', 'loong64'];

/** Names of optional packages that some entry of the lock file needs and no entry provides. */
export function missingOptionalPackages(lock: Lockfile): string[] {
  return Object.values(lock.packages)
    .flatMap((entry) => Object.keys(entry.optionalDependencies ?? {}))
    .filter((name) => !Object.keys(lock.packages).some((path) => path.endsWith(`node_modules/${name}`)));
}

function platformOf(name: string): LockEntry {
  const words = name.split(/[^a-z0-9]+/);
  const os = OPERATING_SYSTEMS.find((candidate) => words.includes(candidate));
  const cpu = PROCESSORS.find((candidate) => words.includes(candidate));
  if (os === undefined || cpu === undefined)
    throw new Error(`cannot tell the platform of ${name} from its name`);
  if (os !== 'linux') return { os: [os], cpu: [cpu] };
  return { os: [os], cpu: [cpu], libc: [words.some((word) => word.startsWith('musl')) ? 'musl' : 'glibc'] };
}

/** The same lock file with an entry for every optional package. */
export function completeLockfile(lock: Lockfile): Lockfile {
  const packages: Record<string, LockEntry> = { ...lock.packages };
  const missing = new Set(missingOptionalPackages(lock));
  for (const entry of Object.values(lock.packages)) {
    for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
      if (!missing.has(name)) continue;
      const role = entry.dev === true ? { dev: true, optional: true } : { optional: true };
      packages[`node_modules/${name}`] = { version, ...role, ...platformOf(name) };
    }
  }
  const sorted = Object.entries(packages).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return { ...lock, packages: Object.fromEntries(sorted) };
}

if (import.meta.main) {
  const path = new URL('../../package-lock.json', import.meta.url);
  const lock = JSON.parse(readFileSync(path, 'utf8')) as Lockfile;
  const missing = missingOptionalPackages(lock);
  writeFileSync(path, `${JSON.stringify(completeLockfile(lock), null, 2)}\n`);
  process.stdout.write(`added ${missing.length} optional packages to package-lock.json\n`);
}
