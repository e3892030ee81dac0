/**
 * Platform names, compared the way users expect: kernels, images and Docker name the same machine differently.
 */
import type { Platform } from './objects.ts';

/** Names of one architecture, all mapped to the name images use. */
const architectureAliases: Readonly<Record<string, string>> = {
  x86_64: 'amd64',
  'x86-64': 'amd64',
  aarch64: 'arm64',
  armhf: 'arm',
  armel: 'arm',
  armv6l: 'arm',
  armv7l: 'arm',
  i386: '386',
  i686: '386',
};

/** The image name of an architecture (`x86_64` -> `amd64`); unknown names pass in lower case. */
export function normalArchitecture(name: string): string {
  const lower = name.trim().toLowerCase();
  return Object.hasOwn(architectureAliases, lower) ? (architectureAliases[lower] as string) : lower;
}

/** Whether an image built for `wanted` runs on `node`. An empty part of `wanted` means any. */
export function platformMatches(wanted: Platform, node: Platform): boolean {
  const osFits = wanted.os === '' || wanted.os.toLowerCase() === node.os.toLowerCase();
  const archFits =
    wanted.architecture === '' ||
    normalArchitecture(wanted.architecture) === normalArchitecture(node.architecture);
  return osFits && archFits;
}
