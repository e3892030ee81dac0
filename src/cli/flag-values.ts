/** The values of service flags: parsers that throw UsageError naming the flag. */
import type { Mount, PortConfig } from '../model/spec.ts';
import type { Result } from '../base/result.ts';
import { isPort, parsePortShort, parseProtocol } from '../stack/ports.ts';
import { parseBytes, parseDurationMs, parseNanoCpus } from '../stack/quantities.ts';
import { splitShellWords } from '../stack/shell-words.ts';
import { PROPAGATIONS } from '../stack/volume-syntax.ts';
import { UsageError } from './command.ts';

/** The options of a command as commander gives them, read by name. */
export class FlagReader {
  readonly #values: Readonly<Record<string, unknown>>;

  constructor(values: Readonly<Record<string, unknown>>) {
    this.#values = values;
  }

  text(flag: string): string | undefined {
    const value = this.#values[camelCase(flag)];
    return typeof value === 'string' ? value : undefined;
  }

  list(flag: string): readonly string[] {
    const value = this.#values[camelCase(flag)];
    return Array.isArray(value) ? (value as string[]) : [];
  }

  bool(flag: string): boolean | undefined {
    const value = this.#values[camelCase(flag)];
    return typeof value === 'boolean' ? value : undefined;
  }

  /** Whether the flag was given. */
  has(flag: string): boolean {
    const value = this.#values[camelCase(flag)];
    return Array.isArray(value) ? value.length > 0 : value !== undefined;
  }

  #parsed<T>(flag: string, parse: (text: string) => Result<T>): T | undefined {
    const text = this.text(flag);
    return text === undefined ? undefined : unwrap(flag, parse(text));
  }

  durationMs(flag: string): number | undefined {
    const value = this.#parsed(flag, parseDurationMs);
    if (value !== undefined && value < 0) throw new UsageError(`--${flag} must not be negative`);
    return value;
  }

  bytes(flag: string): number | undefined {
    return this.#parsed(flag, parseBytes);
  }

  nanoCpus(flag: string): number | undefined {
    return this.#parsed(flag, parseNanoCpus);
  }

  words(flag: string): string[] | undefined {
    return this.#parsed(flag, splitShellWords);
  }

  count(flag: string): number | undefined {
    const text = this.text(flag);
    if (text === undefined) return undefined;
    if (!/^[0-9]{1,15}$/.test(text)) throw new UsageError(`--${flag} takes a whole number, not "${text}"`);
    return Number(text);
  }

  ratio(flag: string): number | undefined {
    const text = this.text(flag);
    if (text === undefined) return undefined;
    const value = Number(text);
    if (!(value >= 0 && value <= 1))
      throw new UsageError(`--${flag} takes a number from 0 to 1, not "${text}"`);
    return value;
  }

  oneOf<const T extends string>(flag: string, choices: readonly T[]): T | undefined {
    const text = this.text(flag);
    if (text === undefined) return undefined;
    const found = choices.find((choice) => choice === text);
    if (found === undefined)
      throw new UsageError(`--${flag} takes one of ${choices.join(', ')}, not "${text}"`);
    return found;
  }
}

function camelCase(flag: string): string {
  return flag.replace(/-([a-z])/g, (_whole, letter: string) => letter.toUpperCase());
}

/** The value of a result, or a UsageError that names the flag. */
export function unwrap<T>(flag: string, result: Result<T>): T {
  if (result.ok) return result.value;
  throw new UsageError(`--${flag}: ${result.reason}`);
}

/** `['a=b', 'c']` as `{a: 'b', c: ''}`. */
export function keyValues(flag: string, entries: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    entries.map((entry) => {
      const equals = entry.indexOf('=');
      const key = equals < 0 ? entry : entry.slice(0, equals);
      if (key === '') throw new UsageError(`--${flag}: "${entry}" has no name before the =`);
      if (/\s/.test(key)) throw new UsageError(`--${flag}: the name "${key}" holds white space`);
      return [key, equals < 0 ? '' : entry.slice(equals + 1)];
    }),
  );
}

/** `a=b,c="d,e"` as pairs; a word without `=` has the value ''. */
export function commaPairs(flag: string, text: string): Map<string, string> {
  const pairs = new Map<string, string>();
  for (const field of text.match(/(?:"[^"]*"|[^,])+/g) ?? []) {
    const clean =
      field.startsWith('"') && field.endsWith('"') ? field.slice(1, -1) : field.replaceAll('"', '');
    const equals = clean.indexOf('=');
    const key = (equals < 0 ? clean : clean.slice(0, equals)).trim().toLowerCase();
    if (key === '') throw new UsageError(`--${flag}: "${text}" has an empty part`);
    pairs.set(key, equals < 0 ? '' : clean.slice(equals + 1).trim());
  }
  return pairs;
}

/** `--publish 8080:80`, or `published=8080,target=80,protocol=tcp,mode=ingress`. */
export function parsePublish(flag: string, text: string): readonly PortConfig[] {
  if (!text.includes('=')) {
    const { ports, hostAddress } = unwrap(flag, parsePortShort(text));
    if (hostAddress === '') return ports;
    throw new UsageError(
      `--${flag}: "${text}" names an address, but a published port listens on all of them`,
    );
  }
  const pairs = commaPairs(flag, text);
  const known = ['published', 'target', 'protocol', 'mode', 'name'];
  for (const key of pairs.keys()) {
    if (!known.includes(key)) throw new UsageError(`--${flag}: "${key}" is not one of ${known.join(', ')}`);
  }
  const port = (key: string): number | undefined => {
    const value = pairs.get(key);
    if (value === undefined) return undefined;
    if (!isPort(Number(value)))
      throw new UsageError(`--${flag}: ${key} must be a port, 1 to 65535, not "${value}"`);
    return Number(value);
  };
  const target = port('target');
  if (target === undefined)
    throw new UsageError(`--${flag}: "${text}" needs target=PORT, the port inside the task`);
  const protocol = parseProtocol(pairs.get('protocol') ?? 'tcp');
  const mode = pairs.get('mode') ?? 'ingress';
  if (protocol === null) throw new UsageError(`--${flag}: protocol must be tcp, udp or sctp`);
  if (mode !== 'ingress' && mode !== 'host') throw new UsageError(`--${flag}: mode must be ingress or host`);
  const name = pairs.get('name');
  return [
    {
      ...(name === undefined ? {} : { name }),
      protocol,
      targetPort: target,
      publishedPort: port('published') ?? 0,
      publishMode: mode,
    },
  ];
}

const MOUNT_KEYS: Readonly<Record<string, string>> = {
  type: 'type',
  source: 'source',
  src: 'source',
  target: 'target',
  destination: 'target',
  dst: 'target',
  readonly: 'readonly',
  ro: 'readonly',
  'bind-propagation': 'bind-propagation',
  'volume-nocopy': 'volume-nocopy',
  'volume-label': 'volume-label',
  'volume-driver': 'volume-driver',
  'volume-opt': 'volume-opt',
  'tmpfs-size': 'tmpfs-size',
  'tmpfs-mode': 'tmpfs-mode',
};

/** `--mount type=bind,source=/a,target=/b,readonly`. */
export function parseMount(flag: string, text: string): Mount {
  const pairs = new Map<string, string>();
  const multiple: Record<string, string[]> = { 'volume-label': [], 'volume-opt': [] };
  for (const field of text.match(/(?:"[^"]*"|[^,])+/g) ?? []) {
    const [[raw, value] = ['', '']] = commaPairs(flag, field);
    const key = Object.hasOwn(MOUNT_KEYS, raw) ? MOUNT_KEYS[raw] : undefined;
    if (key === undefined)
      throw new UsageError(
        `--${flag}: "${raw}" is not a mount option; known: ${Object.keys(MOUNT_KEYS).join(', ')}`,
      );
    multiple[key]?.push(value);
    pairs.set(key, value);
  }
  const type = pairs.get('type') ?? 'volume';
  if (type !== 'bind' && type !== 'volume' && type !== 'tmpfs') {
    throw new UsageError(`--${flag}: a mount is of type bind, volume or tmpfs, not "${type}"`);
  }
  const target = pairs.get('target');
  const source = pairs.get('source');
  if (target === undefined || target === '') throw new UsageError(`--${flag}: "${text}" needs target=PATH`);
  if (type === 'bind' && source === undefined)
    throw new UsageError(`--${flag}: a bind mount needs source=PATH`);
  if (type === 'tmpfs' && source !== undefined)
    throw new UsageError(`--${flag}: a tmpfs mount has no source`);
  return {
    type,
    target,
    readOnly: flagWord(pairs.get('readonly')),
    ...(source === undefined ? {} : { source }),
    ...mountOptions(flag, type, pairs, multiple),
  };
}

function flagWord(value: string | undefined): boolean {
  return value !== undefined && !['false', '0'].includes(value.toLowerCase());
}

function mountOptions(
  flag: string,
  type: Mount['type'],
  pairs: ReadonlyMap<string, string>,
  multiple: Readonly<Record<string, readonly string[]>>,
): Pick<Mount, 'bindPropagation' | 'volume' | 'tmpfs'> {
  const foreign = [...pairs.keys()].find(
    (key) => /^(bind|volume|tmpfs)-/.test(key) && !key.startsWith(`${type}-`),
  );
  if (foreign !== undefined)
    throw new UsageError(`--${flag}: ${foreign} does not go with a mount of type ${type}`);
  if (type === 'bind') {
    const wanted = pairs.get('bind-propagation');
    const propagation = PROPAGATIONS.find((candidate) => candidate === wanted);
    if (wanted !== undefined && propagation === undefined) {
      throw new UsageError(`--${flag}: bind-propagation must be one of ${PROPAGATIONS.join(', ')}`);
    }
    return propagation === undefined ? {} : { bindPropagation: propagation };
  }
  if (type === 'tmpfs') {
    const size = pairs.get('tmpfs-size');
    const mode = pairs.get('tmpfs-mode');
    if (size === undefined && mode === undefined) return {};
    return {
      tmpfs: {
        ...(size === undefined ? {} : { sizeBytes: unwrap(flag, parseBytes(size)) }),
        ...(mode === undefined ? {} : { mode: Number.parseInt(mode, 8) }),
      },
    };
  }
  const labels = keyValues(flag, multiple['volume-label'] ?? []);
  const driverOptions = keyValues(flag, multiple['volume-opt'] ?? []);
  const driver = pairs.get('volume-driver');
  const volume = {
    ...(flagWord(pairs.get('volume-nocopy')) ? { noCopy: true } : {}),
    ...(Object.keys(labels).length === 0 ? {} : { labels }),
    ...(driver === undefined ? {} : { driver }),
    ...(Object.keys(driverOptions).length === 0 ? {} : { driverOptions }),
  };
  return Object.keys(volume).length === 0 ? {} : { volume };
}

/** `--ulimit nofile=1024:2048`. */
export function parseUlimit(flag: string, text: string): { name: string; soft: number; hard: number } {
  const match = /^([a-z]+)=(-?[0-9]+)(?::(-?[0-9]+))?$/.exec(text);
  if (match === null)
    throw new UsageError(`--${flag}: "${text}" is not a limit; write it like nofile=1024:2048`);
  const soft = Number(match[2]);
  return { name: match[1] ?? '', soft, hard: match[3] === undefined ? soft : Number(match[3]) };
}

/** `--host name:address` as a line of a hosts file. */
export function parseHostLine(flag: string, text: string): string {
  const match = /^([^:=]+)[:=](.+)$/.exec(text);
  if (match === null) throw new UsageError(`--${flag}: "${text}" is not host:address`);
  return `${match[2] ?? ''} ${match[1] ?? ''}`;
}

/** `--placement-pref spread=node.labels.zone`. */
export function parsePreference(flag: string, text: string): { spread: string } {
  const spread = /^spread=(.+)$/.exec(text)?.[1];
  if (spread === undefined)
    throw new UsageError(`--${flag}: "${text}" is not spread=KEY, such as spread=node.labels.zone`);
  return { spread };
}

/** `--generic-resource gpu=2`. */
export function parseGenericResource(flag: string, text: string): [string, number] {
  const match = /^([^=]+)=([0-9]+)$/.exec(text);
  if (match === null) throw new UsageError(`--${flag}: "${text}" is not KIND=COUNT, such as gpu=1`);
  return [match[1] ?? '', Number(match[2])];
}
