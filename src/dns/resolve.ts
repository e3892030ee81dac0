/**
 * PURE: the answer to one question, within the scope of whoever asks.
 *
 * Invariants: a name of ours is never forwarded; a name that exists without a record of the asked type gives an
 * empty NOERROR (an NXDOMAIN for AAAA would make resolvers give up on A); answers come in random order.
 */
import { isIP } from 'node:net';
import { type Random, randomBelow } from '../base/random.ts';
import { addressNumber, canonicalName, type NameScope, type NameTable, type NameTarget } from './table.ts';

/** Seconds a client may keep an answer: short, because an address is gone as soon as its task is. */
export const ANSWER_TTL_S = 1;

/** Record types that are answered; any other of a name of ours is an empty answer. */
export const recordTypes = { A: 1, PTR: 12, AAAA: 28, SRV: 33, ANY: 255 } as const;

export interface Question {
  readonly name: string;
  readonly type: number;
}

/** Who asks: a container, seen on the gateway address of a network, or a program on the host. */
export type Asker =
  | { readonly kind: 'host' }
  | {
      readonly kind: 'container';
      /** Network of the listener it asked. */
      readonly networkId: string;
      readonly address: string;
      /** Networks of the task with that address where the node knows them, else null. */
      readonly networkIds: readonly string[] | null;
    };

export type AnswerRecord =
  | { readonly type: 'A' | 'AAAA'; readonly name: string; readonly address: string }
  | { readonly type: 'PTR'; readonly name: string; readonly target: string }
  | { readonly type: 'SRV'; readonly name: string; readonly target: string; readonly port: number };

/** What to say. `forward`: the name is not ours. */
export type Resolution =
  | {
      readonly kind: 'answer';
      readonly records: readonly AnswerRecord[];
      readonly extra: readonly AnswerRecord[];
    }
  | { readonly kind: 'unknown-name' }
  | { readonly kind: 'forward' };

const EMPTY: Resolution = { kind: 'answer', records: [], extra: [] };
const REVERSE_SUFFIX = '.in-addr.arpa';

/** Answers `question` for `asker`. */
export function resolveName(table: NameTable, asker: Asker, question: Question, random: Random): Resolution {
  const name = canonicalName(question.name);
  const scopes = scopesOf(table, asker);
  if (name.endsWith(REVERSE_SUFFIX)) return resolveReverse(table, scopes, name, question);
  const service = /^_([^.]+)\._(tcp|udp|sctp)\.(.+)$/.exec(name);
  if (service !== null) {
    const [, port = '', protocol = '', base = ''] = service;
    const targets = targetsOf(scopes, base);
    if (targets.length === 0) return isOurs(table, base) ? absent(table, base) : { kind: 'forward' };
    return resolveService(targets, question, { port, protocol, base }, random);
  }
  const targets = targetsOf(scopes, name);
  if (targets.length === 0) return isOurs(table, name) ? absent(table, name) : { kind: 'forward' };
  const addresses = [...new Set(targets.map((target) => target.address))];
  const records = shuffle(addresses, random)
    .flatMap((address) => addressRecord(question.name, address))
    .filter(({ type }) => question.type === recordTypes.ANY || question.type === recordTypes[type]);
  return records.length === 0 ? EMPTY : { kind: 'answer', records, extra: [] };
}

/** A node may be known by an IPv6 address; by a name it cannot be answered. */
function addressRecord(name: string, address: string): AnswerRecord[] {
  const version = isIP(address);
  return version === 0 ? [] : [{ type: version === 4 ? 'A' : 'AAAA', name, address }];
}

function scopesOf(table: NameTable, asker: Asker): readonly NameScope[] {
  if (asker.kind === 'host') return [table.host];
  const ids = new Set(table.askers.get(asker.address) ?? asker.networkIds ?? [asker.networkId]);
  return [...ids].flatMap((id) => table.networks.get(id) ?? []);
}

function targetsOf(scopes: readonly NameScope[], name: string): readonly NameTarget[] {
  const [only, ...others] = scopes;
  if (only === undefined) return [];
  if (others.length === 0) return only.targets.get(name) ?? [];
  return scopes.flatMap((scope) => scope.targets.get(name) ?? []);
}

/** Whether a name without a target in scope is one that only swarmd can know. */
function isOurs(table: NameTable, name: string): boolean {
  return name.startsWith('tasks.') || table.services.has(name) || table.services.has(baseOf(name));
}

/** `web` of `tasks.web`, of `web.1` and of `web.<node id>`. */
function baseOf(name: string): string {
  if (name.startsWith('tasks.')) return name.slice('tasks.'.length);
  return /^(.+)\.(?:\d+|[0-9a-z]{25})$/.exec(name)?.[1] ?? name;
}

/** A service that has no task now exists all the same; what runs elsewhere does not exist for the asker. */
function absent(table: NameTable, name: string): Resolution {
  const service = name.startsWith('tasks.') ? baseOf(name) : name;
  return table.services.get(service) === 'empty' ? EMPTY : { kind: 'unknown-name' };
}

function resolveService(
  targets: readonly NameTarget[],
  question: Question,
  asked: { readonly port: string; readonly protocol: string; readonly base: string },
  random: Random,
): Resolution {
  const records: AnswerRecord[] = [];
  const extra: AnswerRecord[] = [];
  for (const { endpoint, ports, address } of shuffle(targets, random)) {
    const config = ports.find(
      ({ name, protocol, targetPort }) =>
        protocol === asked.protocol &&
        (name?.toLowerCase() === asked.port || String(targetPort) === asked.port),
    );
    if (config === undefined) continue;
    const suffix = endpoint.slot > 0 ? String(endpoint.slot) : endpoint.nodeId;
    const target = `${asked.base}.${suffix}`;
    // A task that is reached at its node is reached at the port the node has for it.
    const mapped =
      address === endpoint.nodeAddress
        ? endpoint.ports.find(
            (port) => port.targetPort === config.targetPort && port.protocol === config.protocol,
          )
        : undefined;
    records.push({ type: 'SRV', name: question.name, target, port: mapped?.hostPort ?? config.targetPort });
    extra.push(...addressRecord(target, address));
  }
  if (records.length === 0) return { kind: 'unknown-name' };
  const wanted = question.type === recordTypes.SRV || question.type === recordTypes.ANY;
  return wanted ? { kind: 'answer', records, extra } : EMPTY;
}

function resolveReverse(
  table: NameTable,
  scopes: readonly NameScope[],
  name: string,
  question: Question,
): Resolution {
  const octets = name.slice(0, -REVERSE_SUFFIX.length).split('.');
  const address = octets.toReversed().join('.');
  for (const scope of scopes) {
    const target = scope.reverse.get(address);
    if (target === undefined) continue;
    const wanted = question.type === recordTypes.PTR || question.type === recordTypes.ANY;
    return wanted
      ? { kind: 'answer', records: [{ type: 'PTR', name: question.name, target }], extra: [] }
      : EMPTY;
  }
  const value = addressNumber(address);
  const ours = table.subnets.some(({ first, last }) => value >= first && value <= last);
  return ours ? { kind: 'unknown-name' } : { kind: 'forward' };
}

/** A shuffled copy. */
function shuffle<T>(items: readonly T[], random: Random): T[] {
  const copy = [...items];
  for (let last = copy.length - 1; last > 0; last--) {
    const other = randomBelow(random, last + 1);
    [copy[last], copy[other]] = [copy[other] as T, copy[last] as T];
  }
  return copy;
}
