/** Images for tests, made on the machine from its own busybox and Node; no registry is asked. */
import {
  busyboxEntries,
  deriveImages,
  importImage,
  type ImageSettings,
  makeNodeImage,
  rootEntries,
} from '../../../examples/voting/lib/node-image.ts';
import type { TarEntry } from '../../../examples/voting/lib/tar.ts';
import type { Engine } from './engine.ts';

/** Busybox alone (2 MB). */
export const BUSYBOX_IMAGE = 'swarmd-test/busybox:1';
/** Node and busybox. */
export const NODE_IMAGE = 'swarmd-test/node:1';

/** Makes {@link BUSYBOX_IMAGE} on the engine. Its containers sleep until they are stopped. */
export async function makeBusyboxImage(engine: Engine): Promise<void> {
  await importImage(engine.socketPath, BUSYBOX_IMAGE, [...rootEntries(), ...busyboxEntries()], {
    command: ['/bin/sh', '-c', 'trap "exit 0" TERM; while :; do sleep 3600 & wait $!; done'],
    environment: { PATH: '/bin:/usr/bin' },
  });
}

/** Makes {@link NODE_IMAGE} on the engine. */
export async function makeNodeTestImage(engine: Engine): Promise<void> {
  await makeNodeImage(engine.socketPath, NODE_IMAGE);
}

/** Makes `image` from `base` (one of the above) with more files and a command of its own. */
export async function makeDerivedImage(
  engine: Engine,
  base: string,
  image: string,
  entries: Iterable<TarEntry>,
  settings: ImageSettings,
): Promise<void> {
  await deriveImages(engine.socketPath, base, entries, [{ image, settings }]);
}
