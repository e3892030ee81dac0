/**
 * Stacks as docker's own client deploys them: the requests it sent (recorded) against the specs swarmd makes.
 *
 * The files are public ones and small synthetic ones. Differences that are meant are listed here, each with why.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { isErrorCode, SwarmdError } from '../../src/base/errors.ts';
import type { StackPlan } from '../../src/stack/load-stack.ts';
import { completeImage, networkOfRequest, serviceOfRequest, type Json } from '../support/docker-requests.ts';
import { FOLDER, load, loadPublicFile, readVectorFile } from '../support/stack-files.ts';

interface DeployResult {
  readonly exit: number;
  readonly requests?: readonly { readonly path: string; readonly body: Json }[];
}
interface PublicCase {
  readonly id: string;
  readonly file: string;
  readonly env: Record<string, string>;
  readonly deploy: DeployResult;
}
interface SyntheticCase {
  readonly name: string;
  readonly files: readonly string[];
  readonly env?: Record<string, string>;
  readonly deploy: DeployResult;
}

const NOT_IN_A_CLUSTER = 'swarmd has no such kind of object';
const SPECIFICATION = 'the Compose specification allows it';
const HONOURED = 'swarmd honours the key or warns of it, docker refuses the whole file';

/** Docker deploys these and swarmd refuses them. */
const refusedHere: Readonly<Record<string, string>> = {
  'port {published: 80}': 'a port without a target leads nowhere',
  'port {target: 80, mode: overlay}': 'there is no such mode; docker leaves the refusal to the engine',
  'volume {type: cluster, source: data, target: /x}': NOT_IN_A_CLUSTER,
  'volume {type: cluster, source: "group:g", target: /x}': NOT_IN_A_CLUSTER,
  'volume {type: image, source: busybox, target: /x}': NOT_IN_A_CLUSTER,
  'top network {front: {driver: macvlan, driver_opts: {parent: eth0}}}': NOT_IN_A_CLUSTER,
  'top configs {x: {file: ./c.txt, template_driver: golang}}': 'an unfilled template must not reach a task',
  'top secrets {x: {driver: vault, driver_opts: {a: b}}}': 'a secret without content must not reach a task',
  'healthcheck {test: [a, b]}': 'the list must say how it is run',
  'services missing': 'a file without services is a mistake',
  '147-promstack-docker-compose': 'its config is a template, see above',
};

/** Docker refuses these and swarmd deploys them. */
const acceptedHere: Readonly<Record<string, string>> = {
  'port {target: 80, published: "8080"}': SPECIFICATION,
  'port {target: 80, name: http, app_protocol: http}': HONOURED,
  'command 123': 'a number is a word of a command',
  'environment {A: 1, B: null, C: "", D: true, E: 1.50, F: 0x10, G: 1e3, H: yes, I: 012}': SPECIFICATION,
  'environment ["A=${UNSET-d}", "B=${UNSET:-e}", "C=${SET+alt}", "D=${SET:+alt}", "E=${UNSET+alt}x"]':
    SPECIFICATION,
  'environment [1]': 'a number is a name without a value',
  'env_file [{path: a.env, required: false}]': SPECIFICATION,
  'volume {source: /a, target: /x}': 'the type is plain from the source',
  'svc networks {front: {driver_opts: {a: b}}}': HONOURED,
  'svc networks {front: {priority: 5}}': HONOURED,
  'top network {front: {ipam: {config: [{subnet: 10.1.0.0/24, gateway: 10.1.0.1}]}}}': HONOURED,
  'configs ref [{source: x, mode: "0400"}]': SPECIFICATION,
  'top configs {x: {content: abc}}': SPECIFICATION,
  'healthcheck {retries: "5", test: x}': SPECIFICATION,
  'deploy {replicas: "2"}': SPECIFICATION,
  'deploy {resources: {limits: {memory: 1073741824}}}': SPECIFICATION,
  'deploy {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}': HONOURED,
  'svc depends_on: {db: {condition: service_started}}': SPECIFICATION,
  'svc platform: linux/amd64': HONOURED,
  'svc cpus: 1': HONOURED,
  'svc mem_limit: 1g': HONOURED,
  'svc oom_score_adj: 500': HONOURED,
  'svc annotations: {a: b}': HONOURED,
  'svc init: "${I}"': SPECIFICATION,
  'svc memswap_limit: 1g': HONOURED,
  'version "3.14"': 'the Compose specification has no versions',
  'version 3.8': SPECIFICATION,
  'name top': SPECIFICATION,
  'numeric keys': 'a key that looks like a number is a name',
  'bool key env': 'a key that looks like a boolean is a name',
  '001-example-voting-app-docker-compose-images': SPECIFICATION,
  '157-docs-influxdb-compose': SPECIFICATION,
  '159-docs-bonita-compose': SPECIFICATION,
  '167-full-stack-fastapi-template-docker-compose': HONOURED,
  '223-moby-contrib-otel-compose': HONOURED,
  '177-container-training-efk-docker-compose': 'version 2 files hold nothing that cannot be read',
};

/** Both deploy these, differently. */
const differentHere: Readonly<Record<string, string>> = {
  'restart "no"': 'swarmd honours `restart`, docker ignores it in a stack',
  'restart no': 'swarmd honours `restart`, docker ignores it in a stack',
  'svc tmpfs: /run': 'swarmd mounts it, docker ignores it in a stack',
  'svc tmpfs: [/run, /tmp]': 'swarmd mounts it, docker ignores it in a stack',
};

function attempt(work: () => StackPlan): StackPlan | SwarmdError {
  try {
    return work();
  } catch (error) {
    if (error instanceof SwarmdError && isErrorCode(error.code) && error.code === 'COMPOSE') return error;
    throw error;
  }
}

/** JSON values, as they travel. */
function plain(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}

function byName<T extends { readonly name: string }>(specs: readonly T[]): T[] {
  return specs.toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

function compare(name: string, result: DeployResult, work: () => StackPlan): void {
  const plan = attempt(work);
  const dockerDeploys = result.exit === 0;
  if (plan instanceof SwarmdError) {
    assert.ok(!dockerDeploys || Object.hasOwn(refusedHere, name), `${name}: ${plan.message}`);
    return;
  }
  if (!dockerDeploys) {
    assert.ok(Object.hasOwn(acceptedHere, name), `${name}: docker refuses it`);
    return;
  }
  assert.ok(!Object.hasOwn(refusedHere, name), `${name} is listed as refused but loads`);
  if (Object.hasOwn(differentHere, name)) return;
  const bodies = (path: string): Json[] =>
    (result.requests ?? [])
      .filter((request) => request.path === path)
      .map((request) => JSON.parse(JSON.stringify(request.body).replaceAll('$CWD', FOLDER)) as Json);
  const services = plan.services.map((spec) => {
    const container = { ...spec.task.container, image: completeImage(spec.task.container.image) };
    return { ...spec, task: { ...spec.task, container } };
  });
  const wantedServices = byName(bodies('/services/create').map(serviceOfRequest));
  assert.deepEqual(plain(byName(services)), plain(wantedServices), `${name}: services`);
  const wantedNetworks = byName(bodies('/networks/create').map(networkOfRequest));
  assert.deepEqual(plain(byName(plan.networks)), plain(wantedNetworks), `${name}: networks`);
  for (const [path, specs] of [
    ['/secrets/create', plan.secrets],
    ['/configs/create', plan.configs],
  ] as const) {
    const wanted = byName(
      bodies(path).map((body) => ({ name: body.Name, labels: body.Labels, data: body.Data ?? '' })),
    );
    assert.deepEqual(plain(byName(specs)), plain(wanted), `${name}: ${path}`);
  }
}

/** Why public files do not load, by the start of their name. */
const unloadable: readonly { readonly why: RegExp; readonly files: string }[] = [
  // Their images are built from sources beside them.
  { why: /has no `image`\. Build it/, files: '023 027 031 037 039 041 043 045 047 173 215' },
  // They are to be merged with another file.
  { why: /has no `image`\./, files: '075 079 085 091 165 179' },
  { why: /the network "elk" is not declared/, files: '067 069 071' },
  { why: /include is not supported/, files: '051' },
  { why: /volumes_from is not supported/, files: '053 155' },
  { why: /template_driver is not supported/, files: '147' },
  { why: /configs\.prometheus\.file: there is no file/, files: '171' },
  // The recorded environment holds placeholders.
  { why: /external must be true or false, but is "val-variable"/, files: '049' },
  { why: /type must be one of .* but is "val-docker-socket-type"/, files: '193 195 197 199 201' },
];

const publicCases = readVectorFile<{ cases: readonly PublicCase[] }>('stack-deploy')?.cases ?? null;

test('public stacks become what docker deploys', {
  skip: publicCases === null ? 'vectors are not here' : false,
}, () => {
  for (const { id, file, env, deploy } of publicCases ?? [])
    compare(id, deploy, () => loadPublicFile(file, env));
});

interface SyntheticFile {
  readonly auxFiles: Record<string, string>;
  readonly cases: readonly SyntheticCase[];
}

const syntheticFile = readVectorFile<SyntheticFile>('stack-synthetic');
const synthetic = syntheticFile?.cases ?? null;

test('synthetic stacks become what docker deploys', {
  skip: synthetic === null ? 'vectors are not here' : false,
}, () => {
  const files = Object.fromEntries(
    Object.entries(syntheticFile?.auxFiles ?? {}).map(([name, text]) => [`${FOLDER}/${name}`, text]),
  );
  for (const { name, files: texts, env, deploy } of synthetic ?? []) {
    compare(name, deploy, () => load(texts, { env: env ?? {}, files }));
  }
});

test('every listed difference still is one', {
  skip: synthetic === null || publicCases === null ? 'vectors are not here' : false,
}, () => {
  const names = new Set([...(synthetic ?? []).map((c) => c.name), ...(publicCases ?? []).map((c) => c.id)]);
  for (const name of [refusedHere, acceptedHere, differentHere].flatMap((list) => Object.keys(list))) {
    assert.ok(names.has(name), `${name} is no case any more`);
  }
});

test('every public file loads, or says why not', {
  skip: publicCases === null ? 'vectors are not here' : false,
}, () => {
  const reasons = new Map(
    unloadable.flatMap(({ why, files }) => files.split(' ').map((id) => [id, why] as const)),
  );
  for (const { id, file, env } of publicCases ?? []) {
    const plan = attempt(() => loadPublicFile(file, env));
    const reason = reasons.get(id.slice(0, 3));
    if (plan instanceof SwarmdError) {
      assert.ok(reason !== undefined, `${id}: ${plan.message}`);
      assert.match(plan.message, reason, id);
      assert.match(plan.message, /^compose\.yml:[0-9]+: /, id);
    } else assert.equal(reason, undefined, `${id} is listed but loads`);
  }
});
