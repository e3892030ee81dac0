/**
 * Makes container images without a registry or a Dockerfile: a root with Node and the libraries it is linked to,
 * and images on top of it that add some files.
 */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { callEngine, callEngineJson } from './engine-api.ts';
import { type TarEntry, tarOf } from './tar.ts';

/** What an image made here says about its containers. */
export interface ImageSettings {
  readonly command: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly workingFolder?: string;
  readonly stopSignal?: string;
}

function changes(settings: ImageSettings): string {
  const lines = [
    `CMD ${JSON.stringify(settings.command)}`,
    ...Object.entries(settings.environment ?? {}).map(
      ([name, value]) => `ENV ${name}=${JSON.stringify(value)}`,
    ),
    ...(settings.workingFolder === undefined ? [] : [`WORKDIR ${settings.workingFolder}`]),
    ...(settings.stopSignal === undefined ? [] : [`STOPSIGNAL ${settings.stopSignal}`]),
  ];
  return lines.map((line) => `changes=${encodeURIComponent(line)}`).join('&');
}

function splitTag(image: string): { readonly name: string; readonly tag: string } {
  const colon = image.lastIndexOf(':');
  return colon > image.lastIndexOf('/')
    ? { name: image.slice(0, colon), tag: image.slice(colon + 1) }
    : { name: image, tag: 'latest' };
}

/** Makes `image` from nothing but `entries`. Rejects with what the engine said. */
export async function importImage(
  socketPath: string,
  image: string,
  entries: Iterable<TarEntry>,
  settings: ImageSettings,
): Promise<void> {
  const { name, tag } = splitTag(image);
  const answer = await callEngine(socketPath, {
    method: 'POST',
    path: `/images/create?fromSrc=-&repo=${encodeURIComponent(name)}&tag=${tag}&${changes(settings)}`,
    tar: tarOf(entries),
  });
  if (answer.includes('"error"')) throw new Error(`image ${image} could not be made: ${answer.trim()}`);
}

/** Makes images from `base` that all have `entries` at their root and differ in their settings. */
export async function deriveImages(
  socketPath: string,
  base: string,
  entries: Iterable<TarEntry>,
  images: readonly { readonly image: string; readonly settings: ImageSettings }[],
): Promise<void> {
  const { Id: id } = await callEngineJson<{ Id: string }>(socketPath, {
    method: 'POST',
    path: '/containers/create',
    json: { Image: base, Cmd: ['/bin/true'], NetworkDisabled: true },
  });
  try {
    await callEngine(socketPath, {
      method: 'PUT',
      path: `/containers/${id}/archive?path=/`,
      tar: tarOf(entries),
    });
    for (const { image, settings } of images) {
      const { name, tag } = splitTag(image);
      const query = `container=${id}&repo=${encodeURIComponent(name)}&tag=${tag}&${changes(settings)}`;
      await callEngine(socketPath, { method: 'POST', path: `/commit?${query}`, json: {} });
    }
  } finally {
    await callEngine(socketPath, { method: 'DELETE', path: `/containers/${id}?force=1` });
  }
}

/** Whether the engine has `image`. */
export async function hasImage(socketPath: string, image: string): Promise<boolean> {
  const list = await callEngineJson<readonly { readonly RepoTags: readonly string[] | null }[]>(socketPath, {
    method: 'GET',
    path: '/images/json',
  });
  const { name, tag } = splitTag(image);
  return list.some((one) => one.RepoTags?.includes(`${name}:${tag}`));
}

/** The shared libraries a program is linked to, its loader included, as absolute paths. */
export function librariesOf(program: string): string[] {
  const lines = execFileSync('ldd', [program], { encoding: 'utf8' }).split('\n');
  return lines.flatMap((line) => /(?:=> )?(\/\S+) \(0x/.exec(line)?.[1] ?? []);
}

const FOLDERS = [
  'bin',
  'dev',
  'etc',
  'lib',
  'lib64',
  'proc',
  'root',
  'sys',
  'usr',
  'usr/bin',
  'var',
  'var/lib',
];

/** Folders and account files that every root has. */
export function rootEntries(): TarEntry[] {
  return [
    ...FOLDERS.map((path): TarEntry => ({ kind: 'folder', path })),
    { kind: 'folder', path: 'tmp', mode: 0o1777 },
    { kind: 'text', path: 'etc/passwd', text: 'root:x:0:0:root:/root:/bin/sh\n' },
    { kind: 'text', path: 'etc/group', text: 'root:x:0:\n' },
  ];
}

/** A static busybox and a link for each of its commands; nothing where the machine has none. */
export function busyboxEntries(): TarEntry[] {
  const path = ['/bin/busybox', '/usr/bin/busybox'].find((candidate) => existsSync(candidate));
  if (path === undefined) return [];
  const applets = execFileSync(path, ['--list'], { encoding: 'utf8' }).trim().split('\n');
  return [
    { kind: 'file', path: 'bin/busybox', from: path, mode: 0o755 },
    ...applets
      .filter((applet) => applet !== 'busybox')
      .map((applet): TarEntry => ({ kind: 'link', path: `bin/${applet}`, target: 'busybox' })),
  ];
}

/** A program at `path` of the image and the libraries it is linked to, at the paths its loader looks for. */
export function programEntries(program: string, path: string): TarEntry[] {
  const libraries = librariesOf(program);
  const folders = libraries.flatMap((library) => {
    const parts = library.slice(1).split('/').slice(0, -1);
    return parts.map((_, index) => parts.slice(0, index + 1).join('/'));
  });
  return [
    ...[...new Set(folders)].map((folder): TarEntry => ({ kind: 'folder', path: folder })),
    ...libraries.map((from): TarEntry => ({ kind: 'file', path: from.slice(1), from, mode: 0o755 })),
    { kind: 'file', path, from: program, mode: 0o755 },
  ];
}

/** Makes `image` with Node (the one that runs this) as /bin/node, and busybox where the machine has it. */
export async function makeNodeImage(socketPath: string, image: string): Promise<void> {
  const entries = [...rootEntries(), ...busyboxEntries(), ...programEntries(process.execPath, 'bin/node')];
  // Engines refuse an archive that names a path twice, and busybox may bring links that programs bring too.
  const once = new Map(entries.map((entry) => [entry.path, entry])).values();
  await importImage(socketPath, image, once, {
    command: ['/bin/node'],
    environment: { PATH: '/bin:/usr/bin' },
  });
}
