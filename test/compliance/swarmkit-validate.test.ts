/**
 * Spec validation against recorded answers of the reference: is the same spec accepted or refused?
 *
 * The texts are not compared. Shapes our specs do not have (credential specs, secret drivers, generic runtimes, IPAM
 * ranges and gateways) are left out by the converters, which return null for them.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { Result } from '../../src/base/result.ts';
import {
  parseConfigSpec,
  parseNetworkSpec,
  parseNodeSpec,
  parseSecretSpec,
} from '../../src/model/validate-objects.ts';
import { parseServiceSpec } from '../../src/model/validate-service.ts';
import { readVectors } from '../support/planner-fixtures.ts';

type Json = Record<string, unknown>;
interface Vector {
  in: Json;
  error?: string;
}

const asJson = (value: unknown): Json => (value ?? {}) as Json;
const asList = (value: unknown): Json[] => (value ?? []) as Json[];
const given = (members: Json): Json =>
  Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined));
const pick = (names: readonly string[], index: unknown): string | undefined => names[Number(index ?? 0)];

/** Protobuf durations are `{seconds, nanos}`, plain Go ones nanoseconds. */
function milliseconds(value: unknown): number | undefined {
  if (value === undefined) return undefined;
  if (typeof value === 'number') return value / 1e6;
  const { seconds = 0, nanos = 0 } = asJson(value);
  return Number(seconds) * 1_000 + Number(nanos) / 1e6;
}

function annotations(value: unknown): Json {
  const { name = '', labels } = asJson(value);
  return given({ name, labels });
}

function resourceAmount(value: unknown): Json {
  const { nano_cpus: nanoCpus, memory_bytes: memoryBytes } = asJson(value);
  return given({ nanoCpus, memoryBytes });
}

function files(value: unknown, kind: 'secret' | 'config'): Json[] {
  return asList(value).map((reference) => {
    const file = asJson(asJson(reference['Target'])['file']);
    const { name, uid, gid, mode } = file;
    return given({
      id: reference[`${kind}_id`],
      name: reference[`${kind}_name`] ?? '',
      file: given({ name: name ?? '', uid, gid, mode }),
    });
  });
}

function mounts(value: unknown): Json[] {
  return asList(value).map(({ type, source, target }) =>
    given({ type: pick(['bind', 'volume', 'tmpfs'], type), source, target }),
  );
}

function healthCheck(value: unknown): Json | undefined {
  if (value === undefined || value === null) return undefined;
  const check = asJson(value);
  return given({
    test: check['test'],
    intervalMs: milliseconds(check['interval']),
    timeoutMs: milliseconds(check['timeout']),
    startPeriodMs: milliseconds(check['start_period']),
    retries: check['retries'],
  });
}

function restart(value: unknown): Json {
  const policy = asJson(value);
  return given({ delayMs: milliseconds(policy['delay']), windowMs: milliseconds(policy['window']) });
}

/** null where the task has something our specs do not. */
function taskSpec(value: unknown): Json | null {
  const spec = asJson(value);
  const runtime = asJson(spec['Runtime']);
  if (runtime['generic'] !== undefined) return null;
  const container = asJson(runtime['container']);
  if (container['privileges'] !== undefined) return null;
  if (JSON.stringify(container).includes('"Target":{"runtime"')) return null;
  return given({
    container: given({
      image: container['image'],
      hostname: container['hostname'],
      mounts: mounts(container['mounts']),
      secrets: files(container['secrets'], 'secret'),
      configs: files(container['configs'], 'config'),
      healthCheck: healthCheck(container['healthcheck']),
    }),
    restart: restart(spec['restart']),
    networks: asList(spec['networks']).map(({ target, aliases }) =>
      given({ target, aliases: aliases ?? undefined }),
    ),
    forceUpdate: spec['force_update'],
  });
}

function mode(value: unknown): Json {
  const choice = asJson(value);
  const { replicated, global, replicated_job: job, global_job: globalJob } = choice;
  if (replicated !== undefined)
    return given({ kind: 'replicated', replicas: asJson(replicated)['replicas'] });
  if (global !== undefined) return { kind: 'global' };
  if (globalJob !== undefined) return { kind: 'global-job' };
  if (job === undefined) return { kind: 'none' };
  const { max_concurrent: maxConcurrent, total_completions: totalCompletions } = asJson(job);
  return given({ kind: 'replicated-job', maxConcurrent, totalCompletions });
}

function update(value: unknown): Json | undefined {
  if (value === undefined || value === null) return undefined;
  const config = asJson(value);
  return given({
    parallelism: config['parallelism'] ?? 0,
    delayMs: milliseconds(config['delay']),
    monitorMs: milliseconds(config['monitor']),
    maxFailureRatio: config['max_failure_ratio'],
  });
}

function endpoint(value: unknown): Json | undefined {
  if (value === undefined || value === null) return undefined;
  const spec = asJson(value);
  return given({
    mode: pick(['vip', 'dnsrr'], spec['mode']),
    ports: asList(spec['ports']).map((port) =>
      given({
        name: port['name'],
        protocol: pick(['tcp', 'udp', 'sctp'], port['protocol']),
        targetPort: port['target_port'],
        publishedPort: port['published_port'],
        publishMode: pick(['ingress', 'host'], port['publish_mode']),
      }),
    ),
  });
}

function serviceSpec(value: unknown): unknown {
  if (value === null) return { refused: true };
  const spec = asJson(value);
  const task = taskSpec(spec['task']);
  if (task === null) return null;
  return given({
    ...annotations(spec['annotations']),
    task,
    mode: mode(spec['Mode']),
    update: update(spec['update']),
    endpoint: endpoint(spec['endpoint']),
  });
}

const plainTask: Json = { container: { image: 'image' } };
const inService = (members: Json): Json => ({ name: 'name', task: plainTask, ...given(members) });
const inTask = (task: Json | null): Json | null => (task === null ? null : inService({ task }));
const inContainer = (members: Json): Json =>
  inService({ task: { container: given({ image: 'image', ...members }) } });

function payload(value: unknown): unknown {
  if (value === null) return { refused: true };
  const spec = asJson(value);
  if (spec['driver'] !== undefined) return null;
  return { ...annotations(spec['annotations']), data: spec['data'] ?? '' };
}

function nodeSpec(value: unknown): unknown {
  const spec = asJson(value);
  return {
    availability: pick(['active', 'pause', 'drain'], spec['availability']),
    role: pick(['worker', 'manager'], spec['desired_role']),
  };
}

function ipam(value: unknown): unknown {
  // Leaving the subnet out is how a network asks for one from the pool.
  if (value === null) return null;
  const { subnet = '', range, gateway } = asJson(value);
  return range !== undefined || gateway !== undefined ? null : { name: 'name', subnet };
}

/** An empty mode is a chosen kind without its fields, and the vector does not say which. */
function inMode(value: unknown): Json | null {
  const isEmpty = value !== null && Object.keys(asJson(value)).length === 0;
  return isEmpty ? null : inService({ mode: mode(value) });
}

interface Suite {
  readonly file: string;
  /** Our value, or null where it cannot be said in our specs. */
  readonly convert: (input: Json) => unknown;
  readonly parse?: (value: unknown) => Result<unknown>;
  /** Least number of vectors that must have been compared. */
  readonly atLeast: number;
}

const suites: readonly Suite[] = [
  { file: 'service-spec', convert: (input) => serviceSpec(input['spec']), atLeast: 80 },
  // The reference checks the mode alone, so the rest of the spec is replaced by a plain one.
  { file: 'mode', convert: (input) => inMode(asJson(input['spec'])['Mode']), atLeast: 80 },
  { file: 'task-spec', convert: (input) => inTask(taskSpec(input['taskSpec'])), atLeast: 40 },
  { file: 'container-spec', convert: (input) => inTask(taskSpec(input['taskSpec'])), atLeast: 30 },
  { file: 'secret-refs', convert: (input) => withImage(input, 'secrets', 'secret'), atLeast: 40 },
  { file: 'config-refs', convert: (input) => withImage(input, 'configs', 'config'), atLeast: 40 },
  { file: 'annotations', convert: (input) => inService(annotations(input['annotations'])), atLeast: 60 },
  {
    file: 'endpoint-spec',
    convert: (input) => inService({ endpoint: endpoint(input['endpointSpec']) }),
    atLeast: 18,
  },
  {
    file: 'healthcheck',
    convert: (input) => inContainer({ healthCheck: healthCheck(input['healthcheck']) }),
    atLeast: 3,
  },
  { file: 'image', convert: (input) => inContainer({ image: input['image'] }), atLeast: 16 },
  { file: 'mounts', convert: (input) => inContainer({ mounts: mounts(input['mounts']) }), atLeast: 4 },
  {
    file: 'resources',
    convert: (input) =>
      inService({ task: { ...plainTask, resources: { reservations: resourceAmount(input['resources']) } } }),
    atLeast: 5,
  },
  {
    file: 'restart-policy',
    convert: (input) => inService({ task: { ...plainTask, restart: restart(input['policy']) } }),
    atLeast: 4,
  },
  { file: 'update-config', convert: (input) => inService({ update: update(input['update']) }), atLeast: 10 },
  { file: 'placement', convert: () => inService({}), atLeast: 1 },
  { file: 'secret-spec', convert: (input) => payload(input['spec']), parse: parseSecretSpec, atLeast: 40 },
  { file: 'config-spec', convert: (input) => payload(input['spec']), parse: parseConfigSpec, atLeast: 40 },
  {
    file: 'config-secret-annotations',
    convert: (input) => ({ ...annotations(input['annotations']), data: 'YQ==' }),
    parse: parseConfigSpec,
    atLeast: 40,
  },
  { file: 'node-spec', convert: (input) => nodeSpec(input['spec']), parse: parseNodeSpec, atLeast: 5 },
  { file: 'ipam', convert: (input) => ipam(input['ipam']), parse: parseNetworkSpec, atLeast: 3 },
];

/** The reference checks references of one kind; the rest of the container is replaced by a plain one. */
function withImage(input: Json, field: 'secrets' | 'configs', kind: 'secret' | 'config'): unknown {
  if (taskSpec(input['taskSpec']) === null) return null;
  const container = asJson(asJson(asJson(input['taskSpec'])['Runtime'])['container']);
  return inContainer({ [field]: files(container[field], kind) });
}

/** Accepted by the reference, refused here on purpose. */
function intendedDifference(text: string): string | null {
  if (text.includes('"test":["curl '))
    return 'a health check must start with NONE, CMD or CMD-SHELL to be run at all';
  return null;
}

for (const { file, convert, parse = parseServiceSpec, atLeast } of suites) {
  const vectors = readVectors<Vector>(`swarmkit-validate-${file}`);
  test(`validate ${file}`, { skip: vectors === null ? 'vectors are not here' : false }, () => {
    let compared = 0;
    for (const vector of vectors ?? []) {
      const value = convert(vector.in);
      if (value === null) continue;
      compared++;
      const result = parse(value);
      const text = JSON.stringify(vector.in);
      if (vector.error === undefined && intendedDifference(text) !== null) {
        assert.equal(result.ok, false, text);
        continue;
      }
      const said = result.ok ? 'accepted' : result.reason;
      assert.equal(
        result.ok,
        vector.error === undefined,
        `${text}\nreference: ${vector.error ?? 'ok'}\nours: ${said}`,
      );
    }
    assert.ok(compared >= atLeast, `${compared} vectors were compared`);
  });
}
