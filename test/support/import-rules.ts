/**
 * The one table of who may import whom, which files are pure, and which file is the door to which package.
 *
 * The linter's configuration is generated from it (lint-config.ts), and test/unit/repo/import-rules.test.ts checks
 * every import of src against it, which is finer than what the linter can express.
 *
 * Invariant: of the rules whose `files` match, the last one holds; every file of src matches one.
 */

/** What the files of one part of src may import. Paths are globs below src. */
export interface ImportRule {
  readonly files: readonly string[];
  /** Globs of the files of src they may import, besides their own folder. */
  readonly mayImport: readonly string[];
  /** Globs of files of src of which only types may be imported. */
  readonly mayImportTypes?: readonly string[];
  /** Globs within their own folder they may not import. */
  readonly mayNotImport?: readonly string[];
  /** No timers, input or output, clock, randomness, promises or logging. */
  readonly pure?: true;
}

const LEAVES = ['base/**', 'model/**'];
const PURE_MANAGER = [
  'manager/state/**',
  'manager/orchestrator/**',
  'manager/update/**',
  'manager/scheduler/**',
  'manager/allocator/**',
  'manager/forecast/**',
];
/** The parts of a node know one another by their interfaces alone; src/node puts them together. */
const NODE_PARTS = ['worker/**', 'network/**', 'dns/**', 'ingress/**'];

/** Every part of src, general before specific. */
export const importRules: readonly ImportRule[] = [
  { files: ['base/**'], mayImport: [], pure: true },
  // The ports themselves, and the queue whose purpose is to make a consumer wait.
  { files: ['base/{clock,random,log,bounded-queue}.ts'], mayImport: [] },
  { files: ['model/**'], mayImport: ['base/**'], pure: true },
  { files: ['pki/**'], mayImport: ['base/**'] },
  { files: ['rpc/**'], mayImport: [...LEAVES, 'pki/**'] },
  { files: ['raft/**'], mayImport: ['base/**'] },
  { files: ['raft/core/**'], mayImport: ['base/**'], pure: true },
  {
    files: ['manager/**'],
    mayImport: [...LEAVES, ...PURE_MANAGER, 'manager/dispatcher/**', 'manager/api/**', 'rpc/**', 'pki/**'],
    // How a proposal ends and what the group looks like; the consensus itself is manager.ts's business.
    mayImportTypes: ['raft/types.ts'],
    mayNotImport: ['manager/manager.ts'],
  },
  { files: ['manager/manager.ts'], mayImport: [...LEAVES, 'manager/**', 'raft/**', 'rpc/**', 'pki/**'] },
  {
    files: [
      'manager/orchestrator/**',
      'manager/update/**',
      'manager/scheduler/**',
      'manager/allocator/**',
      'manager/dispatcher/{core*,items}.ts',
    ],
    mayImport: [...LEAVES, 'manager/state/**'],
    pure: true,
  },
  // Rebalancing asks the scheduler where a task would go.
  {
    files: ['manager/orchestrator/rebalance.ts'],
    mayImport: [...LEAVES, 'manager/state/**', 'manager/scheduler/**'],
    pure: true,
  },
  // The updater works on the slots and makes the tasks that the orchestrators keep.
  {
    files: ['manager/update/**'],
    mayImport: [...LEAVES, 'manager/state/**', 'manager/orchestrator/**'],
    pure: true,
  },
  // The chain of all planners, run by the control loop and on a tentative copy.
  { files: ['manager/forecast/**'], mayImport: [...LEAVES, ...PURE_MANAGER], pure: true },
  { files: ['manager/state/**'], mayImport: LEAVES, pure: true },
  { files: NODE_PARTS, mayImport: [...LEAVES, 'rpc/**'], mayImportTypes: NODE_PARTS },
  {
    files: [
      'worker/core/**',
      'network/plan*',
      'network/plan/**',
      'dns/{table,resolve}.ts',
      'ingress/{table,balance}.ts',
    ],
    mayImport: LEAVES,
    mayImportTypes: NODE_PARTS,
    pure: true,
  },
  { files: ['stack/**'], mayImport: LEAVES, pure: true },
  { files: ['http/**'], mayImport: LEAVES, mayImportTypes: ['manager/api/**'] },
  { files: ['node/**'], mayImport: ['!(cli)/**'] },
  { files: ['cli/**'], mayImport: [...LEAVES, 'rpc/**', 'stack/**', 'node/**', 'http/client*.ts'] },
];

/** The only files of src that may import a package (an import of its subpaths counts). */
export const packageDoors: Readonly<Record<string, readonly string[]>> = {
  level: ['raft/level-database.ts'],
  dockerode: ['worker/docker-*.ts'],
  dns2: ['dns/server.ts'],
  ws: ['rpc/**'],
  '@peculiar/x509': ['pki/**'],
  fastify: ['http/**'],
  commander: ['cli/**'],
  'js-yaml': ['stack/**'],
  msgpackr: ['model/**', 'rpc/**', 'raft/**', 'manager/**'],
};

/** What a pure file may use of Node: modules and names that compute and do nothing else; null is every name. */
export const pureBuiltins: Readonly<Record<string, readonly string[] | null>> = {
  'node:buffer': ['Buffer'],
  'node:crypto': ['createHash', 'createHmac', 'hash', 'timingSafeEqual'],
  'node:net': ['isIP', 'isIPv4', 'isIPv6', 'BlockList'],
  'node:path/posix': null,
};

/** Globals that are time, input, output or waiting. */
export const impureGlobals: readonly string[] = [
  'Date',
  'Promise',
  'WebSocket',
  'clearInterval',
  'clearTimeout',
  'console',
  'crypto',
  'fetch',
  'globalThis',
  'performance',
  'process',
  'queueMicrotask',
  'setImmediate',
  'setInterval',
  'setTimeout',
];
