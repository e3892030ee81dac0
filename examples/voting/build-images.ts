/**
 * Makes the images of this example on a container engine, without a registry:
 * `node examples/voting/build-images.ts [--host unix:///var/run/docker.sock]`.
 *
 * Each of the five images exists as `voting/NAME:1` and `voting/NAME:2`, which differ in the version they show.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { callEngine } from './lib/engine-api.ts';
import { deriveImages, hasImage, makeNodeImage } from './lib/node-image.ts';
import type { TarEntry } from './lib/tar.ts';

const BASE_IMAGE = `voting/node:${process.versions.node}`;
const services = ['vote', 'redis', 'worker', 'db', 'result'] as const;

/** The versions of the images that are made, which are also their tags. */
export const votingVersions = ['1', '2'] as const;

function programs(): TarEntry[] {
  const folder = join(import.meta.dirname, 'images');
  return [
    { kind: 'folder', path: 'app' },
    { kind: 'text', path: 'app/package.json', text: '{ "type": "module" }\n' },
    ...readdirSync(folder).map(
      (name): TarEntry => ({ kind: 'file', path: `app/${name}`, from: join(folder, name) }),
    ),
  ];
}

/** Makes the images on the engine at `socketPath`; returns their names. */
export async function buildVotingImages(socketPath: string): Promise<string[]> {
  if (!(await hasImage(socketPath, BASE_IMAGE))) await makeNodeImage(socketPath, BASE_IMAGE);
  const images = votingVersions.flatMap((version) =>
    services.map((service) => ({
      image: `voting/${service}:${version}`,
      settings: { command: ['/bin/node', `/app/${service}.ts`], environment: { VERSION: version } },
    })),
  );
  await deriveImages(socketPath, BASE_IMAGE, programs(), images);
  return images.map(({ image }) => image);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { host: { type: 'string', default: 'unix:///var/run/docker.sock' } },
  });
  const socketPath = values.host.replace(/^unix:\/\//, '');
  try {
    await callEngine(socketPath, { method: 'GET', path: '/_ping' });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    process.stderr.write(
      `no container engine answers at ${values.host}: ${reason}\nStart it, or name it: --host\n`,
    );
    process.exitCode = 1;
    return;
  }
  for (const image of await buildVotingImages(socketPath)) process.stdout.write(`${image}\n`);
}

if (import.meta.main) await main();
