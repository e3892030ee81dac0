/** The version of this program, from its package file. */
import { readFileSync } from 'node:fs';

/** Semantic version, such as 0.1.0. */
export const version: string = (
  JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }
).version;
