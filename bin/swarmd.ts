#!/usr/bin/env node
/**
 * The command `swarmd`: hands the arguments to src/cli/main.ts and exits with what it returns.
 *
 * This file is plain JavaScript and a CommonJS module (bin/package.json), so that a Node too old to run TypeScript
 * can still run it, and say so.
 */
const major = Number(process.versions.node.split('.')[0]);

/** Keeps compiled code between runs: commands then start in a third of the time. Without a folder, nothing is kept. */
function keepCompiledCode() {
  const { existsSync, mkdirSync } = require('node:fs');
  const { join } = require('node:path');
  try {
    // The user's own folder by the user database: a shared one, or another user's $HOME, could bring others' code.
    const cache = process.env.XDG_CACHE_HOME || join(require('node:os').userInfo().homedir, '.cache');
    // One level alone: a home that is not there is not made, and Node would try for ever where nothing can be made.
    if (!existsSync(cache)) mkdirSync(cache, { mode: 0o700 });
    require('node:module').enableCompileCache(join(cache, 'swarmd'));
  } catch {
    // No entry in the user database, or no home: commands start slower.
  }
}

if (major < 24) {
  process.stderr.write(
    `swarmd needs Node 24 or newer and was started by Node ${process.versions.node}.\n` +
      'In a checkout, after `npm ci`, run `npx swarmd ...`: the project brings its own Node.\n',
  );
  process.exitCode = 1;
} else {
  // Every write of the log passes through libuv's pool: four slow lookups elsewhere must not hold it up.
  process.env.UV_THREADPOOL_SIZE ??= '16';
  keepCompiledCode();
  import('../src/cli/main.ts')
    .then(({ main }) => main(process.argv))
    .then(
      (code) => {
        process.exitCode = code;
      },
      (error) => {
        console.error(error);
        process.exitCode = 1;
      },
    );
}
